#!/usr/bin/env python3
"""A chat in the terminal: `chat.py [ROOM]`. What you type goes to everybody in the room, which needs no host.

Ctrl-D or Ctrl-C leaves it.
"""

import asyncio
import sys
import threading

import atonce


async def chat(room):
    topic = f"chat.{room}"
    async with atonce.connect() as me:
        await me.listen(topic)
        await me.watch()
        print(f"You are {me.hello.node.name}, in the room {room}.", flush=True)
        showing = asyncio.ensure_future(show(me, topic))
        typing = asyncio.ensure_future(say(me, topic))
        done, waiting = await asyncio.wait({showing, typing}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        for task in done:
            task.result()


async def show(me, topic):
    """Shows what is said, and who comes and goes: who listens to the topic is in the room."""
    present = {}
    async for event in me:
        if isinstance(event, atonce.Message):
            print(f"{event.sender.name}> {printable(event.text)}", flush=True)
        elif isinstance(event, atonce.Listen) and event.topic == topic:
            present[event.peer.id] = event.peer
            print(f"* {event.peer.name} is here", flush=True)
        elif isinstance(event, atonce.Exit) or (isinstance(event, atonce.Unlisten) and event.topic == topic):
            if present.pop(event.peer.id, None):
                print(f"* {event.peer.name} has left", flush=True)
        elif isinstance(event, atonce.Lost):
            print(f"* {event.messages} messages came too fast to be shown", flush=True)
        elif isinstance(event, atonce.Reconnected):
            present.clear()
            print("* the daemon is back", flush=True)


async def say(me, topic):
    """Says every line that is typed."""
    lines = asyncio.Queue(maxsize=16)
    loop = asyncio.get_running_loop()
    # A terminal has no asynchronous reading that works for files and pipes too.
    threading.Thread(target=read_lines, args=(loop, lines), daemon=True).start()
    while (line := await lines.get()) is not None:
        try:
            await me.publish(topic, line)
        except (atonce.TooBig, atonce.Disconnected, atonce.Refused, atonce.Timeout) as error:
            print(f"* not said: {error}", flush=True)


def read_lines(loop, lines):
    for line in sys.stdin:
        if line.strip():
            asyncio.run_coroutine_threadsafe(lines.put(line.rstrip("\n")), loop).result()
    asyncio.run_coroutine_threadsafe(lines.put(None), loop)


def printable(text):
    """What came from the network may hold anything, even escapes for the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def main():
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        print("usage: chat.py [ROOM]", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(chat(sys.argv[1] if len(sys.argv) == 2 else "lobby"))
    except atonce.Error as error:
        sys.exit(f"chat: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
