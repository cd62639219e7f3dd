//! The layers of the house: what decides never touches the world.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::path::Path;

/// What only the edge may name.
const OUTSIDE: [&str; 12] = [
    "tokio",
    "socket2",
    "mdns_sd",
    "quinn_udp",
    "std::net::UdpSocket",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "getrandom",
    "SysRng",
    "crate::edge",
];

/// Each layer, and the layers above it that it may not import.
const LAYERS: [(&str, &[&str]); 4] = [
    ("wire", &["crate::crypto", "crate::core", "crate::server", "crate::client"]),
    ("crypto", &["crate::core", "crate::server", "crate::client"]),
    ("core", &["crate::server", "crate::client"]),
    ("server", &["crate::core", "crate::client"]),
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn nothing_below_the_edge_names_a_clock_a_socket_a_file_a_thread_or_a_layer_above() {
    let mut wrong = Vec::new();
    for (layer, above) in LAYERS {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(layer), &mut files);
        assert!(files.len() > 3, "src/{layer} is where it should be");
        for (file, text) in files {
            for (number, line) in code(&text) {
                for word in OUTSIDE.iter().chain(above) {
                    if line.contains(word) {
                        wrong.push(format!("{file}:{}: {word}", number + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_client_library_imports_the_socket_s_bytes_and_nothing_else_of_ours() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/client.rs");
    let text = std::fs::read_to_string(client).unwrap();
    for (number, line) in code(&text) {
        for layer in
            ["crate::core", "crate::edge", "crate::crypto", "crate::wire::packet", "crate::wire::message"]
        {
            assert!(!line.contains(layer), "src/client.rs:{}: {layer}", number + 1);
        }
    }
}
