//! atonce as a service, under a real systemd on hosts of the lab: what the units and the install script promise.
#![cfg(target_os = "linux")]
#![allow(
    dead_code,
    clippy::needless_pass_by_ref_mut,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and tells; the lab has more than it needs"
)]

#[path = "../lab/lab.rs"]
mod lab;
mod machine;

use std::path::Path;
use std::process::Command;

use lab::Lab;
use machine::Machine;
use serde_json::Value;

fn json(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|error| panic!("{out:?}: {error}"))
}

/// A root with the units of this distribution, and ours as a package would install them.
fn staged() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let build = Path::new(env!("CARGO_BIN_EXE_atonced")).parent().unwrap();
    for scope in ["system", "user"] {
        let units = root.path().join("usr/lib/systemd").join(scope);
        std::fs::create_dir_all(&units).unwrap();
        run(Command::new("cp").args(["-r", &format!("/usr/lib/systemd/{scope}/.")]).arg(units));
    }
    for arguments in [&[][..], &["--user"], &["--rendezvous"]] {
        let mut install = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/install"));
        run(install.args(arguments).env("DESTDIR", root.path()).env("PREFIX", "/usr").env("BUILD", build));
    }
    root
}

fn run(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}\ntry: apt-get install systemd"));
    let both = [output.stdout, output.stderr].concat();
    let both = String::from_utf8_lossy(&both).into_owned();
    assert!(output.status.success(), "{command:?}: {both}");
    both
}

#[test]
fn systemd_finds_nothing_wrong_in_the_units_and_little_to_attack() {
    let staged = staged();
    let analyze = |verb: &str| {
        let mut command = Command::new("systemd-analyze");
        command.arg(verb).arg(format!("--root={}", staged.path().display()));
        command
    };
    let told = run(analyze("verify").args([
        "--man=no",
        "atonced.service",
        "atonced.socket",
        "atonce-rendezvous.service",
    ]));
    assert_eq!(told, "");
    // In tenths: 1.3 and 1.2.
    for (threshold, unit) in [("13", "atonced.service"), ("12", "atonce-rendezvous.service")] {
        let threshold = format!("--threshold={threshold}");
        let told = run(analyze("security").args(["--offline=true", &threshold, unit]));
        println!("{}", told.lines().last().unwrap());
    }

    // The manager of a user knows no other root: the paths are made those of the staged one.
    let unit = staged.path().join("usr/lib/systemd/user/atonced.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("=/usr/bin/", &format!("={}/usr/bin/", staged.path().display())))
        .unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).arg(&unit).env("XDG_RUNTIME_DIR", staged.path());
    verify.env("SYSTEMD_UNIT_PATH", unit.parent().unwrap());
    std::fs::create_dir(staged.path().join("systemd")).unwrap();
    assert_eq!(run(&mut verify), "");
}

