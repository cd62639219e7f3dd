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
mod contract;
mod delivery;
mod discovery;
mod duplicates;
mod faults;
mod health;
mod hostile;
mod large;
mod load;
mod meeting;
mod neighbours;
mod parting;
mod pieces;
mod presence;
mod pressure;
mod relay;
mod replies;
mod roaming;
mod scenario;
mod scenarios;
mod second_port;
mod secrets;
mod servers;
mod waking;
