//! Any bytes as a datagram, and as the inside of a data packet.

use atonce::id::SessionIndex;
use atonce::limits;
use atonce::wire::message::{self, Read, Records};
use atonce::wire::packet::{Packet, size};

pub fn run(data: &[u8]) {
    kind_and_length(data);
    let mut rest = Vec::new();
    for read in Records::new(data) {
        let Ok(Read::Record(record)) = read else { continue };
        // What was read is written in its shortest form, and that reads back as the same.
        rest.clear();
        assert!(message::push(&mut rest, limits::DATAGRAM_MAX_BYTES, &record));
        let again: Vec<_> = Records::new(&rest).collect();
        assert_eq!(again, [Ok(Read::Record(record))]);
    }
}

fn kind_and_length(data: &[u8]) {
    let mut datagram = data.to_vec();
    let expected = match Packet::parse(&mut datagram) {
        Err(_) => return,
        Ok(Packet::Initiation(packet)) => (1, packet.len()),
        Ok(Packet::Response(packet)) => (2, packet.len()),
        Ok(Packet::Cookie(packet)) => (3, packet.len()),
        Ok(Packet::Data { receiver, packet }) => {
            assert!((size::DATA_OVERHEAD..=limits::LARGE_DATAGRAM_BYTES).contains(&packet.len()));
            assert_eq!(receiver, SessionIndex::from_bytes([data[1], data[2], data[3]]));
            (4, packet.len())
        }
        Ok(Packet::Hello(packet)) => (5, packet.len()),
        Ok(Packet::Whois(packet)) => (6, packet.len()),
        Ok(Packet::HereIs(packet)) => (7, packet.len()),
        Ok(Packet::Relayed { receiver, packet }) => {
            assert!(packet.len() > size::RELAY_OVERHEAD);
            assert_eq!(receiver, SessionIndex::from_bytes([data[1], data[2], data[3]]));
            (8, packet.len())
        }
    };
    assert_eq!((data[0], data.len()), expected);
    assert_eq!(data, datagram);
}
