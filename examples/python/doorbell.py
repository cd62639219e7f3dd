#!/usr/bin/env python3
"""A doorbell for every room: `doorbell.py` waits for the ring, `doorbell.py ring [WHO]` rings.

On a desktop with `notify-send` the ring is shown there too.
"""

import shutil
import subprocess
import sys

import atonce

# Who has a bell listens to this, and who rang to the other.
BELL = "doorbell"
ANSWER = "doorbell.answer"


def wait(me):
    """Tells of every ring, and answers it."""
    me.listen(BELL)
    for event in me.events():
        if isinstance(event, atonce.Message):
            # !r because what came from the network may hold anything, even escapes for the terminal.
            print(f"ding dong: {event.text!r} at {event.sender.name}", flush=True)
            notify(f"Ding dong at {event.sender.name}", repr(event.text))
            try:
                me.send(event.sender, ANSWER, "coming")
            except (atonce.Disconnected, atonce.Refused, atonce.Timeout):
                # Who rang will not be told, but may ring again.
                pass


def notify(title, text):
    """Shows it on the desktop, if there is one."""
    if command := shutil.which("notify-send"):
        try:
            subprocess.run([command, "--", title, text], check=False, timeout=10, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired):
            # A desktop that does not answer is none.
            pass


def ring(me, who):
    """Rings all bells, and waits a while for somebody who comes."""
    me.listen(ANSWER)
    rung = me.publish(BELL, who)
    print(f"rang at {rung.sent} other {'host' if rung.sent == 1 else 'hosts'}", flush=True)
    for event in me.events(timeout=2):
        if isinstance(event, atonce.Message):
            print(f"{event.sender.name}: {event.text!r}", flush=True)


def main():
    arguments = sys.argv[1:]
    if arguments and (arguments[0] != "ring" or len(arguments) > 2):
        print("usage: doorbell.py [ring [WHO]]", file=sys.stderr)
        sys.exit(2)
    try:
        with atonce.connect_blocking() as me:
            if arguments:
                ring(me, arguments[1] if len(arguments) > 1 else "somebody")
            else:
                wait(me)
    except atonce.Error as error:
        sys.exit(f"doorbell: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
