//! Any bytes as a message of a rendezvous server or to one, and as what members seal in them: what is read is written
//! as it was, but for padding.

use atonce::wire::presence::{CANDIDATES_MAX, Introduction, Presence};
use atonce::wire::rendezvous::{FromNode, FromServer, Kind, size};

pub fn run(data: &[u8]) {
    from_server(data);
    from_node(data);
    if let Some(presence) = Presence::parse(data) {
        assert!(presence.candidates.len() <= CANDIDATES_MAX);
        assert_eq!(Presence::parse(&presence.to_bytes()), Some(presence));
    }
    if let Some(introduction) = Introduction::parse(data) {
        assert!(introduction.candidates.len() <= CANDIDATES_MAX);
        assert_eq!(Introduction::parse(&introduction.to_bytes()), Some(introduction));
    }
}

fn from_server(data: &[u8]) {
    let Ok(message) = FromServer::parse(data) else { return };
    let mut written = Vec::new();
    message.write(&mut written);
    if !matches!(message.kind(), Kind::Retry | Kind::Nope | Kind::Echo | Kind::Here) {
        written.extend_from_slice(&data[data.len() - size::MAC..]);
    }
    assert_eq!(FromServer::parse(&written), Ok(message));
    assert_eq!(written.len(), data.len());
}

fn from_node(data: &[u8]) {
    let Ok(message) = FromNode::parse(data) else { return };
    let mut written = Vec::new();
    message.write(data.len(), &mut written);
    if message.kind() == Kind::Register {
        written.extend_from_slice(&data[data.len() - size::MAC..]);
    }
    assert_eq!(FromNode::parse(&written), Ok(message));
    assert_eq!(written.len(), data.len());
}
