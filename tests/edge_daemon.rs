//! The daemon as a process: how it starts, refuses to start, serves apps and ends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use atonce::crypto::invitation::Invitation;
use rustix::process::{Signal, kill_process};

use crate::daemon::{Daemon, command, connect, line};

fn failed(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn it_says_where_it_is_and_ends_cleanly_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(dir.path(), &[]);
        let socket = dir.path().join("a.sock");
        assert!(daemon.ready.starts_with("atonced: test-node ("), "{}", daemon.ready);
        assert!(daemon.ready.contains(") ready, udp "), "{}", daemon.ready);
        assert!(daemon.ready.ends_with(&format!(", socket {}\n", socket.display())), "{}", daemon.ready);
        kill_process(daemon.pid(), signal).unwrap();
        assert_eq!(daemon.child.wait().unwrap().code(), Some(0));
        assert!(!socket.exists());
        let mut rest = String::new();
        daemon.output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn a_second_daemon_is_told_whose_the_place_is() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let owner = format!("(pid {})", daemon.child.id());

    let (code, error) = failed(command(dir.path(), &[]));
    assert_eq!(code, Some(1));
    assert!(error.starts_with("atonced: the state directory ") && error.contains(&owner), "{error}");

    let other_state = dir.path().join("other");
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
    command.env_clear().arg("--state-dir").arg(other_state).arg("--socket").arg(dir.path().join("a.sock"));
    let (code, error) = failed(command);
    assert_eq!(code, Some(1));
    assert!(error.starts_with("atonced: the socket ") && error.contains(&owner), "{error}");
}

#[test]
fn what_a_killed_daemon_left_behind_does_not_hinder_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(dir.path(), &[]);
    let name = first.ready.clone();
    drop(first);
    let second = Daemon::start(dir.path(), &[]);
    let id = |ready: &str| ready.split(['(', ')']).nth(1).map(str::to_owned);
    assert_eq!(id(&second.ready), id(&name));
}

#[test]
fn mistakes_are_told_with_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(failed(command(dir.path(), &["--porty", "1"])).0, Some(2));
    assert_eq!(failed(command(dir.path(), &["--port", "x"])).0, Some(2));

    let config = dir.path().join("a.toml");
    std::fs::write(&config, "nmae = \"x\"\n").unwrap();
    let config = config.to_str().unwrap();
    let (code, error) = failed(command(dir.path(), &["--check", "--config", config]));
    let meant = "a.toml:1: unknown key `nmae`, did you mean `name`?\n";
    assert_eq!((code, error.ends_with(meant)), (Some(1), true), "{error}");
    std::fs::write(config, "port = 0\n").unwrap();
    assert_eq!(failed(command(dir.path(), &["--check", "--config", config])).0, Some(0));
    assert!(!dir.path().join("state").exists());

    let secret = dir.path().join("secret");
    std::fs::write(&secret, "no secret\n").unwrap();
    let (code, error) = failed(command(dir.path(), &["--network-secret-file", secret.to_str().unwrap()]));
    assert_eq!(code, Some(1));
    assert!(error.contains("holds no network secret") && !error.contains("no secret\n"), "{error}");
}

#[test]
fn the_environment_counts_where_no_flag_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
    command
        .env_clear()
        .env("ATONCE_STATE_DIR", dir.path().join("state"))
        .env("ATONCE_SOCKET", dir.path().join("b.sock"));
    command.env("ATONCE_NAME", "from-env").env("ATONCE_BIND", "127.0.0.1,::1").env("ATONCE_NO_MDNS", "1");
    command.env("ATONCE_NO_HELLO", "true").arg("--name").arg("from-flag").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready.starts_with("atonced: from-flag ("), "{ready}");
    assert!(ready.ends_with("/b.sock\n"), "{ready}");
}

