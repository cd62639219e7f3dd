//! A host of the lab with a service manager: the systemd of this machine as process 1 of namespaces of its own.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Host, Lab};

const BOOT: &str = include_str!("boot");
/// How long a step may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A booted host, which ends with the test.
pub(crate) struct Machine {
    unshare: Child,
    /// The process id of its systemd.
    init: String,
    control_group: ControlGroup,
}

impl Machine {
    /// Boots one on a host of the lab.
    pub(crate) fn boot(lab: &Lab, host: Host) -> Self {
        check_tools();
        let control_group = ControlGroup::new(host.name);
        let notify = lab.file("notify", "").with_extension("socket");
        let booted = UnixDatagram::bind(&notify).unwrap();
        booted.set_read_timeout(Some(PATIENCE)).unwrap();

        let mut unshare = host.command("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--cgroup"]);
        unshare.args(["sh", "-c", BOOT, "boot", host.name, env!("CARGO_MANIFEST_DIR")]);
        unshare.arg(Path::new(env!("CARGO_BIN_EXE_atonced")).parent().unwrap()).arg(&notify);
        // The shell is in the control group before the host's namespaces hide it.
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&control_group.path);
        shell.arg(unshare.get_program()).args(unshare.get_args());
        let unshare = shell.stdin(Stdio::null()).spawn().unwrap();
        let mut machine = Self { unshare, init: String::new(), control_group };
        let mut message = [0; 4096];
        loop {
            let length =
                booted.recv(&mut message).unwrap_or_else(|error| panic!("systemd did not boot: {error}"));
            let message = String::from_utf8_lossy(&message[..length]);
            if message.lines().any(|line| line == "READY=1") {
                break;
            }
        }
        let pid = machine.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        machine.init = children.trim().to_owned();
        assert_eq!(machine.sh("systemctl is-system-running"), "running\n");
        machine
    }

    /// Installs atonce, as the README says.
    pub(crate) fn install(&self) {
        let log = self.sh("cd /src && BUILD=/build systemd/install 2>&1");
        assert!(log.contains("Active: active (running)"), "{log}");
    }

    /// Runs a line of shell as root, which must succeed, and returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let (code, out) = self.try_sh(script);
        assert_eq!(code, Some(0), "# {script}\n{}", self.journal());
        out
    }

    /// Runs a line of shell again and again until it succeeds.
    pub(crate) fn until(&self, script: &str) {
        self.sh(&format!("timeout 60 sh -c 'until {script}; do :; done'"));
    }

    /// Runs a line of shell as root and returns its exit code and what it printed.
    pub(crate) fn try_sh(&self, script: &str) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command(script).output().unwrap();
        let out = String::from_utf8(stdout).unwrap();
        println!("# {script}\n{out}{}", String::from_utf8_lossy(&stderr));
        (status.code(), out)
    }

    /// The same as one of its users.
    pub(crate) fn try_as(&self, user: &str, script: &str) -> (Option<i32>, String) {
        self.try_sh(&format!("setpriv --reuid {user} --regid {user} --init-groups sh -c '{script}'"))
    }

    /// A line of shell as root.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init, "--all", "--", "sh", "-c", script]).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin").env("HOME", "/root");
        command
    }

    /// A property of the service.
    pub(crate) fn property(&self, name: &str) -> String {
        self.sh(&format!("systemctl show --value --property {name} atonced.service")).trim().to_owned()
    }

    pub(crate) fn journal(&self) -> String {
        let output = self.command("journalctl --no-pager --output short-monotonic").output();
        output.map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its process 1 takes all others with it, and is gone when `unshare` is.
        match self.init.parse().ok().and_then(Pid::from_raw) {
            Some(init) => drop(kill_process(init, Signal::KILL)),
            None => drop(self.unshare.kill()),
        }
        let _ = self.unshare.wait();
        self.control_group.remove();
    }
}

/// The directory below which the service manager makes those of its services.
struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at =
            mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let at =
            at.expect("a service manager needs control groups\ntry: mount -t cgroup2 cgroup2 /sys/fs/cgroup");
        let own =
            fs::metadata("/proc/self/ns/pid").map(|own| std::os::unix::fs::MetadataExt::ino(&own)).unwrap();
        let path = Path::new(at).join(format!("atonce-test-{name}-{own}"));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!(
                "a service manager needs a control group, {}: {error}\ntry: as root, sudo tests/run",
                path.display()
            )
        });
        Self { path }
    }

    fn remove(&self) {
        remove_directories(&self.path);
    }
}

/// The files in a control group cannot be removed, and need not be.
fn remove_directories(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_directories(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(path)
        && error.kind() != ErrorKind::NotFound
    {
        println!("{}: {error}", path.display());
    }
}

fn check_tools() {
    for (tool, package) in [
        ("/usr/lib/systemd/systemd", "systemd"),
        ("/usr/share/pam-configs/systemd", "libpam-systemd"),
        ("/usr/bin/dbus-daemon", "dbus"),
        ("/usr/bin/nsenter", "util-linux"),
        ("/usr/sbin/usermod", "passwd"),
    ] {
        assert!(Path::new(tool).exists(), "there is no {tool}\ntry: apt-get install {package}");
    }
}
