//! What a process that holds secrets asks of the system.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// From now on no core file is written of this process, and no other one of its user may read its memory or trace it;
/// root still may. Called before the first secret is read.
pub fn keep_secrets() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(reason = %error, "other processes of this user may read the memory of this one");
    }
}