#[test]
fn a_variable_that_is_empty_counts_as_unset_and_what_is_around_a_value_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("a.toml");
    std::fs::write(&config, "port = 7\n").unwrap();
    let used = |program: &str, set: &[(&str, &str)]| {
        let mut command = Command::new(program);
        command.env_clear().arg("--check").arg("--config").arg(&config).env("HOME", dir.path());
        let ended = command.envs(set.iter().copied()).output().unwrap();
        assert!(ended.status.success(), "{set:?} {}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stdout).unwrap()
    };
    let help = Command::new(env!("CARGO_BIN_EXE_atonced")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut variables: Vec<&str> =
        help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next()).collect();
    assert_eq!(variables.len(), 19, "{variables:?}");
    variables.extend(["STATE_DIRECTORY", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "CONFIGURATION_DIRECTORY"]);
    variables.extend(["XDG_RUNTIME_DIR", "CREDENTIALS_DIRECTORY", "ATONCE_PROT"]);
    let plain = used(env!("CARGO_BIN_EXE_atonced"), &[]);
    for blank in ["", " ", "\r", "\"\""] {
        for variable in &variables {
            assert_eq!(
                used(env!("CARGO_BIN_EXE_atonced"), &[(variable, blank)]),
                plain,
                "{variable}={blank:?}"
            );
        }
    }
    let all: Vec<_> = variables.iter().map(|variable| (*variable, "")).collect();
    assert_eq!(used(env!("CARGO_BIN_EXE_atonced"), &all), plain);

    let told = used(
        env!("CARGO_BIN_EXE_atonced"),
        &[
            ("ATONCE_PEER", " a:1 , b:2,\r"),
            ("ATONCE_PORT", "9\r"),
            ("ATONCE_NAME", "\"pi\""),
            ("ATONCE_BIND", "127.0.0.1, ::1"),
            ("ATONCE_NO_MDNS", " true "),
        ],
    );
    for line in [
        "peer = [\"a:1\",\"b:2\"]  # $ATONCE_PEER",
        "port = 9  # $ATONCE_PORT",
        "name = \"pi\"  # $ATONCE_NAME",
        "bind = [\"127.0.0.1\",\"::1\"]  # $ATONCE_BIND",
        "no_mdns = true  # $ATONCE_NO_MDNS",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}\n{told}");
    }

    std::fs::write(&config, "").unwrap();
    let server = env!("CARGO_BIN_EXE_atonce-rendezvous");
    let plain = used(server, &[]);
    for variable in ["BIND", "STATE_DIR", "METRICS", "LOG", "CONFIG"] {
        assert_eq!(used(server, &[(&format!("ATONCE_RENDEZVOUS_{variable}"), "")]), plain, "{variable}");
    }
    let told = used(server, &[("ATONCE_RENDEZVOUS_BIND", " 127.0.0.1:5 , [::1]:5, ")]);
    assert!(told.starts_with("# ") && told.contains("bind = [\"127.0.0.1:5\",\"[::1]:5\"]  # $"), "{told}");
}

#[test]
fn a_flag_goes_before_the_environment_the_credential_the_drop_ins_and_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (conf, file) = (dir.path().join("conf.d"), dir.path().join("atonce.toml"));
    std::fs::create_dir(&conf).unwrap();
    let secret = dir.path().join("network-secret");
    std::fs::write(&secret, format!("atonce-secret-{}\n", "a".repeat(52))).unwrap();
    std::fs::write(&file, "log = \"file\"\nport = 1\npeer = [\"file:1\"]\nnetwork_secret_file = \"/none\"\n")
        .unwrap();
    std::fs::write(conf.join("1.toml"), "log = \"one\"\nport = 2\n").unwrap();
    std::fs::write(conf.join("2.toml"), "\nport = 3\n").unwrap();
    let mut command = command(dir.path(), &["--check", "--config", file.to_str().unwrap()]);
    command
        .env("ATONCE_NO_HELLO", "0")
        .env("ATONCE_MDNS_PROBE", "1")
        .env("CREDENTIALS_DIRECTORY", dir.path());
    let Output { status, stdout, .. } = command.output().unwrap();
    let used = String::from_utf8(stdout).unwrap();
    assert!(status.success(), "{used}");
    for line in [
        "no_hello = true  # --no-hello".to_owned(),
        "mdns_probe = true  # $ATONCE_MDNS_PROBE".to_owned(),
        format!("network_secret_file = \"{}\"  # credential", secret.display()),
        format!("port = 3  # {}:2", conf.join("2.toml").display()),
        "log = \"warn\"  # --log".to_owned(),
        format!("peer = [\"file:1\"]  # {}:3", file.display()),
        "# ignore_interface is not set".to_owned(),
    ] {
        assert!(used.lines().any(|used| used == line), "{line}\n{used}");
    }
}

