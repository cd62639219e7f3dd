//! `atonce publish`: one message to every peer that listens to a topic.

use std::time::Duration;

use atonce::Client;
use atonce::client::{Outcome, PeerOutcome, SendOptions};
use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::{human, input};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the apps listen to
    #[arg(value_parser = input::parse_topic)]
    topic: String,
    /// The message; without it, or with -, standard input byte for byte
    text: Option<String>,
    /// Publish each line of standard input as a message, one after the other; the first failure ends it
    #[arg(long)]
    lines: bool,
    /// Wait for what becomes of each copy
    #[arg(long)]
    ack: bool,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let how = SendOptions { ack: options.ack, timeout, ..SendOptions::default() };
    if !options.lines {
        let message = input::message(options.text.as_deref(), client.hello().payload_bytes, output).await?;
        return one(client, &options.topic, &message, how, output).await.map(|()| Exit::Ok);
    }
    if options.text.as_deref().is_some_and(|text| text != "-") {
        return Err(input::lines_and_text());
    }
    let mut lines = input::Lines::new(client.hello().payload_bytes);
    let mut number = 0;
    while let Some(line) = lines.next().await? {
        number += 1;
        let numbered = |failure: Failure| {
            // Whoever read our output has enough, and is told nothing.
            if failure.what.is_empty() {
                return failure;
            }
            failure.because(format!("it was line {number}; what follows was not sent"))
        };
        one(client, &options.topic, &line, how, output).await.map_err(numbered)?;
    }
    Ok(Exit::Ok)
}

async fn one(
    client: &mut Client,
    topic: &str,
    message: &[u8],
    how: SendOptions,
    output: &Output,
) -> Result<(), Failure> {
    let published = client.publish(topic, message, how).await?;
    if output.is_json() {
        output.event("result", &published)?;
    } else {
        output.line(&format!("sent to {}", human::counted(published.sent, "peer")))?;
    }
    if published.sent == 0 {
        output.note(&format!("no other node listens to {topic} now"));
    }
    let failed = |copy: &&PeerOutcome<'_>| copy.outcome != Outcome::Delivered;
    let failed: Vec<_> = published.outcomes.iter().flatten().filter(failed).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let count = human::counted(failed.len() as u64, "peer");
    let failure = Failure::new(Exit::Refused, format!("{count} of {} did not get it", published.sent));
    let each = failed.iter().map(|copy| format!("{}: {}", copy.peer.name, copy.outcome.words()));
    Err(each.fold(failure, Failure::because).try_this("atonce peers --topic shows who listens to it"))
}
