/**
 * Talks to the atonce daemon of this host: one file to copy, Node 18 or newer, no dependencies.
 *
 *     import { connect } from "./atonce.mjs";
 *     const me = await connect();
 *     await me.listen("chat");
 *     for await (const event of me) {
 *       if (event.type === "message") console.log(event.from.name, event.text);
 *     }
 *
 * - `send`, `publish`, `reply` and `request` return what became of the message; with `check: true` a failure is an
 *   error. What the daemon refuses is an error always. Every error is an `AtonceError`, and its `kind` says which.
 * - A payload is a string or bytes; what arrives is a Buffer, with `text` and `json()` to read it. Times are in
 *   milliseconds.
 * - When the connection breaks, the client connects, listens and watches again by itself, and gives one event
 *   `reconnected`; after it presence comes anew. A request that was open then ends with the error `disconnected`: it is
 *   never sent twice.
 * - When `unread` events (or 1 MiB of them) wait, the socket is paused, and the daemon refuses messages to their
 *   senders, or counts them (`lost`). While a request waits for its answer reading goes on up to four times that;
 *   messages beyond are dropped here, and counted as `lost` too.
 *
 * @typedef {{name: string, id: string}} Peer A node: its id is proved, its name is only what it calls itself.
 * @typedef {string | Uint8Array} Payload
 * @typedef {{payload: Buffer, text: string, json: () => any}} Content
 * @typedef {{type: "message", from: Peer, topic: string, path: string, at: string, replyTo: string | null}
 *   & Content} Message
 * @typedef {{from: Peer, path: string, at: string} & Content} Reply
 * @typedef {Message
 *   | {type: "enter", peer: Peer, path: string, snapshot: boolean}
 *   | {type: "exit" | "path", peer: Peer, path: string}
 *   | {type: "listen", peer: Peer, topic: string, snapshot: boolean}
 *   | {type: "unlisten", peer: Peer, topic: string}
 *   | {type: "lost", messages: number, bytes: number}
 *   | {type: "reconnected", why: string}} Event
 * @typedef {{outcome: string, peer: Peer | null, path: string | null, rttUs: number | null}} Sent `outcome` is one of
 *   docs/socket.md, section 5.
 * @typedef {{sent: number, outcomes: {peer: Peer, outcome: string}[] | null}} Published
 * @typedef {{outcome: string, peer: Peer | null, reply: Reply | null}} Answer What became of a request itself, and the
 *   reply if one came in time.
 * @typedef {{ack?: boolean, timeout?: number, whenFull?: "wait" | "drop", whenNoListener?: "end" | "wait",
 *   check?: boolean}} SendOptions `whenNoListener: "wait"`: while nobody listens it waits until `timeout`, and not only
 *   while an app may just be restarting.
 */

import { lstatSync, readlinkSync, statSync } from "node:fs";
import { connect as open } from "node:net";
import { dirname, join } from "node:path";

/** Bytes of a line of the daemon, with its newline. */
const LINE_BYTES = 96 * 1024;
/** Bytes of the path of a Unix socket. */
const SOCKET_PATH_BYTES = 107;
/** Bytes of unread events after which nothing more is read. */
const UNREAD_BYTES = 1024 * 1024;
/** Changes of presence that are kept at most: the whole state of a network of 4096 peers with 15 topics each. */
const PRESENCE_KEPT = 65_536;
/** How long an answer may take beyond the deadline that the daemon was given. */
const GRACE = 2000;
/** Waits between attempts to connect. */
const BACKOFF = { first: 50, last: 2000 };

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Anything that can go wrong here. */
export class AtonceError extends Error {
  /**
   * @param {"unreachable" | "refused" | "disconnected" | "timeout" | "malformed" | "too-big" | "not-delivered"
   *   | "no-reply" | "behind" | "closed"} kind `refused` also has the daemon's `code` and `hint`; `not-delivered` and
   *   `no-reply` have the `result`; `malformed`, `behind` and `closed` are the end of the client.
   * @param {string} message
   * @param {object} [more]
   */
  constructor(kind, message, more = {}) {
    super(message);
    this.name = "AtonceError";
    this.kind = kind;
    Object.assign(this, more);
  }
}

