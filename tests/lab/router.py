"""A router that maps ports as it is asked to: router.py MODE ADDRESS PREFIX.

MODE is pcp, natpmp, upnp (permanent leases only), carrier (PCP, but the address outside is a carrier's) or garbage.
ADDRESS is the one outside, PREFIX that of its addresses inside. Port n is mapped to port n - 8000 outside. It says
"ready", "asked FROM", "mapped PORT" and "unmapped PORT".
"""

import http.server
import os
import re
import socket
import struct
import subprocess
import sys
import threading

mode, wan, inside = sys.argv[1:]
outside = "100.64.0.9" if mode == "carrier" else wan


def say(*words):
    print(*words, flush=True)


def nft(*words):
    subprocess.run(["nft", " ".join(words)], check=True)


def change(host, port, lifetime):
    if lifetime:
        nft(f"flush chain ip mapped in; add rule ip mapped in iifname wan0 udp dport {port - 8000} dnat to {host}:{port}")
        say("mapped", port)
    else:
        nft("flush chain ip mapped in")
        say("unmapped", port)


def answer(bytes, host):
    if mode == "garbage":
        return os.urandom(len(bytes)) if bytes[1] else b""
    if mode == "upnp":
        return None
    if bytes[0] == 2 and mode != "natpmp":
        lifetime, protocol, port = struct.unpack("!4xI28xB3xH", bytes[:42])[:3]
        change(host, port, lifetime)
        address = b"\0" * 10 + b"\xff\xff" + socket.inet_aton(outside)
        head = struct.pack("!BBBBII12x", 2, 0x81, 0, 0, lifetime, 1)
        return head + bytes[24:42] + struct.pack("!H", port - 8000 if lifetime else 0) + address
    if bytes[0] == 0 and mode == "natpmp":
        if bytes[1] == 0:
            return struct.pack("!BBHI", 0, 128, 0, 1) + socket.inet_aton(outside)
        port, lifetime = struct.unpack("!4xH2xI", bytes)
        change(host, port, lifetime)
        return struct.pack("!BBHIHHI", 0, 129, 0, 1, port, port - 8000 if lifetime else 0, lifetime)
    return struct.pack("!BBHI", 0, 128 + bytes[1], 1, 1)


SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
ACTIONS = {
    "GetExternalIPAddress": [],
    "AddPortMapping": ["NewRemoteHost", "NewExternalPort", "NewProtocol", "NewInternalPort", "NewInternalClient",
                       "NewEnabled", "NewPortMappingDescription", "NewLeaseDuration"],
    "DeletePortMapping": ["NewRemoteHost", "NewExternalPort", "NewProtocol"],
}


class Device(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, text, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/root.xml":
            service = (f"<serviceType>{SERVICE}</serviceType><serviceId>x</serviceId><controlURL>/control</controlURL>"
                       "<eventSubURL>/e</eventSubURL><SCPDURL>/scpd.xml</SCPDURL>")
            self.reply(f"<root><device><deviceList><device><deviceList><device><serviceList><service>{service}</service>"
                       "</serviceList></device></deviceList></device></deviceList></device></root>")
        else:
            def argument(name):
                return f"<argument><name>{name}</name><direction>in</direction></argument>"
            actions = "".join(f"<action><name>{name}</name><argumentList>{''.join(map(argument, names))}</argumentList>"
                              "</action>" for name, names in ACTIONS.items())
            self.reply(f"<scpd><actionList>{actions}</actionList></scpd>")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = self.headers["SOAPAction"].strip('"').split("#")[1]
        value = dict(re.findall(r"<(New\w+)[^>]*>([^<]*)<", body))
        port = int(value.get("NewExternalPort", 0))
        if action == "AddPortMapping" and value["NewLeaseDuration"] != "0":
            fault = "<detail><UPnPError><errorCode>725</errorCode><errorDescription>x</errorDescription></UPnPError></detail>"
            return self.reply(f"<Envelope><Body><Fault>{fault}</Fault></Body></Envelope>", 500)
        if action == "AddPortMapping":
            say("mapped", port)
        if action == "DeletePortMapping":
            say("unmapped", port)
        inner = f"<NewExternalIPAddress>{outside}</NewExternalIPAddress>" if action == "GetExternalIPAddress" else ""
        self.reply(f"<Envelope><Body><{action}Response>{inner}</{action}Response></Body></Envelope>")


def searches():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", 1900))
    group = socket.inet_aton("239.255.255.250") + socket.inet_aton(f"{inside}.254")
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    while True:
        _, sender = udp.recvfrom(2000)
        say("searched", sender[0])
        found = f"HTTP/1.1 200 OK\r\nST: {SERVICE}\r\nLOCATION: http://{inside}.254:5000/root.xml\r\n\r\n"
        udp.sendto(os.urandom(300) if mode == "garbage" else found.encode(), sender)


nft("add table ip mapped; add chain ip mapped in { type nat hook prerouting priority -110; }")
# What is mapped is let in, on routers that let in only answers.
subprocess.run(["nft", "insert rule inet answers passing ct status dnat accept"], stderr=subprocess.DEVNULL)
if mode in ("upnp", "garbage"):
    server = http.server.ThreadingHTTPServer(("", 5000), Device)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=searches, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((f"{inside}.254", 5351))
say("ready")
while True:
    question, sender = udp.recvfrom(2000)
    say("asked", sender[0])
    reply = answer(question, sender[0])
    if reply is not None:
        udp.sendto(reply, sender)
