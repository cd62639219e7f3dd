//! `atonce request`: a question to one peer, or to all, and what they reply.

use std::io;
use std::time::{Duration, Instant};

use atonce::Client;
use atonce::client::{Outcome, Published, Reply, RequestOptions};
use atonce::id::Topic;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};

use crate::Arguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, escape, escape_bytes};
use crate::send::{Sending, exit_of, when_no_listener};
use crate::{human, input, lookup};

/// The two ways to call it.
const USAGE: &str = "atonce request [OPTIONS] PEER TOPIC [TEXT]
       atonce request --all [OPTIONS] TOPIC [TEXT]";

// With --all each word is one further to the left: then the first one is the topic.
#[derive(Debug, Args)]
#[command(override_usage = USAGE)]
pub(crate) struct Options {
    /// A name or an id, or the beginning of one; with --all there is none
    #[arg(value_name = "PEER")]
    first: Option<String>,
    /// What its apps listen to
    #[arg(value_name = "TOPIC")]
    second: Option<String>,
    /// The question; without it, or with -, standard input byte for byte
    #[arg(value_name = "TEXT")]
    third: Option<String>,
    /// Ask all who listen to the topic, this node's apps included
    #[arg(long)]
    all: bool,
    /// With --all, end after this many replies; exit code 5 if fewer came in time
    #[arg(short = 'n', value_name = "COUNT", requires = "all", value_parser = clap::value_parser!(u32).range(1..=1024))]
    count: Option<u32>,
    /// With --all, how long replies are waited for [default: as --timeout]
    #[arg(long = "for", value_name = "DUR", requires = "all", value_parser = human::parse_duration)]
    duration: Option<Duration>,
    /// While nobody listens, wait for an app that does until --timeout is over, and not only as long as one may just be
    /// restarting
    #[arg(long)]
    wait: bool,
    /// Write what the replies carry and nothing else, byte for byte
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Replies that the daemon waits for at most.
const MOST: u32 = 1024;

/// What is asked.
struct Question<'a> {
    peer: Option<&'a str>,
    topic: &'a str,
    text: Option<&'a str>,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let Ok(question) = options.question() else { return Err(Failure::silent(Exit::Usage)) };
    let timeout = options.duration.unwrap_or(timeout);
    let Some(peer) = question.peer else { return all(client, options, &question, timeout, output).await };
    let found = lookup::find(client, peer).await?;
    let most = client.hello().payload_bytes;
    let message = input::message(question.text, most, output).await?;
    let how = RequestOptions {
        timeout,
        when_no_listener: when_no_listener(options.wait),
        ..RequestOptions::default()
    };
    let asked = client.request(&found.peer.id.to_string(), question.topic, &message, how).await?;
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
    let when_no_listener = when_no_listener(options.wait);
    let sending = Sending { found: &found, topic: question.topic, ack: true, timeout, when_no_listener };
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
    let how = RequestOptions {
        timeout,
        when_no_listener: when_no_listener(options.wait),
        ..RequestOptions::default()
    };
    let started = Instant::now();
    let mut written: io::Result<()> = Ok(());
    let mut replies = 0;
    let each = |reply: Reply| {
        replies += 1;
        if written.is_ok() {
            written = write(&reply, true, options, output);
        }
    };
    let asked =
        client.request_all(question.topic, &message, options.count.unwrap_or(MOST), how, each).await?;
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
    let is_early = started.elapsed() < timeout;
    if is_early && asked.sent == 0 && replies == 0 {
        return Err(unheard(question.topic));
    }
    let mut what = match options.count {
        Some(count) => format!("{replies} of {}", human::counted_as(count.into(), "reply", "replies")),
        None => "nobody replied".to_owned(),
    };
    if !is_early {
        what.push_str(&format!(" within {}", human::duration(timeout)));
    }
    Err(Failure::new(Exit::TimedOut, what)
        .because(reached(&asked))
        .try_this(format!("atonce peers --topic {} shows who listens to it", question.topic)))
}

/// It went to nobody.
fn unheard(topic: &str) -> Failure {
    Failure::new(Exit::Refused, format!("nobody listens to {topic} now"))
        .because("no app here, and none of a peer that is online, listens to that topic")
        .try_this(format!("atonce listen {topic}   (on any node)"))
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
    /// Tells what is wrong with the words, in the way in which it is told of every command.
    pub(crate) fn check(&self) -> Result<(), clap::Error> {
        let Err((kind, what)) = self.question() else { return Ok(()) };
        let mut all = Arguments::command();
        all.build();
        Err(all
            .find_subcommand_mut("request")
            .map_or_else(|| clap::Error::raw(kind, &what), |command| command.error(kind, &what)))
    }

    fn question(&self) -> Result<Question<'_>, (ErrorKind, String)> {
        let words = [&self.first, &self.second, &self.third].map(Option::as_deref);
        let (peer, topic, text) = match (self.all, words) {
            (true, [_, _, Some(extra)]) => {
                return Err((ErrorKind::UnknownArgument, format!("unexpected argument '{extra}' found")));
            }
            (true, [Some(topic), text, None]) => (None, topic, text),
            (false, [Some(peer), Some(topic), text]) => (Some(peer), topic, text),
            _ => {
                let missing = if self.all || self.first.is_some() { "TOPIC" } else { "PEER\n  TOPIC" };
                let what = format!("the following required arguments were not provided:\n  {missing}");
                return Err((ErrorKind::MissingRequiredArgument, what));
            }
        };
        Topic::check(topic).map_err(|why| {
            (ErrorKind::ValueValidation, format!("invalid value '{topic}' for 'TOPIC': {why}"))
        })?;
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