#[test]
fn a_variable_is_complained_of_by_its_name_and_a_misspelt_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = |set: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
        command.env_clear().arg("--check").arg("--state-dir").arg(dir.path()).args(args);
        let ended = command.envs(set.iter().copied()).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for wrong in ["eth0", " eth0 ,"] {
        let (code, text) = told(&[("ATONCE_BIND", wrong)], &[]);
        assert!(code == Some(2) && text.contains("'$ATONCE_BIND'") && !text.contains("'--bind"), "{text}");
    }
    let (code, text) = told(&[("ATONCE_PORT", "x")], &["--name", "a"]);
    assert!(code == Some(2) && text.contains("'$ATONCE_PORT'"), "{text}");
    // What was given by the flag is the flag's.
    let (code, text) = told(&[("ATONCE_PORT", "1")], &["--port=x"]);
    assert!(code == Some(2) && text.contains("'--port <N>'"), "{text}");
    let (code, text) = told(&[("ATONCE_PROT", "1")], &[]);
    assert_eq!(
        (code, text.as_str()),
        (Some(1), "atonced: $ATONCE_PROT: unknown variable, did you mean ATONCE_PORT?\n")
    );
    let of_others =
        [("ATONCE_RENDEZVOUS_BIND", "x"), ("ATONCE_SOCKET", "/x"), ("ATONCE", "x"), ("XATONCE_A", "x")];
    assert_eq!(told(&of_others, &[]), (Some(0), String::new()));
}

#[test]
fn a_reload_follows_what_can_change_and_tells_what_needs_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (config, secret) = (dir.path().join("a.toml"), dir.path().join("secret"));
    let write_secret =
        |letter: &str| std::fs::write(&secret, format!("atonce-secret-{}a\n", letter.repeat(51))).unwrap();
    let named = format!("network_secret_file = {secret:?}\n");
    write_secret("a");
    std::fs::write(&config, &named).unwrap();
    let daemon = Daemon::start(dir.path(), &["--config", config.to_str().unwrap()]);
    let (mut app, mut answers) = connect(dir.path());
    let mut ask = |op: &str| {
        writeln!(app, "{{\"op\":{op},\"id\":1}}").unwrap();
        line(&mut answers)
    };
    let network = "\"network\",\"action\":\"show\"";
    let first = ask(network)["network"]["fingerprint"].clone();
    assert_eq!(ask("\"reload\"")["reload"], serde_json::json!({"changed": [], "restart": []}));

    write_secret("b");
    std::fs::write(&config, format!("{named}port = 5\nnmae = 1\npeer = [\"127.0.0.1:9\"]\n")).unwrap();
    let reloaded = ask("\"reload\"")["reload"].clone();
    assert_eq!(
        reloaded,
        serde_json::json!({"changed": ["peer", "network_secret_file"], "restart": ["port"]})
    );
    let second = ask(network)["network"]["fingerprint"].clone();
    assert_ne!(first, second);
    let status = ask("\"status\"");
    let health = status["status"]["health"].as_array().unwrap();
    let config_health = health.iter().find(|health| health["check"] == "config").unwrap();
    let why = config_health["why"].as_str().unwrap();
    assert!(why.contains("a.toml:3: unknown key `nmae`") && why.ends_with(": port"), "{why}");

    std::fs::write(&config, "port = true\nname = 1\n").unwrap();
    let error = ask("\"reload\"");
    let message = error["message"].as_str().unwrap();
    let told = "a.toml:1: `port` is true, and should be a whole number up to 65535; ";
    assert!(
        message.contains(told) && message.ends_with("a.toml:2: `name` is 1, and should be a string"),
        "{error}"
    );
    assert!(!message.contains('\n'), "{error}");
    assert_eq!(ask(network)["network"]["fingerprint"], second);

    // The same by a signal; it is seen by what it does.
    write_secret("a");
    std::fs::write(&config, &named).unwrap();
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while ask(network)["network"]["fingerprint"] != first {
        assert!(std::time::Instant::now() < deadline, "the signal changed nothing");
        std::thread::yield_now();
    }
}

