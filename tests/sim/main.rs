//! The node in a simulated world: finding, losing, delivering, and the clauses of its contract.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "nobody outside of the tests sees this"
)]

mod world;

mod binary;
mod bottleneck;
mod bounds;
mod cards;
mod contract;
mod crowd;
mod delivery;
mod discovery;
mod duplicates;
mod faults;
mod forged;
mod health;
mod hostile;
mod keys;
mod large;
mod liars;
mod load;
mod looking;
mod meeting;
mod narrow;
mod neighbours;
mod parting;
mod pieces;
mod presence;
mod pressure;
mod relay;
mod remembering;
mod replies;
mod restarts;
mod roaming;
mod scenario;
mod scenarios;
mod second_port;
mod secrets;
mod servers;
mod unlinkable;
mod waking;
