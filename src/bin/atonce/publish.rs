//! `atonce publish`: one message to every peer that listens to a topic.

use std::time::Duration;

use atonce::Client;
use atonce::client::{Outcome, PeerOutcome, SendOptions};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::send::when_no_listener;
use crate::{human, input};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the apps listen to
    #[arg(value_parser = input::parse_topic)]
    topic: String,
    /// The message; without it, or with -, standard input byte for byte
    text: Option<String>,
    /// Publish each line of standard input as a message, one after the other; the first failure ends it. How many were
    /// sent is told at the end, and with -v to how many peers each
    #[arg(long)]
    lines: bool,
    /// Wait for what becomes of each copy: exit code 8 if a peer did not get it, or if no other node listens. Without
    /// --ack it is sent to whoever listens, and that nobody does is a note and exit code 0
    #[arg(long)]
    ack: bool,
    /// While nobody listens at all, wait for the first who does until --timeout is over
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let when_no_listener = when_no_listener(options.wait);
    let how = SendOptions { ack: options.ack, timeout, when_no_listener, ..SendOptions::default() };
    let publishing =
        Publishing { topic: &options.topic, how, is_told: !options.lines || output.is_verbose() };
    if options.lines {
        if options.text.as_deref().is_some_and(|text| text != "-") {
            return Err(input::lines_and_text());
        }
        return publishing.lines(client, output).await;
    }
    let message = input::message(options.text.as_deref(), client.hello().payload_bytes, output).await?;
    if publishing.one(client, &message, output).await? == 0 {
        publishing.note_unheard(output);
    }
    Ok(Exit::Ok)
}

/// How the messages of this command are published.
struct Publishing<'a> {
    topic: &'a str,
    how: SendOptions,
    /// For people there is a line about each message.
    is_told: bool,
}

impl Publishing<'_> {
    async fn lines(&self, client: &mut Client, output: &Output) -> Result<Exit, Failure> {
        let mut count = 0;
        let failure = match self.each_line(client, output, &mut count).await {
            Ok(()) => None,
            // Whoever read our output has enough, and is told nothing.
            Err(failure) if failure.what.is_empty() => return Err(failure),
            Err(failure) => Some(failure),
        };
        if !output.is_json() {
            output.note(&format!("{count} sent"));
        }
        let Some(failure) = failure else { return Ok(Exit::Ok) };
        Err(failure.because(format!("it was line {}; what follows was not sent", count + 1)))
    }

    /// Counts those that ended well.
    async fn each_line(&self, client: &mut Client, output: &Output, count: &mut u64) -> Result<(), Failure> {
        let mut lines = input::Lines::new(client.hello().payload_bytes);
        let mut was_heard = true;
        while let Some(line) = lines.next().await? {
            let is_heard = self.one(client, &line, output).await? > 0;
            // Once, and not for each line.
            if was_heard && !is_heard {
                self.note_unheard(output);
            }
            was_heard = is_heard;
            *count += 1;
        }
        Ok(())
    }

    /// To how many peers it was sent.
    async fn one(&self, client: &mut Client, message: &[u8], output: &Output) -> Result<u64, Failure> {
        let published = client.publish(self.topic, message, self.how).await?;
        if output.is_json() {
            output.event("result", &published)?;
        }
        if published.sent == 0 && self.how.ack {
            return Err(self.unheard());
        }
        if self.is_told && !output.is_json() {
            output.line(&format!("sent to {}", human::counted(published.sent, "peer")))?;
        }
        let failed = |copy: &&PeerOutcome<'_>| copy.outcome != Outcome::Delivered;
        let failed: Vec<_> = published.outcomes.iter().flatten().filter(failed).collect();
        if failed.is_empty() {
            return Ok(published.sent);
        }
        let count = human::counted(failed.len() as u64, "peer");
        let failure = Failure::new(Exit::Refused, format!("{count} of {} did not get it", published.sent));
        let each = failed.iter().map(|copy| format!("{}: {}", copy.peer.name, copy.outcome.words()));
        Err(each.fold(failure, Failure::because).try_this("atonce peers --topic shows who listens to it"))
    }

    fn note_unheard(&self, output: &Output) {
        output.note(&format!("no other node listens to {} now", self.topic));
    }

    fn unheard(&self) -> Failure {
        let topic = self.topic;
        Failure::new(Exit::Refused, format!("nobody listens to {topic} now"))
            .because("no peer was reached; apps of this node are not counted")
            .try_this(format!("atonce listen {topic}   (on another node)"))
    }
}
