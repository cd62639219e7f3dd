//! `atonce ping`: how long the way to a peer and back takes, and which way that is.

use std::io;
use std::time::{Duration, Instant};

use atonce::Client;
use atonce::client::{Outcome, PathKind, PingOptions, Pinged, Pong};
use clap::Args;
use tokio::time::sleep;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Output, escape};
use crate::peers::path_word;
use crate::{PATIENCE, human};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A name or an id, or the beginning of one
    peer: String,
    /// How many times, once a second [default: 4; with --until-direct until --timeout]
    #[arg(short = 'c', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// End with the first answer that did not come through another peer; --timeout is for all of it then [default: 60s]
    #[arg(long)]
    until_direct: bool,
}

const COUNT: u32 = 4;
/// A meeting that takes longer seldom succeeds.
const UNTIL_DIRECT: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Option<Duration>,
    output: &Output,
) -> Result<Exit, Failure> {
    let found = lookup::find(client, &options.peer).await?;
    if options.until_direct {
        return until_direct(client, found, options.count, timeout.unwrap_or(UNTIL_DIRECT), output).await;
    }
    let timeout = timeout.unwrap_or(PATIENCE);
    let how = PingOptions { count: options.count.unwrap_or(COUNT), timeout, ..PingOptions::default() };
    let mut written: io::Result<()> = Ok(());
    let mut last_error = None;
    let each = |pong: Pong| {
        last_error = pong.error;
        if written.is_ok() {
            written = write(&pong, &found.peer.name, timeout, output);
        }
    };
    let pinged = client.ping(&found.peer.id.to_string(), how, each).await?;
    written?;
    if output.is_json() {
        output.event("result", &pinged)?;
    } else {
        output.line(&summary(&pinged))?;
    }
    if pinged.received > 0 {
        return Ok(Exit::Ok);
    }
    let why = found.absence.clone().unwrap_or_else(|| match last_error {
        Some(Outcome::Unreachable) => "no way to it was found".to_owned(),
        _ => "it was asked and did not answer".to_owned(),
    });
    let failure = Failure::new(Exit::TimedOut, format!("no answer from {}", found.peer.name));
    Err(found.when_unreachable(failure.because(why)))
}

/// Asks once a second until an answer comes without a relay, and no longer than `patience`. What is not answered is told
/// once, at the end: a way may yet be found.
async fn until_direct(
    client: &mut Client,
    found: lookup::Found,
    count: Option<u32>,
    patience: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let (deadline, id) = (Instant::now() + patience, found.peer.id.to_string());
    let mut relayed = false;
    for seq in 1..=count.unwrap_or(u32::MAX) {
        let began = Instant::now();
        let timeout = deadline.saturating_duration_since(began).min(PATIENCE);
        if timeout.as_millis() == 0 {
            break;
        }
        let how = PingOptions { count: 1, timeout, ..PingOptions::default() };
        let mut told = None;
        client.ping(&id, how, |pong| told = Some(pong)).await?;
        let Some(pong) = told else { continue };
        let answered = pong.rtt_us.is_some();
        if answered || output.is_json() {
            write(&Pong { seq: seq.into(), ..pong.clone() }, &found.peer.name, timeout, output)?;
        }
        if answered && pong.path != Some(PathKind::Relay) {
            return Ok(Exit::Ok);
        }
        relayed = answered;
        if count != Some(seq) {
            let next = (began + how.interval).min(deadline);
            sleep(next.saturating_duration_since(Instant::now())).await;
        }
    }
    let ended = if Instant::now() < deadline { None } else { Some(human::duration(patience)) };
    let within = ended.map(|patience| format!(" within {patience}")).unwrap_or_default();
    let name = &found.peer.name;
    if relayed {
        let failure = Failure::new(Exit::TimedOut, format!("{name} is reached through another peer only"));
        let why = format!("no direct way was found between its network and ours{within}");
        return Err(failure.because(why).try_this("atonce status"));
    }
    let failure = Failure::new(Exit::TimedOut, format!("no answer from {name}{within}"));
    // Much may have happened since it was looked up; if it was forgotten meanwhile, what was known is told.
    let found = lookup::find(client, &id).await.unwrap_or(found);
    let why = found.absence.clone().unwrap_or_else(|| "it was asked and did not answer".to_owned());
    Err(found.when_unreachable(failure.because(why)))
}

fn write(pong: &Pong, name: &str, timeout: Duration, output: &Output) -> io::Result<()> {
    if output.is_json() {
        return output.event("pong", pong);
    }
    output.line(&line(pong, name, timeout))
}

fn line(pong: &Pong, name: &str, timeout: Duration) -> String {
    let name = escape(name);
    let Some(microseconds) = pong.rtt_us else {
        let why = pong.error.map_or("no answer", Outcome::words);
        return format!("{name}: {why} within {}", human::duration(timeout));
    };
    let path = pong.path.map_or("-", path_word);
    let addr = pong.addr.map(|addr| format!(" {}", human::address(addr))).unwrap_or_default();
    format!("{name}: {} via {path}{addr}", human::fine_round_trip(microseconds))
}

fn summary(pinged: &Pinged) -> String {
    let counts = format!("{} sent, {} received", pinged.sent, pinged.received);
    let Some(trips) = pinged.rtt_us else { return counts };
    let [min, p50, max] = [trips.min, trips.p50, trips.max].map(human::fine_round_trip);
    format!("{counts}, min {min}, median {p50}, max {max}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use atonce::client::PathKind;

    #[test]
    fn an_answer_is_told_with_the_way_that_it_took() {
        let pong = Pong {
            peer: None,
            seq: 1,
            rtt_us: Some(412),
            path: Some(PathKind::Lan),
            addr: Some("192.168.1.40:28282".parse().unwrap()),
            error: None,
        };
        let line = line(&pong, "pi-kitchen", Duration::from_secs(5));
        assert_eq!(line, "pi-kitchen: 0.41 ms via lan 192.168.1.40:28282");
    }

    #[test]
    fn a_question_without_an_answer_is_told_with_its_reason() {
        let error = Some(Outcome::Unreachable);
        let pong = Pong { peer: None, seq: 1, rtt_us: None, path: None, addr: None, error };
        assert_eq!(line(&pong, "pi", Duration::from_millis(500)), "pi: unreachable within 500ms");
    }
}