/** Where the daemon of this host listens if nothing else was said, as the atonce command finds it. */
export function defaultSocket() {
  const named = variable("ATONCE_SOCKET");
  if (named) return named;
  const system = "/run/atonce/atonced.sock";
  try {
    statSync(system);
    return system;
  } catch (error) {
    if (error.code !== "ENOENT" && error.code !== "ENOTDIR") return system;
  }
  const runtime = variable("XDG_RUNTIME_DIR");
  return runtime ? `${runtime}/atonce/atonced.sock` : `/tmp/atonce-${process.getuid()}/atonced.sock`;
}

/**
 * Connects to the daemon of this host. `timeout` is for it to answer by itself; how long a message may take is said
 * when it is sent. `unread` events may wait.
 * @param {{socket?: string, timeout?: number, unread?: number}} [options]
 * @returns {Promise<Client>}
 */
export async function connect({ socket = defaultSocket(), timeout = 5000, unread = 1024 } = {}) {
  const client = new Client(socket, timeout, unread);
  await client._connect();
  return client;
}

/** A connection to the daemon; `connect` makes one. */
class Client {
  #path;
  #timeout;
  #unread;
  /** @type {import("node:net").Socket | null} */
  #socket = null;
  #hello = null;
  #ready = false;
  /** Why there will never be anything more. */
  #failure = null;
  /** The error without a number that the daemon said last. */
  #complaint = null;
  /** Why the last connection broke, until the app is told. */
  #broke = null;
  /** The beginning of a line. */
  #partial = Buffer.alloc(0);
  #topics = new Set();
  #watching = null;
  #asks = new Map();
  #lastNumber = 0;
  #events = [];
  #presence = 0;
  #kept = 0;
  #keptBytes = 0;
  #lost = { messages: 0, bytes: 0 };
  /** Those who wait for something that is no answer: functions to call when anything has changed. */
  #waiting = new Set();
  #retry = null;

  constructor(path, timeout, unread) {
    this.#path = path;
    this.#timeout = timeout;
    this.#unread = unread;
  }

  /** What the daemon said of itself: `v`, `version`, `node`, `payloadBytes`, `lineBytes`. */
  get hello() {
    return this.#hello;
  }

  /** Ends the connection. What is open ends with the error `closed`, and iterators end. */
  close() {
    this.#fail(new AtonceError("closed", "the client was closed"));
    this.#socket?.destroySoon();
  }

  /** @returns {AsyncGenerator<Event>} */
  [Symbol.asyncIterator]() {
    return this.events();
  }

  /**
   * The events as they come, until none came for `timeout`.
   * @param {{timeout?: number}} [options]
   * @returns {AsyncGenerator<Event>}
   */
  async *events({ timeout = Infinity } = {}) {
    try {
      for (let event; (event = await this.nextEvent({ timeout })) !== null;) yield event;
    } catch (error) {
      if (error.kind !== "closed") throw error;
    }
  }

