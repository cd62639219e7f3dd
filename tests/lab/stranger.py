"""Says everything to a member of a private network that somebody without its secret can: stranger.py HOST PORT FILE.

FILE holds what members said to each other before, one datagram a line in hexadecimal; the stranger says it again. The
rest is patterns: each first byte at lengths around those of all packets. Prints how many bytes were answered.
"""

import socket
import sys
import time

LENGTHS = [1, 16, 32, 64, 96, 116, 148, 200, 1200]


def patterns():
    for first in range(256):
        for length in LENGTHS:
            packet = bytearray((at * 37 + first) % 256 for at in range(length))
            packet[0] = first
            packet[1:4] = bytes(len(packet[1:4]))
            yield bytes(packet)


def main():
    host, port, path = sys.argv[1:]
    with open(path) as file:
        recorded = [bytes.fromhex(line) for line in file]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect((host, int(port)))
        said = 0
        for packet in [*recorded, *patterns(), *recorded]:
            stranger.send(packet)
            said += 1
            # Slowly enough for the recording to keep up.
            if said % 8 == 0:
                time.sleep(0.002)
        stranger.settimeout(1)
        answered = 0
        try:
            while True:
                answered += len(stranger.recv(65536))
        except TimeoutError:
            print(f"said {said} datagrams, {len(recorded)} of them recorded; answered {answered} bytes")


main()
