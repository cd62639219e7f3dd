#!/usr/bin/env python3
"""The readings of all devices that run sensor.py, in one table: `dashboard.py`.

In a terminal the table is drawn again as readings come; elsewhere each reading is a line.
"""

import sys
import time

import atonce

TOPIC = "sensor"
# Devices and readings of each that are shown: what came from the network may be anything.
DEVICES = 500
READINGS = 8
# Seconds from one drawing to the next.
PAUSE = 0.2


class Table:
    """The newest readings of each device."""

    def __init__(self):
        self.rows = {}

    def take(self, message, now):
        """Remembers a reading, and gives it as text; none if it is no reading."""
        try:
            readings = message.json()
        except (ValueError, RecursionError):
            return None
        if not isinstance(readings, dict):
            return None
        numbers = {name: value for name, value in readings.items() if type(value) in (int, float)}
        text = "  ".join(f"{printable(name)} {value:g}" for name, value in list(numbers.items())[:READINGS])
        if message.sender.id in self.rows or len(self.rows) < DEVICES:
            self.rows[message.sender.id] = (message.sender.name, text, now)
        return text

    def draw(self, now):
        """The table as a whole screen."""
        lines = [f"{len(self.rows)} devices"]
        for name, text, then in sorted(self.rows.values()):
            lines.append(f"{name:20}  {now - then:4.0f} s ago  {text}")
        # Home, each line to its end, and what is below.
        return "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"


def printable(text):
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)[:20]


def show(terminal):
    table, drawn = Table(), 0.0
    with atonce.connect_blocking() as me:
        me.listen(TOPIC)
        me.watch()
        if terminal:
            print("\x1b[2J", end="")
        while True:
            event, now = me.next_event(timeout=1.0), time.monotonic()
            if isinstance(event, atonce.Message):
                text = table.take(event, now)
                if text is not None and not terminal:
                    print(f"{event.sender.name}  {text}", flush=True)
            elif isinstance(event, atonce.Exit) and table.rows.pop(event.peer.id, None) and not terminal:
                print(f"{event.peer.name}  gone", flush=True)
            if terminal and now - drawn >= PAUSE:
                print(table.draw(now), end="", flush=True)
                drawn = now


def main():
    if len(sys.argv) > 1:
        print("usage: dashboard.py", file=sys.stderr)
        sys.exit(2)
    try:
        show(sys.stdout.isatty())
    except atonce.Error as error:
        sys.exit(f"dashboard: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