  /**
   * The next event, or null when none came for `timeout`.
   * @param {{timeout?: number}} [options]
   * @returns {Promise<Event | null>}
   */
  async nextEvent({ timeout = Infinity } = {}) {
    const there = () => this.#events.length > 0 || this.#lost.messages > 0;
    if (!(await this.#until(there, Date.now() + timeout))) return null;
    const [event, size] = this.#events.shift() ?? [this.#takeLost(), null];
    if (size !== null) {
      this.#presence -= event.type === "message" ? 0 : 1;
      this.#release(1, size);
    }
    return event;
  }

  /** Asks for the messages of a topic. */
  async listen(topic) {
    await this.#ask({ op: "listen", topic });
    this.#topics.add(topic);
  }

  /** No more messages of a topic, please. */
  async unlisten(topic) {
    await this.#ask({ op: "unlisten", topic });
    this.#topics.delete(topic);
  }

  /** Asks to be told who and what is there, and then every change; `own`: of the topics of this node too. */
  async watch({ own = false } = {}) {
    await this.#ask({ op: "watch", own });
    this.#watching = own;
  }

  /**
   * Sends to the listeners of a topic on one peer, an exact name or id; and waits for what becomes of it.
   * @param {string | Peer} to
   * @param {string} topic
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<Sent>}
   */
  async send(to, topic, payload = "", { ack = true, timeout = 5000, whenFull, whenNoListener, check = false } = {}) {
    const when = { when_full: whenFull, when_no_listener: whenNoListener };
    const request = { op: "send", to: to.id ?? to, topic, ack, ...when };
    return checked(sentOf((await this.#ask(request, { payload, timeout })).answer), check);
  }

  /**
   * Sends to the listeners of a topic everywhere. `check` asks for acknowledgements, as `ack` does.
   * @param {string} topic
   * @param {Payload} [payload]
   * @param {SendOptions} [options]
   * @returns {Promise<Published>}
   */
  async publish(topic, payload = "", { ack = false, timeout = 5000, whenFull, whenNoListener, check = false } = {}) {
    const when = { when_full: whenFull, when_no_listener: whenNoListener };
    const request = { op: "publish", topic, ack: ack || check, ...when };
    const { answer } = await this.#ask(request, { payload, timeout });
    const each = (one) => ({ peer: peerOf(one, "peer"), outcome: get(one, "outcome", "string") });
    const outcomes = Array.isArray(answer.outcomes) ? answer.outcomes.map(each) : null;
    const failed = outcomes?.find(({ outcome }) => !isOk(outcome));
    const published = { sent: get(answer, "sent", "number"), outcomes };
    if (check && failed) {
      throw new AtonceError("not-delivered", `not delivered to ${failed.peer.name}: ${failed.outcome}`, {
        result: published,
      });
    }
    return published;
  }

  /**
   * Sends to the listeners of a topic on one peer, and waits for the first reply, until `timeout`.
   * @param {string | Peer} to
   * @param {string} topic
   * @param {Payload} [payload]
   * @param {{timeout?: number, whenNoListener?: "end" | "wait", check?: boolean}} [options]
   * @returns {Promise<Answer>}
   */
  async request(to, topic, payload = "", { timeout = 5000, whenNoListener, check = false } = {}) {
    const request = { op: "send", to: to.id ?? to, topic, ack: true, when_no_listener: whenNoListener, replies: 1 };
    const { answer, parts } = await this.#ask(request, { payload, timeout });
    const { outcome, peer } = sentOf(answer);
    const result = { outcome, peer, reply: parts[0]?.[0] ?? null };
    if (check && result.reply === null) {
      throw new AtonceError("no-reply", `no reply: the request was ${outcome}`, { result });
    }
    return result;
  }

  /**
   * Publishes, and gives the replies as they come, until there are `count`, or until `timeout`. It is asked when the
   * iteration begins.
   * @param {string} topic
   * @param {Payload} [payload]
   * @param {{count?: number, timeout?: number}} [options]
   * @returns {AsyncGenerator<Reply>}
   */
  async *requestAll(topic, payload = "", { count = 1024, timeout = 5000 } = {}) {
    const deadline = Date.now() + timeout;
    const ask = await this.#write(
      { op: "publish", topic, ack: false, replies: count },
      { payload, timeout, streams: true },
    );
    try {
      for (;;) {
        const there = () => ask.parts.length > 0 || ask.done;
        if (!(await this.#until(there, deadline + GRACE))) throw late();
        if (ask.parts.length === 0) break;
        const [reply, size] = ask.parts.shift();
        this.#release(1, size);
        yield reply;
      }
      if (ask.error) throw ask.error;
    } finally {
      this.#forget(ask);
    }
  }

  /**
   * Replies to a message whose sender waits for it (`replyTo`); as often as that one wants.
   * @param {Message} message
   * @param {Payload} [payload]
   * @param {{ack?: boolean, timeout?: number, check?: boolean}} [options]
   * @returns {Promise<Sent>}
   */
  async reply(message, payload = "", { ack = true, timeout = 5000, check = false } = {}) {
    if (message.replyTo === null) throw new TypeError("the sender of this message does not wait for a reply");
    const { answer } = await this.#ask({ op: "reply", reply_to: message.replyTo, ack }, { payload, timeout });
    return checked(sentOf(answer), check);
  }

  /** The peers, those that are offline included, with the fields of docs/socket.md. */
  async peers() {
    return (await this.#ask({ op: "peers" })).parts.map(([peer]) => peer);
  }

  /** How the daemon is, as docs/socket.md tells it. */
  async status() {
    return get((await this.#ask({ op: "status" })).answer, "status", "object");
  }

  /** Measures the way to a peer: `peer`, `sent`, `received`, `rttUs` (with min, p50 and max, or null) and `pongs`. */
  async ping(to, { count = 1, interval = 1000, timeout = 5000 } = {}) {
    const request = {
      op: "ping",
      to: to.id ?? to,
      count,
      interval_ms: milliseconds(interval),
      timeout_ms: milliseconds(timeout),
    };
    const patience = count * Math.max(interval, 10) + timeout + GRACE;
    const { answer, parts } = await this.#ask(request, { patience });
    const [sent, received] = [get(answer, "sent", "number"), get(answer, "received", "number")];
    return {
      peer: peerOf(answer, "peer"),
      sent,
      received,
      rttUs: answer.rtt_us ?? null,
      pongs: parts.map(([pong]) => pong),
    };
  }

  /** Connects for the first time; a failure is told at once. */
  async _connect() {
    await new Promise((resolve, reject) => this.#dial(resolve, reject));
  }

  async #ask(request, options = {}) {
    const deadline = Date.now() + (options.patience ?? options.timeout ?? this.#timeout);
    const ask = await this.#write(request, options);
    try {
      if (!(await this.#settled(ask, deadline + GRACE))) throw late();
      if (ask.error) throw ask.error;
      return ask;
    } finally {
      this.#forget(ask);
    }
  }

  async #write(request, { payload, timeout, patience, streams = false }) {
    const deadline = Date.now() + (patience ?? timeout ?? this.#timeout);
    // Not even a turn of the event loop when it can be written at once: so the order of calls is the order of lines.
    if (!this.#ready && !(await this.#until(() => this.#ready, deadline))) {
      throw new AtonceError("timeout", "the daemon did not come back in time");
    }
    if (this.#failure) throw this.#failure;
    const left = timeout === undefined ? {} : { timeout_ms: milliseconds(deadline - Date.now()) };
    const ask = this.#put({ ...request, ...left }, { payload, streams });
    this.#readOn();
    const socket = this.#socket;
    if (socket.writableNeedDrain) {
      // What it said last may be there to be read when it takes nothing more.
      await this.#until(() => ask.done || !socket.writableNeedDrain || socket.destroyed, deadline + GRACE);
    }
    return ask;
  }

  /** Writes a line. */
  #put(request, { payload, streams = false, then = null } = {}) {
    const id = ++this.#lastNumber;
    const line = this.#line({ ...request, id }, payload);
    const ask = { id, op: request.op, streams, then, parts: [], answer: null, error: null, done: false, settle: null };
    this.#asks.set(id, ask);
    this.#socket.write(line);
    return ask;
  }

  #line(request, payload) {
    const most = this.#hello?.lineBytes ?? LINE_BYTES;
    const written = (fields) => Buffer.from(`${JSON.stringify(fields)}\n`);
    if (payload === undefined) return fitting(written(request), most);
    const bytes = Buffer.from(payload);
    if (bytes.length > this.#hello.payloadBytes) {
      throw new AtonceError(
        "too-big",
        `a message has at most ${this.#hello.payloadBytes} bytes, this one has ${bytes.length}`,
      );
    }
    const text = decoded(bytes);
    const line = text === null ? null : written({ ...request, text });
    // Text of control characters alone grows to six times its size in JSON: base64 always fits.
    if (line !== null && line.length <= most) return line;
    return fitting(written({ ...request, data: bytes.toString("base64") }), most);
  }

  #settled(ask, deadline) {
    if (ask.done) return true;
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), Math.max(0, deadline - Date.now()));
      ask.settle = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
  }

  /** Waits for something that is no answer, and says whether it is there. */
  async #until(there, deadline) {
    while (!there()) {
      if (this.#failure) throw this.#failure;
      const left = deadline - Date.now();
      if (left <= 0) return false;
      await new Promise((resolve) => {
        const timer = left < 2 ** 31 ? setTimeout(woken, left) : null;
        const waiting = this.#waiting;
        waiting.add(woken);
        function woken() {
          clearTimeout(timer);
          waiting.delete(woken);
          resolve();
        }
      });
    }
    return true;
  }

  #changed() {
    for (const woken of [...this.#waiting]) woken();
  }

  #forget(ask) {
    this.#drop(ask);
    // The lines of a listing have no number: they belong to the oldest listing until that is done.
    if (ask.op !== "peers") this.#asks.delete(ask.id);
  }

  /** Drops the replies that nobody will take. */
  #drop(ask) {
    if (!ask.streams) return;
    const parts = ask.parts.splice(0);
    this.#release(
      parts.length,
      parts.reduce((sum, [, size]) => sum + size, 0),
    );
  }

  #release(events, bytes) {
    this.#kept -= events;
    this.#keptBytes -= bytes;
    this.#readOn();
  }

  #wantsInput() {
    if (this.#kept < this.#unread && this.#keptBytes < UNREAD_BYTES) return true;
    for (const ask of this.#asks.values()) if (!(ask.streams && ask.parts.length > 0)) return true;
    return false;
  }

  #readOn() {
    if (this.#socket?.isPaused() && this.#wantsInput()) this.#socket.resume();
  }

  /** Opens a connection, greets, and restores what there was before; then calls one of the two. */
  #dial(ready, failed) {
    const stranger = unfitPath(this.#path);
    if (stranger)
      return failed(new AtonceError("unreachable", `cannot reach the daemon at ${this.#path}: ${stranger}`));
    const socket = open(this.#path);
    let reason = null;
    const hangUp = (error) => {
      reason ??= error;
      socket.destroy();
    };
    const patience = setTimeout(() => hangUp(new AtonceError("timeout", "the daemon does not greet")), this.#timeout);
    socket.on("connect", () => {
      if (this.#failure) return hangUp(this.#failure);
      this.#socket = socket;
      this.#partial = Buffer.alloc(0);
      this.#complaint = null;
      this.#put(
        { op: "hello" },
        {
          then: (ask) =>
            this.#greeted(ask, hangUp, () => {
              clearTimeout(patience);
              this.#ready = true;
              this.#changed();
              ready();
            }),
        },
      );
    });
    socket.on("data", (data) => {
      try {
        this.#feed(data);
      } catch (error) {
        this.#fail(error);
        return hangUp(error);
      }
      if (!this.#wantsInput()) socket.pause();
      this.#changed();
    });
    socket.on("drain", () => this.#changed());
    socket.on("error", (error) => {
      const connected = this.#socket === socket;
      reason ??= connected
        ? null
        : new AtonceError("unreachable", `cannot reach the daemon at ${this.#path}: ${error.message}`);
    });
    socket.on("close", () => {
      clearTimeout(patience);
      const error = this.#complaint ?? reason ?? new AtonceError("disconnected", "the daemon closed the connection");
      const [wasReady, wasConnected] = [this.#ready, this.#socket === socket];
      this.#ready = false;
      if (wasConnected) {
        this.#socket = null;
        this.#broke ??= error.message;
        this.#failAsks(
          new AtonceError("disconnected", `${error.message}, and it is not known what became of the request`),
        );
      }
      if (wasReady) this.#reconnect(BACKOFF.first);
      else failed(error);
      this.#changed();
    });
  }

  #reconnect(delay) {
    if (this.#failure) return;
    const again = () =>
      this.#dial(
        () => {},
        () => this.#reconnect(Math.min(delay * 2, BACKOFF.last)),
      );
    this.#retry = setTimeout(again, delay * (0.5 + Math.random() / 2));
  }

  #greeted(ask, hangUp, ready) {
    if (ask.error) return hangUp(ask.error);
    const hello = get(ask.answer, "hello", "object");
    const number = (name) => get(hello, name, "number");
    this.#hello = {
      v: number("v"),
      version: get(hello, "version", "string"),
      node: peerOf(hello, "node"),
      payloadBytes: number("payload_bytes"),
      lineBytes: number("line_bytes"),
    };
    if (this.#broke !== null) {
      // One is enough when the connection broke again before anything came.
      if (this.#events.at(-1)?.[0].type !== "reconnected") this.#keep({ type: "reconnected", why: this.#broke }, 0);
      this.#broke = null;
    }
    const before = [...this.#topics].map((topic) => ({ op: "listen", topic }));
    if (this.#watching !== null) before.push({ op: "watch", own: this.#watching });
    let left = before.length;
    const restored = (done) => (done.error ? hangUp(done.error) : --left === 0 && ready());
    for (const request of before) this.#put(request, { then: restored });
    if (left === 0) ready();
  }

  #feed(data) {
    let rest = Buffer.concat([this.#partial, data]);
    for (let end; (end = rest.indexOf(10)) >= 0; rest = rest.subarray(end + 1)) this.#take(rest.subarray(0, end));
    if (rest.length >= LINE_BYTES) throw overlong();
    this.#partial = Buffer.from(rest);
  }

  #take(line) {
    if (line.length >= LINE_BYTES) throw overlong();
    const event = objectOf(line);
    const ask = this.#asks.get(event.id);
    switch (event.ev) {
      case "peer": {
        const listing = [...this.#asks.values()].find(({ op }) => op === "peers");
        if (listing) this.#part(listing, event, line.length);
        break;
      }
      case "pong":
        if (ask)
          this.#part(
            ask,
            {
              seq: get(event, "seq", "number"),
              rttUs: event.rtt_us ?? null,
              path: event.path ?? null,
              addr: event.addr ?? null,
              error: event.error ?? null,
            },
            line.length,
          );
        break;
      case "reply":
        if (ask)
          this.#part(
            ask,
            content(event, {
              from: peerOf(event, "from"),
              path: get(event, "path", "string"),
              at: get(event, "at", "string"),
            }),
            line.length,
          );
        break;
      case "ok":
      case "result":
        if (ask) this.#end(ask, event, null);
        break;
      case "error": {
        const [code, message, hint] = ["code", "message", "hint"].map((name) => String(event[name] ?? ""));
        const error = new AtonceError("refused", message, { code, hint });
        if (ask) this.#end(ask, null, error);
        else if (event.id === undefined) this.#complaint = error;
        break;
      }
      default: {
        const happened = eventOf(event);
        if (happened) this.#happened(happened, line.length);
      }
    }
  }

  #part(ask, part, size) {
    if (ask.streams) {
      if (this.#keptBytes >= 4 * UNREAD_BYTES) {
        this.#drop(ask);
        return this.#end(ask, null, new AtonceError("behind", "too many replies wait to be read"));
      }
      this.#kept += 1;
      this.#keptBytes += size;
    } else if (ask.parts.length >= PRESENCE_KEPT) {
      throw new AtonceError("behind", "the daemon does not end its answer");
    }
    ask.parts.push([part, size]);
  }

  #end(ask, answer, error) {
    this.#asks.delete(ask.id);
    Object.assign(ask, { answer, error, done: true });
    ask.then?.(ask);
    ask.settle?.();
  }

  #happened(event, size) {
    if (event.type === "message") {
      if (this.#kept >= 4 * this.#unread || this.#keptBytes >= 4 * UNREAD_BYTES) {
        this.#lost.messages += 1;
        this.#lost.bytes += event.payload.length;
        return;
      }
      if (this.#lost.messages > 0) this.#keep(this.#takeLost(), 0);
    } else if (this.#presence >= PRESENCE_KEPT) {
      throw new AtonceError("behind", "too many events wait to be read");
    }
    this.#keep(event, size);
  }

  #keep(event, size) {
    this.#presence += event.type === "message" ? 0 : 1;
    this.#kept += 1;
    this.#keptBytes += size;
    this.#events.push([event, size]);
  }

  #takeLost() {
    const lost = { type: "lost", ...this.#lost };
    this.#lost = { messages: 0, bytes: 0 };
    return lost;
  }

  #fail(error) {
    this.#failure ??= error;
    this.#ready = false;
    clearTimeout(this.#retry);
    this.#failAsks(this.#failure);
    this.#changed();
  }

  #failAsks(error) {
    for (const ask of [...this.#asks.values()]) this.#end(ask, null, error);
  }
}

const late = () => new AtonceError("timeout", "the daemon did not answer in time");
const overlong = () => new AtonceError("malformed", `the daemon wrote a line of more than ${LINE_BYTES} bytes`);
const isOk = (outcome) => outcome === "delivered" || outcome === "sent";
/** At least one: no time at all is no deadline that the daemon takes. */
const milliseconds = (time) => Math.max(1, Math.ceil(time));

function fitting(line, most) {
  if (line.length <= most) return line;
  throw new AtonceError("too-big", `a request has at most ${most} bytes, this one has ${line.length}`);
}

function decoded(bytes) {
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}

/** Why nobody can serve at a path, or why it may be somebody else's (socket.md, 1); null if neither is so. */
function unfitPath(path) {
  const length = Buffer.byteLength(path);
  if (length > SOCKET_PATH_BYTES) {
    return `its path has ${length} bytes, and the system takes at most ${SOCKET_PATH_BYTES}`;
  }
  const runtime = variable("XDG_RUNTIME_DIR");
  const usual = [`/tmp/atonce-${process.getuid()}/`, ...(runtime ? [`${runtime}/atonce/`] : [])];
  return strangersPart(path, usual.some((directory) => path.startsWith(directory)));
}

/** Follows the way to the socket part by part, as the system would, and tells what another user could have put there. */
function strangersPart(path, isUsual) {
  const isTrusted = (uid) => uid === process.getuid() || uid === 0;
  const partsOf = (text) => text.split("/").filter((part) => part !== "" && part !== ".");
  let at = path.startsWith("/") ? "/" : process.cwd();
  let parts = partsOf(path);
  for (let links = 0; parts.length > 0; ) {
    const part = parts.shift();
    if (part === "..") {
      at = dirname(at);
      continue;
    }
    const foundAt = join(at, part);
    let directory;
    let found;
    let target;
    try {
      directory = lstatSync(at);
      found = lstatSync(foundAt);
      if (found.isSymbolicLink()) target = readlinkSync(foundAt);
    } catch {
      return null; // The connection fails for it, and tells.
    }
    if (isUsual && directory.mode & 0o022) {
      if (!(directory.mode & 0o1000)) return `others may write to ${at}`;
      if (!isTrusted(found.uid)) return `${foundAt} belongs to another user`;
    }
    if (target === undefined) {
      at = foundAt;
      continue;
    }
    if (directory.mode & 0o002 && !isTrusted(found.uid) && found.uid !== directory.uid) {
      return `${foundAt} is a link that belongs to another user`;
    }
    if (++links > 40) return null;
    if (target.startsWith("/")) at = "/";
    parts = [...partsOf(target), ...parts];
  }
  return null;
}

/** What is in a variable; nothing counts as unset. */
function variable(name) {
  return process.env[name]?.trim() || undefined;
}

function objectOf(line) {
  let event;
  try {
    event = JSON.parse(utf8.decode(line));
  } catch {
    throw new AtonceError(
      "malformed",
      `the daemon wrote a line that is no JSON: ${JSON.stringify(line.toString("latin1", 0, 40))}`,
    );
  }
  if (typeof event !== "object" || event === null || Array.isArray(event)) {
    throw new AtonceError("malformed", "the daemon wrote a line that is no object");
  }
  return event;
}

function get(event, name, type) {
  const value = Object.hasOwn(event, name) ? event[name] : undefined;
  if (typeof value !== type || value === null) {
    throw new AtonceError(
      "malformed",
      `the daemon said ${JSON.stringify(value)?.slice(0, 40)} where "${name}" was expected`,
    );
  }
  return value;
}

function peerOf(event, name) {
  const peer = get(event, name, "object");
  return { name: get(peer, "name", "string"), id: get(peer, "id", "string") };
}

function sentOf(answer) {
  const peer = answer.peer ? peerOf(answer, "peer") : null;
  return { outcome: get(answer, "outcome", "string"), peer, path: answer.path ?? null, rttUs: answer.rtt_us ?? null };
}

function checked(sent, check) {
  if (check && !isOk(sent.outcome))
    throw new AtonceError("not-delivered", `not delivered: ${sent.outcome}`, { result: sent });
  return sent;
}

/** Adds what came: `payload`, and `text` and `json()` to read it. */
function content(event, fields) {
  let payload;
  if (event.text !== undefined) {
    payload = Buffer.from(get(event, "text", "string"));
  } else {
    const data = get(event, "data", "string");
    if (data.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(data)) {
      throw new AtonceError("malformed", "the daemon gave a payload that is not base64");
    }
    payload = Buffer.from(data, "base64");
  }
  return {
    ...fields,
    payload,
    get text() {
      return payload.toString();
    },
    json: () => JSON.parse(payload.toString()),
  };
}

/** Something that happened without being asked for, or null if it is of a kind that is not known. */
function eventOf(event) {
  const type = event.ev;
  const path = () => get(event, "path", "string");
  const topic = () => get(event, "topic", "string");
  const snapshot = event.snapshot === true;
  switch (type) {
    case "message":
      return content(event, {
        type,
        from: peerOf(event, "from"),
        topic: topic(),
        path: path(),
        at: get(event, "at", "string"),
        replyTo: event.reply_to === undefined ? null : get(event, "reply_to", "string"),
      });
    case "enter":
      return { type, peer: peerOf(event, "peer"), path: path(), snapshot };
    case "exit":
    case "path":
      return { type, peer: peerOf(event, "peer"), path: path() };
    case "listen":
      return { type, peer: peerOf(event, "peer"), topic: topic(), snapshot };
    case "unlisten":
      return { type, peer: peerOf(event, "peer"), topic: topic() };
    case "lost":
      return { type, messages: get(event, "messages", "number"), bytes: get(event, "bytes", "number") };
    default:
      return null;
  }
}
