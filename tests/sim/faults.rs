//! A day in which everything fails now and then: nothing leaks, and every queue ends empty.

use std::collections::BTreeMap;

use atonce::id::ClientId;

use crate::world::{Weather, World, milliseconds, seconds};

const HOSTS: usize = 3;
const MINUTES: u64 = 24 * 60;

#[test]
fn after_a_day_of_faults_every_message_has_its_outcome_and_every_queue_is_empty() {
    let mut world = World::lan(24, HOSTS);
    world.run(seconds(5));
    let mut apps: [Option<App>; HOSTS] = std::array::from_fn(|host| Some(App::start(&mut world, host)));
    let (mut outcomes, mut sent) = (BTreeMap::<String, u64>::new(), 0);
    for minute in 0..MINUTES {
        let host = world.below(HOSTS as u64) as usize;
        match world.below(12) {
            // A daemon dies, or ends; its app comes back with the next one.
            0 | 1 => {
                if let Some(app) = apps[host].take() {
                    app.count(&world, host, &mut outcomes);
                    if world.below(2) == 0 {
                        world.crash(host)
                    } else {
                        world.stop(host)
                    }
                    let pause = world.below(30_000);
                    world.run(milliseconds(pause));
                    world.start(host);
                    apps[host] = Some(App::start(&mut world, host));
                }
            }
            // An app goes in the middle of what it does.
            2 => {
                if let Some(app) = apps[host].take() {
                    app.count(&world, host, &mut outcomes);
                    app.hang_up(&mut world, host);
                    apps[host] = Some(App::start(&mut world, host));
                }
            }
            3 => {
                let other = (host + 1) % HOSTS;
                world.cut.insert((host, other));
                if world.below(2) == 0 {
                    world.cut.insert((other, host));
                }
            }
            4 => world.cut.clear(),
            5 => {
                let lid = world.below(100);
                world.suspend(host, seconds(lid));
            }
            6 => world.weather = Weather { loss: 300, duplicate: 50, jitter_us: 5000, ..Weather::FINE },
            7 => world.weather = Weather::FINE,
            _ => {}
        }
        for _ in 0..6 {
            let from = world.below(HOSTS as u64) as usize;
            let Some(app) = &mut apps[from] else { continue };
            sent += u64::from(app.send(&mut world, from, minute));
            let pause = world.below(20_000);
            world.run(milliseconds(pause));
        }
    }
    world.cut.clear();
    world.weather = Weather::FINE;
    world.run(seconds(60));
    for (host, app) in apps.into_iter().flatten().enumerate() {
        assert_eq!(app.unanswered(&world, host), 0, "pi-{host}");
        app.count(&world, host, &mut outcomes);
        assert!(
            world.hosts[host].node.as_ref().unwrap().is_idle(app.client),
            "pi-{host} owes its app nothing"
        );
        assert_eq!(world.online(host), HOSTS - 1, "pi-{host}");
        for counter in
            ["messages-under-way", "partial-message-bytes", "half-open-handshakes", "overflowed-trains"]
        {
            assert_eq!(world.counter(host, counter), 0, "pi-{host}: {counter}");
        }
        assert!(world.counter(host, "sessions") < HOSTS as u64, "pi-{host}");
    }
    println!("{sent} sent: {outcomes:?}");
    assert!(outcomes["delivered"] * 10 > sent * 5, "{sent} sent: {outcomes:?}");
}

/// An app that listens and sends.
struct App {
    client: ClientId,
    next: u64,
}

impl App {
    fn start(world: &mut World, host: usize) -> Self {
        let client = world.listener(host, "t");
        world.say(host, client, r#"{"op":"watch"}"#);
        Self { client, next: 0 }
    }

    /// A message of any size to anybody; says whether it was to be answered.
    fn send(&mut self, world: &mut World, host: usize, minute: u64) -> bool {
        let to = world.below(HOSTS as u64);
        let bytes = if world.below(5) == 0 { world.below(61_000) } else { world.below(200) } as usize;
        let text = format!("{minute}{}", "x".repeat(bytes));
        match world.below(4) {
            0 => {
                let line = format!(r#"{{"op":"publish","topic":"t","text":"{text}"}}"#);
                world.say(host, self.client, &line);
                false
            }
            1 => {
                let line =
                    format!(r#"{{"op":"send","to":"pi-{to}","topic":"t","text":"{text}","ack":false}}"#);
                world.say(host, self.client, &line);
                false
            }
            _ => {
                world.send(host, self.client, self.next, &format!("pi-{to}"), "t", &text);
                self.next += 1;
                true
            }
        }
    }

    fn unanswered(&self, world: &World, host: usize) -> u64 {
        let refused = world.heard(host, self.client, "error").len() as u64;
        self.next - world.heard(host, self.client, "result").len() as u64 - refused
    }

    fn count(&self, world: &World, host: usize, outcomes: &mut BTreeMap<String, u64>) {
        for result in world.heard(host, self.client, "result") {
            *outcomes.entry(result["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }

    fn hang_up(&self, world: &mut World, host: usize) {
        let now = world.now;
        world.with(host, |node| node.handle_hangup(self.client, now));
        world.hosts[host].apps.remove(&self.client);
    }
}
