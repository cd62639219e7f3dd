//! A network under any scenario keeps its promises (tests/sim/scenario.rs).

#[path = "../../sim/scenario.rs"]
mod scenario;
#[allow(dead_code, reason = "it knows more than is asked of it here")]
#[path = "../../sim/world.rs"]
mod world;

pub use self::scenario::play as run;
