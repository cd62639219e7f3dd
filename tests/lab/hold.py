"""Holds a UDP port and shares it with nobody: hold.py PORT. Says "held", and holds it until it is ended."""

import signal
import socket
import sys

port = int(sys.argv[1])
v4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
v4.bind(("", port))
v6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
v6.bind(("::", port))
print("held", flush=True)
signal.pause()
