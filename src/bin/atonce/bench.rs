//! `atonce bench`: how many messages a second a peer takes from us, and how long each is on its way.
//!
//! They go to [`TOPIC`], which the daemon there acknowledges and throws away, so no app of it is disturbed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use atonce::Client;
use atonce::client::{Outcome, PeerRef, SendOptions, Sent, WhenNoListener};
use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, escape};
use crate::send::{Sending, exit_of};
use crate::{human, lookup};

/// What every daemon listens to itself.
const TOPIC: &str = "atonce.discard";
/// Bytes of a message, where nothing else was said: a reading of a sensor, and what fills a packet of any path.
const SIZES: [usize; 2] = [64, 1200];
const SECONDS: u64 = 3;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A name or an id, or the beginning of one
    peer: String,
    /// Bytes of each message; repeated, one measurement after the other [default: 64 and 1200, or the most]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..))]
    size: Vec<u32>,
    /// How long each measurement takes [default: 3s]
    #[arg(long = "for", value_name = "DUR", value_parser = human::parse_duration)]
    duration: Option<Duration>,
    /// Messages that are under way at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1024))]
    window: u64,
}

pub(crate) async fn run(
    client: &mut Client,
    options: &Options,
    timeout: Duration,
    output: &Output,
) -> Result<Exit, Failure> {
    let found = lookup::find(client, &options.peer).await?;
    let most = usize::try_from(client.hello().payload_bytes).unwrap_or(usize::MAX);
    let sizes: Vec<usize> = match &options.size[..] {
        [] => SIZES.map(|size| size.min(most)).to_vec(),
        given => given.iter().map(|size| *size as usize).collect(),
    };
    if let Some(size) = sizes.iter().find(|size| **size > most) {
        return Err(Failure::new(Exit::Refused, format!("a message has at most {most} bytes, not {size}"))
            .try_this(format!("--size {most}")));
    }
    let duration = options.duration.unwrap_or(Duration::from_secs(SECONDS));
    let when_no_listener = WhenNoListener::End;
    let sending = Sending { found: &found, topic: TOPIC, ack: true, timeout, when_no_listener };
    for size in sizes {
        let bench = Bench { sending: &sending, size, duration, window: options.window };
        let measured = bench.run(client).await?;
        if output.is_json() {
            output.event("bench", &measured.told(&found.peer))?;
        } else {
            output.line(&measured.line(&found.peer.name))?;
        }
        if let Some(outcome) = measured.failed.filter(|_| measured.delivered == 0) {
            return Err(failure(&sending, outcome, client.hello().payload_bytes));
        }
    }
    Ok(Exit::Ok)
}

fn failure(sending: &Sending<'_>, outcome: Outcome, most: u64) -> Failure {
    if outcome == Outcome::NoListener {
        let name = &sending.found.peer.name;
        return Failure::new(exit_of(outcome), format!("{name} cannot be measured"))
            .because(format!("its atonced does not know {TOPIC}: it is older than this one"))
            .try_this(format!("a newer atonced there; atonce ping {name}"));
    }
    sending.failure(outcome, most)
}

/// One measurement.
struct Bench<'a> {
    sending: &'a Sending<'a>,
    size: usize,
    duration: Duration,
    window: u64,
}

impl Bench<'_> {
    async fn run(&self, client: &mut Client) -> Result<Measured, Failure> {
        let id = self.sending.found.peer.id.to_string();
        let options = SendOptions { timeout: self.sending.timeout, ..SendOptions::default() };
        // Text, as a payload of bytes would be measured with its base64.
        let payload = vec![b'x'; self.size];
        let mut measured = Measured::of(self.size);
        let began = Instant::now();
        let until = began + self.duration;
        loop {
            while !measured.is_hopeless()
                && (client.under_way() as u64) < self.window
                && Instant::now() < until
            {
                client.start_send(&id, TOPIC, &payload, options).await?;
                measured.sent += 1;
            }
            let Some(ended) = client.next_outcome().await? else { break };
            measured.take(&ended.result?);
            measured.took = began.elapsed();
        }
        Ok(measured)
    }
}

/// What came out.
#[derive(Debug)]
struct Measured {
    bytes: usize,
    sent: u64,
    delivered: u64,
    /// What became of the last one that was not delivered.
    failed: Option<Outcome>,
    took: Duration,
    trips: Trips,
}

