//! Hosts on bridges, made of namespaces that vanish with the process that made them.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::cable::{Cable, Lan};
use self::lines::{Lines, PATIENCE};

// Named by their files, so that other tests can have the whole lab by the one file.
#[path = "cable.rs"]
pub(crate) mod cable;
#[path = "lines.rs"]
pub(crate) mod lines;

const INSIDE: &str = "INSIDE_ATONCE_LAB";
/// All files of a lab; `/run` is a file system of its own in there.
pub(crate) const FILES: &str = "/run/lab";
const TOOLS: [(&str, &str, &str); 8] = [
    ("ip", "-V", "iproute2"),
    ("unshare", "--version", "util-linux"),
    ("nft", "--version", "nftables"),
    ("python3", "--version", "python3"),
    ("setpriv", "--version", "util-linux"),
    ("dbus-daemon", "--version", "dbus"),
    ("avahi-daemon", "--version", "avahi-daemon"),
    ("avahi-browse", "--version", "avahi-utils"),
];

/// The networks of one test, and the hosts on them.
pub(crate) struct Lab {
    hosts: Cell<u8>,
    lans: Cell<u8>,
    cables: Cell<u8>,
    captures: Cell<u8>,
}

impl Lab {
    /// Runs the test called `name` in namespaces of its own, and there `body`.
    pub(crate) fn run(name: &str, body: impl FnOnce(&Self)) {
        if std::env::var_os(INSIDE).is_some() {
            return body(&Self::new());
        }
        check_tools();
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
        let output = unshare.env(INSIDE, "1").stdin(Stdio::null()).output().unwrap();
        let (seen, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{seen}");
        if !output.status.success() {
            println!("{log}");
        }
        // A name that fits no test would succeed as well.
        assert!(output.status.success() && seen.contains("1 passed"), "{name} failed in the lab, see above");
    }

    fn new() -> Self {
        run("mount -t proc proc /proc");
        run("mount -t tmpfs tmpfs /run");
        fs::create_dir(FILES).unwrap();
        run("ip link set lo up");
        let lab =
            Self { hosts: Cell::new(0), lans: Cell::new(0), cables: Cell::new(0), captures: Cell::new(0) };
        lab.lan();
        lab
    }

    /// One more network. The first is there from the beginning.
    pub(crate) fn lan(&self) -> Lan {
        Lan::new(next(&self.lans) - 1)
    }

    /// One more host on the first network: 10.77.0.1, 10.77.0.2, …
    pub(crate) fn host(&self, name: &'static str) -> Host {
        let host = self.bare_host(name);
        self.plug(host, Lan::FIRST, "eth0").give(&host.ip());
        host
    }

    /// One more host, without a network.
    pub(crate) fn bare_host(&self, name: &'static str) -> Host {
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        Host { name, number: next(&self.hosts) }
    }

    /// Plugs one more interface of `host` into `lan`; it gets no address but its link-local one.
    pub(crate) fn plug(&self, host: Host, lan: Lan, device: &'static str) -> Cable {
        Cable::new(host, lan, device, next(&self.cables))
    }

    /// Writes a file for the hosts.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = Path::new(FILES).join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a private network; the file with its secret.
    pub(crate) fn new_network(&self, file: &str) -> String {
        let made = Command::new(env!("CARGO_BIN_EXE_atonce")).args(["network", "create"]).output().unwrap();
        let secret = String::from_utf8(made.stdout).unwrap();
        self.file(file, &secret).to_str().unwrap().to_owned()
    }

    /// Records what passes over the first network from now on.
    pub(crate) fn capture(&self) -> Capture {
        self.capture_of(Lan::FIRST)
    }

    /// Records what passes over `lan` from now on.
    pub(crate) fn capture_of(&self, lan: Lan) -> Capture {
        let path = Path::new(FILES).join(format!("capture{}", next(&self.captures)));
        let mut capture = Command::new("python3");
        capture.arg(script("capture.py")).args([lan.bridge().as_ref(), path.as_os_str()]);
        let program = Program::start(capture, "capture".to_owned());
        program.line(|line| line == "recording");
        Capture { program, path }
    }
}

/// A program of the lab that is a script.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(name)
}

/// 1, 2, 3, …
fn next(counter: &Cell<u8>) -> u8 {
    counter.set(counter.get() + 1);
    counter.get()
}

fn check_tools() {
    let runs = |tool, version| Command::new(tool).arg(version).output().is_ok_and(|run| run.status.success());
    let missing: Vec<_> = TOOLS.iter().filter(|(tool, version, _)| !runs(*tool, *version)).collect();
    let names: Vec<_> = missing.iter().map(|(tool, ..)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(.., package)| *package).collect();
    assert!(
        missing.is_empty(),
        "the lab needs {}\ntry: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    );
}

/// Runs a command of plain words, which must succeed.
pub(crate) fn run(words: &str) {
    let mut words_of = words.split_whitespace();
    let output = Command::new(words_of.next().unwrap()).args(words_of).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One host: a network namespace.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) number: u8,
}

