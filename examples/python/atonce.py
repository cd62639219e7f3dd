"""Talks to the atonce daemon of this host: one file to copy, Python 3.9 or newer, its standard library only.

With asyncio:

    async with atonce.connect() as me:
        await me.listen("chat")
        async for event in me:
            if isinstance(event, atonce.Message):
                print(event.sender.name, event.text)

The same without it:

    with atonce.connect_blocking() as me:
        me.listen("chat")
        for event in me.events(timeout=60):  # ends when nothing happened for so long
            ...

What holds for both:

- `send`, `publish`, `reply` and `request` return what became of the message; with `check=True` a failure is an error.
  What the daemon refuses is an error always. Everything that can go wrong here is an `Error`.
- A payload is `str` or `bytes`; what arrives is bytes, with `.text` and `.json()` to read it.
- When the connection breaks, the client connects, listens and watches again by itself, and gives one `Reconnected`;
  after it presence comes anew. A request that was open then ends with `Disconnected`: it is never sent twice.
- When `unread` events (or 1 MiB of them) wait, nothing more is read, and the daemon refuses messages to their
  senders, or counts them (`Lost`). While a request waits for its answer reading goes on up to four times that;
  messages beyond are dropped here, and counted as `Lost` too.

A `Client` belongs to one event loop, where any number of tasks may use it. A `BlockingClient` needs no thread; it
reads, writes and reconnects while one of its methods runs, so call them (or `events`) often enough. More threads may
use it too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import json
import math
import os
import random
import select
import socket
import stat
import threading
import time
from dataclasses import dataclass
from typing import (
    Any,
    AsyncIterator,
    Callable,
    Deque,
    Dict,
    Generic,
    Iterable,
    Iterator,
    List,
    Optional,
    Tuple,
    TypeVar,
    Union,
)

T = TypeVar("T")

# Bytes of a line of the daemon, with its newline.
LINE_BYTES = 96 * 1024
_SOCKET_PATH_BYTES = 107
# Bytes of unread events after which nothing more is read.
UNREAD_BYTES = 1024 * 1024
# Changes of presence that are kept at most: the whole state of a network of 4096 peers with 15 topics each.
PRESENCE_KEPT = 65_536
# Messages that `send_many` has under way at once.
WINDOW = 64
# Seconds that an answer may take beyond the deadline that the daemon was given.
GRACE = 2.0


class Error(Exception):
    """Anything that can go wrong here."""


class Unreachable(Error):
    """Nobody answers at the socket."""


class Refused(Error):
    """The daemon does not do it. `code` is one of docs/socket.md, section 5; `hint` says what to try."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class Disconnected(Error):
    """The connection broke while the request was open: it may have been done, or not."""


class Timeout(Error, TimeoutError):
    """The daemon did not answer in time."""


class Malformed(Error):
    """What answers at the socket does not speak the protocol. The client is closed by it."""


class TooBig(Error, ValueError):
    """The message has more bytes than the daemon takes."""


class NotDelivered(Error):
    """The message had another outcome than it should, and `check` was set; `result` tells which."""

    def __init__(self, result: Union[Sent, Published]) -> None:
        super().__init__(f"not delivered: {result.outcome if isinstance(result, Sent) else result.failures}")
        self.result = result


