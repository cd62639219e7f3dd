//! How large a datagram the path to one peer carries (RFC 8899, for one path).
//!
//! Datagrams of the usual size pass nearly everywhere. When messages are sent that are larger, a ping is padded to the
//! next size on the list; its pong shows that such datagrams pass. When they seem to vanish later, a smaller size is gone
//! back to at once, and larger ones are tried again after a while. What our own system refuses is certain and needs no
//! try; what the network says of a size is believed until a try shows that it is not so.

use std::time::Duration;

use crate::limits;
use crate::time::Instant;

/// What is known of one path.
#[derive(Debug, Default)]
pub(crate) struct PathMtu {
    /// Bytes of the datagrams that pass; none: nothing is known, and the usual size is taken for granted.
    known: Option<usize>,
    probe: Option<Probe>,
    /// No datagram of so many bytes passes; looked at again at that time.
    barred: Option<(usize, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    token: u64,
    bytes: usize,
    tries: u32,
    sent: Instant,
}

/// Bytes of the datagrams that are tried, with IPv4: the least, a link of 1000, the usual size, tunnels, Ethernet, and its
/// jumbo frames.
const SIZES: [usize; 6] =
    [limits::SMALLEST_DATAGRAM_BYTES, 972, limits::DATAGRAM_BYTES, 1400, 1472, limits::LARGE_DATAGRAM_BYTES];
/// Routers between carry what a tunnel and Ethernet carry, as a rule.
const LARGEST_BEYOND_ROUTERS: usize = 1472;
/// The first one that leaves no room for the longer header of IPv6.
const LARGE: usize = 1472;
/// Bytes that IPv6's header is longer.
const IPV6_MORE: usize = 20;
/// Bytes of the headers of IPv4 and UDP.
const HEADERS: usize = 28;
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
    /// Bytes of the largest packet that our own link takes, if that is known.
    pub(crate) link: Option<u32>,
}

impl Sizes {
    /// The sizes that such a path may have, the smallest first.
    fn all(self) -> impl Iterator<Item = usize> {
        let largest = match self {
            Self { relayed: true, .. } => limits::DATAGRAM_BYTES,
            Self { on_link: true, .. } => limits::LARGE_DATAGRAM_BYTES,
            Self { on_link: false, .. } => LARGEST_BEYOND_ROUTERS,
        };
        let of_family = move |bytes| if self.ipv6 && bytes >= LARGE { bytes - IPV6_MORE } else { bytes };
        SIZES.into_iter().filter(move |bytes| *bytes <= largest).map(of_family)
    }

    /// Bytes of the datagram in a packet of `mtu` bytes, but never less than the smallest that is sent whole.
    fn datagram_in(self, mtu: u32) -> usize {
        let headers = HEADERS + if self.ipv6 { IPV6_MORE } else { 0 };
        let bytes = usize::try_from(mtu).unwrap_or(usize::MAX).saturating_sub(headers);
        bytes.max(limits::SMALLEST_DATAGRAM_BYTES)
    }

    /// No more than what our own link takes.
    fn within_link(self, bytes: usize) -> usize {
        self.link.map_or(bytes, |mtu| bytes.min(self.datagram_in(mtu)))
    }
}

impl PathMtu {
    /// Bytes of the datagrams to be sent.
    pub(crate) fn datagram_bytes(&self, sizes: Sizes) -> usize {
        sizes.within_link(self.known.unwrap_or(limits::DATAGRAM_BYTES))
    }

    /// The size of a probe to be sent now with `token`, if one is due.
    pub(crate) fn probe(&mut self, sizes: Sizes, token: u64, now: Instant) -> Option<usize> {
        if let Some(probe) = &mut self.probe {
            if now.since(probe.sent) < PATIENCE {
                return None;
            }
            if probe.tries < TRIES {
                *probe = Probe { token, tries: probe.tries + 1, sent: now, ..*probe };
                return Some(probe.bytes);
            }
            self.barred = Some((probe.bytes, now + AGAIN));
            self.probe = None;
        }
        let used = self.datagram_bytes(sizes);
        let bytes =
            sizes.all().find(|bytes| *bytes > used).filter(|bytes| sizes.within_link(*bytes) == *bytes)?;
        if self.barred.is_some_and(|(barred, until)| barred <= bytes && now < until) {
            return None;
        }
        self.probe = Some(Probe { token, bytes, tries: 1, sent: now });
        Some(bytes)
    }

    /// The pong with `token` came; says whether it shows that larger datagrams pass.
    pub(crate) fn on_pong(&mut self, token: u64) -> bool {
        let Some(probe) = self.probe.filter(|probe| probe.token == token) else { return false };
        self.probe = None;
        self.known = Some(probe.bytes);
        true
    }

