"""Does with the Python client what its standard input says, one JSON object a line, and prints what came of each.

Started as `driver.py asyncio|blocking`; the commands are those of `Command` in tests/conformance/driver.rs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Optional

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "python"))
import atonce  # noqa: E402

Json = Dict[str, Any]


def encoded(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def decoded(command: Json) -> bytes:
    return base64.b64decode(command["data"])


def options(command: Json) -> Json:
    timeout = {"timeout": command["timeout_ms"] / 1000} if "timeout_ms" in command else {}
    when = {"when_no_listener": command["when_no_listener"]} if "when_no_listener" in command else {}
    return {**timeout, **when, **({"check": True} if "check" in command else {})}


def shown(event: Optional[atonce.Event]) -> Json:
    """An event, with the names that all clients share."""
    if event is None:
        return {"error": "timeout"}
    kind = type(event).__name__.lower()
    if isinstance(event, atonce.Message):
        told = {"from": event.sender.name, "topic": event.topic, "data": encoded(event.payload), "path": event.path}
        return {"event": kind, **told, "reply_to": event.reply_to}
    if isinstance(event, atonce.Lost):
        return {"event": kind, "messages": event.messages, "bytes": event.bytes}
    if isinstance(event, atonce.Reconnected):
        return {"event": kind}
    fields = {name: getattr(event, name) for name in ("topic", "snapshot") if hasattr(event, name)}
    return {"event": kind, "peer": event.peer.name, **fields}


def shown_error(error: Exception) -> Json:
    kind = re.sub(r"(?<=.)([A-Z])", r"-\1", type(error).__name__).lower()
    return {"error": kind, "message": str(error), **({"code": error.code} if isinstance(error, atonce.Refused) else {})}


def shown_hello(hello: atonce.Hello) -> Json:
    return {"v": hello.v, "name": hello.node.name, "payload_bytes": hello.payload_bytes}


def shown_published(published: atonce.Published) -> Json:
    outcomes = published.outcomes
    each = None if outcomes is None else [[peer.name, outcome] for peer, outcome in outcomes]
    return {"sent": published.sent, "outcomes": each}


def shown_answer(answer: atonce.Answer) -> Json:
    reply = answer.reply
    return {"outcome": answer.outcome, "reply": reply and encoded(reply.payload), "from": reply and reply.sender.name}


def peers_by_name(peers: list[atonce.PeerInfo]) -> Json:
    return {peer.name: peer.state for peer in peers}


def replied_to(command: Json) -> atonce.Message:
    return atonce.Message(atonce.Peer("", ""), "", b"", "", "", command["reply_to"])


async def do(me: atonce.Client, command: Json) -> Json:
    op = command["do"]
    if op == "next":
        return shown(await me.next_event(command.get("timeout_ms", 10_000) / 1000))
    if op == "listen":
        await me.listen(command["topic"])
    elif op == "unlisten":
        await me.unlisten(command["topic"])
    elif op == "watch":
        await me.watch()
    elif op == "send":
        return {
            "outcome": (await me.send(command["to"], command["topic"], decoded(command), **options(command))).outcome
        }
    elif op == "send-many":
        sends = (me.send(command["to"], command["topic"], str(number)) for number in range(command["count"]))
        return {"outcomes": Counter(sent.outcome for sent in await asyncio.gather(*sends))}
    elif op == "publish":
        return shown_published(
            await me.publish(command["topic"], decoded(command), ack=command["ack"], **options(command))
        )
    elif op == "request":
        return shown_answer(await me.request(command["to"], command["topic"], decoded(command), **options(command)))
    elif op == "request-all":
        replies = me.request_all(command["topic"], decoded(command), count=command["count"], **options(command))
        return {"replies": [encoded(reply.payload) async for reply in replies]}
    elif op == "reply":
        return {"outcome": (await me.reply(replied_to(command), decoded(command), **options(command))).outcome}
    elif op == "peers":
        return {"peers": peers_by_name(await me.peers())}
    elif op == "status":
        return {"name": (await me.status())["name"]}
    elif op == "ping":
        return {"received": (await me.ping(command["to"])).received}
    else:
        raise ValueError(op)
    return {}


def do_blocking(me: atonce.BlockingClient, command: Json) -> Json:
    op = command["do"]
    if op == "next":
        return shown(me.next_event(command.get("timeout_ms", 10_000) / 1000))
    if op == "listen":
        me.listen(command["topic"])
    elif op == "unlisten":
        me.unlisten(command["topic"])
    elif op == "watch":
        me.watch()
    elif op == "send":
        return {"outcome": me.send(command["to"], command["topic"], decoded(command), **options(command)).outcome}
    elif op == "send-many":
        sends = me.send_many(command["to"], command["topic"], (str(number) for number in range(command["count"])))
        return {"outcomes": Counter(sent.outcome for sent in sends)}
    elif op == "publish":
        return shown_published(me.publish(command["topic"], decoded(command), ack=command["ack"], **options(command)))
    elif op == "request":
        return shown_answer(me.request(command["to"], command["topic"], decoded(command), **options(command)))
    elif op == "request-all":
        replies = me.request_all(command["topic"], decoded(command), count=command["count"], **options(command))
        return {"replies": [encoded(reply.payload) for reply in replies]}
    elif op == "reply":
        return {"outcome": me.reply(replied_to(command), decoded(command), **options(command)).outcome}
    elif op == "peers":
        return {"peers": peers_by_name(me.peers())}
    elif op == "status":
        return {"name": me.status()["name"]}
    elif op == "ping":
        return {"received": me.ping(command["to"]).received}
    else:
        raise ValueError(op)
    return {}


def tell(answer: Json) -> None:
    print(json.dumps(answer), flush=True)


async def drive() -> None:
    loop = asyncio.get_running_loop()
    async with atonce.connect() as me:
        tell(shown_hello(me.hello))
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                answer = await do(me, json.loads(line))
            except atonce.Error as error:
                answer = shown_error(error)
            tell(answer)


def drive_blocking() -> None:
    with atonce.connect_blocking() as me:
        tell(shown_hello(me.hello))
        for line in sys.stdin:
            try:
                answer = do_blocking(me, json.loads(line))
            except atonce.Error as error:
                answer = shown_error(error)
            tell(answer)


try:
    if sys.argv[1] == "asyncio":
        asyncio.run(drive())
    else:
        drive_blocking()
except atonce.Error as error:
    tell(shown_error(error))
