#!/usr/bin/env python3
"""A doorbell for every room: `doorbell.py` waits for the ring, `doorbell.py ring [WHO]` rings.

Needs nothing but Python: the daemon takes and gives one JSON object a line on a Unix socket.
"""

import json
import os
import socket
import sys

# Who has a bell listens to this, and who rang to the other.
BELL = "doorbell"
ANSWER = "doorbell.answer"


def socket_path():
    """Where the daemon is, as the atonce command finds it."""
    if path := os.environ.get("ATONCE_SOCKET"):
        return path
    if os.path.exists("/run/atonce/atonced.sock"):
        return "/run/atonce/atonced.sock"
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return f"{runtime}/atonce/atonced.sock"
    return f"/tmp/atonce-{os.getuid()}/atonced.sock"


class Daemon:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(socket_path())
        self.lines = self.socket.makefile("r", encoding="utf-8")

    def ask(self, **request):
        """Writes a request. Without an "id" only an error answers it, and that comes as an event."""
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def messages(self):
        """The messages as they come, until the daemon goes."""
        for line in self.lines:
            event = json.loads(line)
            if event["ev"] == "error":
                sys.exit(f"doorbell: {event['message']}")
            if event["ev"] == "message":
                yield event


def wait(daemon):
    """Tells of every ring, and answers it."""
    daemon.ask(op="listen", topic=BELL)
    for ring in daemon.messages():
        # !r because what came from the network may hold anything, even escapes for the terminal.
        print(f"ding dong: {ring.get('text')!r} at {ring['from']['name']}", flush=True)
        daemon.ask(op="send", to=ring["from"]["id"], topic=ANSWER, text="coming")
    sys.exit("doorbell: the daemon is gone")


def ring(daemon, who):
    """Rings all bells, and waits a while for somebody who comes."""
    daemon.ask(op="listen", topic=ANSWER)
    daemon.ask(op="publish", topic=BELL, text=who)
    daemon.socket.settimeout(2)
    try:
        for answer in daemon.messages():
            print(f"{answer['from']['name']}: {answer.get('text')!r}", flush=True)
    except TimeoutError:
        pass


def main():
    arguments = sys.argv[1:]
    if arguments and arguments[0] != "ring":
        sys.exit("usage: doorbell.py [ring [WHO]]")
    try:
        daemon = Daemon()
        if arguments:
            ring(daemon, arguments[1] if len(arguments) > 1 else "somebody")
        else:
            wait(daemon)
    except OSError as error:
        sys.exit(f"doorbell: {socket_path()}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
