"""Threads that send through one blocking client, while another one reads: all is delivered, and each in its order."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "python"))
import atonce  # noqa: E402

THREADS, MESSAGES = 8, 100


def send(me: atonce.BlockingClient, thread: int) -> None:
    for number in range(MESSAGES):
        me.send(me.hello.node, "chat", f"{thread} {number}", check=True)


with atonce.connect_blocking() as me:
    me.listen("chat")
    threads = [threading.Thread(target=send, args=(me, thread)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    heard: dict[str, list[int]] = {}
    for event in me.events(timeout=60):
        assert isinstance(event, atonce.Message), event
        sender, number = event.text.split()
        heard.setdefault(sender, []).append(int(number))
        if sum(map(len, heard.values())) == THREADS * MESSAGES:
            break
    for thread in threads:
        thread.join()
    assert heard == {str(thread): list(range(MESSAGES)) for thread in range(THREADS)}, heard

    # A thread that waits is woken by the end.
    waiting = threading.Thread(target=lambda: list(me.events()))
    waiting.start()
waiting.join()