#[test]
fn installed_it_serves_the_members_of_its_group_and_ends_with_a_goodbye() {
    Lab::run("installed_it_serves_the_members_of_its_group_and_ends_with_a_goodbye", |lab| {
        let kitchen = lab.host("kitchen").daemon(&[]);
        let watch = kitchen.start(&["--json", "watch"]);
        let machine = Machine::boot(lab, lab.host("attic"));
        machine.install();
        watch.event("enter", "attic");
        machine.sh("usermod --append --groups atonce member");

        let (code, out) =
            machine.try_as("member", "atonce --timeout 30s wait kitchen && atonce --json status");
        assert_eq!(code, Some(0), "{}", machine.journal());
        let status = json(&out);
        assert_eq!((&status["name"], &status["peers"]["online"]), (&"attic".into(), &1.into()));
        let health = status["health"].as_array().unwrap();
        assert!(health.iter().all(|check| check["state"] == "ok"), "{health:?}");
        assert_eq!(machine.try_as("stranger", "atonce status").0, Some(6));
        assert_eq!(machine.try_as("member", "atonce reload").0, Some(6));
        assert_eq!(machine.try_as("member", "atonce network leave").0, Some(6));
        assert_eq!(machine.sh("stat -c %U:%G:%a /run/atonce/atonced.sock"), "atonce:atonce:660\n");
        assert_eq!(
            machine.sh("stat -c %U:%a /var/lib/atonce /var/lib/atonce/identity.key"),
            "atonce:700\natonce:600\n"
        );
        assert_eq!(machine.property("User"), "atonce");
        assert_eq!(machine.property("MainPID"), machine.sh("cat /var/lib/atonce/lock").trim());
        let line = machine.property("StatusText");
        assert!(
            ["attic: 1 peer online, 0 apps", "attic: 1 peer online, 1 app"].contains(&line.as_str()),
            "{line}"
        );

        machine.sh("systemctl stop atonced.service atonced.socket");
        watch.event("exit", "attic");
        let peers = kitchen.json(&["peers", "--all"]);
        assert_eq!(peers[0]["why"], "it said goodbye", "{peers:?}");
        assert_eq!(machine.property("Result"), "success");
        assert!(!machine.journal().contains("SIGKILL"));

        machine.sh("cd /src && systemd/install --uninstall");
        assert_eq!(machine.sh("find /usr/local /etc/systemd/system -name \"*atonce*\""), "");
        assert_eq!(machine.sh("systemctl list-unit-files --no-legend \"atonced.*\" || true"), "");
    });
}

#[test]
fn killed_hung_or_upgraded_it_comes_back_and_nobody_is_turned_away_meanwhile() {
    Lab::run("killed_hung_or_upgraded_it_comes_back_and_nobody_is_turned_away_meanwhile", |lab| {
        let machine = Machine::boot(lab, lab.host("attic"));
        machine.install();
        let socket = machine.sh("stat -c %i /run/atonce/atonced.sock");
        let id = machine.sh("atonce id --json");
        // Whoever connects while there is no daemon is served by the next one.
        let served = || assert_eq!(machine.sh("atonce --timeout 60s id --json"), id);
        served();

        let first = machine.property("MainPID");
        machine.sh("systemctl kill --signal KILL atonced.service");
        served();
        let second = machine.property("MainPID");
        assert_ne!(first, second);

        machine.sh("mkdir -p /run/systemd/system/atonced.service.d && \
             printf \"[Service]\\nWatchdogSec=2\\n\" >/run/systemd/system/atonced.service.d/watchdog.conf && \
             systemctl daemon-reload && systemctl restart atonced.service");
        let third = machine.property("MainPID");
        // It lives on beyond that time, because it says so.
        let ping = "WatchdogTimestampMonotonic";
        let later = machine.property(ping).parse::<u64>().unwrap() + 3_000_000;
        machine
            .until(&format!("test $(systemctl show --value --property {ping} atonced.service) -gt {later}"));
        assert_eq!(machine.property("MainPID"), third);
        machine.sh("systemctl kill --signal STOP atonced.service");
        served();
        assert_ne!(machine.property("MainPID"), third);
        assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());

        // The next version: the same program and one byte more.
        machine
            .sh("mkdir /run/next && cp /build/atonce /build/atonced /run/next && echo >>/run/next/atonced");
        let mut listening = machine.command("exec timeout 60 atonce listen -n 2 chat").spawn().unwrap();
        machine.until("atonce send attic chat hello");
        machine.sh("cd /src && BUILD=/run/next systemd/install");
        // Who listens goes over to the new daemon.
        machine.until("atonce send attic chat again");
        assert_eq!(listening.wait().unwrap().code(), Some(0));
        served();
        let exe = format!("/proc/{}/exe", machine.property("MainPID"));
        machine.sh(&format!("cmp {exe} /run/next/atonced"));

        machine.sh("systemctl stop atonced.service");
        assert_eq!(machine.property("ActiveState"), "inactive");
        served();
        assert_eq!(machine.property("ActiveState"), "active");
        assert_eq!(machine.sh("stat -c %i /run/atonce/atonced.sock"), socket);
    });
}

