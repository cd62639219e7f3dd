//! Routers as people have them, by rules of nft: one recipe for each kind of translator.
//!
//! The outside is `wan0`, the inside `lan1`. Three traps: a number that `snat` computes comes out with its bytes swapped,
//! so ports that matter go through a map; a router that lets new packets in keeps a flow for a probe that came too early,
//! which takes the port of the later mapping; and an empty chain of nat is needed where answers are to be translated.

use std::fmt::Write;

use crate::kinds::{Filtering, Kind, Mapping, Ports};

/// Drops what nobody inside asked for before the router itself keeps it, as home routers do.
const SHUT: &str = r#"table inet shut { chain early { type filter hook input priority 0
  iifname "wan0" ct state new drop
}
}
"#;
/// Lets in only answers.
const ANSWERS_ONLY: &str = r#"table inet answers { chain passing { type filter hook forward priority 0
  ct state established,related accept
  iifname "wan0" drop
}
}
"#;
/// Lets in only those addresses to which the same port inside sent.
const KNOWN_ADDRESSES_ONLY: &str = r#"table ip known {
  set seen { type ipv4_addr . inet_service . ipv4_addr; flags dynamic,timeout; timeout 120s; size 65535; }
  chain passing { type filter hook forward priority 0
    oifname "wan0" meta l4proto udp update @seen { ip saddr . udp sport . ip daddr timeout 120s }
    iifname "wan0" ip daddr . udp dport . ip saddr @seen accept
    iifname "wan0" drop
}
}
"#;
const NO_UDP: &str = r#"table inet blocked { chain passing { type filter hook forward priority 0
  meta l4proto udp drop
}
}
"#;
/// Ports that are given out one after the other.
const IN_TURN: std::ops::Range<u16> = 40_000..40_512;

/// The rules of a router of this kind whose address outside is `wan`.
pub(crate) fn rules(kind: Kind, wan: &str) -> String {
    let mut rules = String::new();
    if kind.blocked {
        rules.push_str(NO_UDP);
    }
    if kind.firewall {
        if kind.filtering != Filtering::EndpointIndependent {
            rules.push_str(ANSWERS_ONLY);
        }
        return rules;
    }
    if !kind.poisonable {
        rules.push_str(SHUT);
    }
    match kind.filtering {
        // Whatever has a mapping is let in: nobody else has one.
        Filtering::EndpointIndependent => {}
        Filtering::AddressDependent => rules.push_str(KNOWN_ADDRESSES_ONLY),
        Filtering::AddressAndPortDependent => rules.push_str(ANSWERS_ONLY),
    }
    let open =
        kind.mapping == Mapping::EndpointIndependent && kind.filtering != Filtering::AddressAndPortDependent;
    rules.push_str(&if open { one_port_for_all(wan, kind.hairpin) } else { translation(kind, wan) });
    rules
}

/// Each client keeps its port, and whoever sends to it reaches the client: clients need different ports.
fn one_port_for_all(wan: &str, hairpin: bool) -> String {
    let (around, back) = if hairpin {
        (
            format!("ip daddr {wan} meta l4proto udp dnat to udp dport map @clients"),
            format!(r#"iifname "lan1" oifname "lan1" ct status dnat snat to {wan}"#),
        )
    } else {
        (String::new(), String::new())
    };
    format!(
        r#"table ip translated {{
  map clients {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 120s; size 65535; }}
  chain in {{ type nat hook prerouting priority -100
    {around}
    iifname "wan0" meta l4proto udp dnat to udp dport map @clients
  }}
  chain out {{ type nat hook postrouting priority 100
    {back}
    oifname "wan0" meta l4proto udp update @clients {{ udp sport timeout 120s : ip saddr . udp sport }}
    oifname "wan0" snat to {wan}
  }}
}}
"#
    )
}

/// Each destination that is sent to can answer, and nobody else.
fn translation(kind: Kind, wan: &str) -> String {
    let hashed =
        |what: &str| format!("meta l4proto udp snat to {wan} : jhash {what} mod 20000 seed 0x1 offset 30000");
    let how = match (kind.mapping, kind.ports) {
        (Mapping::EndpointIndependent, Ports::Kept) => "masquerade".to_owned(),
        (Mapping::EndpointIndependent, _) => hashed("ip saddr . udp sport"),
        (Mapping::AddressDependent, _) => hashed("ip saddr . udp sport . ip daddr"),
        (Mapping::AddressAndPortDependent, Ports::Sequential) => {
            let mut ports = String::new();
            for (turn, port) in IN_TURN.enumerate() {
                let _ = write!(ports, "{}{turn} : {port}", if turn > 0 { ", " } else { "" });
            }
            format!("meta l4proto udp snat to {wan} : numgen inc mod {} map {{ {ports} }}", IN_TURN.len())
        }
        (Mapping::AddressAndPortDependent, _) => "masquerade fully-random".to_owned(),
    };
    format!(
        r#"table ip translated {{
  chain in {{ type nat hook prerouting priority -100; }}
  chain out {{ type nat hook postrouting priority 100
    oifname "wan0" {how}
  }}
}}
"#
    )
}
