//! The real avahi-daemon on a host, with a message bus of its own.

use std::process::Command;

use crate::lab::{Host, Lab, Program};

const BUS: &str = "\
<busconfig><listen>unix:path=BUS</listen><auth>EXTERNAL</auth><policy context=\"default\">\
<allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
</policy></busconfig>";

/// It ends with this value.
pub(crate) struct Avahi {
    host: Host,
    bus: String,
    _bus_daemon: Program,
    _avahi_daemon: Program,
}

impl Avahi {
    /// Starts it and waits until it answers.
    pub(crate) fn start(lab: &Lab, host: Host) -> Self {
        let name = host.name;
        let bus = lab.file(&format!("{name}.bus"), "").display().to_string();
        std::fs::remove_file(&bus).unwrap();
        let config = lab.file(&format!("{name}.bus.xml"), &BUS.replace("BUS", &bus));
        let mut command = host.command("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--print-address", "--config-file"]).arg(config);
        let bus_daemon = Program::start(command, format!("dbus-daemon of {name}"));
        bus_daemon.line(|line| line.starts_with("unix:"));

        let config = format!("[server]\nhost-name={name}\nallow-interfaces=eth0\n[rlimits]\n");
        let config = lab.file(&format!("{name}.avahi"), &config);
        // A directory of its own, since several of them are in one lab; and users that exist in any lab.
        let passwd = lab.file("passwd", "root:x:0:0::/:/bin/sh\navahi:x:0:0::/:/bin/sh\n");
        let group = lab.file("group", "root:x:0:\navahi:x:0:\n");
        let start = format!(
            "mount -t tmpfs tmpfs /run/avahi-daemon && mount --bind {} /etc/passwd && mount --bind {} /etc/group && \
             exec avahi-daemon -f {} --no-drop-root --no-chroot --no-rlimits 2>&1",
            passwd.display(),
            group.display(),
            config.display()
        );
        std::fs::create_dir_all("/run/avahi-daemon").unwrap();
        let mut command = host.command("unshare");
        command.args(["--mount", "sh", "-c", &start]);
        let command = with_bus(command, &bus);
        let avahi_daemon = Program::start(command, format!("avahi-daemon of {name}"));
        avahi_daemon.line(|line| line.contains("Server startup complete"));
        Self { host, bus, _bus_daemon: bus_daemon, _avahi_daemon: avahi_daemon }
    }

    /// A tool of avahi on this host.
    pub(crate) fn command(&self, tool: &str) -> Command {
        with_bus(self.host.command(tool), &self.bus)
    }
}

fn with_bus(mut command: Command, bus: &str) -> Command {
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={bus}"));
    command
}