#[test]
fn however_often_it_is_killed_it_comes_back_and_follows_the_name_of_its_host() {
    Lab::run("however_often_it_is_killed_it_comes_back_and_follows_the_name_of_its_host", |lab| {
        let machine = Machine::boot(lab, lab.host("attic"));
        machine.install();
        // As fast as a full memory would: systemd gives up after five times in ten seconds, unless it is told not to.
        machine.sh("mkdir -p /run/systemd/system/atonced.service.d && \
             printf \"[Service]\\nRestartSec=100ms\\n\" >/run/systemd/system/atonced.service.d/fast.conf && \
             systemctl daemon-reload && systemctl restart atonced.service");
        let id = machine.sh("atonce --timeout 60s id --json");
        for _ in 0..12 {
            let before = machine.property("MainPID");
            machine.sh("systemctl kill --signal KILL atonced.service");
            machine.until(&format!(
                "pid=$(systemctl show --value --property MainPID atonced.service) && test $pid != 0 && test $pid != {before}"
            ));
        }
        assert_eq!(machine.sh("atonce --timeout 60s id --json"), id);
        assert_eq!(machine.property("ActiveState"), "active");
        // An end that looks like one on purpose and was none.
        let before = machine.property("MainPID");
        machine.sh("kill -TERM $(systemctl show --value --property MainPID atonced.service)");
        machine.until(&format!(
            "pid=$(systemctl show --value --property MainPID atonced.service) && test $pid != 0 && test $pid != {before}"
        ));
        let limits =
            machine.sh("cat /proc/$(systemctl show --value --property MainPID atonced.service)/limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        assert_eq!(machine.property("MemorySwapMax"), "0");

        machine.sh("hostname loft && atonce reload");
        assert_eq!(json(&machine.sh("atonce id --json"))["name"], "loft");
    });
}

#[test]
fn it_reads_its_credential_and_its_configuration_and_reads_that_again_when_told() {
    Lab::run("it_reads_its_credential_and_its_configuration_and_reads_that_again_when_told", |lab| {
        let machine = Machine::boot(lab, lab.host("attic"));
        machine.install();
        assert_eq!(json(&machine.sh("atonce --json status"))["network"], "open");
        machine.sh(
            "mkdir -p -m 700 /etc/credstore && atonce network create >/etc/credstore/atonce.network-secret",
        );
        machine
            .sh("mkdir -p /etc/atonce/conf.d && echo \"name = \\\"loft\\\"\" >/etc/atonce/conf.d/name.toml");
        machine.sh("systemctl restart atonced.service");
        let network = json(&machine.sh("atonce --json network show"));
        assert_eq!(network["kind"], "private");
        assert_eq!(network["source"], "/run/credentials/atonced.service/network-secret");
        assert_eq!(json(&machine.sh("atonce --json id"))["name"], "loft");

        let pid = machine.property("MainPID");
        machine.sh("echo \"peer = [\\\"10.77.0.9:28282\\\"]\" >/etc/atonce/atonce.toml && systemctl reload atonced.service");
        assert!(machine.journal().contains("changed=[\"peer\"] restart=[]"), "{}", machine.journal());
        machine.sh("echo \"peer = 7\" >/etc/atonce/atonce.toml");
        assert_ne!(machine.try_sh("systemctl reload atonced.service").0, Some(0));
        let journal = machine.journal();
        assert!(
            journal.contains("/etc/atonce/atonce.toml:1: `peer` is 7, and should be a list"),
            "{journal}"
        );
        assert_eq!(machine.property("MainPID"), pid);
        assert_eq!(machine.property("ActiveState"), "active");

        machine.sh("echo \"port = 5000\" >/etc/atonce/atonce.toml");
        machine.sh("systemctl kill --signal HUP atonced.service");
        machine.until("journalctl --unit atonced.service | grep \"port has changed\"");
        // The journal knows the level, and the line has no time of its own.
        let warning = machine.sh("journalctl --unit atonced.service --priority warning --output cat");
        assert!(warning.contains("port has changed: the daemon must be restarted for it"), "{warning}");
        assert!(warning.lines().all(|line| !line.starts_with(['<', '2'])), "{warning}");
    });
}

#[test]
fn a_user_installs_it_for_himself() {
    Lab::run("a_user_installs_it_for_himself", |lab| {
        let machine = Machine::boot(lab, lab.host("attic"));
        machine.sh("systemctl start user@1000.service");
        let as_user = |script: &str| {
            let (code, out) = machine.try_as(
                "member",
                &format!("export HOME=/home/member XDG_RUNTIME_DIR=/run/user/1000; {script}"),
            );
            assert_eq!(code, Some(0), "{script}\n{}", machine.journal());
            out
        };
        let log = as_user("cd /src && BUILD=/build systemd/install --user 2>&1");
        assert!(log.contains("Active: active (running)"), "{log}");
        let id = as_user("~/.local/bin/atonce --json id");
        assert_eq!(json(&id)["name"], "attic");
        assert_eq!(
            as_user("stat -c %a ~/.local/state/atonce /run/user/1000/atonce/atonced.sock"),
            "700\n600\n"
        );
        as_user("systemctl --user reload atonced.service");
        as_user("systemctl --user restart atonced.service");
        assert_eq!(as_user("~/.local/bin/atonce --json id"), id);

        // Beside it the one of the host.
        machine.install();
        assert_ne!(json(&machine.sh("atonce --json id"))["id"], json(&id)["id"]);
        as_user("~/.local/bin/atonce --socket /run/user/1000/atonce/atonced.sock --timeout 30s peers");
        as_user("cd /src && systemd/install --user --uninstall && ! ls ~/.local/bin/atonced");
    });
}

#[test]
fn a_rendezvous_server_is_a_user_of_its_own_keeps_its_key_and_comes_back_when_killed() {
    Lab::run("a_rendezvous_server_is_a_user_of_its_own_keeps_its_key_and_comes_back_when_killed", |lab| {
        let machine = Machine::boot(lab, lab.host("attic"));
        let log = machine.sh("cd /src && BUILD=/build systemd/install --rendezvous 2>&1");
        assert!(log.contains("Active: active (running)"), "{log}");
        let property = |name: &str| {
            let script = format!("systemctl show --value --property {name} atonce-rendezvous.service");
            machine.sh(&script).trim().to_owned()
        };
        let said = "journalctl --output cat -u atonce-rendezvous.service | grep -F ':28283#' | tail -n 1";
        let line = machine.sh(said);
        assert!(line.trim_end().ends_with(|last: char| last.is_ascii_alphanumeric()), "{line:?}");
        let key = machine.sh("cat /var/lib/atonce-rendezvous/rendezvous.key");
        assert_eq!(machine.sh("stat -L -c %a /var/lib/atonce-rendezvous/rendezvous.key"), "600\n");
        let first = property("MainPID");
        assert_ne!(machine.sh(&format!("stat -c %u /proc/{first}")), "0\n");

        machine.sh("systemctl kill --signal KILL atonce-rendezvous.service");
        machine.until(&format!(
            "test $(systemctl show --value --property MainPID atonce-rendezvous.service) != {first} && \
             systemctl is-active --quiet atonce-rendezvous.service"
        ));
        assert_eq!(machine.sh("cat /var/lib/atonce-rendezvous/rendezvous.key"), key);
        assert_eq!(machine.sh(said), line);
        machine.sh("systemctl stop atonce-rendezvous.service");
        assert_eq!(property("Result"), "success");

        machine.sh("cd /src && systemd/install --rendezvous --uninstall");
        assert_eq!(machine.sh("find /usr/local /etc/systemd/system -name \"*atonce*\""), "");
    });
}
