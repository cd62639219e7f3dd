"""Says things by multicast DNS that nobody should: storm.py INTERFACE-ADDRESS KIND COUNT [ADDRESS].

ghosts: adverts of COUNT nodes that do not exist, all at ADDRESS. questions: COUNT questions for nodes. noise: COUNT
packets that are none, or only begin like some. goodbyes: COUNT times, the node with the label ADDRESS leaves. Prints how many bytes it said.
"""

import base64
import os
import random
import socket
import struct
import sys
import time

GROUP = ("224.0.0.251", 5353)
PTR, TXT, SRV, A = 12, 16, 33, 1


def name(*labels):
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


SERVICE = name(b"_atonce", b"_udp", b"local")


def record(owner, kind, content):
    return owner + struct.pack("!HHIH", kind, 1, 120, len(content)) + content


def ghost(number, address):
    identity = base64.b32encode(os.urandom(32)).decode().rstrip("=").lower()
    host = name(identity[:8].encode(), b"local")
    instance = name(f"ghost {number} ({identity[:8]})".encode(), b"_atonce", b"_udp", b"local")
    strings = [b"txtvers=1", b"id=" + identity.encode()]
    text = b"".join(bytes([len(string)]) + string for string in strings)
    records = [
        record(SERVICE, PTR, instance),
        record(instance, SRV, struct.pack("!HHH", 0, 0, 1024 + number % 60000) + host),
        record(instance, TXT, text),
        record(host, A, socket.inet_aton(address)),
    ]
    return struct.pack("!HHHHHH", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def goodbye(_number, label):
    instance = name(label.encode(), b"_atonce", b"_udp", b"local")
    content = SERVICE + struct.pack("!HHIH", PTR, 1, 0, len(instance)) + instance
    return struct.pack("!HHHHHH", 0, 0x8400, 0, 1, 0, 0) + content


def question(_number, _address):
    return struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 0) + SERVICE + struct.pack("!HH", PTR, 1)


def noise(number, address):
    packet = bytearray(ghost(number, address))
    for _ in range(random.randrange(1, 20)):
        packet[random.randrange(len(packet))] = random.randrange(256)
    return bytes(packet[: random.randrange(1, len(packet) + 1)])


def main():
    own, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    address = sys.argv[4] if len(sys.argv) > 4 else own
    make = {"ghosts": ghost, "questions": question, "goodbyes": goodbye, "noise": noise}[kind]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wire.bind((own, 5353))
        wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        said = 0
        for number in range(count):
            said += wire.sendto(make(number, address), GROUP)
            # Slowly enough for nobody's buffer to overflow.
            if number % 10 == 9:
                time.sleep(0.001)
        print(said)


main()
