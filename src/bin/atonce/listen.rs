//! `atonce listen`: the messages of topics, as they come, over restarts of the daemon too.

use std::io;
use std::time::Duration;

use atonce::Client;
use atonce::client::{Error, ErrorCode, Event, Message};
use clap::Args;
use tokio::time::{Instant, timeout_at};

use crate::exec::Program;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::human;
use crate::input::parse_listened;
use crate::output::{Output, escape, escape_bytes};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The topics
    #[arg(required = true, value_name = "TOPIC", value_parser = parse_listened)]
    topics: Vec<String>,
    /// End after this many messages
    #[arg(short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long; with -n, exit code 5 if fewer came
    #[arg(long = "for", value_name = "DUR", value_parser = human::parse_duration)]
    duration: Option<Duration>,
    /// Write what the messages carry and nothing else, byte for byte
    #[arg(long, conflicts_with_all = ["json", "lines", "exec"])]
    raw: bool,
    /// Write what each message carries, byte for byte, and a newline after it
    #[arg(long, conflicts_with_all = ["json", "exec"])]
    lines: bool,
    /// Run CMD by sh for each message, one after the other: the message is its standard input; ATONCE_FROM,
    /// ATONCE_FROM_ID, ATONCE_TOPIC, ATONCE_PATH and ATONCE_AT tell the rest
    #[arg(long, value_name = "CMD", conflicts_with = "json")]
    exec: Option<String>,
    /// What CMD writes to its standard output is the reply to the message, unless it fails
    #[arg(long, requires = "exec")]
    reply: bool,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    patience: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let deadline = options.duration.map(|duration| Instant::now() + duration);
    for topic in &options.topics {
        client.listen(topic).await?;
    }
    output.detail(&format!("listening to {}", options.topics.join(", ")));
    let program =
        options.exec.as_deref().map(|command| Program { command, reply: options.reply, timeout: patience });
    let mut heard = 0;
    loop {
        let event = match deadline {
            Some(deadline) => match timeout_at(deadline, client.next_event()).await {
                Ok(event) => event,
                Err(_) => return over(options, heard),
            },
            None => client.next_event().await,
        };
        let event = match event {
            Ok(event) => event,
            // The connection that this ends is followed by another one.
            Err(Error::Refused { code: ErrorCode::SlowConsumer, message, .. }) => {
                output.note(&message);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match (&event, &program) {
            (Event::Message(message), Some(program)) => program.run(client, message, output).await?,
            _ => write(&event, options, output)?,
        }
        if let Event::Message(_) = event {
            heard += 1;
            if Some(heard) == options.count {
                return Ok(Exit::Ok);
            }
        }
    }
}

fn over(options: &Options, heard: u64) -> Result<Exit, Failure> {
    let Some(count) = options.count else { return Ok(Exit::Ok) };
    let time = human::duration(options.duration.unwrap_or_default());
    Err(Failure::new(
        Exit::TimedOut,
        format!("{heard} of {} within {time}", human::counted(count, "message")),
    )
    .try_this("a longer --for; atonce peers shows who is there"))
}

fn write(event: &Event, options: &Options, output: &Output) -> io::Result<()> {
    match event {
        Event::Lost { messages, .. } => output.note(&format!(
            "{} lost here: they came faster than they were read",
            human::counted(*messages, "message")
        )),
        Event::Disconnected => output.note(GONE),
        Event::Reconnected => output.note("the daemon is back: listening again"),
        Event::Message(_)
        | Event::Enter { .. }
        | Event::Exit { .. }
        | Event::Path { .. }
        | Event::Listen { .. }
        | Event::Unlisten { .. } => {}
    }
    match event {
        _ if output.is_json() => output.object(event),
        Event::Message(message) if options.raw => output.bytes(&message.payload),
        Event::Message(message) if options.lines => output.bytes(&[&message.payload[..], b"\n"].concat()),
        Event::Message(message) => output.line(&line(message, options.topics.len() > 1)),
        Event::Enter { .. }
        | Event::Exit { .. }
        | Event::Path { .. }
        | Event::Listen { .. }
        | Event::Unlisten { .. }
        | Event::Lost { .. }
        | Event::Disconnected
        | Event::Reconnected => Ok(()),
    }
}

/// What people are told when the connection ends.
pub(crate) const GONE: &str = "the daemon is gone; waiting for it to come back";

fn line(message: &Message, with_topic: bool) -> String {
    let (time, name) = (human::time_of_day(&message.at), escape(&message.from.name));
    let topic = if with_topic { format!(" {}", escape(&message.topic)) } else { String::new() };
    format!("{time} {name}{topic}> {}", escape_bytes(&message.payload))
}