class NoReply(Error):
    """Nobody answered the request in time; `answer` tells what became of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"no reply: the request was {answer.outcome}")
        self.answer = answer


class Behind(Error):
    """Too much waits here to be read. The client, or the request whose replies they are, is closed by it."""


class Closed(Error):
    """The client was closed here."""


class Outcome(str):
    """What became of a message. It is a string; daemons to come may say other ones."""

    DELIVERED: Outcome
    SENT: Outcome
    NO_LISTENER: Outcome
    BUSY: Outcome
    TOO_BIG: Outcome
    UNREACHABLE: Outcome
    TIMEOUT: Outcome

    @property
    def ok(self) -> bool:
        """It arrived, or left and nobody asked for more."""
        return self in ("delivered", "sent")


for _name in ("delivered", "sent", "no-listener", "busy", "too-big", "unreachable", "timeout"):
    setattr(Outcome, _name.upper().replace("-", "_"), Outcome(_name))


@dataclass(frozen=True)
class Peer:
    """A node: its id is proved, its name is only what it calls itself. Give it as `to` to send to its id."""

    name: str
    id: str


class _Payload:
    payload: bytes

    @property
    def text(self) -> str:
        """The payload as text; what is not UTF-8 is shown as U+FFFD."""
        return self.payload.decode("utf-8", "replace")

    def json(self) -> Any:
        """The payload read as JSON; ValueError if it is none."""
        return json.loads(self.payload)


@dataclass(frozen=True)
class Message(_Payload):
    """A message on a topic that we listen to. `reply_to` is set when the sender waits for a reply."""

    sender: Peer
    topic: str
    payload: bytes
    path: str
    at: str
    reply_to: Optional[str] = None


@dataclass(frozen=True)
class Enter:
    """A peer is there; with `snapshot` it was there before `watch`."""

    peer: Peer
    path: str
    snapshot: bool


@dataclass(frozen=True)
class Exit:
    """A peer is gone, and all that it listened to; `path` is the last one."""

    peer: Peer
    path: str


@dataclass(frozen=True)
class Listen:
    """An app there listens to the topic."""

    peer: Peer
    topic: str
    snapshot: bool


@dataclass(frozen=True)
class Unlisten:
    """No app there listens to the topic any more."""

    peer: Peer
    topic: str


@dataclass(frozen=True)
class Path:
    """A peer is reached by another kind of path."""

    peer: Peer
    path: str


@dataclass(frozen=True)
class Lost:
    """So much was dropped because it was not read."""

    messages: int
    bytes: int


@dataclass(frozen=True)
class Reconnected:
    """The connection had broken and is back. What was known of peers counts no more; who watches is told anew."""

    why: str


Event = Union[Message, Enter, Exit, Listen, Unlisten, Path, Lost, Reconnected]


@dataclass(frozen=True)
class Sent:
    """What became of a message to one peer; `rtt_us` is from acceptance to the answer, in microseconds."""

    outcome: Outcome
    peer: Optional[Peer]
    path: Optional[str]
    rtt_us: Optional[int]


@dataclass(frozen=True)
class Published:
    """What became of a publication: to how many peers it was `sent`, and with `ack` each outcome, failures first."""

    sent: int
    outcomes: Optional[List[Tuple[Peer, Outcome]]]

    @property
    def failures(self) -> List[Tuple[Peer, Outcome]]:
        """The peers that are known not to have it."""
        return [(peer, outcome) for peer, outcome in self.outcomes or [] if not outcome.ok]


@dataclass(frozen=True)
class Reply(_Payload):
    """A reply to a request of ours."""

    sender: Peer
    payload: bytes
    path: str
    at: str


@dataclass(frozen=True)
class Answer:
    """What became of a request: the outcome of the message itself, and the reply, if one came in time."""

    outcome: Outcome
    peer: Optional[Peer]
    reply: Optional[Reply]

    def expect(self) -> Reply:
        """The reply, or the error `NoReply`."""
        if self.reply is None:
            raise NoReply(self)
        return self.reply

    @property
    def payload(self) -> bytes:
        """The payload of the reply, which must be there."""
        return self.expect().payload

    @property
    def text(self) -> str:
        """The text of the reply, which must be there."""
        return self.expect().text

    def json(self) -> Any:
        """The reply read as JSON, which must be there."""
        return self.expect().json()


@dataclass(frozen=True)
class Hello:
    """What the daemon says of itself."""

    v: int
    version: str
    node: Peer
    payload_bytes: int
    line_bytes: int


@dataclass(frozen=True)
class PeerInfo:
    """A peer in a listing: `state` is online, connecting or offline, `path` has kind, addr and via."""

    id: str
    name: str
    state: str
    why: Optional[str]
    path: Optional[Dict[str, Any]]
    rtt_us: Optional[int]
    last_seen: Optional[str]
    topics: List[str]
    conflict: bool
    old_secret: bool


@dataclass(frozen=True)
class Pong:
    """One answer to a ping, or the `error` in its place."""

    seq: int
    rtt_us: Optional[int]
    path: Optional[str]
    addr: Optional[str]
    error: Optional[str]


@dataclass(frozen=True)
class Pinged:
    """All answers to a ping; `rtt_us` has min, p50 and max, in microseconds."""

    peer: Peer
    sent: int
    received: int
    rtt_us: Optional[Dict[str, int]]
    pongs: List[Pong]


def default_socket() -> str:
    """Where the daemon of this host listens if nothing else was said, as the atonce command finds it."""
    if path := _variable("ATONCE_SOCKET"):
        return path
    system = "/run/atonce/atonced.sock"
    try:
        os.stat(system)
        return system
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return system
    if runtime := _variable("XDG_RUNTIME_DIR"):
        return f"{runtime}/atonce/atonced.sock"
    return f"/tmp/atonce-{os.getuid()}/atonced.sock"


def connect(path: Optional[str] = None, *, timeout: float = 5.0, unread: int = 1024) -> Client:
    """A client for asyncio, to be used with `async with`.

    `timeout` is in seconds, and for the daemon's own answers; how long a message may take is said when it is sent.
    `unread` events may wait."""
    return Client(path or default_socket(), timeout, unread)


def connect_blocking(path: Optional[str] = None, *, timeout: float = 5.0, unread: int = 1024) -> BlockingClient:
    """A client without asyncio, to be used with `with`."""
    return BlockingClient(path or default_socket(), timeout, unread)


@dataclass
class _Op(Generic[T]):
    """A request of an app: what to ask, how long it may take, and how to read the answer."""

    fields: Dict[str, Any]
    read: Callable[[Dict[str, Any], List[Any]], T]
    timeout: Optional[float] = None
    payload: Optional[bytes] = None
    deadline_is_the_daemons: bool = False
    granted: Optional[Callable[[], None]] = None


def _message(
    op: str,
    target: Union[str, Peer, None],
    topic: Optional[str],
    payload: Union[str, bytes],
    ack: bool,
    timeout: float,
    when_full: Optional[str],
    when_no_listener: Optional[str],
    read: Callable[[Dict[str, Any], List[Any]], T],
    **more: Any,
) -> _Op[T]:
    to = target.id if isinstance(target, Peer) else target
    when = {"when_full": when_full, "when_no_listener": when_no_listener}
    given = {"op": op, "to": to, "topic": topic, "ack": ack, **when, **more}
    fields = {name: value for name, value in given.items() if value is not None}
    bytes_ = payload.encode() if isinstance(payload, str) else memoryview(payload).tobytes()
    return _Op(fields, read, timeout, bytes_, deadline_is_the_daemons=True)


def _send(
    to: Union[str, Peer],
    topic: str,
    payload: Union[str, bytes],
    ack: bool,
    timeout: float,
    when_full: Optional[str],
    when_no_listener: Optional[str],
    check: bool,
) -> _Op[Sent]:
    read: Callable[[Dict[str, Any], List[Any]], Sent] = lambda end, _: _sent(end, check)
    return _message("send", to, topic, payload, ack, timeout, when_full, when_no_listener, read)


def _publish(
    topic: str,
    payload: Union[str, bytes],
    ack: bool,
    timeout: float,
    when_full: Optional[str],
    when_no_listener: Optional[str],
    check: bool,
) -> _Op[Published]:
    def read(end: Dict[str, Any], _: List[Any]) -> Published:
        outcomes = _optional(end, "outcomes", list)
        each = [(_peer(_typed(one, dict)), Outcome(_get(one, "outcome", str))) for one in outcomes or []]
        published = Published(_get(end, "sent", int), None if outcomes is None else each)
        if check and published.failures:
            raise NotDelivered(published)
        return published

    return _message("publish", None, topic, payload, ack or check, timeout, when_full, when_no_listener, read)


def _request(
    to: Union[str, Peer],
    topic: str,
    payload: Union[str, bytes],
    timeout: float,
    when_no_listener: Optional[str],
    check: bool,
) -> _Op[Answer]:
    def read(end: Dict[str, Any], replies: List[Any]) -> Answer:
        sent = _sent(end, False)
        answer = Answer(sent.outcome, sent.peer, next(iter(replies), None))
        if check:
            answer.expect()
        return answer

    return _message("send", to, topic, payload, True, timeout, None, when_no_listener, read, replies=1)


def _request_all(topic: str, payload: Union[str, bytes], count: int, timeout: float) -> _Op[None]:
    return _message("publish", None, topic, payload, False, timeout, None, None, lambda end, parts: None, replies=count)


def _reply(message: Message, payload: Union[str, bytes], ack: bool, timeout: float, check: bool) -> _Op[Sent]:
    if message.reply_to is None:
        raise ValueError("the sender of this message does not wait for a reply")
    read: Callable[[Dict[str, Any], List[Any]], Sent] = lambda end, _: _sent(end, check)
    return _message("reply", None, None, payload, ack, timeout, None, None, read, reply_to=message.reply_to)


def _ping(to: Union[str, Peer], count: int, interval: float, timeout: float) -> _Op[Pinged]:
    def read(end: Dict[str, Any], pongs: List[Any]) -> Pinged:
        return Pinged(
            _peer(end), _get(end, "sent", int), _get(end, "received", int), _optional(end, "rtt_us", dict), pongs
        )

    fields = {
        "op": "ping",
        "to": to.id if isinstance(to, Peer) else to,
        "count": count,
        "interval_ms": _milliseconds(interval),
        "timeout_ms": _milliseconds(timeout),
    }
    return _Op(fields, read, count * max(interval, 0.01) + timeout + GRACE)


def _nothing(_end: Dict[str, Any], _parts: List[Any]) -> None:
    return None


def _milliseconds(seconds: float) -> int:
    # At least one: no time at all is no deadline that the daemon takes.
    return max(1, math.ceil(seconds * 1000))


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise Malformed(f"the daemon said {str(value)[:40]!r} where {kind.__name__} was expected")
    return value


def _get(event: Dict[str, Any], name: str, kind: type) -> Any:
    if name not in event:
        raise Malformed(f"the daemon left out {name!r}")
    return _typed(event[name], kind)


def _optional(event: Dict[str, Any], name: str, kind: type) -> Any:
    value = event.get(name)
    return None if value is None else _typed(value, kind)


def _peer(event: Dict[str, Any], field: str = "peer") -> Peer:
    peer = _get(event, field, dict)
    return Peer(_get(peer, "name", str), _get(peer, "id", str))


def _sent(end: Dict[str, Any], check: bool) -> Sent:
    peer = None if end.get("peer") is None else _peer(end)
    sent = Sent(Outcome(_get(end, "outcome", str)), peer, _optional(end, "path", str), _optional(end, "rtt_us", int))
    if check and not sent.outcome.ok:
        raise NotDelivered(sent)
    return sent


def _payload(event: Dict[str, Any]) -> bytes:
    try:
        if (text := _optional(event, "text", str)) is not None:
            return bytes(text.encode())
        return base64.b64decode(_get(event, "data", str), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise Malformed(f"the daemon gave a payload that cannot be read: {error}") from error


def _reply_of(event: Dict[str, Any]) -> Reply:
    return Reply(_peer(event, "from"), _payload(event), _get(event, "path", str), _get(event, "at", str))


def _pong_of(event: Dict[str, Any]) -> Pong:
    text = [_optional(event, name, str) for name in ("path", "addr", "error")]
    return Pong(_get(event, "seq", int), _optional(event, "rtt_us", int), *text)


def _peer_info(event: Dict[str, Any]) -> PeerInfo:
    return PeerInfo(
        _get(event, "id", str),
        _get(event, "name", str),
        _get(event, "state", str),
        _optional(event, "why", str),
        _optional(event, "path", dict),
        _optional(event, "rtt_us", int),
        _optional(event, "last_seen", str),
        _optional(event, "topics", list) or [],
        bool(event.get("conflict")),
        bool(event.get("old_secret")),
    )


_EVENTS: Dict[str, Callable[[Dict[str, Any]], Event]] = {
    "message": lambda event: Message(
        _peer(event, "from"),
        _get(event, "topic", str),
        _payload(event),
        _get(event, "path", str),
        _get(event, "at", str),
        _optional(event, "reply_to", str),
    ),
    "enter": lambda event: Enter(_peer(event), _get(event, "path", str), bool(event.get("snapshot"))),
    "exit": lambda event: Exit(_peer(event), _get(event, "path", str)),
    "listen": lambda event: Listen(_peer(event), _get(event, "topic", str), bool(event.get("snapshot"))),
    "unlisten": lambda event: Unlisten(_peer(event), _get(event, "topic", str)),
    "path": lambda event: Path(_peer(event), _get(event, "path", str)),
    "lost": lambda event: Lost(_get(event, "messages", int), _get(event, "bytes", int)),
}


class _Ask:
    """A request that was written, and what has come of its answer."""

    def __init__(self, number: int, op: str, streams: bool, then: Optional[Callable[[_Ask], None]]) -> None:
        self.number, self.op, self.streams, self.then = number, op, streams, then
        self.parts: Deque[Any] = collections.deque()
        self.answer: Optional[Dict[str, Any]] = None
        self.error: Optional[Error] = None
        self.wake: Callable[[], None] = lambda: None

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None

    def result(self, op: _Op[T]) -> T:
        if self.error is not None:
            raise self.error
        return op.read(self.answer or {}, [part for part, _ in self.parts])


class _Core:
    """What both clients have in common, without any input or output.

    Bytes of the daemon go in, and it keeps the answers, the events that nobody has taken yet, and the bytes that are to
    be written."""

    def __init__(self, unread: int) -> None:
        self.output = bytearray()
        self.hello: Optional[Hello] = None
        # Greeted, and all topics are listened to: requests may be written.
        self.ready = False
        # Why there will never be anything more.
        self.failure: Optional[Error] = None
        # Why this connection is of no use.
        self.hang_up: Optional[Error] = None
        self._broke: Optional[str] = None
        self._complaint: Optional[Refused] = None
        self._topics: Dict[str, None] = {}
        self._watching: Optional[bool] = None
        self._restoring = 0
        self._asks: Dict[int, _Ask] = {}
        self._last_number = 0
        self._partial = bytearray()
        self._unread = unread
        self._events: Deque[Tuple[Event, int]] = collections.deque()
        self._presence = 0
        self._kept = self._kept_bytes = 0
        self._lost_messages = self._lost_bytes = 0

    def connected(self) -> None:
        """A connection is there: greets, and restores what there was before."""
        self.output.clear()
        self._partial.clear()
        self.hang_up = self._complaint = None
        self._ask({"op": "hello"}, then=self._greeted)

    def disconnected(self, why: str) -> Error:
        """The connection is gone."""
        self.ready = False
        error: Error = self._complaint or self.hang_up or Disconnected(why)
        self._broke = self._broke or str(error)
        told = f": {self._complaint}" if self._complaint is not None else ""
        self._fail_asks(Disconnected(f"{why}{told}, and it is not known what became of the request"))
        return error

    def fail(self, error: Error) -> None:
        """Nothing more will come, for this reason."""
        self.failure = self.failure or error
        self.ready = False
        self._fail_asks(self.failure)

    def ask(self, op: _Op[Any], left: float, streams: bool = False) -> _Ask:
        """Writes a request; `left` is in seconds."""
        fields = dict(op.fields)
        if op.deadline_is_the_daemons:
            fields["timeout_ms"] = _milliseconds(left)
        granted = op.granted
        then = None if granted is None else lambda ask: granted() if ask.answer is not None else None
        return self._ask(fields, op.payload, streams, then)

    def forget(self, ask: _Ask) -> None:
        """Nobody waits for this answer any more."""
        self._release(ask)
        # The lines of a listing have no number: they belong to the oldest listing until that is done.
        if ask.op != "peers":
            self._asks.pop(ask.number, None)

    def wants_input(self) -> bool:
        """Whether to read on."""
        if self._kept < self._unread and self._kept_bytes < UNREAD_BYTES:
            return True
        return any(not (ask.streams and ask.parts) for ask in self._asks.values())

    def feed(self, data: bytes) -> None:
        """Takes bytes of the daemon."""
        lines = (bytes(self._partial) + data).split(b"\n")
        self._partial = bytearray(lines.pop())
        try:
            for line in lines:
                self._line(line)
            if len(self._partial) >= LINE_BYTES:
                raise Malformed(f"the daemon wrote a line of more than {LINE_BYTES} bytes")
        except (Malformed, Behind) as error:
            self.fail(error)

    def has_event(self) -> bool:
        """Whether there is something to take."""
        return bool(self._events) or self._lost_messages > 0

    def take_event(self) -> Event:
        """The next event; there must be one."""
        if not self._events:
            return self._take_lost()
        event, size = self._events.popleft()
        self._presence -= not isinstance(event, Message)
        self._kept -= 1
        self._kept_bytes -= size
        return event

    def take_part(self, ask: _Ask) -> Any:
        """The next reply; there must be one."""
        part, size = ask.parts.popleft()
        self._kept -= 1
        self._kept_bytes -= size
        return part

    def listen(self, topic: str) -> _Op[None]:
        """A request that is repeated on the next connection."""
        return _Op({"op": "listen", "topic": topic}, _nothing, granted=lambda: self._topics.setdefault(topic))

    def unlisten(self, topic: str) -> _Op[None]:
        """The end of that."""
        return _Op({"op": "unlisten", "topic": topic}, _nothing, granted=lambda: self._topics.pop(topic, None))

    def watch(self, own: bool) -> _Op[None]:
        """A request that is repeated on the next connection."""

        def granted() -> None:
            self._watching = own

        return _Op({"op": "watch", "own": own}, _nothing, granted=granted)

    def _ask(
        self,
        fields: Dict[str, Any],
        payload: Optional[bytes] = None,
        streams: bool = False,
        then: Optional[Callable[[_Ask], None]] = None,
    ) -> _Ask:
        self._last_number += 1
        fields["id"] = self._last_number
        self.output += self._request_line(fields, payload)
        ask = self._asks[self._last_number] = _Ask(self._last_number, fields["op"], streams, then)
        return ask

    def _request_line(self, fields: Dict[str, Any], payload: Optional[bytes]) -> bytes:
        most_line = self.hello.line_bytes if self.hello else LINE_BYTES
        if payload is not None:
            most = self.hello.payload_bytes if self.hello else 0
            if len(payload) > most:
                raise TooBig(f"a message has at most {most} bytes, this one has {len(payload)}")
            try:
                line = _json_line({**fields, "text": payload.decode("utf-8")})
                if len(line) <= most_line:
                    return line
            except UnicodeDecodeError:
                pass
            # Text of control characters alone grows to six times its size in JSON: base64 always fits.
            fields["data"] = base64.b64encode(payload).decode()
        line = _json_line(fields)
        if len(line) > most_line:
            raise TooBig(f"a request has at most {most_line} bytes, this one has {len(line)}")
        return line

    def _greeted(self, ask: _Ask) -> None:
        if ask.answer is None:
            self.hang_up = ask.error
            return
        hello = _get(ask.answer, "hello", dict)
        number = [_get(hello, name, int) for name in ("payload_bytes", "line_bytes")]
        self.hello = Hello(_get(hello, "v", int), _get(hello, "version", str), _peer(hello, "node"), *number)
        if self._broke is not None:
            # One is enough when the connection broke again before anything came.
            if not (self._events and isinstance(self._events[-1][0], Reconnected)):
                self._keep(Reconnected(self._broke), 0)
            self._broke = None
        before: List[Dict[str, Any]] = [{"op": "listen", "topic": topic} for topic in self._topics]
        if self._watching is not None:
            before.append({"op": "watch", "own": self._watching})
        self._restoring = len(before)
        for request in before:
            self._ask(request, then=self._restored)
        self.ready = self._restoring == 0

    def _restored(self, ask: _Ask) -> None:
        if ask.answer is None:
            self.hang_up = ask.error
            return
        self._restoring -= 1
        self.ready = self._restoring == 0

    def _line(self, line: bytes) -> None:
        if len(line) >= LINE_BYTES:
            raise Malformed(f"the daemon wrote a line of more than {LINE_BYTES} bytes")
        event = _json_object(line)
        kind, number = str(event.get("ev")), event.get("id")
        if kind in _EVENTS:
            self._event(_EVENTS[kind](event), len(line))
        elif kind == "peer":
            listing = next((ask for ask in self._asks.values() if ask.op == "peers"), None)
            if listing is not None:
                self._part(listing, _peer_info(event), len(line))
        elif kind in ("ok", "result", "error", "pong", "reply"):
            ask = self._asks.get(number) if type(number) is int else None
            if kind == "error" and number is None:
                self._complaint = _refused(event)
            elif ask is not None and kind == "pong":
                self._part(ask, _pong_of(event), len(line))
            elif ask is not None and kind == "reply":
                self._part(ask, _reply_of(event), len(line))
            elif ask is not None:
                if kind == "error":
                    self._end(ask, error=_refused(event))
                else:
                    self._end(ask, answer=event)

    def _part(self, ask: _Ask, part: Any, size: int) -> None:
        if ask.streams:
            if self._kept_bytes >= 4 * UNREAD_BYTES:
                self._release(ask)
                self._end(ask, error=Behind("too many replies wait to be read"))
                return
            self._kept += 1
            self._kept_bytes += size
        elif len(ask.parts) >= PRESENCE_KEPT:
            raise Behind("the daemon does not end its answer")
        ask.parts.append((part, size))
        ask.wake()

    def _end(self, ask: _Ask, answer: Optional[Dict[str, Any]] = None, error: Optional[Error] = None) -> None:
        self._asks.pop(ask.number, None)
        ask.answer, ask.error = answer, error
        if ask.then is not None:
            ask.then(ask)
        ask.wake()

    def _event(self, event: Event, size: int) -> None:
        if isinstance(event, Message):
            if self._kept >= 4 * self._unread or self._kept_bytes >= 4 * UNREAD_BYTES:
                self._lost_messages += 1
                self._lost_bytes += len(event.payload)
                return
            if self._lost_messages > 0:
                self._keep(self._take_lost(), 0)
        elif self._presence >= PRESENCE_KEPT:
            raise Behind("too many events wait to be read")
        self._keep(event, size)

    def _keep(self, event: Event, size: int) -> None:
        self._presence += not isinstance(event, Message)
        self._kept += 1
        self._kept_bytes += size
        self._events.append((event, size))

    def _take_lost(self) -> Lost:
        lost = Lost(self._lost_messages, self._lost_bytes)
        self._lost_messages = self._lost_bytes = 0
        return lost

    def _release(self, ask: _Ask) -> None:
        if ask.streams:
            self._kept -= len(ask.parts)
            self._kept_bytes -= sum(size for _, size in ask.parts)
        ask.parts.clear()

    def _fail_asks(self, error: Error) -> None:
        for ask in list(self._asks.values()):
            self._end(ask, error=error)


def _json_line(fields: Dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _json_object(line: bytes) -> Dict[str, Any]:
    try:
        event = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the daemon wrote a line that is no JSON: {line[:40]!r}") from error
    if not isinstance(event, dict):
        raise Malformed(f"the daemon wrote a line that is no object: {line[:40]!r}")
    return event


def _refused(event: Dict[str, Any]) -> Refused:
    code, message, hint = (str(event.get(name) or "") for name in ("code", "message", "hint"))
    return Refused(code, message, hint)


def _check_path(path: str) -> None:
    """Refuses a socket that nobody can serve at, and one that may be somebody else's (socket.md, 1)."""
    if (length := len(os.fsencode(path))) > _SOCKET_PATH_BYTES:
        why = f"its path has {length} bytes, and the system takes at most {_SOCKET_PATH_BYTES}"
        raise Unreachable(f"cannot reach the daemon at {path}: {why}")
    runtime = _variable("XDG_RUNTIME_DIR")
    usual = [f"/tmp/atonce-{os.getuid()}/"] + ([f"{runtime}/atonce/"] if runtime else [])
    if why := _strangers_part(path, path.startswith(tuple(usual))):
        raise Unreachable(f"cannot reach the daemon at {path}: {why}")