impl Host {
    pub(crate) fn ip(self) -> String {
        format!("10.77.0.{}", self.number)
    }

    pub(crate) fn mac(self) -> [u8; 6] {
        self.mac_on("eth0")
    }

    pub(crate) fn mac_on(self, device: &str) -> [u8; 6] {
        [2, 0, 0, 0x77, device.bytes().last().unwrap_or(b'0') - b'0', self.number]
    }

    /// Runs a line of shell here, which must succeed.
    pub(crate) fn sh(self, line: &str) {
        let output = self.command("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until each interface has its link-local address: the kernel first makes sure that nobody else has it, for
    /// up to two seconds.
    pub(crate) fn await_link_local(self) {
        self.sh(
            "timeout 30 sh -c 'for path in /sys/class/net/eth*; do \
             until ip -6 address show dev ${path##*/} scope link -tentative | grep -q .; do sleep 0.05; done; done'",
        );
    }

    /// Waits until the kernel believes whoever says that a neighbour has another card now. For a second after the first
    /// answer it does not (its `locktime`), so that whoever is cut off so early cannot be found by anything.
    pub(crate) fn await_neighbours(self) {
        self.sh(
            "timeout 30 sh -c 'while ip -s -4 neighbour show | grep -Eq \"used [0-9]+/[0-9]+/[01][^0-9]\"; \
             do sleep 0.05; done'",
        );
    }

    /// A program on this host.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env(INSIDE, "1");
        command.args(["netns", "exec", self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// Adds rules to the packet filter, each `input RULE` or `output RULE`.
    pub(crate) fn filter(self, rules: &[&str]) {
        let mut script = String::from(
            "table inet lab { chain input { type filter hook input priority 0; }; \
             chain output { type filter hook output priority 0; }; }\n",
        );
        for rule in rules {
            script.push_str(&format!("add rule inet lab {rule}\n"));
        }
        let mut child = self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "nft refused:\n{script}");
    }

    /// Starts a daemon named like the host, and waits until it says that it is ready.
    pub(crate) fn daemon(self, args: &[&str]) -> Daemon {
        self.daemon_named(self.name, args)
    }

    /// Starts a daemon with its own state and socket, and waits until it says that it is ready.
    pub(crate) fn daemon_named(self, name: &str, args: &[&str]) -> Daemon {
        self.daemon_under(&["env"], name, args)
    }

    /// The same, started by another program.
    pub(crate) fn daemon_under(self, starter: &[&str], name: &str, args: &[&str]) -> Daemon {
        // Two hosts may have daemons of one name.
        let files = Path::new(FILES).join(format!("{}-{name}", self.name));
        let socket = files.with_extension("sock");
        let mut command = self.command(starter[0]);
        command.args(&starter[1..]).arg(env!("CARGO_BIN_EXE_atonced"));
        command.args(["--name", name, "--log", "atonce=debug,info", "--state-dir"]);
        command.arg(files.with_extension("state")).arg("--socket").arg(&socket).args(args);
        let program = Program::start(command, format!("atonced {name}"));
        let ready = program.line(|line| line.starts_with("atonced: "));
        println!("{ready}");
        let start = format!("atonced: {name} (");
        let rest = ready.strip_prefix(&start).and_then(|rest| rest.split_once(") ready, udp "));
        let port = rest.and_then(|(_, rest)| rest.strip_suffix(&format!(", socket {}", socket.display())));
        let port = port.unwrap_or_else(|| panic!("{ready}")).parse().unwrap();
        Daemon { host: self, name: name.to_owned(), socket, port, program }
    }
}

/// A daemon that has said that it is ready.
pub(crate) struct Daemon {
    host: Host,
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
    program: Program,
}

impl Daemon {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_atonce"));
        command.arg("--socket").arg(&self.socket).args(["--timeout", "30s"]).args(args);
        command
    }

    /// Runs `atonce` here and returns its exit code and all that it printed.
    pub(crate) fn try_atonce(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.command(args).output().unwrap();
        let (out, notes) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        println!("{}$ atonce {}\n{out}{notes}", self.name, args.join(" "));
        (output.status.code(), out)
    }

    /// Runs `atonce` here, which must succeed, and returns what it printed.
    pub(crate) fn atonce(&self, args: &[&str]) -> String {
        let (code, out) = self.try_atonce(args);
        assert_eq!(code, Some(0), "{}$ atonce {}", self.name, args.join(" "));
        out
    }

    /// The same, with `--json`: an object a line.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.atonce(&[&["--json"], args].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The same, with these lines to read.
    pub(crate) fn json_fed(&self, args: &[&str], input: &str) -> Vec<Value> {
        let mut command = self.command(&[&["--json"], args].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let feeding = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let _ = feeding.join();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}$ atonce {}: {}\n{out}",
            self.name,
            args.join(" "),
            output.status
        );
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The health of one thing that this daemon looks after.
    pub(crate) fn health(&self, check: &str) -> Option<Value> {
        let status = self.json(&["status"]).remove(0);
        let mut health = status["health"].as_array().unwrap().iter();
        health.find(|health| health["check"] == check).cloned()
    }

    /// Asks for the health of one thing until it is as wanted.
    pub(crate) fn await_health(&self, check: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        self.await_answer(&["status"], |answer| {
            let health = answer[0]["health"].as_array().unwrap();
            health.iter().find(|health| health["check"] == check && is_it(health)).cloned()
        })
    }

    /// Asks again until the answer has what is wanted.
    pub(crate) fn await_answer<T>(&self, args: &[&str], wanted: impl Fn(&[Value]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.json(args);
            if let Some(found) = wanted(&answer) {
                return found;
            }
            assert!(Instant::now() < deadline, "{}$ atonce {}: {answer:#?}", self.name, args.join(" "));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Starts `atonce` here.
    pub(crate) fn start(&self, args: &[&str]) -> Program {
        Program::start(self.command(args), format!("{}$ atonce {}", self.name, args.join(" ")))
    }

    /// Takes the daemon away without a goodbye.
    pub(crate) fn kill(mut self) {
        self.program.child.kill().unwrap();
        self.program.child.wait().unwrap();
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.program.child.id()
    }

    /// The memory that it has, in kB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Asks the daemon to end, and waits for that.
    pub(crate) fn stop(self) {
        self.program.ask_to_end(Signal::TERM);
        self.program.rest();
    }
}

/// A running program, whose lines are read as they come.
pub(crate) struct Program {
    child: Child,
    lines: Lines,
}

impl Program {
    pub(crate) fn start(mut command: Command, what: String) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of(what, child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Sends it a signal.
    pub(crate) fn ask_to_end(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Deref for Program {
    type Target = Lines;

    fn deref(&self) -> &Lines {
        &self.lines
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A recording of the bridge that goes on.
pub(crate) struct Capture {
    program: Program,
    path: PathBuf,
}

impl Capture {
    /// Ends it and returns the frames.
    pub(crate) fn frames(self) -> Vec<Frame> {
        self.program.ask_to_end(Signal::INT);
        // What was not recorded proves nothing.
        assert_eq!(self.program.rest(), ["0 frames dropped"]);
        let bytes = fs::read(&self.path).unwrap();
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some((length, behind)) = rest.split_first_chunk() {
            let (frame, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            frames.push(Frame(frame.to_vec()));
            rest = behind;
        }
        frames
    }
}

/// An Ethernet frame.
pub(crate) struct Frame(pub(crate) Vec<u8>);

impl Frame {
    pub(crate) fn is_between(&self, from: Host, to: Host) -> bool {
        self.0.starts_with(&to.mac()) && self.0[6..].starts_with(&from.mac())
    }

    pub(crate) fn is_from(&self, host: Host) -> bool {
        self.0[6..].starts_with(&host.mac())
    }

    /// Whether `host` sent or got it.
    pub(crate) fn is_with(&self, host: Host) -> bool {
        self.is_from(host) || self.0.starts_with(&host.mac())
    }

    /// Whether it carries UDP, by IPv4 or IPv6.
    pub(crate) fn is_udp(&self) -> bool {
        const UDP: u8 = 17;
        let protocol = match self.0[12..14] {
            [0x08, 0x00] => self.0.get(23),
            [0x86, 0xdd] => self.0.get(20),
            _ => None,
        };
        protocol == Some(&UDP)
    }

    /// What its UDP datagram carries.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.datagram()[8..]
    }

    pub(crate) fn goes_to(&self, port: u16) -> bool {
        self.is_udp() && self.datagram()[2..4] == port.to_be_bytes()
    }

    /// Its UDP datagram, by IPv4 without options or by IPv6.
    fn datagram(&self) -> &[u8] {
        let headers = if self.0[12..14] == [0x08, 0x00] { 34 } else { 54 };
        &self.0[headers..]
    }

    pub(crate) fn contains(&self, needle: &str) -> bool {
        self.has(needle.as_bytes())
    }

    pub(crate) fn has(&self, needle: &[u8]) -> bool {
        self.0.windows(needle.len()).any(|window| window == needle)
    }
}
