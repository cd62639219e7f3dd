#!/usr/bin/env node
// Sends a file to another device, where somebody waits for files.
//
//     filedrop.mjs receive DIRECTORY     puts what comes into the directory
//     filedrop.mjs send PEER FILE        sends a file to a peer, by its name or id
//
// How it works: the sender makes an offer (name, size, checksum), the receiver answers from which byte on it wants
// the file, and then come chunks, some of them under way at once. The receiver takes only the chunk that continues
// what it has; at a gap it answers again. So a transfer that broke, at either end, goes on where it was when the file
// is sent again. At the end the receiver compares the checksum and gives the file its name; it never overwrites one.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { constants, link, open, readdir, rm, stat, unlink } from "node:fs/promises";
import { basename, extname, join } from "node:path";

import { AtonceError, connect } from "./atonce.mjs";

const TOPIC = "filedrop";
const ANSWERS = "filedrop.answer";
/** Chunks that are under way at once. */
const WINDOW = 16;
/** Offers without an answer or progress after which the sender gives up, and the milliseconds for each. */
const OFFERS = 10;
const PATIENCE = 2000;
/** What the receiver takes: the size of a file, and how many that are not whole yet. */
const MOST_BYTES = 1024 ** 3;
const MOST_PARTS = 32;
/** A chunk begins with a zero, the checksum of its file, and its place in it. Everything else is JSON. */
const HEADER_BYTES = 1 + 32 + 8;

class Failure extends Error {}

/** What goes wrong with one file, and is told to its sender. */
class Refusal extends Error {}

/** Sends one file. */
async function send(peer, path) {
  const file = await open(path).catch((error) => {
    throw new Failure(error.message);
  });
  const size = (await file.stat()).size;
  if (size > MOST_BYTES) throw new Failure(`${path} has more than ${MOST_BYTES} bytes`);
  const hash = await checksum(path);
  const me = await connect();
  await me.listen(ANSWERS);
  const answers = new Answers(me, peer, hash.toString("hex"));
  const offer = { name: basename(path), size, sha256: hash.toString("hex") };
  const most = me.hello.payloadBytes - HEADER_BYTES;
  for (let left = OFFERS, furthest = -1; left > 0; left -= 1) {
    const answer = await offered(me, peer, offer, answers);
    if (answer === null) continue;
    if (answer.done === undefined && !(Number.isSafeInteger(answer.at) && answer.at >= 0 && answer.at <= size)) {
      throw new Failure(`${peer} answers what no receiver of files would`);
    }
    if (answer.at > furthest) [left, furthest] = [OFFERS, answer.at];
    if (answer.done === undefined) await transfer(me, peer, file, hash, { at: answer.at, size, most }, answers);
    const end = answer.done === undefined ? await answers.next(PATIENCE) : answer;
    if (end?.done !== undefined) {
      console.log(`sent ${shown(offer.name)} to ${peer}: ${size} bytes, there as ${shown(end.done)}`);
      await file.close();
      return me.close();
    }
  }
  throw new Failure(`${peer} does not take the file; what is there already is kept: try again`);
}

/** Makes the offer, and gives the answer, or null when none came. */
async function offered(me, peer, offer, answers) {
  answers.clear();
  const { outcome } = await me.send(peer, TOPIC, JSON.stringify(offer), { timeout: PATIENCE });
  if (outcome === "no-listener")
    throw new Failure(`nobody waits for files at ${peer} (filedrop.mjs receive DIRECTORY)`);
  if (outcome === "unreachable") throw new Failure(`${peer} is not reachable`);
  return answers.next(PATIENCE);
}

