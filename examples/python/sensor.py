#!/usr/bin/env python3
"""Tells the readings of this device to every dashboard.py: `sensor.py [--every SECONDS] [--count N]`.

They are the load of the machine, its free memory and, where it has a sensor, its temperature.
"""

import argparse
import json
import os
import sys
import time

import atonce

TOPIC = "sensor"


def readings():
    """The readings by their names."""
    found = {"load": round(os.getloadavg()[0], 2), "free MB": free_bytes() // 1_000_000}
    try:
        with open("/sys/class/thermal/thermal_zone0/temp", encoding="ascii") as file:
            found["°C"] = round(int(file.read()) / 1000, 1)
    except (OSError, ValueError):
        pass
    return found


def free_bytes():
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def tell(every, count):
    with atonce.connect_blocking() as me:
        told = 0
        while True:
            try:
                # A reading ages: better none than one that had to wait.
                me.publish(TOPIC, json.dumps(readings()), when_full="drop")
            except (atonce.Disconnected, atonce.Timeout):
                # The next one goes to the daemon that is back by then.
                pass
            told += 1
            if told == count:
                return
            time.sleep(every)


def main():
    parser = argparse.ArgumentParser(description="Tells the readings of this device to every dashboard.py.")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="from one reading to the next (5, at least 0.1)")
    parser.add_argument("--count", type=int, default=0, metavar="N", help="how many, 0 for no end (0)")
    arguments = parser.parse_args()
    try:
        tell(max(arguments.every, 0.1), arguments.count)
    except atonce.Error as error:
        sys.exit(f"sensor: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
