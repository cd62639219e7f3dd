//! Whose a handle is: a chain of hashes, of which only who made it knows the beginning (docs/rendezvous.md, 2).
//!
//! ```text
//! seed --> ... --> reveal of register 2 --> reveal of register 1 --> handle
//! ```
//!
//! Each register reveals what hashes to what the one before revealed. So everybody can see that it comes from the owner of
//! the handle, and nobody who saw it can make the next one: neither other members, who have every other key that there is in
//! their namespace, nor whoever listens on the way, nor the server.

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::crypto::hash;
use crate::wire::rendezvous::{Handle, Namespace, Reveal};

/// Registers of one handle: the server computes as many hashes for one of them, 20 us, so half as much as for a new
/// namespace. Who needs more takes another handle.
pub const REGISTERS: u32 = 128;

/// A handle of ours.
#[derive(Clone)]
pub struct Claim {
    namespace: Namespace,
    seed: Zeroizing<[u8; 16]>,
    handle: Handle,
}

impl Claim {
    /// A new one.
    pub fn generate(namespace: &Namespace, rng: &mut dyn CryptoRng) -> Self {
        let mut seed = [0; 16];
        rng.fill_bytes(&mut seed);
        Self::from_seed(namespace, seed)
    }

    /// The one that begins with `seed`, which nobody else may know.
    pub fn from_seed(namespace: &Namespace, seed: [u8; 16]) -> Self {
        let handle = Handle(after(namespace, seed, REGISTERS));
        Self { namespace: *namespace, seed: Zeroizing::new(seed), handle }
    }

    /// By which the server calls its owner.
    pub const fn handle(&self) -> Handle {
        self.handle
    }

    /// What register `seq` reveals, from 1; none: it is one too many.
    pub fn reveal(&self, seq: u32) -> Option<Reveal> {
        let left = REGISTERS.checked_sub(seq).filter(|_| seq > 0)?;
        Some(Reveal(after(&self.namespace, *self.seed, left)))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({:?})", self.handle)
    }
}

/// Whether it is the owner of a handle that reveals this in register `seq`.
pub fn is_of_owner(namespace: &Namespace, handle: Handle, seq: u32, reveal: Reveal) -> bool {
    (1..=REGISTERS).contains(&seq) && after(namespace, reveal.0, seq) == handle.0
}

/// So many hashes on.
fn after(namespace: &Namespace, start: [u8; 16], steps: u32) -> [u8; 16] {
    (0..steps).fold(start, |value, _| hash::mac(&namespace.0, &[&value]).bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: Namespace = Namespace([1; 32]);

    #[test]
    fn only_who_made_a_handle_has_what_its_registers_reveal_and_each_counts_in_its_place_only() {
        let claim = Claim::from_seed(&N, [7; 16]);
        let handle = claim.handle();
        for seq in 1..=REGISTERS {
            let reveal = claim.reveal(seq).unwrap();
            assert!(is_of_owner(&N, handle, seq, reveal), "{seq}");
            for other in [0, seq - 1, seq + 1, REGISTERS + 1, u32::MAX] {
                assert!(!is_of_owner(&N, handle, other, reveal), "{seq} {other}");
            }
            assert!(!is_of_owner(&Namespace([2; 32]), handle, seq, reveal));
            assert!(!is_of_owner(&N, Handle([9; 16]), seq, reveal));
        }
        assert_eq!((claim.reveal(0), claim.reveal(REGISTERS + 1)), (None, None));
        assert!(!is_of_owner(&N, handle, 1, Reveal(handle.0)));
        assert!(!format!("{claim:?}").contains("seed"));
    }

    // What Python's hashlib says: blake2s of 16 bytes, keyed by the namespace, 128 times.
    #[test]
    fn the_handle_is_the_one_of_the_specification() {
        let claim = Claim::from_seed(&N, [7; 16]);
        assert_eq!(data_encoding::HEXLOWER.encode(&claim.handle().0), HANDLE);
        assert_eq!(data_encoding::HEXLOWER.encode(&claim.reveal(1).unwrap().0), REVEAL);
    }
    const HANDLE: &str = "fd2160642c6210b4f211afa029d06534";
    const REVEAL: &str = "2ac7882d53d9949d6ed775ddef2729bd";
}