/// The same for programs.
#[derive(Serialize)]
struct Told<'a> {
    peer: &'a PeerRef<'a>,
    bytes: usize,
    sent: u64,
    delivered: u64,
    lost: u64,
    seconds: f64,
    messages_per_s: u64,
    bits_per_s: u64,
    rtt_us: Option<TripsTold>,
}

#[derive(Serialize)]
struct TripsTold {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Measured {
    fn of(bytes: usize) -> Self {
        let (sent, delivered, took) = (0, 0, Duration::ZERO);
        Self { bytes, sent, delivered, failed: None, took, trips: Trips::default() }
    }

    fn take(&mut self, sent: &Sent) {
        if sent.outcome != Outcome::Delivered {
            self.failed = Some(sent.outcome);
            return;
        }
        self.delivered += 1;
        self.trips.add(sent.rtt_us.unwrap_or_default());
    }

    /// Nothing got through, and the next one would not either.
    fn is_hopeless(&self) -> bool {
        self.delivered == 0 && self.failed.is_some_and(|outcome| outcome != Outcome::Busy)
    }

    fn messages_per_s(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.delivered as f64 / self.took.as_secs_f64() }
    }

    fn bits_per_s(&self) -> f64 {
        self.messages_per_s() * 8.0 * self.bytes as f64
    }

    fn told<'a>(&self, peer: &'a PeerRef<'a>) -> Told<'a> {
        Told {
            peer,
            bytes: self.bytes,
            sent: self.sent,
            delivered: self.delivered,
            lost: self.sent - self.delivered,
            seconds: self.took.as_secs_f64(),
            messages_per_s: self.messages_per_s().round() as u64,
            bits_per_s: self.bits_per_s().round() as u64,
            rtt_us: self.trips.told(),
        }
    }

    fn line(&self, name: &str) -> String {
        let lost = 100.0 * (self.sent - self.delivered) as f64 / self.sent.max(1) as f64;
        let trips = self.trips.told().map_or(Cow::Borrowed("no round trips"), |trips| {
            let [p50, p99, max] = [trips.p50, trips.p99, trips.max].map(human::fine_round_trip);
            Cow::Owned(format!("median {p50}, p99 {p99}, max {max}"))
        });
        format!(
            "{}, {} bytes: {:.0} messages/s, {}, {lost:.1}% lost, {trips}",
            escape(name),
            self.bytes,
            self.messages_per_s(),
            human::rate(self.bits_per_s())
        )
    }
}

/// Round trips, counted: to about a hundredth of each, however many they are.
#[derive(Debug, Default)]
struct Trips {
    counts: BTreeMap<u64, u64>,
    count: u64,
    max: u64,
}

/// Bits of a round trip that are kept.
const BITS: u32 = 7;

impl Trips {
    fn add(&mut self, microseconds: u64) {
        let dropped = (u64::BITS - microseconds.leading_zeros()).saturating_sub(BITS);
        *self.counts.entry(microseconds >> dropped << dropped).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(microseconds);
    }

    fn told(&self) -> Option<TripsTold> {
        (self.count > 0).then(|| TripsTold { p50: self.at(50), p99: self.at(99), max: self.max })
    }

    /// The one that so many of a hundred do not exceed.
    fn at(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut passed = 0;
        let found = self.counts.iter().find(|(_, count)| {
            passed += **count;
            passed >= rank
        });
        found.map_or(self.max, |(trip, _)| *trip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_told_to_a_hundredth_and_the_longest_exactly() {
        let mut trips = Trips::default();
        assert!(trips.told().is_none());
        for microseconds in 1..=10_001 {
            trips.add(microseconds);
        }
        let told = trips.told().unwrap();
        assert!(told.p50.abs_diff(5000) <= 50 && told.p99.abs_diff(9900) <= 99, "{} {}", told.p50, told.p99);
        assert_eq!(told.max, 10_001);
        assert!(trips.counts.len() < 1000);
    }

    #[test]
    fn what_was_not_delivered_is_lost() {
        let took = Duration::from_secs(2);
        let mut measured = Measured { sent: 4000, delivered: 3000, took, ..Measured::of(1000) };
        measured.trips.add(250);
        assert_eq!(
            measured.line("pi"),
            "pi, 1000 bytes: 1500 messages/s, 12.0 Mbit/s, 25.0% lost, median 0.25 ms, p99 0.25 ms, max 0.25 ms"
        );
        assert_eq!(measured.told(&PeerRef { name: "pi".into(), id: atonce::id::NodeId([1; 32]) }).lost, 1000);
    }
}