#[test]
fn real_daemons_change_their_secret_one_after_the_other_and_none_leaves() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let secret = |letter: &str| format!("atonce-secret-{}a", letter.repeat(51));
    let mut daemons: Vec<(Daemon, UnixStream, BufReader<UnixStream>)> = Vec::new();
    for (n, dir) in dirs.iter().enumerate() {
        let file = dir.path().join("secret");
        std::fs::write(&file, secret("b")).unwrap();
        let first = daemons.first().map(|(daemon, ..)| port(&daemon.ready));
        let peer = first.map(|port| format!("127.0.0.1:{port}"));
        let mut args = vec!["--port", "0"];
        // One of them has its secret in a file, the others join.
        if n == 0 {
            args.extend(["--network-secret-file", file.to_str().unwrap()]);
        }
        args.extend(peer.iter().flat_map(|peer| ["--peer", peer]));
        let daemon = Daemon::start(dir.path(), &args);
        let (app, answers) = connect(dir.path());
        daemons.push((daemon, app, answers));
    }
    let ask = |daemons: &mut Vec<(Daemon, UnixStream, BufReader<UnixStream>)>, n: usize, op: &str| {
        let (_, app, answers) = &mut daemons[n];
        writeln!(app, "{{\"op\":{op},\"id\":1}}").unwrap();
        line(answers)
    };
    let join = |letter: &str, keep: bool| {
        format!(r#""network","action":"join","secret":"{}","keep":{keep}"#, secret(letter))
    };
    for n in [1, 2] {
        assert_eq!(ask(&mut daemons, n, &join("b", true))["network"]["also"], serde_json::Value::Null);
    }
    let everybody = |daemons: &mut Vec<_>| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        for n in 0..3 {
            while ask(daemons, n, "\"status\"")["status"]["peers"]["online"] != 2 {
                assert!(std::time::Instant::now() < deadline, "node {n} is alone");
                std::thread::yield_now();
            }
        }
    };
    everybody(&mut daemons);
    let (mut watcher, mut watched) = connect(dirs[2].path());
    writeln!(watcher, r#"{{"op":"watch","id":1}}"#).unwrap();
    for _ in 0..3 {
        assert_ne!(line(&mut watched)["ev"], "exit");
    }
    let file = dirs[0].path().join("secret");
    std::fs::write(&file, format!("{}\n{}\n", secret("c"), secret("b"))).unwrap();
    assert_eq!(ask(&mut daemons, 0, "\"reload\"")["reload"]["changed"][0], "network_secret_file");
    let mut shown = Vec::new();
    for n in [1, 2] {
        everybody(&mut daemons);
        if n == 2 {
            await_old_secrets(dirs[1].path(), 1);
        }
        shown.push(ask(&mut daemons, n, &join("c", true))["network"].clone());
    }
    assert!(shown[0]["also"].is_string() && shown[0] == shown[1], "{shown:?}");
    let stored = std::fs::read_to_string(dirs[1].path().join("state/network.secret")).unwrap();
    assert_eq!(stored, format!("{}\n{}\n", secret("c"), secret("b")));
    // What an operator looks at before the old secret is given up.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for n in 0..3 {
        let has_moved = |status: &serde_json::Value| {
            let checks = status["status"]["health"].as_array().unwrap();
            let check = checks.iter().find(|check| check["check"] == "network").unwrap();
            check["why"].as_str().unwrap().contains("of before with 0;")
        };
        while !has_moved(&ask(&mut daemons, n, "\"status\"")) {
            assert!(std::time::Instant::now() < deadline, "node {n} stays with the old secret");
            std::thread::yield_now();
        }
    }
    let refused = ask(&mut daemons, 0, r#""network","action":"settle""#);
    assert!(refused["message"].as_str().unwrap().contains("/secret: change it there"), "{refused}");
    assert_eq!(refused["hint"], "change that file, then: atonce reload");
    std::fs::write(&file, secret("c")).unwrap();
    assert_eq!(ask(&mut daemons, 0, "\"reload\"")["reload"]["changed"][0], "network_secret_file");
    for n in [1, 2] {
        let settled = ask(&mut daemons, n, r#""network","action":"settle""#);
        assert_eq!(
            (&settled["network"]["also"], &settled["network"]["fingerprint"]),
            (&serde_json::Value::Null, &shown[0]["fingerprint"])
        );
    }
    everybody(&mut daemons);
    // Its answer comes after all that was told before.
    writeln!(watcher, r#"{{"op":"hello","id":9}}"#).unwrap();
    let told: Vec<_> =
        std::iter::repeat_with(|| line(&mut watched)).take_while(|told| told["id"] != 9).collect();
    assert!(told.iter().all(|told| told["ev"] != "exit"), "{told:?}");
}

/// Until so many peers are there by the old secret alone.
#[track_caller]
fn await_old_secrets(dir: &Path, count: usize) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let (mut app, mut answers) = connect(dir);
        writeln!(app, r#"{{"op":"peers","id":1}}"#).unwrap();
        let listed = std::iter::repeat_with(|| line(&mut answers)).take_while(|told| told["ev"] == "peer");
        let listed: Vec<_> = listed.collect();
        if listed.iter().filter(|peer| peer["old_secret"] == true).count() == count {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not {count}: {listed:?}");
        std::thread::yield_now();
    }
}

/// A rendezvous server, and the address and key that it printed.
fn rendezvous(state: &Path, bind: &str) -> (Daemon, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce-rendezvous"));
    command.env_clear().arg("--state-dir").arg(state).args(["--bind", bind, "--log", "error"]);
    let server = Daemon::spawn(command);
    let (addr, key) = server.ready.trim_end().split_once('#').unwrap();
    let (addr, key) = (addr.to_owned(), key.to_owned());
    (server, addr, key)
}

/// One question of an app of its own, which needs an answer of one line.
fn asked(dir: &Path, op: &str) -> serde_json::Value {
    let (mut app, mut answers) = connect(dir);
    writeln!(app, "{{\"op\":{op},\"id\":1}}").unwrap();
    line(&mut answers)
}

#[track_caller]
fn await_server(dir: &Path, state: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let status = asked(dir, "\"status\"");
        let servers = &status["status"]["rendezvous"];
        if servers[0]["state"] == state {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not {state}: {servers}");
        std::thread::yield_now();
    }
}

fn invitation(letter: &str, server: &str) -> String {
    let secret = format!("atonce-secret-{}a", letter.repeat(51)).parse().unwrap();
    Invitation { secret, servers: vec![server.parse().unwrap()] }.to_line().as_str().to_owned()
}

#[test]
fn an_invitation_brings_the_secret_and_the_servers_over_in_one_line() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [host, guest] = [dirs[1].path(), dirs[2].path()];
    let (_server, addr, key) = rendezvous(dirs[0].path(), "127.0.0.1:0");
    let secret = format!("atonce-secret-{}a", "b".repeat(51));
    let join = |line: &str| format!(r#""network","action":"join","secret":"{line}""#);

    let _host = Daemon::start(host, &["--rendezvous", &addr]);
    let refused = asked(host, "\"invite\"");
    assert_eq!((&refused["ev"], &refused["code"]), (&"error".into(), &"bad-request".into()));
    assert!(refused["hint"].as_str().unwrap().contains("atonce network create | atonce network join"));
    assert_eq!(asked(host, &join(&secret))["network"]["servers"], serde_json::json!([addr]));
    await_server(host, "registered");
    let line = invitation("b", &format!("{addr}#{key}"));
    let answer = asked(host, "\"invite\"");
    assert_eq!(answer, serde_json::json!({"ev": "invitation", "id": 1, "line": line}));

    let daemon = Daemon::start(guest, &[]);
    let known = serde_json::json!([format!("{addr}#{key}")]);
    assert_eq!(asked(guest, &join(&line))["network"]["servers"], known);
    await_server(guest, "registered");
    drop(daemon);
    let stored = guest.join("state/network.secret");
    assert_eq!(std::fs::read_to_string(&stored).unwrap(), format!("{line}\n"));
    let _guest = Daemon::start(guest, &[]);
    await_server(guest, "registered");
    // Another secret, beside which the servers of before count until it is settled.
    let kept = asked(guest, &format!("{},\"keep\":true", join(&invitation("c", "192.0.2.1:9"))));
    assert_eq!(kept["network"]["servers"].as_array().unwrap().len(), 2, "{kept}");
    let settled = asked(guest, r#""network","action":"settle""#);
    assert_eq!(settled["network"]["servers"], serde_json::json!(["192.0.2.1:9"]));
    let left = asked(guest, r#""network","action":"leave""#);
    assert_eq!(left["network"].get("servers"), None);
    assert!(!stored.exists());
    assert_eq!(std::fs::read_to_string(guest.join("state/rendezvous.pins")).unwrap(), "");
    // Without servers it is known to be whole too.
    asked(guest, &join(&secret));
    let line = asked(guest, "\"invite\"")["line"].as_str().unwrap().to_owned();
    assert!(line.starts_with("atonce-invite-") && line.contains('~') && !line.contains('@'), "{line}");
    assert_eq!(asked(guest, &join(&line))["network"]["kind"], "private");
    let mistyped = asked(guest, &join(&line.replacen("bbb", "bcb", 1)));
    assert!(mistyped["message"].as_str().unwrap().contains("cut or changed"), "{mistyped}");
}

#[test]
fn a_server_with_another_key_is_refused_after_a_restart_until_the_configuration_names_the_key() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let dir = dirs[2].path();
    let (server, addr, key) = rendezvous(dirs[0].path(), "127.0.0.1:0");
    let (config, secret) = (dir.join("a.toml"), dir.join("secret"));
    let named = format!("network_secret_file = {secret:?}\n");
    std::fs::write(&secret, invitation("b", &addr)).unwrap();
    std::fs::write(&config, &named).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let daemon = Daemon::start(dir, &args);
    await_server(dir, "registered");
    drop(daemon);
    let pins = dir.join("state/rendezvous.pins");
    assert_eq!(std::fs::read_to_string(&pins).unwrap(), format!("{addr}#{key}\n"));

    drop(server);
    let (_server, _, other) = rendezvous(dirs[1].path(), &addr);
    let _daemon = Daemon::start(dir, &args);
    await_server(dir, "wrong-key");
    let status = asked(dir, "\"status\"");
    let health = status["status"]["health"].as_array().unwrap();
    let check = health.iter().find(|health| health["check"] == "rendezvous").unwrap();
    assert!(
        check["fix"].as_str().unwrap().contains("atonce network join, with a line of atonce invite"),
        "{check}"
    );
    std::fs::write(&config, format!("{named}rendezvous = [\"{addr}#{other}\"]\n")).unwrap();
    let reloaded = serde_json::json!({"changed": ["rendezvous"], "restart": []});
    assert_eq!(asked(dir, "\"reload\"")["reload"], reloaded);
    await_server(dir, "registered");
    assert_eq!(std::fs::read_to_string(&pins).unwrap(), format!("{addr}#{other}\n"));

    // Servers in the secret's file are followed too.
    std::fs::write(&secret, invitation("b", "192.0.2.1:9")).unwrap();
    let reloaded = serde_json::json!({"changed": ["network_secret_file"], "restart": []});
    assert_eq!(asked(dir, "\"reload\"")["reload"], reloaded);
    let shown = asked(dir, r#""network","action":"show""#);
    let servers = serde_json::json!([format!("{addr}#{other}"), "192.0.2.1:9"]);
    assert_eq!(shown["network"]["servers"], servers);
}

fn port(ready: &str) -> String {
    let (_, rest) = ready.split_once("udp ").unwrap();
    rest.split(',').next().unwrap().to_owned()
}

#[test]
fn an_app_that_has_said_all_still_reads_its_answers() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let (mut app, mut answers) = connect(dir.path());
    app.write_all(b"\n{\"op\":\"hello\",\"id\":1}\n{\"op\":\"peers\",\"id\":2}\n{\"op\":\"hello\",\"id\":3}")
        .unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    let first = line(&mut answers);
    assert_eq!((first["ev"].as_str(), first["id"].as_u64()), (Some("ok"), Some(1)));
    let mut rest = String::new();
    answers.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"id\":2") && !rest.contains("\"id\":3"), "{rest}");
}

#[test]
fn a_line_that_is_too_long_is_told_and_the_connection_lives() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let (mut app, mut answers) = connect(dir.path());
    let mut long = vec![b'x'; 300_000];
    long.extend_from_slice(b"\n{\"op\":\"hello\",\"id\":4}\n");
    app.write_all(&long).unwrap();
    let error = line(&mut answers);
    assert_eq!((error["ev"].as_str(), error["code"].as_str()), (Some("error"), Some("too-long")));
    assert_eq!(line(&mut answers)["id"], 4);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere; a path below a file is refused to everybody.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state"), "").unwrap();
        let (code, error) = failed(command(dir.path(), &[]));
        assert_eq!(code, Some(1));
        assert!(error.contains("atonced: cannot create ") && error.contains("--state-dir"), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    let (code, error) = failed(command(dir.path(), &[]));
    assert_eq!(code, Some(1));
    assert!(error.contains("atonced: cannot create ") && error.contains("--state-dir"), "{error}");
}

#[test]
fn apps_that_asked_and_closed_leave_their_places_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let (mut listener, mut heard) = connect(dir.path());
    writeln!(listener, r#"{{"op":"listen","topic":"t","id":1}}"#).unwrap();
    assert_eq!(line(&mut heard)["ev"], "ok");
    let to = r#""to":"test-node","topic":"t","text":"?""#;
    for number in 1..=70 {
        let (mut asking, answers) = connect(dir.path());
        writeln!(asking, r#"{{"op":"send",{to},"replies":1,"timeout_ms":600000,"id":1}}"#).unwrap();
        drop((asking, answers));
        assert_eq!(line(&mut heard)["ev"], "message", "question {number}");
    }
}

#[test]
fn a_socket_that_was_removed_is_made_again_by_itself_and_at_once_by_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("a.sock");
    let daemon = Daemon::start(dir.path(), &[]);
    let (mut app, mut answers) = connect(dir.path());
    let wait = || {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while UnixStream::connect(&socket).is_err() {
            assert!(std::time::Instant::now() < deadline, "the socket is not made again");
            std::thread::yield_now();
        }
    };
    std::fs::remove_file(&socket).unwrap();
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    wait();
    std::fs::remove_file(&socket).unwrap();
    wait();
    // Who was connected still is, and learns of what stands in its place.
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "precious").unwrap();
    let mut check = |op: &str| {
        writeln!(app, "{{\"op\":\"{op}\",\"id\":1}}").unwrap();
        let answer = line(&mut answers);
        let checks = answer["status"]["health"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["check"] == "socket")
    };
    check("reload");
    let told = check("status").unwrap();
    assert_eq!(told["state"], "fail");
    assert!(told["why"].as_str().unwrap().contains("is no socket, so it was left alone"), "{told}");
    std::fs::remove_file(&socket).unwrap();
    check("reload");
    assert_eq!(check("status").unwrap()["state"], "ok");
    wait();
}

