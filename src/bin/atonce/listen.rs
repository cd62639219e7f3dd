//! `atonce listen`: the messages of topics, as they come.

use std::io;
use std::time::Duration;

use atonce::Client;
use atonce::client::{Event, Message};
use clap::Args;
use tokio::time::{Instant, timeout_at};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::human;
use crate::input::parse_topic;
use crate::output::{Output, escape, escape_bytes};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The topics
    #[arg(required = true, value_name = "TOPIC", value_parser = parse_topic)]
    topics: Vec<String>,
    /// End after this many messages
    #[arg(short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long; with -n, exit code 5 if fewer came
    #[arg(long = "for", value_name = "DUR", value_parser = human::parse_duration)]
    duration: Option<Duration>,
    /// Write what the messages carry and nothing else, byte for byte
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub(crate) async fn run(client: &mut Client, options: &Options, output: &Output) -> Result<Exit, Failure> {
    let deadline = options.duration.map(|duration| Instant::now() + duration);
    for topic in &options.topics {
        client.listen(topic).await?;
    }
    output.detail(&format!("listening to {}", options.topics.join(", ")));
    let mut heard = 0;
    loop {
        let event = match deadline {
            Some(deadline) => match timeout_at(deadline, client.next_event()).await {
                Ok(event) => event?,
                Err(_) => return over(options, heard),
            },
            None => client.next_event().await?,
        };
        write(&event, options, output)?;
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
    if let Event::Lost { messages, .. } = event {
        output.note(&format!(
            "{} lost here: they came faster than they were read",
            human::counted(*messages, "message")
        ));
    }
    match event {
        _ if output.is_json() => output.object(event),
        Event::Message(message) if options.raw => output.bytes(&message.payload),
        Event::Message(message) => output.line(&line(message, options.topics.len() > 1)),
        Event::Enter { .. }
        | Event::Exit { .. }
        | Event::Path { .. }
        | Event::Listen { .. }
        | Event::Unlisten { .. }
        | Event::Lost { .. } => Ok(()),
    }
}

fn line(message: &Message, with_topic: bool) -> String {
    let (time, name) = (human::time_of_day(&message.at), escape(&message.from.name));
    let topic = if with_topic { format!(" {}", escape(&message.topic)) } else { String::new() };
    format!("{time} {name}{topic}> {}", escape_bytes(&message.payload))
}
