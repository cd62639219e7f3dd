//! Many scenarios, each from a seed (scenario.rs says what one is).
//!
//! `ATONCE_SCENARIOS=100000 cargo test --test sim -- scenarios --nocapture` plays as many others instead; an hour has about
//! 90,000 on two cores.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::scenario::play;

/// How many are played with every run of the tests.
const SEEDS: u64 = 500;
/// Bytes of the longest scenario.
const LONGEST: u64 = 220;
/// So many shorter scenarios are tried to find one that still fails.
const SHORTENINGS: usize = 60;

fn scenario(seed: u64) -> Vec<u8> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let length = 20 + rng.next_u64() % LONGEST;
    let mut bytes = vec![0; length as usize];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn fails(bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| play(bytes))).is_err()
}

/// A part of a scenario that fails which fails as well, if a short search finds one.
fn shortened(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut tries = SHORTENINGS;
    let mut piece = bytes.len() / 2;
    while piece > 0 && tries > 0 {
        let mut at = bytes.len().saturating_sub(piece);
        loop {
            let mut shorter = bytes.clone();
            shorter.drain(at..(at + piece).min(bytes.len()));
            tries = tries.saturating_sub(1);
            if fails(&shorter) {
                bytes = shorter;
            }
            if at == 0 || tries == 0 {
                break;
            }
            at = at.saturating_sub(piece);
        }
        piece /= 2;
    }
    bytes
}

#[test]
fn whatever_befalls_a_network_its_promises_hold() {
    let (first, count) = match std::env::var("ATONCE_SCENARIOS") {
        Ok(count) => (u64::from(std::process::id()) << 32, count.parse().unwrap()),
        Err(_) => (0, SEEDS),
    };
    for seed in first..first + count {
        let bytes = scenario(seed);
        if fails(&bytes) {
            println!("seed {seed} fails; a shorter one:");
            play(&shortened(bytes));
            unreachable!("it fails");
        }
    }
}