#[test]
fn no_core_is_written_of_what_holds_keys_and_no_other_process_of_its_user_may_look_in() {
    let dir = tempfile::tempdir().unwrap();
    // Root without capabilities is a user like any other, who may look into whatever of its own can be dumped.
    let plain = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", program]);
        command
    };
    let may_look = |pid: u32| {
        let output = plain("cat").arg(format!("/proc/{pid}/environ")).output().unwrap();
        output.status.success()
    };
    let mut node = plain(env!("CARGO_BIN_EXE_atonced"));
    node.args(command(dir.path(), &[]).get_args());
    let mut server = plain(env!("CARGO_BIN_EXE_atonce-rendezvous"));
    server.arg("--state-dir").arg(dir.path().join("server")).args(["--bind", "127.0.0.1:0"]);
    for command in [node, server] {
        let daemon = Daemon::spawn(command);
        assert!(daemon.ready.contains("127.0.0.1") || daemon.ready.contains(" ready"), "{:?}", daemon.ready);
        assert!(!may_look(daemon.child.id()));
    }
    // It can fail: a process that says nothing of itself can be looked into.
    let mut other = plain("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    other.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    other.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    assert!(may_look(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn the_name_of_the_host_is_followed_unless_the_node_has_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (state, socket) = (dir.path().join("state"), dir.path().join("a.sock"));
    for (args, followed) in [(&[][..], true), (&["--name", "attic"], false)] {
        let mut command = Command::new("unshare");
        command.args(["--uts", "--", "/bin/sh", "-c", "hostname localhost && exec \"$@\"", "sh"]);
        command
            .arg(env!("CARGO_BIN_EXE_atonced"))
            .arg("--state-dir")
            .arg(&state)
            .arg("--socket")
            .arg(&socket);
        command.args(["--bind", "127.0.0.1", "--no-mdns", "--no-hello", "--log", "warn"]).args(args);
        let daemon = Daemon::spawn(command);
        let name = if followed { "localhost" } else { "attic" };
        assert!(daemon.ready.starts_with(&format!("atonced: {name} (")), "{}", daemon.ready);
        let rename = |name: &str| {
            let pid = daemon.child.id().to_string();
            let renamed =
                Command::new("nsenter").args(["--uts", "--target", &pid, "hostname", name]).status();
            assert!(renamed.unwrap().success());
        };
        let (mut app, mut answers) = connect(dir.path());
        let mut ask = |op: &str| {
            writeln!(app, "{{\"op\":\"{op}\",\"id\":1}}").unwrap();
            line(&mut answers)
        };
        rename("loft");
        let changed = ask("reload")["reload"]["changed"].clone();
        if !followed {
            assert_eq!(
                (changed, &ask("hello")["hello"]["node"]["name"]),
                (serde_json::json!([]), &"attic".into())
            );
            continue;
        }
        assert_eq!(changed, serde_json::json!(["name"]));
        assert_eq!(ask("hello")["hello"]["node"]["name"], "loft");
        // And without being told.
        rename("cellar");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while ask("hello")["hello"]["node"]["name"] != "cellar" {
            assert!(std::time::Instant::now() < deadline, "the name is not followed");
        }
    }
}

#[test]
fn a_last_line_without_its_newline_is_told_and_a_carriage_return_alone_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(dir.path(), &[]);
    let told = |sent: &[u8]| {
        let (mut app, mut answers) = connect(dir.path());
        app.write_all(sent).unwrap();
        app.shutdown(Shutdown::Write).unwrap();
        let mut told = String::new();
        answers.read_to_string(&mut told).unwrap();
        told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let answers = told(b"\r\n\r\n{\"op\":\"hello\",\"id\":1}\r\n \t\r\n{\"op\":\"hello\",\"id\":2}");
    assert_eq!((answers.len(), &answers[0]["id"]), (2, &1.into()), "{answers:?}");
    assert_eq!((&answers[1]["ev"], &answers[1]["code"]), (&"error".into(), &"bad-json".into()));
    assert!(answers[1]["message"].as_str().unwrap().contains("no newline"), "{answers:?}");
    assert_eq!(told(b"{\"op\":\"hello\",\"id\":1}\n\r").len(), 1);
    assert_eq!(told(b"").len(), 0);
    let cut = told(b"@ONCE\0");
    assert_eq!((cut.len(), &cut[0]["code"]), (1, &"bad-request".into()), "{cut:?}");
}
