"""Records what passes an interface: capture.py INTERFACE FILE.

Says "recording" when it does, ends at SIGINT, and then says how many frames the kernel dropped. Each frame in FILE has
its length before it, four bytes, little-endian.
"""

import signal
import socket
import struct
import sys

SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_STATISTICS = 263, 1, 6
PACKET_MR_PROMISC = 1
ETH_P_ALL = 3


def main():
    interface, path = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire, open(path, "wb") as file:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024 * 1024)
        wire.bind((interface, 0))
        # A bridge shows what it passes on only to who asks for everything.
        everything = struct.pack("iHH8s", socket.if_nametoindex(interface), PACKET_MR_PROMISC, 0, b"")
        wire.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, everything)
        signal.signal(signal.SIGINT, lambda *_: wire.settimeout(0.2))
        print("recording", flush=True)
        while True:
            try:
                frame = wire.recv(65536)
            except TimeoutError:
                break
            file.write(struct.pack("<I", len(frame)) + frame)
        statistics = wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        print(f"{struct.unpack('II', statistics)[1]} frames dropped", flush=True)


main()
