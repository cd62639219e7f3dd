//! Kinds of address translators and firewalls, by the words of RFC 4787, and which of them let two sides meet.
//!
//! The simulated routers (nat.rs) and the real ones (tests/lab/recipes.rs) are of these kinds.

/// When two flows of one inner address leave from the same outer port (RFC 4787, 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Always.
    EndpointIndependent,
    /// To the same address.
    AddressDependent,
    /// To the same address and port.
    AddressAndPortDependent,
}

/// Who may answer (RFC 4787, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Who was sent to, from any port.
    AddressDependent,
    /// Who was sent to.
    AddressAndPortDependent,
}

/// Which outer port a new mapping gets (RFC 4787, 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inner one, if it is free.
    Kept,
    /// One after the other.
    Sequential,
    /// Any.
    Random,
}

/// How a router treats what passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub mapping: Mapping,
    pub filtering: Filtering,
    pub ports: Ports,
    /// Addresses are not translated: a firewall, which lets in answers only.
    pub firewall: bool,
    /// What goes from the inside to its own outer address comes back in.
    pub hairpin: bool,
    /// What comes from outside before the inside has sent takes the port: the later mapping gets another one.
    pub poisonable: bool,
    /// All UDP is dropped.
    pub blocked: bool,
}

impl Kind {
    const fn of(mapping: Mapping, filtering: Filtering, ports: Ports) -> Self {
        Self { mapping, filtering, ports, firewall: false, hairpin: false, poisonable: false, blocked: false }
    }

    pub const EIF: Self = Self::of(Mapping::EndpointIndependent, Filtering::EndpointIndependent, Ports::Kept);
    pub const ADF: Self = Self::of(Mapping::EndpointIndependent, Filtering::AddressDependent, Ports::Kept);
    /// The usual router at home.
    pub const HOME: Self =
        Self::of(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent, Ports::Kept);
    pub const ADM: Self =
        Self::of(Mapping::AddressDependent, Filtering::AddressAndPortDependent, Ports::Random);
    pub const SEQUENTIAL: Self =
        Self::of(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent, Ports::Sequential);
    pub const RANDOM: Self =
        Self::of(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent, Ports::Random);
    pub const FIREWALL: Self = Self { firewall: true, ..Self::HOME };
    /// Nothing is translated or kept out.
    pub const OPEN: Self = Self { firewall: true, ..Self::EIF };
    pub const POISONABLE: Self = Self { poisonable: true, ..Self::HOME };
    pub const BLOCKED: Self = Self { blocked: true, ..Self::HOME };
}

/// Those of the table, in the order of their hardness.
pub const KINDS: [(&str, Kind); 8] = [
    ("open", Kind::OPEN),
    ("firewall", Kind::FIREWALL),
    ("EIM/EIF", Kind::EIF),
    ("EIM/ADF", Kind::ADF),
    ("EIM/APDF", Kind::HOME),
    ("ADM/APDF", Kind::ADM),
    ("APDM seq", Kind::SEQUENTIAL),
    ("APDM random", Kind::RANDOM),
];

/// Whether two sides can meet directly, if so many servers see them, each at two ports.
pub fn can_meet(one: Kind, two: Kind, servers: usize) -> bool {
    let varies = |kind: Kind| !kind.firewall && kind.mapping != Mapping::EndpointIndependent;
    let picky = |kind: Kind| kind.filtering == Filtering::AddressAndPortDependent;
    // That a port varies is seen at two ports of one server, or, if it does by address only, at two servers.
    let is_known = |varying: Kind| varying.mapping == Mapping::AddressAndPortDependent || servers > 1;
    // Whose port varies is met by whom lets any port of a known address in; else its next port is found near the last
    // one, or, if that it varies is known, by many tries.
    let is_found = |varying: Kind, steady: Kind| {
        !picky(steady) || varying.ports == Ports::Sequential || is_known(varying)
    };
    match (varies(one), varies(two)) {
        (false, false) => true,
        (true, false) => is_found(one, two),
        (false, true) => is_found(two, one),
        (true, true) => false,
    }
}