def _strangers_part(path: str, is_usual: bool) -> Optional[str]:
    """Follows the way to the socket part by part, as the system would, and tells what another user could have put there."""
    trusted = (os.getuid(), 0)
    at = "/" if path.startswith("/") else os.getcwd()
    parts = [part for part in path.split("/") if part not in ("", ".")]
    links = 0
    while parts:
        part = parts.pop(0)
        if part == "..":
            at = os.path.dirname(at)
            continue
        found_at = os.path.join(at, part)
        try:
            directory, found = os.lstat(at), os.lstat(found_at)
        except OSError:
            return None  # The connection fails for it, and tells.
        if is_usual and directory.st_mode & 0o022:
            if not directory.st_mode & stat.S_ISVTX:
                return f"others may write to {at}"
            if found.st_uid not in trusted:
                return f"{found_at} belongs to another user"
        if not stat.S_ISLNK(found.st_mode):
            at = found_at
            continue
        if directory.st_mode & 0o002 and found.st_uid not in (*trusted, directory.st_uid):
            return f"{found_at} is a link that belongs to another user"
        links += 1
        if links > 40:
            return None
        target = os.readlink(found_at)
        at = "/" if target.startswith("/") else at
        parts = [part for part in target.split("/") if part not in ("", ".")] + parts
    return None


