//! Hosts that change their address while messages are on their way.

use std::net::Ipv4Addr;

use crate::world::{Weather, World, milliseconds, seconds};

#[test]
fn who_changes_its_address_is_written_to_at_the_new_one_at_once() {
    for seed in 0..20 {
        let mut world = World::lan(seed, 3);
        world.run(seconds(2));
        let (listener, app, watcher) = (world.listener(1, "t"), world.connect(0), world.watcher(0));
        world.run(seconds(1));
        world.send(0, app, 0, "pi-1", "t", "before");
        world.run(milliseconds(50));
        world.renumber(1, Ipv4Addr::new(10, 0, 0, 99));
        world.send(0, app, 1, "pi-1", "t", "after");
        let delivered = |world: &mut World| world.outcome(0, app, 1) == Some("delivered");
        assert!(world.run_for(milliseconds(100), delivered), "seed {seed}");
        assert_eq!(world.heard(1, listener, "message").len(), 2);
        world.run(seconds(20));
        assert!(world.heard(0, watcher, "exit").is_empty());
        assert_eq!(world.online(2), 2);
    }
}

#[test]
fn acknowledged_messages_arrive_once_and_in_order_while_their_receiver_moves_about() {
    for seed in 0..10 {
        let mut world = World::lan(seed, 2);
        world.weather = Weather { loss: 50, duplicate: 50, jitter_us: 500, ..Weather::FINE };
        world.run(seconds(3));
        let (listener, app) = (world.listener(1, "t"), world.connect(0));
        world.run(seconds(1));
        for id in 0..300_u64 {
            world.send(0, app, id, "pi-1", "t", &id.to_string());
            world.run(milliseconds(10));
            if id % 60 == 59 {
                let (mover, last) = ((id / 60 % 2) as usize, 100 + (id / 60) as u8);
                world.renumber(mover, Ipv4Addr::new(10, 0, 0, last));
            }
        }
        world.run(seconds(6));
        let heard: Vec<u64> = world
            .heard(1, listener, "message")
            .iter()
            .map(|line| line["text"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(heard, (0..300).collect::<Vec<_>>(), "seed {seed}");
        assert!((0..300).all(|id| world.outcome(0, app, id) == Some("delivered")), "seed {seed}");
    }
}

/// Two hosts lose the network that they have in common while one writes to the other, which would be given up after
/// 1630 ms; some time before that `help` gives them another way. Nobody may be said to have left.
fn helped_in_time(prepare: impl Fn(&mut World), help: impl Fn(&mut World)) {
    for delay in (0..1600).step_by(50) {
        let mut world = World::new(delay);
        for name in ["pi-0", "pi-1"] {
            let host = world.add(name, 0);
            world.plug(host, 1);
            world.start(host);
        }
        world.run(seconds(3));
        prepare(&mut world);
        let (_, app, watchers) = (world.listener(1, "t"), world.connect(0), [0, 1].map(|n| world.watcher(n)));
        world.run(seconds(1));
        // A switch dies: no card sees anything of that.
        world.hosts[1].segment = 2;
        world.send(0, app, 0, "pi-1", "t", "on its way");
        world.run(milliseconds(delay));
        help(&mut world);
        world.run(seconds(20));
        assert_eq!(world.outcome(0, app, 0), Some("delivered"), "{delay} ms");
        for (host, watcher) in watchers.into_iter().enumerate() {
            assert!(world.heard(host, watcher, "exit").is_empty(), "{delay} ms: pi-{host}");
        }
    }
}

#[test]
fn a_suspect_is_asked_again_when_our_own_network_changes_before_it_is_given_up() {
    helped_in_time(|world| world.unplug(0), |world| world.plug(0, 1));
}

#[test]
fn a_suspect_is_asked_at_once_where_it_is_seen_before_it_is_given_up() {
    helped_in_time(|world| world.unplug(1), |world| world.plug(1, 1));
}