/** Sends chunks from a place on, until all are acknowledged or something asks to begin anew. */
async function transfer(me, peer, file, hash, { at, size, most }, answers) {
  const underWay = new Set();
  let broken = false;
  while (at < size && !broken && answers.isEmpty()) {
    const header = Buffer.alloc(HEADER_BYTES);
    hash.copy(header, 1);
    header.writeBigUInt64BE(BigInt(at), 33);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(most), 0, most, at);
    if (bytesRead === 0) throw new Failure("the file became shorter while it was sent");
    at += bytesRead;
    const chunk = me
      .send(peer, TOPIC, Buffer.concat([header, buffer.subarray(0, bytesRead)]))
      .then(({ outcome }) => (broken ||= outcome !== "delivered"))
      .catch((error) => {
        if (!(error instanceof AtonceError)) throw error;
        broken = true;
      })
      .finally(() => underWay.delete(chunk));
    underWay.add(chunk);
    if (underWay.size >= WINDOW) await Promise.race(underWay);
    showProgress(at, size);
  }
  await Promise.all(underWay);
}

/** What the receiver says of one file. */
class Answers {
  #me;
  #peer;
  #sha256;
  #waiting = [];
  #wake = () => {};

  constructor(me, peer, sha256) {
    this.#me = me;
    this.#peer = peer;
    this.#sha256 = sha256;
    this.#read().catch(fail);
  }

  isEmpty() {
    return this.#waiting.length === 0;
  }

  clear() {
    this.#waiting = [];
  }