def _variable(name: str) -> Optional[str]:
    """What is in a variable; nothing counts as unset."""
    return os.environ.get(name, "").strip() or None


def _unreachable(path: str, error: OSError) -> Unreachable:
    return Unreachable(f"cannot reach the daemon at {path}: {error.strerror or error}")


class _Backoff:
    """Seconds until the next attempt to connect: from 50 ms to 2 s, and not the same for all who wait."""

    def __init__(self) -> None:
        self._next = 0.05

    def next(self) -> float:
        delay, self._next = self._next, min(self._next * 2, 2.0)
        return random.uniform(delay / 2, delay)


class Client:
    """A client for asyncio; `connect` makes one."""

    def __init__(self, path: str, timeout: float, unread: int) -> None:
        self._path, self._timeout = path, timeout
        self._core = _Core(unread)
        self._link: Optional[_Link] = None
        self._keeper: Optional[asyncio.Task[None]] = None
        # Set when an event came, when requests may be written, and when there is nothing more to wait for.
        self._news: asyncio.Event

    async def __aenter__(self) -> Client:
        self._news = asyncio.Event()
        self._keeper = asyncio.ensure_future(self._keep(await self._dial()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. What is open ends with `Closed`, and iterators end."""
        self._core.fail(Closed("the client was closed"))
        self._news.set()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._link is not None:
            self._link.transport.close()
            try:
                await _wait(self._link.gone, time.monotonic() + GRACE)
            except Timeout:
                self._link.transport.abort()

    @property
    def hello(self) -> Hello:
        """What the daemon said of itself: its node, its version, its limits."""
        assert self._core.hello is not None, "connected by `async with`"
        return self._core.hello

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self.events():
            yield event

    async def events(self, timeout: Optional[float] = None) -> AsyncIterator[Event]:
        """The events as they come, until none came for `timeout` seconds."""
        try:
            while (event := await self.next_event(timeout)) is not None:
                yield event
        except Closed:
            return

    async def next_event(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None when none came for `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not await self._until(self._core.has_event, deadline):
            return None
        event = self._core.take_event()
        self._read_on()
        return event

    async def listen(self, topic: str) -> None:
        """Asks for the messages of a topic."""
        await self._do(self._core.listen(topic))

    async def unlisten(self, topic: str) -> None:
        """No more messages of a topic, please."""
        await self._do(self._core.unlisten(topic))

    async def watch(self, own: bool = False) -> None:
        """Asks to be told who and what is there, and then every change; `own`: of the topics of this node too."""
        await self._do(self._core.watch(own))

    async def send(
        self,
        to: Union[str, Peer],
        topic: str,
        payload: Union[str, bytes] = b"",
        *,
        ack: bool = True,
        timeout: float = 5.0,
        when_full: Optional[str] = None,
        when_no_listener: Optional[str] = None,
        check: bool = False,
    ) -> Sent:
        """Sends to the listeners of a topic on one peer, an exact name or id; and waits for what becomes of it.

        `when_no_listener="wait"`: while nobody listens it waits until `timeout`, and not only while an app may just be
        restarting."""
        return await self._do(_send(to, topic, payload, ack, timeout, when_full, when_no_listener, check))

    async def publish(
        self,
        topic: str,
        payload: Union[str, bytes] = b"",
        *,
        ack: bool = False,
        timeout: float = 5.0,
        when_full: Optional[str] = None,
        when_no_listener: Optional[str] = None,
        check: bool = False,
    ) -> Published:
        """Sends to the listeners of a topic everywhere. `check` asks for acknowledgements, as `ack` does."""
        return await self._do(_publish(topic, payload, ack, timeout, when_full, when_no_listener, check))

    async def request(
        self,
        to: Union[str, Peer],
        topic: str,
        payload: Union[str, bytes] = b"",
        *,
        timeout: float = 5.0,
        when_no_listener: Optional[str] = None,
        check: bool = False,
    ) -> Answer:
        """Sends to the listeners of a topic on one peer, and waits for the first reply, until `timeout`."""
        return await self._do(_request(to, topic, payload, timeout, when_no_listener, check))

    async def request_all(
        self, topic: str, payload: Union[str, bytes] = b"", *, count: int = 1024, timeout: float = 5.0
    ) -> AsyncIterator[Reply]:
        """Publishes, and gives the replies as they come, until there are `count`, or until `timeout`.

        It is asked when the iteration begins."""
        op = _request_all(topic, payload, count, timeout)
        ask, deadline, woken = await self._write(op, streams=True)
        try:
            while True:
                woken.clear()
                while ask.parts:
                    reply = self._core.take_part(ask)
                    self._read_on()
                    yield reply
                if ask.done:
                    break
                await _wait(woken, deadline + GRACE)
            ask.result(op)
        finally:
            self._core.forget(ask)

    async def reply(
        self,
        message: Message,
        payload: Union[str, bytes] = b"",
        *,
        ack: bool = True,
        timeout: float = 5.0,
        check: bool = False,
    ) -> Sent:
        """Replies to a message whose sender waits for it (`reply_to`); as often as that one wants."""
        return await self._do(_reply(message, payload, ack, timeout, check))

    async def peers(self) -> List[PeerInfo]:
        """The peers, those that are offline included."""
        return await self._do(_Op({"op": "peers"}, lambda _, peers: list(peers)))

    async def status(self) -> Dict[str, Any]:
        """How the daemon is, as docs/socket.md tells it."""
        return await self._do(_Op({"op": "status"}, lambda end, _: _get(end, "status", dict)))

    async def ping(
        self, to: Union[str, Peer], count: int = 1, *, interval: float = 1.0, timeout: float = 5.0
    ) -> Pinged:
        """Measures the way to a peer."""
        return await self._do(_ping(to, count, interval, timeout))

    async def _do(self, op: _Op[T]) -> T:
        ask, deadline, woken = await self._write(op)
        try:
            while not ask.done:
                woken.clear()
                await _wait(woken, deadline + GRACE)
            return ask.result(op)
        finally:
            self._core.forget(ask)

    async def _write(self, op: _Op[Any], streams: bool = False) -> Tuple[_Ask, float, asyncio.Event]:
        deadline = time.monotonic() + (self._timeout if op.timeout is None else op.timeout)
        if not await self._until(lambda: self._core.ready, deadline):
            raise Timeout("the daemon did not come back in time")
        ask = self._core.ask(op, deadline - time.monotonic(), streams)
        woken = asyncio.Event()
        ask.wake = woken.set
        assert self._link is not None
        self._link.flush()
        self._read_on()
        try:
            # What it said last may be there to be read when it takes nothing more.
            await _wait(self._link.writable, deadline + GRACE)
        except BaseException:
            self._core.forget(ask)
            raise
        return ask, deadline, woken

    async def _until(self, there: Callable[[], bool], deadline: Optional[float]) -> bool:
        while not there():
            if self._core.failure is not None:
                raise self._core.failure
            self._news.clear()
            try:
                await _wait(self._news, deadline)
            except Timeout:
                return False
        return True

    def _read_on(self) -> None:
        if self._link is not None and self._core.wants_input():
            self._link.transport.resume_reading()

    async def _keep(self, link: _Link) -> None:
        """Connects again whenever the connection has gone."""
        while True:
            await link.gone.wait()
            backoff = _Backoff()
            while self._core.failure is None:
                await asyncio.sleep(backoff.next())
                try:
                    link = await self._dial()
                    break
                except Error:
                    continue
            else:
                return

    async def _dial(self) -> _Link:
        _check_path(self._path)
        deadline = time.monotonic() + self._timeout
        loop = asyncio.get_running_loop()
        try:
            made = loop.create_unix_connection(lambda: _Link(self._core, self._news), self._path)
            _, link = await asyncio.wait_for(made, self._timeout)
        except asyncio.TimeoutError:
            raise Timeout(f"the daemon at {self._path} does not take the connection") from None
        except OSError as error:
            raise _unreachable(self._path, error) from error
        self._link = link
        try:
            if await self._until(lambda: self._core.ready or link.gone.is_set(), deadline) and self._core.ready:
                return link
            raise link.why or Timeout(f"the daemon at {self._path} does not greet")
        except BaseException:
            link.transport.abort()
            raise


class _Link(asyncio.Protocol):
    """One connection, as asyncio drives it."""

    transport: asyncio.Transport

    def __init__(self, core: _Core, news: asyncio.Event) -> None:
        self._core, self._news = core, news
        self.why: Optional[Error] = None
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._core.connected()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._core.feed(data)
        self.flush()
        if self._core.failure is not None or self._core.hang_up is not None:
            self.transport.abort()
        elif not self._core.wants_input():
            self.transport.pause_reading()
        self._news.set()

    def connection_lost(self, error: Optional[Exception]) -> None:
        self.why = self._core.disconnected("the daemon closed the connection")
        self.gone.set()
        self.writable.set()
        self._news.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def flush(self) -> None:
        """Writes what there is to write."""
        self.transport.write(bytes(self._core.output))
        self._core.output.clear()


async def _wait(event: asyncio.Event, deadline: Optional[float]) -> None:
    if not event.is_set():
        try:
            await asyncio.wait_for(event.wait(), None if deadline is None else max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            raise Timeout("the daemon did not answer in time") from None


class BlockingClient:
    """A client without asyncio; `connect_blocking` makes one."""

    def __init__(self, path: str, timeout: float, unread: int) -> None:
        self._path, self._timeout = path, timeout
        self._core = _Core(unread)
        self._socket: Optional[socket.socket] = None
        self._backoff = _Backoff()
        self._next_attempt = self._greeted_until = 0.0
        # Whoever waits first does the input and output for all threads, and holds the lock except while it sleeps.
        self._turn = threading.Condition(threading.Lock())
        self._working = False
        self._alarm, self._wakes = socket.socketpair()
        for end in (self._alarm, self._wakes):
            end.setblocking(False)

    def __enter__(self) -> BlockingClient:
        try:
            with self._turn:
                self._dial()
            if not self._until(lambda: self._core.ready, time.monotonic() + self._timeout):
                raise Timeout(f"the daemon at {self._path} does not greet")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. What other threads wait for ends with `Closed`, and iterators end."""
        with self._turn:
            self._core.fail(Closed("the client was closed"))
            self._wake()
            while self._working:
                self._turn.wait()
            for end in (self._socket, self._alarm, self._wakes):
                if end is not None:
                    end.close()
            self._socket = None
            self._turn.notify_all()

    @property
    def hello(self) -> Hello:
        """What the daemon said of itself: its node, its version, its limits."""
        assert self._core.hello is not None, "connected by `with`"
        return self._core.hello

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def events(self, timeout: Optional[float] = None) -> Iterator[Event]:
        """The events as they come, until none came for `timeout` seconds."""
        try:
            while (event := self.next_event(timeout)) is not None:
                yield event
        except Closed:
            return

    def next_event(self, timeout: Optional[float] = None) -> Optional[Event]:
        """The next event, or None when none came for `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        taken: List[Event] = []

        def take() -> bool:
            if self._core.has_event():
                taken.append(self._core.take_event())
            return bool(taken)

        return taken[0] if self._until(take, deadline) else None

    def listen(self, topic: str) -> None:
        """Asks for the messages of a topic."""
        self._do(self._core.listen(topic))

    def unlisten(self, topic: str) -> None:
        """No more messages of a topic, please."""
        self._do(self._core.unlisten(topic))

    def watch(self, own: bool = False) -> None:
        """Asks to be told who and what is there, and then every change; `own`: of the topics of this node too."""
        self._do(self._core.watch(own))

    def send(
        self,
        to: Union[str, Peer],
        topic: str,
        payload: Union[str, bytes] = b"",
        *,
        ack: bool = True,
        timeout: float = 5.0,
        when_full: Optional[str] = None,
        when_no_listener: Optional[str] = None,
        check: bool = False,
    ) -> Sent:
        """Sends to the listeners of a topic on one peer, an exact name or id; and waits for what becomes of it.

        `when_no_listener="wait"`: while nobody listens it waits until `timeout`, and not only while an app may just be
        restarting."""
        return self._do(_send(to, topic, payload, ack, timeout, when_full, when_no_listener, check))

    def send_many(
        self,
        to: Union[str, Peer],
        topic: str,
        payloads: Iterable[Union[str, bytes]],
        *,
        timeout: float = 5.0,
        check: bool = False,
    ) -> Iterator[Sent]:
        """Sends one after the other without waiting for each, and gives what became of them, in their order."""
        asks: Deque[Tuple[_Op[Sent], _Ask, float]] = collections.deque()
        rest = iter(payloads)
        try:
            while True:
                for payload in rest:
                    op = _send(to, topic, payload, True, timeout, None, None, check)
                    asks.append((op, *self._write(op)))
                    if len(asks) >= WINDOW:
                        break
                if not asks:
                    return
                op, ask, deadline = asks[0]
                yield self._result(op, ask, deadline)
                asks.popleft()
        finally:
            for _, ask, _ in asks:
                self._forget(ask)

    def publish(
        self,
        topic: str,
        payload: Union[str, bytes] = b"",
        *,
        ack: bool = False,
        timeout: float = 5.0,
        when_full: Optional[str] = None,
        when_no_listener: Optional[str] = None,
        check: bool = False,
    ) -> Published:
        """Sends to the listeners of a topic everywhere. `check` asks for acknowledgements, as `ack` does."""
        return self._do(_publish(topic, payload, ack, timeout, when_full, when_no_listener, check))

    def request(
        self,
        to: Union[str, Peer],
        topic: str,
        payload: Union[str, bytes] = b"",
        *,
        timeout: float = 5.0,
        when_no_listener: Optional[str] = None,
        check: bool = False,
    ) -> Answer:
        """Sends to the listeners of a topic on one peer, and waits for the first reply, until `timeout`."""
        return self._do(_request(to, topic, payload, timeout, when_no_listener, check))

    def request_all(
        self, topic: str, payload: Union[str, bytes] = b"", *, count: int = 1024, timeout: float = 5.0
    ) -> Iterator[Reply]:
        """Publishes, and gives the replies as they come, until there are `count`, or until `timeout`.

        It is asked when the iteration begins."""
        op = _request_all(topic, payload, count, timeout)
        ask, deadline = self._write(op, streams=True)
        try:
            while True:
                if not self._until(lambda: bool(ask.parts) or ask.done, deadline + GRACE):
                    raise Timeout("the daemon did not answer in time")
                with self._turn:
                    reply = self._core.take_part(ask) if ask.parts else None
                if reply is None:
                    break
                yield reply
            ask.result(op)
        finally:
            self._forget(ask)

    def reply(
        self,
        message: Message,
        payload: Union[str, bytes] = b"",
        *,
        ack: bool = True,
        timeout: float = 5.0,
        check: bool = False,
    ) -> Sent:
        """Replies to a message whose sender waits for it (`reply_to`); as often as that one wants."""
        return self._do(_reply(message, payload, ack, timeout, check))

    def peers(self) -> List[PeerInfo]:
        """The peers, those that are offline included."""
        return self._do(_Op({"op": "peers"}, lambda _, peers: list(peers)))

    def status(self) -> Dict[str, Any]:
        """How the daemon is, as docs/socket.md tells it."""
        return self._do(_Op({"op": "status"}, lambda end, _: _get(end, "status", dict)))

    def ping(self, to: Union[str, Peer], count: int = 1, *, interval: float = 1.0, timeout: float = 5.0) -> Pinged:
        """Measures the way to a peer."""
        return self._do(_ping(to, count, interval, timeout))

    def _do(self, op: _Op[T]) -> T:
        return self._result(op, *self._write(op))

    def _write(self, op: _Op[Any], streams: bool = False) -> Tuple[_Ask, float]:
        deadline = time.monotonic() + (self._timeout if op.timeout is None else op.timeout)
        asks: List[_Ask] = []

        def write() -> bool:
            if self._core.ready and not asks:
                asks.append(self._core.ask(op, deadline - time.monotonic(), streams))
                self._flush()
                self._wake()
            return bool(asks)

        if not self._until(write, deadline):
            raise Timeout("the daemon did not come back in time")
        return asks[0], deadline

    def _result(self, op: _Op[T], ask: _Ask, deadline: float) -> T:
        try:
            if not self._until(lambda: ask.done, deadline + GRACE):
                raise Timeout("the daemon did not answer in time")
            return ask.result(op)
        finally:
            self._forget(ask)

    def _forget(self, ask: _Ask) -> None:
        with self._turn:
            self._core.forget(ask)

    def _until(self, there: Callable[[], bool], deadline: Optional[float]) -> bool:
        """Reads and writes until `there` says that it is, or until the deadline. It is called with the lock."""
        with self._turn:
            while not there():
                if self._core.failure is not None:
                    raise self._core.failure
                left = 3600.0 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                if self._working:
                    self._turn.wait(left)
                    continue
                self._working = True
                try:
                    self._work(left)
                finally:
                    self._working = False
                    self._turn.notify_all()
            return True

    def _work(self, left: float) -> None:
        """Sleeps until something can be done, at most that long, and does it."""
        if self._socket is None:
            left = min(left, self._next_attempt - time.monotonic())
            if left > 0:
                self._sleep(left)
                return
            try:
                self._dial()
            except Error:
                self._next_attempt = time.monotonic() + self._backoff.next()
            return
        if not self._core.ready:
            left = min(left, self._greeted_until - time.monotonic())
            if left <= 0:
                self._lose("the daemon does not greet")
                return
        wanted = (select.POLLIN if self._core.wants_input() else 0) | (select.POLLOUT if self._core.output else 0)
        happened = self._sleep(left, self._socket.fileno(), wanted)
        if happened & ~select.POLLOUT:
            self._read()
        if self._socket is not None and self._core.output:
            self._flush()

    def _sleep(self, seconds: float, number: int = -1, wanted: int = 0) -> int:
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if wanted:
            poll.register(number, wanted)
        self._turn.release()
        try:
            happened = dict(poll.poll(math.ceil(seconds * 1000)))
        finally:
            self._turn.acquire()
        if happened.pop(self._alarm.fileno(), 0):
            self._alarm.recv(4096)
        return happened.get(number, 0)

    def _wake(self) -> None:
        if self._working:
            try:
                self._wakes.send(b"!")
            except BlockingIOError:
                pass

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(256 * 1024)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose("the daemon closed the connection")
            return
        self._core.feed(data)
        if self._core.ready:
            self._backoff = _Backoff()
        if self._core.failure is not None or self._core.hang_up is not None:
            self._lose("the daemon refused")

    def _flush(self) -> None:
        if self._socket is None:
            return
        try:
            while self._core.output:
                del self._core.output[: self._socket.send(self._core.output)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # The daemon's last words may still be there to be read.
            self._core.output.clear()

    def _dial(self) -> None:
        _check_path(self._path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(self._path)
        except OSError as error:
            self._socket.close()
            self._socket = None
            raise _unreachable(self._path, error) from error
        self._greeted_until = time.monotonic() + self._timeout
        self._core.connected()
        self._flush()

    def _lose(self, why: str) -> None:
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        self._next_attempt = time.monotonic() + self._backoff.next()
        first = self._core.hello is None
        error = self._core.disconnected(why)
        if first:
            self._core.fail(error)
