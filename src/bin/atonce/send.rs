//! `atonce send`: one message to one peer, or many, and what became of each.

use std::collections::BTreeMap;
use std::time::Duration;

use atonce::Client;
use atonce::client::{Error, Outcome, SendId, SendOptions, Sent, WhenNoListener};
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
    /// Send each line of standard input as a message, many at once and in their order; the first failure ends it. How
    /// many went well is told at the end, and with -v what became of each
    #[arg(long)]
    lines: bool,
    /// Do not wait for what becomes of it
    #[arg(long)]
    no_ack: bool,
    /// While nobody listens, wait for an app that does until --timeout is over, and not only as long as one may just be
    /// restarting
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    if options.lines && options.text.as_deref().is_some_and(|text| text != "-") {
        return Err(input::lines_and_text());
    }
    let found = lookup::find(client, &options.peer).await?;
    let when_no_listener = when_no_listener(options.wait);
    let send =
        Sending { found: &found, topic: &options.topic, ack: !options.no_ack, timeout, when_no_listener };
    if options.lines {
        return Stream { send, numbers: BTreeMap::new(), done: 0, failed: None }.run(client, output).await;
    }
    let message = input::message(options.text.as_deref(), client.hello().payload_bytes, output).await?;
    send.one(client, &message, output).await.map(|()| Exit::Ok)
}

/// How the messages of this command are sent.
pub(crate) struct Sending<'a> {
    pub(crate) found: &'a Found,
    pub(crate) topic: &'a str,
    pub(crate) ack: bool,
    pub(crate) timeout: Duration,
    pub(crate) when_no_listener: WhenNoListener,
}

/// What `--wait` says.
pub(crate) const fn when_no_listener(wait: bool) -> WhenNoListener {
    if wait { WhenNoListener::Wait } else { WhenNoListener::End }
}

impl Sending<'_> {
    async fn one(&self, client: &mut Client, message: &[u8], output: &Output) -> Result<(), Failure> {
        let id = self.found.peer.id.to_string();
        let ended = client.send(&id, self.topic, message, self.options()).await;
        let sent = self.told(ended, client.hello().payload_bytes, output)?;
        write(&sent, output)
    }

    pub(crate) fn options(&self) -> SendOptions {
        let when_no_listener = self.when_no_listener;
        SendOptions { ack: self.ack, timeout: self.timeout, when_no_listener, ..SendOptions::default() }
    }

    /// What became of a message, for programs also as an object, of a failed one too.
    fn told(&self, ended: Result<Sent, Error>, most: u64, output: &Output) -> Result<Sent, Failure> {
        let sent = match ended {
            Ok(sent) => sent,
            Err(Error::TooBig { .. }) => {
                let peer = self.found.peer.clone();
                Sent { outcome: Outcome::TooBig, peer, path: None, rtt_us: None, replies: None }
            }
            Err(error) => return Err(error.into()),
        };
        if output.is_json() {
            output.event("result", &sent)?;
        }
        if exit_of(sent.outcome) != Exit::Ok {
            return Err(self.failure(sent.outcome, most));
        }
        Ok(sent)
    }

    pub(crate) fn failure(&self, outcome: Outcome, most: u64) -> Failure {
        if outcome == Outcome::TooBig {
            return Failure::too_big(most);
        }
        let (topic, name, timeout) = (self.topic, &self.found.peer.name, human::duration(self.timeout));
        let failure = Failure::new(
            exit_of(outcome),
            match outcome {
                Outcome::NoListener => format!("nobody listens to {topic} on {name}"),
                Outcome::Busy => format!("{name} is busy"),
                Outcome::Unreachable => format!("{name} is not reachable"),
                Outcome::Timeout => format!("no answer from {name} within {timeout}"),
                Outcome::TooBig | Outcome::Delivered | Outcome::Sent => String::new(),
            },
        );
        match outcome {
            Outcome::NoListener => failure
                .because("it was reached, but no app there listens to that topic")
                .try_this(format!("atonce listen {topic}   (on {name})")),
            Outcome::Busy => failure
                .because("the apps that listen there do not read fast enough")
                .try_this("again, or more slowly"),
            Outcome::Unreachable => {
                let no_way = || format!("no way to it was found within {timeout}");
                let why = self.found.absence.clone().unwrap_or_else(no_way);
                self.found.when_unreachable(failure.because(why))
            }
            Outcome::Timeout => {
                failure.because("it was sent, and perhaps delivered").try_this(format!("atonce ping {name}"))
            }
            Outcome::TooBig | Outcome::Delivered | Outcome::Sent => failure,
        }
    }
}

/// Messages that are under way at once: enough to keep every way busy.
const AT_ONCE: usize = 256;

/// The lines of standard input on their way.
struct Stream<'a> {
    send: Sending<'a>,
    /// Which line each message is.
    numbers: BTreeMap<SendId, u64>,
    /// How many have ended well.
    done: u64,
    /// The first failure and its line.
    failed: Option<(u64, Failure)>,
}

impl Stream<'_> {
    async fn run(mut self, client: &mut Client, output: &Output) -> Result<Exit, Failure> {
        let id = self.send.found.peer.id.to_string();
        let most = client.hello().payload_bytes;
        let mut lines = input::Lines::new(most);
        let (mut number, mut is_over) = (0, false);
        loop {
            tokio::select! {
                line = lines.next(), if !is_over && self.failed.is_none() && self.numbers.len() < AT_ONCE => {
                    let Some(line) = line? else {
                        is_over = true;
                        continue;
                    };
                    number += 1;
                    match client.start_send(&id, self.send.topic, &line, self.send.options()).await {
                        Ok(id) => drop(self.numbers.insert(id, number)),
                        Err(error) => self.ended(number, Err(error), most, output),
                    }
                }
                ended = client.next_outcome(), if !self.numbers.is_empty() => {
                    let Some(ended) = ended? else { continue };
                    let Some(number) = self.numbers.remove(&ended.id) else { continue };
                    self.ended(number, ended.result, most, output);
                }
                else => break,
            }
        }
        let left = |failure: &Failure| failure.what.is_empty();
        if !output.is_json() && !self.failed.as_ref().is_some_and(|(_, failure)| left(failure)) {
            let became = if self.send.ack { "delivered" } else { "sent" };
            output.note(&format!("{} {became} to {}", self.done, self.send.found.peer.name));
        }
        let Some((line, failure)) = self.failed else { return Ok(Exit::Ok) };
        if left(&failure) {
            return Err(failure);
        }
        let after = match number - line {
            0 => "what follows was not sent".to_owned(),
            after => format!("{} after it had been sent already", human::counted(after, "line")),
        };
        Err(failure.because(format!("it was line {line}; {after}")))
    }

    fn ended(&mut self, number: u64, result: Result<Sent, Error>, most: u64, output: &Output) {
        let told = self.send.told(result, most, output).and_then(|sent| {
            self.done += 1;
            if output.is_verbose() { write(&sent, output) } else { Ok(()) }
        });
        if let Err(failure) = told
            && self.failed.as_ref().is_none_or(|(first, _)| number < *first)
        {
            self.failed = Some((number, failure));
        }
    }
}

fn write(sent: &Sent, output: &Output) -> Result<(), Failure> {
    if !output.is_json() {
        output.line(&line(sent))?;
    }
    Ok(())
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
