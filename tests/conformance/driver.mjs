// Does with the Node client what its standard input says, one JSON object a line, and prints what came of each. The
// commands are those of tests/conformance/driver.rs.

import { createInterface } from "node:readline";
import { AtonceError, connect } from "../../examples/node/atonce.mjs";

const tell = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
const bytes = (command) => Buffer.from(command.data, "base64");
const options = ({ timeout_ms: timeout = 5000, when_no_listener: whenNoListener, check = false }) =>
  ({ timeout, whenNoListener, check });

/** An event, with the names that all clients share. */
function shown(event) {
  if (event === null) return { error: "timeout" };
  const { type, peer, topic, snapshot, messages } = event;
  if (type === "message") {
    const data = event.payload.toString("base64");
    return { event: type, from: event.from.name, topic, data, path: event.path, reply_to: event.replyTo };
  }
  return { event: type, peer: peer?.name, topic, snapshot, messages, bytes: event.bytes };
}

function shownError(error) {
  if (!(error instanceof AtonceError)) throw error;
  return { error: error.kind, code: error.code, message: error.message };
}

function shownAnswer({ outcome, reply }) {
  return { outcome, reply: reply && reply.payload.toString("base64"), from: reply && reply.from.name };
}

async function sendMany(me, { to, topic, count }) {
  const sends = Array.from({ length: count }, (_, number) => me.send(to, topic, String(number)));
  const outcomes = {};
  for (const { outcome } of await Promise.all(sends)) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  return { outcomes };
}

async function requestAll(me, command) {
  const replies = [];
  const asked = me.requestAll(command.topic, bytes(command), { count: command.count, ...options(command) });
  for await (const reply of asked) replies.push(reply.payload.toString("base64"));
  return { replies };
}

async function perform(me, command) {
  const { to, topic } = command;
  switch (command.do) {
    case "next":
      return shown(await me.nextEvent({ timeout: command.timeout_ms ?? 10_000 }));
    case "listen":
      await me.listen(topic);
      return {};
    case "unlisten":
      await me.unlisten(topic);
      return {};
    case "watch":
      await me.watch();
      return {};
    case "send":
      return { outcome: (await me.send(to, topic, bytes(command), options(command))).outcome };
    case "send-many":
      return sendMany(me, command);
    case "publish": {
      const { sent, outcomes } = await me.publish(topic, bytes(command), { ack: command.ack, ...options(command) });
      return { sent, outcomes: outcomes && outcomes.map(({ peer, outcome }) => [peer.name, outcome]) };
    }
    case "request":
      return shownAnswer(await me.request(to, topic, bytes(command), options(command)));
    case "request-all":
      return requestAll(me, command);
    case "reply":
      return { outcome: (await me.reply({ replyTo: command.reply_to }, bytes(command), options(command))).outcome };
    case "peers":
      return { peers: Object.fromEntries((await me.peers()).map(({ name, state }) => [name, state])) };
    case "status":
      return { name: (await me.status()).name };
    case "ping":
      return { received: (await me.ping(to)).received };
    default:
      throw new TypeError(command.do);
  }
}

try {
  const me = await connect();
  tell({ v: me.hello.v, name: me.hello.node.name, payload_bytes: me.hello.payloadBytes });
  for await (const line of createInterface({ input: process.stdin })) {
    tell(await perform(me, JSON.parse(line)).catch(shownError));
  }
  me.close();
} catch (error) {
  tell(shownError(error));
}
