//! Networks, and the cables by which hosts hang on them.

use crate::lab::{Host, run};

/// A network: a bridge that passes everything on.
#[derive(Clone, Copy)]
pub(crate) struct Lan(u8);

impl Lan {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const SECOND: Self = Self(1);

    pub(crate) fn new(number: u8) -> Self {
        // The bridge shall filter no multicast for want of a querier, and have no address of its own.
        run(&format!("ip link add br{number} type bridge mcast_snooping 0"));
        run(&format!("ip link set br{number} addrgenmode none up"));
        Self(number)
    }

    pub(crate) fn bridge(self) -> String {
        format!("br{}", self.0)
    }
}

/// What connects one interface of a host to a network.
#[derive(Clone, Copy)]
pub(crate) struct Cable {
    host: Host,
    lan: Lan,
    /// The interface in the host.
    device: &'static str,
    number: u8,
}

impl Cable {
    /// A new interface called `device`.
    pub(crate) fn new(host: Host, lan: Lan, device: &'static str, number: u8) -> Self {
        let cable = Self { host, lan, device, number };
        let (name, port) = (host.name, cable.port());
        run(&format!("ip link add {port} type veth peer name {device} netns {name}"));
        run(&format!("ip link set {port} master br{} addrgenmode none up", lan.0));
        let mac = host.mac_on(device).map(|byte| format!("{byte:02x}")).join(":");
        cable.ip(&format!("link set {device} address {mac}"));
        cable.ip(&format!("link set {device} up"));
        cable
    }

    /// Gives the interface an address: of a network of 256, or of 64 bits.
    pub(crate) fn give(self, addr: &str) {
        let length = if addr.contains(':') { "/64 nodad" } else { "/24 brd +" };
        self.ip(&format!("address add {addr}{length} dev {}", self.device));
    }

    /// Takes an address of [`Cable::give`] away.
    pub(crate) fn take(self, addr: &str) {
        let length = if addr.contains(':') { 64 } else { 24 };
        self.ip(&format!("address del {addr}/{length} dev {}", self.device));
    }

    /// Pulls the cable: the interface has no carrier.
    pub(crate) fn pull(self) {
        run(&format!("ip link set {} down", self.port()));
    }

    /// Puts it back.
    pub(crate) fn put_back(self) {
        run(&format!("ip link set {} up", self.port()));
    }

    /// Plugs it into another network.
    pub(crate) fn carry_to(self, lan: Lan) {
        run(&format!("ip link set {} master br{}", self.port(), lan.0));
    }

    /// Cuts it behind the switch: the interface sees nothing of that.
    pub(crate) fn cut(self) {
        run(&format!("ip link set {} nomaster", self.port()));
    }

    /// Mends what was cut.
    pub(crate) fn mend(self) {
        run(&format!("ip link set {} master br{}", self.port(), self.lan.0));
    }

    /// The card sends no trains: each datagram is a frame of its own.
    pub(crate) fn send_singly(self) {
        self.ip(&format!("link set {} gso_max_segs 1", self.device));
    }

    /// The switch passes no longer packets to it than these, and tells nobody.
    pub(crate) fn narrow(self, mtu: u16) {
        run(&format!("ip link set {} mtu {mtu}", self.port()));
    }

    /// The interface sends and takes no longer packets than these.
    pub(crate) fn limit(self, mtu: u16) {
        run(&format!("ip link set {} mtu {mtu}", self.port()));
        self.ip(&format!("link set {} mtu {mtu}", self.device));
    }

    /// The switch takes nothing from the interface any more, which sees nothing of that.
    pub(crate) fn mute(self) {
        self.drop_at_switch("iifname");
    }

    /// The switch gives nothing to the interface any more, which sees nothing of that.
    pub(crate) fn deafen(self) {
        self.drop_at_switch("oifname");
    }

    /// The switch passes everything on again.
    pub(crate) fn restore(self) {
        run(&format!("nft delete table bridge {}", self.port()));
    }

    fn drop_at_switch(self, side: &str) {
        let port = self.port();
        let rule = format!("{side} {port} drop");
        run(&format!("nft add table bridge {port}"));
        run(&format!("nft add chain bridge {port} c {{ type filter hook forward priority 0 ; }}"));
        run(&format!("nft add rule bridge {port} c {rule}"));
    }

    fn ip(self, settings: &str) {
        run(&format!("ip -n {} {settings}", self.host.name));
    }

    fn port(self) -> String {
        format!("port{}", self.number)
    }
}
