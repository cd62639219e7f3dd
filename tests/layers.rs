//! The layers of the house: what decides never touches the world.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::path::Path;

/// What only the edge may name.
const OUTSIDE: [&str; 13] = [
    "tokio",
    "socket2",
    "mdns_sd",
    "quinn_udp",
    "nix::",
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

/// Where MACs are made; everywhere else they are a `Tag`, whose comparison takes the same time wherever two differ.
const MACS: &str = "src/crypto/hash.rs";
/// What proves something and has a comparison of its own.
const PROOFS: [&str; 3] = ["struct Tag(", "struct Cookie(", "struct Token("];

#[test]
fn no_mac_is_made_but_as_a_tag_and_no_proof_is_compared_byte_by_byte() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut proofs = 0;
    for (file, text) in files {
        let mut derived = "";
        for (number, line) in code(&text) {
            let here = format!("{file}:{}: {line}", number + 1);
            assert!(file.ends_with(MACS) || !line.contains("Blake2sMac"), "{here}");
            if PROOFS.iter().any(|proof| line.contains(proof)) {
                proofs += 1;
                assert!(!derived.contains("PartialEq"), "{here}");
            }
            derived = line;
        }
    }
    assert_eq!(proofs, PROOFS.len());
}

#[test]
fn the_client_library_imports_the_socket_s_bytes_and_nothing_else_of_ours() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source.join("client"), &mut files);
    let root = source.join("client.rs");
    files.push((root.display().to_string(), std::fs::read_to_string(root).unwrap()));
    for (file, text) in files {
        for (number, line) in code(&text) {
            for layer in
                ["crate::core", "crate::edge", "crate::crypto", "crate::wire::packet", "crate::wire::message"]
            {
                assert!(!line.contains(layer), "{file}:{}: {layer}", number + 1);
            }
        }
    }
}

/// What an app that only talks to a daemon may have to build, beside what these need themselves.
const CLIENT_NEEDS: [&str; 8] =
    ["data-encoding", "rustix", "serde", "serde_json", "thiserror", "tokio", "tracing", "zeroize"];

#[test]
fn the_client_alone_needs_no_cryptography_and_no_network() {
    let tree = |depth: &str| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["tree", "--offline", "--locked", "--no-default-features", "--features", "client"]);
        cargo.args(["--edges", "normal", "--prefix", "none", "--format", "{lib}", "--depth", depth]);
        let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut names: Vec<String> = text.lines().map(|line| line.replace('_', "-")).collect();
        names.retain(|name| !name.is_empty() && name != "atonce");
        names.sort();
        names.dedup();
        names
    };
    let mut needs = CLIENT_NEEDS.map(|name| name.replace('_', "-"));
    needs.sort();
    assert_eq!(tree("1"), needs);
    let all = tree("100");
    for unwanted in ["blake2", "chacha20poly1305", "clap", "igd-next", "mdns-sd", "quinn-udp", "ring", "toml"]
    {
        assert!(!all.iter().any(|name| name == unwanted), "{unwanted} in {all:?}");
    }
    assert!(all.len() < 40, "{all:?}");
}

#[test]
fn each_test_that_the_page_on_security_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let is_a_test = |name: &str| files.iter().any(|(_, text)| text.contains(&format!("fn {name}(")));
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: Vec<&str> = rows
        .filter_map(|row| row.split('|').nth(4))
        .flat_map(|tests| tests.split('`').skip(1).step_by(2))
        .filter(|name| !name.contains('='))
        .collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<_> = named.into_iter().filter(|name| !is_a_test(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