  async next(timeout) {
    const deadline = Date.now() + timeout;
    while (this.isEmpty() && Date.now() < deadline) {
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, deadline - Date.now());
        this.#wake = () => resolve(clearTimeout(timer));
      });
    }
    const answer = this.#waiting.shift() ?? null;
    if (answer?.error !== undefined) throw new Failure(`it was refused: ${shown(answer.error)}`);
    return answer;
  }

  async #read() {
    for await (const event of this.#me) {
      if (event.type !== "message" || ![event.from.id, event.from.name].includes(this.#peer)) continue;
      const answer = parsed(event);
      if (answer?.sha256 !== this.#sha256) continue;
      // The newest one counts.
      this.#waiting = [answer];
      this.#wake();
    }
  }
}

/** Takes files until it is stopped. */
async function receive(directory) {
  if (!(await stat(directory).catch(() => null))?.isDirectory()) throw new Failure(`${directory} is no directory`);
  const me = await connect();
  await me.listen(TOPIC);
  console.log(`waiting for files at ${me.hello.node.name}`);
  const parts = new Map();
  for await (const event of me) {
    if (event.type !== "message") continue;
    const sha256 = shaOf(event);
    if (sha256 === null) continue;
    const key = `${event.from.id}.${sha256}`;
    let answer;
    try {
      const isChunk = event.payload[0] === 0;
      answer = isChunk
        ? await proceed(parts.get(key), event.payload)
        : await begin(parts, directory, key, parsed(event));
    } catch (error) {
      // What the disk says, too, is told to the sender: it can do nothing else.
      answer = { error: error instanceof Refusal ? error.message : `the receiver has trouble: ${error.code ?? error}` };
      console.error(`filedrop: a file of ${event.from.name}: ${answer.error}`);
    }
    if (answer === null) continue;
    const part = parts.get(key);
    if (answer.at === undefined && part) {
      parts.delete(key);
      await part.file.close();
    }
    if (answer.done) console.log(`${shown(answer.done)}: ${part.size} bytes from ${event.from.name}`);
    // Nobody waits for it: messages go on meanwhile, and a lost answer is asked for again.
    me.send(event.from, ANSWERS, JSON.stringify({ sha256, ...answer })).catch((error) => {
      if (!(error instanceof AtonceError)) throw error;
    });
  }
}

/** Opens the place for an offered file, and says from where it is wanted. */
async function begin(parts, directory, key, { name, size, sha256 }) {
  if (!isSafe(name)) throw new Refusal("that name is not taken; it must be a plain name of at most 200 bytes");
  if (!Number.isSafeInteger(size) || size < 0 || size > MOST_BYTES)
    throw new Refusal(`at most ${MOST_BYTES} bytes are taken`);
  let part = parts.get(key);
  if (part === undefined) {
    const path = join(directory, `.filedrop-${key}`);
    const there = (await readdir(directory)).filter((file) => file.startsWith(".filedrop-"));
    if (there.length >= MOST_PARTS && !there.includes(basename(path))) {
      throw new Refusal("too many files are not whole yet; remove .filedrop-* there");
    }
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const file = await open(path, flags, 0o600);
    part = { name, size, sha256, directory, path, file, at: Math.min((await file.stat()).size, size), asked: -1 };
    parts.set(key, part);
  }
  part.asked = -1;
  return part.at === part.size ? finish(part) : { at: part.at };
}

/** Takes a chunk if it is the next one. */
async function proceed(part, payload) {
  if (part === undefined) return null;
  const [at, chunk] = [payload.readBigUInt64BE(33), payload.subarray(HEADER_BYTES)];
  if (at > BigInt(part.at) && part.asked !== part.at) {
    // Once for each gap: more chunks of it are on their way.
    part.asked = part.at;
    return { at: part.at };
  }
  if (at !== BigInt(part.at)) return null;
  if (part.at + chunk.length > part.size) throw new Refusal("more comes than was offered");
  await part.file.write(chunk, 0, chunk.length, part.at);
  part.at += chunk.length;
  return part.at === part.size ? finish(part) : null;
}

/** Compares the checksum, and gives the file its name. */
async function finish(part) {
  await part.file.truncate(part.size);
  await part.file.sync();
  if ((await checksum(part.path)).toString("hex") !== part.sha256) {
    await rm(part.path);
    throw new Refusal("the checksum is another one; did the file change?");
  }
  const extension = extname(part.name);
  for (let number = 1; number < 1000; number += 1) {
    const name = number === 1 ? part.name : `${basename(part.name, extension)}-${number}${extension}`;
    try {
      // A link, since it overwrites nothing.
      await link(part.path, join(part.directory, name));
    } catch (error) {
      if (error.code !== "EEXIST") throw error;
      continue;
    }
    await unlink(part.path);
    return { done: name };
  }
  throw new Refusal("there are too many files of that name");
}

/** Whether a name leads to a new visible file of the directory and nowhere else. */
function isSafe(name) {
  return typeof name === "string" && Buffer.byteLength(name) <= 200 && /^[^-.\s/\\\p{C}][^/\\\p{C}]*$/u.test(name);
}

/** The checksum of the file that a message is about; null if it is about none. */
function shaOf(message) {
  const { payload } = message;
  if (payload[0] === 0) return payload.length > HEADER_BYTES ? payload.toString("hex", 1, 33) : null;
  const sha256 = parsed(message)?.sha256;
  return typeof sha256 === "string" && /^[0-9a-f]{64}$/.test(sha256) ? sha256 : null;
}

/** What came from the network may hold anything, even escapes for the terminal. */
function shown(text) {
  return `"${String(text).replace(/\p{C}/gu, "\ufffd")}"`;
}

function parsed(message) {
  try {
    return message.json();
  } catch {
    return null;
  }
}

async function checksum(path) {
  const hash = createHash("sha256");
  for await (const data of createReadStream(path)) hash.update(data);
  return hash.digest();
}

function showProgress(at, size) {
  if (process.stderr.isTTY) process.stderr.write(`\r${Math.floor((at / size) * 100)} %${at === size ? "\n" : ""}`);
}

function fail(error) {
  // An error of the system, as of a file that cannot be read, explains itself too.
  if (!(error instanceof Failure || error instanceof AtonceError || error.syscall)) throw error;
  console.error(`filedrop: ${error.message}`);
  process.exit(1);
}

process.on("SIGINT", () => process.exit(130));
const [command, ...rest] = process.argv.slice(2);
if (command === "send" && rest.length === 2) {
  send(...rest).catch(fail);
} else if (command === "receive" && rest.length === 1) {
  receive(rest[0]).catch(fail);
} else {
  console.error("usage: filedrop.mjs send PEER FILE\n       filedrop.mjs receive DIRECTORY");
  process.exit(2);
}
