//! `atonce request`: a question to one peer, or to all, and what they reply.

use std::io;
use std::time::Duration;

use atonce::Client;
use atonce::client::{Outcome, Published, Reply, RequestOptions};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, escape, escape_bytes};
use crate::send::{Sending, exit_of};
use crate::{human, input, lookup};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A peer (a name or an id, or the beginning of one) and what its apps listen to, and the question; with --all no
    /// peer. Without the question, or with -, standard input byte for byte
    #[arg(required = true, num_args = 1..=3, value_names = ["PEER", "TOPIC", "TEXT"])]
    words: Vec<String>,
    /// Ask all who listen to the topic, this node's apps included
    #[arg(long)]
    all: bool,
    /// With --all, end after this many replies; exit code 5 if fewer came in time
    #[arg(short = 'n', value_name = "COUNT", requires = "all", value_parser = clap::value_parser!(u32).range(1..=1024))]
    count: Option<u32>,
    /// With --all, how long replies are waited for [default: as --timeout]
    #[arg(long = "for", value_name = "DUR", requires = "all", value_parser = human::parse_duration)]
    duration: Option<Duration>,
    /// Write what the replies carry and nothing else, byte for byte
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Replies that the daemon waits for at most.
const MOST: u32 = 1024;

/// What is asked.
struct Question<'a> {
    peer: Option<&'a str>,
    topic: String,
    text: Option<&'a str>,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let question = options.question()?;
    let timeout = options.duration.unwrap_or(timeout);
    let Some(peer) = question.peer else { return all(client, options, &question, timeout, output).await };
    let found = lookup::find(client, peer).await?;
    let most = client.hello().payload_bytes;
    let message = input::message(question.text, most, output).await?;
    let how = RequestOptions { timeout, ..RequestOptions::default() };
    let asked = client.request(&found.peer.id.to_string(), &question.topic, &message, how).await?;
    if let Some(reply) = &asked.reply {
        write(reply, false, options, output)?;
    }
    if output.is_json() {
        output.event("result", &asked.sent)?;
    }
    if asked.reply.is_some() {
        return Ok(Exit::Ok);
    }
    let (outcome, name) = (asked.sent.outcome, &found.peer.name);
    if exit_of(outcome) == Exit::Ok {
        if asked.sent.replies.is_none() {
            return Err(too_old());
        }
        let within = human::duration(timeout);
        return Err(Failure::new(Exit::TimedOut, format!("no reply from {name} within {within}"))
            .because(format!("an app there has the question, and may not answer to {}", question.topic))
            .try_this("a longer --timeout"));
    }
    let sending = Sending { found: &found, topic: &question.topic, ack: true, timeout };
    Err(sending.failure(outcome, most))
}

async fn all(
    client: &mut Client,
    options: &Options,
    question: &Question<'_>,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let message = input::message(question.text, client.hello().payload_bytes, output).await?;
    let how = RequestOptions { timeout, ..RequestOptions::default() };
    let mut written: io::Result<()> = Ok(());
    let mut replies = 0;
    let each = |reply: Reply| {
        replies += 1;
        if written.is_ok() {
            written = write(&reply, true, options, output);
        }
    };
    let asked =
        client.request_all(&question.topic, &message, options.count.unwrap_or(MOST), how, each).await?;
    written?;
    if output.is_json() {
        output.event("result", &asked)?;
    }
    if replies >= options.count.unwrap_or(1) {
        return Ok(Exit::Ok);
    }
    if asked.replies.is_none() {
        return Err(too_old());
    }
    let within = human::duration(timeout);
    let what = match options.count {
        Some(count) => {
            format!("{replies} of {} within {within}", human::counted_as(count.into(), "reply", "replies"))
        }
        None => format!("nobody replied within {within}"),
    };
    Err(Failure::new(Exit::TimedOut, what)
        .because(reached(&asked))
        .try_this(format!("atonce peers --topic {} shows who listens to it", question.topic)))
}

/// The daemon took the question for a message like any other.
fn too_old() -> Failure {
    Failure::new(Exit::Other, "the daemon of this host does not wait for replies")
        .because("it is older than this atonce; the question was sent as a message")
        .try_this("restarting it, or a newer atonced: atonced --version")
}

/// Whom the question reached.
fn reached(asked: &Published) -> String {
    let delivered = |outcome| outcome == Outcome::Delivered;
    let Some(outcomes) = &asked.outcomes else {
        return format!("it was sent to {}", human::counted(asked.sent, "peer"));
    };
    let count = outcomes.iter().filter(|copy| delivered(copy.outcome)).count() as u64;
    format!("it was sent to {}, and delivered to {count}", human::counted(asked.sent, "peer"))
}

impl Options {
    fn question(&self) -> Result<Question<'_>, Failure> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let (peer, topic, text) = match (self.all, &words[..]) {
            (true, [topic]) => (None, *topic, None),
            (true, [topic, text]) => (None, *topic, Some(*text)),
            (false, [peer, topic]) => (Some(*peer), *topic, None),
            (false, [peer, topic, text]) => (Some(*peer), *topic, Some(*text)),
            _ => {
                return Err(Failure::new(
                    Exit::Usage,
                    "a request has a PEER and a TOPIC, or --all and a TOPIC",
                )
                .try_this("atonce help request"));
            }
        };
        let topic = input::parse_topic(topic).map_err(|why| Failure::new(Exit::Usage, why))?;
        Ok(Question { peer, topic, text })
    }
}

fn write(reply: &Reply, with_name: bool, options: &Options, output: &Output) -> io::Result<()> {
    if output.is_json() {
        return output.event("reply", reply);
    }
    if options.raw {
        return output.bytes(&reply.payload);
    }
    // What a program of the shell writes ends with a newline, and so does our line.
    let payload = reply.payload.strip_suffix(b"\n").unwrap_or(&reply.payload);
    let name = if with_name { format!("{}> ", escape(&reply.from.name)) } else { String::new() };
    output.line(&format!("{name}{}", escape_bytes(payload)))
}
