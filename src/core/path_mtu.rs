//! How large a datagram the path to one peer carries (RFC 8899, for one path).
//!
//! Datagrams of the usual size pass everywhere. When messages are sent that are larger, a ping is padded to the next
//! size on the list; its pong shows that such datagrams pass. When they seem to vanish later, the usual size is gone back
//! to at once, and larger ones are tried again after a while.

use std::time::Duration;

use crate::limits;
use crate::time::Instant;

/// What is known of one path.
#[derive(Debug, Default)]
pub(crate) struct PathMtu {
    /// The index of the size that is used in the list; none: the usual one.
    known: Option<usize>,
    probe: Option<Probe>,
    /// No size from this index on passes; looked at again at that time.
    barred: Option<(usize, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    token: u64,
    size: usize,
    tries: u32,
    sent: Instant,
}

/// Bytes of the datagrams that are tried, with IPv4: tunnels, Ethernet, and its jumbo frames.
const SIZES: [usize; 3] = [1400, 1472, limits::LARGE_DATAGRAM_BYTES];
/// Routers between carry what a tunnel and Ethernet carry, as a rule.
const SIZES_BEYOND_ROUTERS: usize = 2;
/// Bytes that IPv6's header is longer.
const IPV6_MORE: usize = 20;
/// A probe is lost like any packet.
const TRIES: u32 = 3;
/// So long its answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// A path that carried no more is tried again after this (RFC 8899, 5.1.1).
const AGAIN: Duration = Duration::from_secs(600);

/// What kind of path it is, as far as sizes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) on_link: bool,
    pub(crate) relayed: bool,
    pub(crate) ipv6: bool,
}

impl Sizes {
    fn get(self, index: usize) -> Option<usize> {
        let count = match self {
            Self { relayed: true, .. } => 0,
            Self { on_link: true, .. } => SIZES.len(),
            Self { on_link: false, .. } => SIZES_BEYOND_ROUTERS,
        };
        let size = SIZES.get(index).filter(|_| index < count)?;
        // The first one leaves room for either.
        Some(if self.ipv6 && index > 0 { size - IPV6_MORE } else { *size })
    }
}

impl PathMtu {
    /// Bytes of the datagrams to be sent.
    pub(crate) fn datagram_bytes(&self, sizes: Sizes) -> usize {
        self.known.and_then(|index| sizes.get(index)).unwrap_or(limits::DATAGRAM_BYTES)
    }

    /// The size of a probe to be sent now with `token`, if one is due.
    pub(crate) fn probe(&mut self, sizes: Sizes, token: u64, now: Instant) -> Option<usize> {
        let next = self.known.map_or(0, |known| known + 1);
        if let Some(probe) = &mut self.probe {
            if now.since(probe.sent) < PATIENCE {
                return None;
            }
            if probe.tries < TRIES {
                *probe = Probe { token, tries: probe.tries + 1, sent: now, ..*probe };
                return sizes.get(probe.size);
            }
            self.barred = Some((probe.size, now + AGAIN));
            self.probe = None;
        }
        if self.barred.is_some_and(|(index, until)| index <= next && now < until) {
            return None;
        }
        let bytes = sizes.get(next)?;
        self.probe = Some(Probe { token, size: next, tries: 1, sent: now });
        Some(bytes)
    }

    /// The pong with `token` came; says whether it shows that larger datagrams pass.
    pub(crate) fn on_pong(&mut self, token: u64) -> bool {
        let Some(probe) = self.probe.filter(|probe| probe.token == token) else { return false };
        self.probe = None;
        self.known = Some(probe.size);
        true
    }

    /// Datagrams above the usual size vanish.
    pub(crate) fn on_hole(&mut self, now: Instant) {
        self.known = None;
        self.probe = None;
        self.barred = Some((0, now + AGAIN));
    }

    /// Whether larger datagrams than the usual ones are sent.
    pub(crate) const fn is_large(&self) -> bool {
        self.known.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: Sizes = Sizes { on_link: true, relayed: false, ipv6: false };

    /// The size that is found on a path that carries `carries` bytes.
    fn found(sizes: Sizes, carries: usize) -> (usize, usize) {
        let (mut mtu, mut now, mut probes) = (PathMtu::default(), Instant::default(), 0);
        for token in 0..100 {
            if let Some(bytes) = mtu.probe(sizes, token, now) {
                probes += 1;
                if bytes <= carries {
                    assert!(mtu.on_pong(token));
                }
            }
            now = now + Duration::from_millis(100);
        }
        (mtu.datagram_bytes(sizes), probes)
    }

    #[test]
    fn the_largest_size_that_passes_is_found_and_no_larger_one_is_tried_without_end() {
        assert_eq!(found(ETHERNET, 1500 - 28), (1472, 2 + 3));
        assert_eq!(found(ETHERNET, 9000 - 28), (8972, 3));
        assert_eq!(found(ETHERNET, 1280), (1200, 3));
        assert_eq!(found(Sizes { ipv6: true, ..ETHERNET }, 1500 - 48), (1452, 2 + 3));
        assert_eq!(found(Sizes { on_link: false, ..ETHERNET }, 9000), (1472, 2));
        assert_eq!(found(Sizes { relayed: true, ..ETHERNET }, 9000), (1200, 0));
    }

    #[test]
    fn a_hole_brings_back_the_usual_size_at_once_and_a_look_ten_minutes_later() {
        let mut mtu = PathMtu::default();
        mtu.probe(ETHERNET, 1, Instant::default());
        mtu.on_pong(1);
        mtu.on_hole(Instant::default());
        assert_eq!(mtu.datagram_bytes(ETHERNET), limits::DATAGRAM_BYTES);
        assert_eq!(mtu.probe(ETHERNET, 2, Instant::default() + AGAIN / 2), None);
        assert_eq!(mtu.probe(ETHERNET, 2, Instant::default() + AGAIN), Some(1400));
    }
}
