//! Replays the corpus of the fuzz targets: what each found worth keeping holds for ever.
//!
//! The bodies are in `targets`, one file each, and the fuzzing engine runs the same ones (`fuzz/`, README).

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "nobody outside of the tests sees this"
)]

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

type Run = fn(&[u8]);

const TARGETS: [(&str, Run); 14] = [
    ("packet", targets::packet::run),
    ("promises", targets::promises::run),
    ("datagram", targets::datagram::run),
    ("records", targets::records::run),
    ("txt", targets::txt::run),
    ("hello", targets::hello::run),
    ("local_lines", targets::local_lines::run),
    ("local_frames", targets::local_frames::run),
    ("client_events", targets::client_events::run),
    ("handshake", targets::handshake::run),
    ("files", targets::files::run),
    ("rendezvous_client", targets::rendezvous_client::run),
    ("rendezvous_messages", targets::rendezvous_messages::run),
    ("rendezvous_server", targets::rendezvous_server::run),
];

fn folder(path: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(path);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stems(path: &str) -> Vec<String> {
    folder(path).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Runs every file of the target's corpus; fails with the names of those that fail, or if there are none.
fn replay(name: &str) {
    let (_, run) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let files = folder(&format!("corpus/{name}"));
    assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
    let fails = |file: &PathBuf| {
        let data = std::fs::read(file).unwrap();
        catch_unwind(AssertUnwindSafe(|| run(&data))).is_err()
    };
    let failed: Vec<_> = files.into_iter().filter(fails).collect();
    assert!(failed.is_empty(), "{name} fails with {failed:#?}");
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_there_are_no_others() {
    let mut names = TARGETS.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
}

macro_rules! replays {
    ($($test:ident: $target:literal;)*) => {
        $(#[test]
        fn $test() {
            replay($target);
        })*
    };
}

replays! {
    a_datagram_of_any_bytes_is_one_packet_or_none: "packet";
    whatever_befalls_a_network_its_promises_hold: "promises";
    datagrams_of_strangers_leave_a_node_within_its_limits: "datagram";
    a_peer_that_says_anything_leaves_a_node_within_its_limits: "records";
    an_advert_is_at_most_a_hint: "txt";
    a_hello_starts_at_most_a_first_message: "hello";
    whatever_an_app_writes_it_reads_whole_lines_of_legal_length: "local_lines";
    whatever_an_app_writes_in_frames_it_reads_whole_frames_of_legal_length: "local_frames";
    whatever_a_daemon_says_the_client_library_answers_with_events_or_an_error: "client_events";
    a_forged_handshake_packet_moves_neither_side: "handshake";
    what_is_read_from_a_file_is_what_would_be_written_there: "files";
    servers_and_members_that_lie_leave_a_node_within_its_limits: "rendezvous_client";
    a_rendezvous_message_of_any_bytes_is_written_as_it_was_read: "rendezvous_messages";
    datagrams_at_a_rendezvous_server_bring_nobody_more_than_was_sent: "rendezvous_server";
}