    /// Datagrams of the size that is used vanish, and smaller ones do not.
    pub(crate) fn on_hole(&mut self, sizes: Sizes, now: Instant) {
        self.probe = None;
        if self.datagram_bytes(sizes) > limits::DATAGRAM_BYTES {
            self.known = None;
            let next = sizes.all().find(|bytes| *bytes > limits::DATAGRAM_BYTES);
            self.barred = next.map(|bytes| (bytes, now + AGAIN));
        } else {
            // Between the least and the usual size probes find what passes.
            self.known = Some(limits::SMALLEST_DATAGRAM_BYTES);
        }
    }

    /// No packet of more than `mtu` bytes gets there; `certain`: our own system says so. Says whether smaller datagrams
    /// have to be sent.
    pub(crate) fn on_too_large(&mut self, sizes: Sizes, mtu: u32, certain: bool, now: Instant) -> bool {
        let (used, carried) = (self.datagram_bytes(sizes), sizes.datagram_in(mtu));
        if certain {
            self.barred = Some((carried + 1, now + AGAIN));
            self.probe = None;
        }
        if carried >= used {
            return false;
        }
        self.probe = None;
        self.known = Some(carried);
        true
    }

    /// Our own links are others, or take other sizes: what was refused may pass now.
    pub(crate) fn try_again(&mut self) {
        self.barred = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: Sizes = Sizes { on_link: true, relayed: false, ipv6: false, link: None };

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
        mtu.on_hole(ETHERNET, Instant::default());
        assert_eq!(mtu.datagram_bytes(ETHERNET), limits::DATAGRAM_BYTES);
        assert_eq!(mtu.probe(ETHERNET, 2, Instant::default() + AGAIN / 2), None);
        assert_eq!(mtu.probe(ETHERNET, 2, Instant::default() + AGAIN), Some(1400));
    }

    #[test]
    fn below_the_usual_size_a_hole_is_left_for_the_least_and_what_passes_is_found() {
        for (carries, found) in [(548, 548), (971, 548), (972, 972), (1199, 972), (1200, 1200)] {
            let (mut mtu, mut now) = (PathMtu::default(), Instant::default());
            mtu.on_hole(ETHERNET, now);
            assert_eq!(mtu.datagram_bytes(ETHERNET), limits::SMALLEST_DATAGRAM_BYTES);
            for token in 0..100 {
                if mtu.probe(ETHERNET, token, now).is_some_and(|bytes| bytes <= carries) {
                    mtu.on_pong(token);
                }
                now = now + Duration::from_millis(100);
            }
            assert_eq!(mtu.datagram_bytes(ETHERNET), found, "{carries}");
        }
    }

    #[test]
    fn a_link_of_our_own_is_never_asked_for_more_than_it_takes() {
        for (mtu, carries) in [(576, 548), (68, 548), (1000, 972), (1228, 1200), (1279, 1200), (1500, 1472)] {
            let sizes = Sizes { link: Some(mtu), ..ETHERNET };
            assert_eq!(PathMtu::default().datagram_bytes(sizes), carries.min(1200), "{mtu}");
            assert_eq!(found(sizes, usize::MAX).0, carries, "{mtu}");
        }
        assert_eq!(found(Sizes { link: Some(1280), ipv6: true, ..ETHERNET }, usize::MAX).0, 1200);
    }

    #[test]
    fn what_our_own_system_refuses_is_not_tried_again_before_our_links_change() {
        let (mut mtu, now) = (PathMtu::default(), Instant::default());
        assert!(mtu.on_too_large(ETHERNET, 1000, true, now));
        assert_eq!(mtu.datagram_bytes(ETHERNET), 972);
        assert!(!mtu.on_too_large(ETHERNET, 1000, true, now), "said twice");
        assert_eq!(mtu.probe(ETHERNET, 1, now), None);
        mtu.try_again();
        assert_eq!(mtu.probe(ETHERNET, 2, now), Some(1200));
    }

    #[test]
    fn who_lies_of_a_size_is_shown_to_lie_by_the_next_try_and_never_gets_below_the_least() {
        let (mut mtu, now) = (PathMtu::default(), Instant::default());
        assert!(mtu.on_too_large(ETHERNET, 68, false, now));
        assert_eq!(mtu.datagram_bytes(ETHERNET), limits::SMALLEST_DATAGRAM_BYTES);
        for (token, bytes) in [(1, 972), (2, 1200)] {
            assert_eq!(mtu.probe(ETHERNET, token, now), Some(bytes));
            assert!(mtu.on_pong(token));
        }
        assert!(!mtu.on_too_large(ETHERNET, 9000, false, now), "that says nothing");
        assert_eq!(mtu.datagram_bytes(ETHERNET), limits::DATAGRAM_BYTES);
    }
}
