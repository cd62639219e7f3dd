//! `atonce send`: one message to one peer, and what became of it.

use std::time::Duration;

use atonce::Client;
use atonce::client::{Error, Outcome, SendOptions, Sent};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::lookup::{self, Found};
use crate::output::{Output, escape};
use crate::peers::path_word;
use crate::{human, input};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A name or an id, or the beginning of one
    peer: String,
    /// What its apps listen to
    #[arg(value_parser = input::parse_topic)]
    topic: String,
    /// The message; without it, or with -, standard input byte for byte
    text: Option<String>,
    /// Send each line of standard input as a message; the first failure ends it
    #[arg(long)]
    lines: bool,
    /// Do not wait for what becomes of it
    #[arg(long)]
    no_ack: bool,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    if options.lines && options.text.as_deref().is_some_and(|text| text != "-") {
        return Err(Failure::new(Exit::Usage, "--lines sends standard input, and there is a TEXT too")
            .try_this("leaving one of them out"));
    }
    let found = lookup::find(client, &options.peer).await?;
    let most = client.hello().payload_bytes;
    let send = Sending { found: &found, topic: &options.topic, ack: !options.no_ack, timeout };
    if !options.lines {
        let message = input::message(options.text.as_deref(), most, output).await?;
        return send.one(client, &message, output).await.map(|()| Exit::Ok);
    }
    let mut number = 0;
    while let Some(line) = input::next_line(most).await? {
        number += 1;
        let numbered =
            |failure: Failure| failure.because(format!("it was line {number}; what follows was not sent"));
        send.one(client, &line, output).await.map_err(numbered)?;
    }
    Ok(Exit::Ok)
}

/// How the messages of this command are sent.
struct Sending<'a> {
    found: &'a Found,
    topic: &'a str,
    ack: bool,
    timeout: Duration,
}

impl Sending<'_> {
    async fn one(&self, client: &mut Client, message: &[u8], output: &Output) -> Result<(), Failure> {
        let options = SendOptions { ack: self.ack, timeout: self.timeout, ..SendOptions::default() };
        let sent = match client.send(&self.found.peer.id.to_string(), self.topic, message, options).await {
            Ok(sent) => sent,
            Err(Error::TooBig { .. }) => {
                let peer = self.found.peer.clone();
                Sent { outcome: Outcome::TooBig, peer, path: None, rtt_us: None }
            }
            Err(error) => return Err(error.into()),
        };
        if output.is_json() {
            output.event("result", &sent)?;
        }
        if exit_of(sent.outcome) != Exit::Ok {
            return Err(self.failure(sent.outcome, client.hello().payload_bytes));
        }
        if !output.is_json() {
            output.line(&line(&sent))?;
        }
        Ok(())
    }

    fn failure(&self, outcome: Outcome, most: u64) -> Failure {
        let (topic, name, timeout) = (self.topic, &self.found.peer.name, human::duration(self.timeout));
        let failure = Failure::new(
            exit_of(outcome),
            match outcome {
                Outcome::NoListener => format!("nobody listens to {topic} on {name}"),
                Outcome::Busy => format!("{name} is busy"),
                Outcome::TooBig => "the message is too big".to_owned(),
                Outcome::Unreachable => format!("{name} is not reachable"),
                Outcome::Timeout => format!("no answer from {name} within {timeout}"),
                Outcome::Delivered | Outcome::Sent => String::new(),
            },
        );
        match outcome {
            Outcome::NoListener => failure
                .because("it was reached, but no app there listens to that topic")
                .try_this(format!("atonce listen {topic}   (on {name})")),
            Outcome::Busy => failure
                .because("the apps that listen there do not read fast enough")
                .try_this("again, or more slowly"),
            Outcome::TooBig => failure
                .because(format!("a message has at most {most} bytes"))
                .try_this("sending it in pieces"),
            Outcome::Unreachable => {
                let no_way = || format!("no way to it was found within {timeout}");
                let why = self.found.absence.clone().unwrap_or_else(no_way);
                self.found.when_unreachable(failure.because(why))
            }
            Outcome::Timeout => {
                failure.because("it was sent, and perhaps delivered").try_this(format!("atonce ping {name}"))
            }
            Outcome::Delivered | Outcome::Sent => failure,
        }
    }
}

fn line(sent: &Sent) -> String {
    let delivered = matches!(sent.outcome, Outcome::Delivered);
    let mut line = format!("{} to {}", if delivered { "delivered" } else { "sent" }, escape(&sent.peer.name));
    if let (true, Some(microseconds)) = (delivered, sent.rtt_us) {
        line.push_str(&format!(" in {}", human::round_trip(microseconds)));
    }
    if let Some(path) = sent.path {
        line.push_str(&format!(" ({})", path_word(path)));
    }
    line
}

/// The exit code of what became of a message.
pub(crate) const fn exit_of(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Delivered | Outcome::Sent => Exit::Ok,
        Outcome::NoListener | Outcome::Busy | Outcome::TooBig => Exit::Refused,
        Outcome::Unreachable | Outcome::Timeout => Exit::TimedOut,
    }
}

/// The daemon's word for what became of a message, as people read it.
pub(crate) const fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Sent => "sent",
        Outcome::NoListener => "nobody listens",
        Outcome::Busy => "busy",
        Outcome::TooBig => "too big",
        Outcome::Unreachable => "unreachable",
        Outcome::Timeout => "no answer",
    }
}
