//! The machine below us, as far as it tells itself from another one: so that a copied disk is known for what it is.
//!
//! The kinds of parts: the serial number of the device tree (a Raspberry Pi has one), the product UUID of the firmware,
//! and the permanent addresses of network cards, built in or not. What a card was given by software does not count, nor
//! what comes from no device at all: images and containers copy those. Each kind is judged by itself, since not every user
//! may read every part.
//!
//! Cards come and go: docks, USB adapters, a Wi-Fi that is switched off. So all that were ever seen are remembered
//! (bounded), any of them is enough to know the machine again, and one that is not built in never speaks against it: its
//! absence says nothing, and that of another one neither. Another machine is one whose serial number, UUID or built-in
//! cards are others, while nothing at all is known.
//!
//! What is kept is a [`Binding`]: keyed hashes, under the key that they bind. They tell nothing of the machine to who
//! does not have the key, and who has it has all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use data_encoding::BASE32_NOPAD;

use crate::crypto::hash;

/// Cards of each kind that are read; no board has as many.
const CARDS_MAX: usize = 16;
/// Cards of each kind that are remembered, the last ones seen: every dock and adapter of a desk, in half a kilobyte.
const CARDS_KEPT: usize = 16;
/// Directories between a network interface and the root of all devices: hubs are seven deep at most, bridges a few.
const ANCESTORS_MAX: usize = 32;
/// Bytes of the longest part that we read.
const PART_BYTES_MAX: u64 = 128;
/// `ARPHRD_ETHER`: Ethernet and Wi-Fi.
const ETHERNET: &str = "1";
/// `NET_ADDR_PERM`: the address that the card was made with.
const PERMANENT: &str = "0";
/// What manufacturers write who write nothing.
const NOBODYS: [&str; 2] = ["03000200-0400-0500-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc"];

/// A kind of part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Serial,
    Uuid,
    Card,
    Adapter,
}

const PARTS: [(Part, &str, &str); 4] = [
    (Part::Serial, "serial", "its serial number"),
    (Part::Uuid, "uuid", "its product UUID"),
    (Part::Card, "card", "its network card"),
    (Part::Adapter, "adapter", "its network adapter"),
];

impl Part {
    const fn is_network(self) -> bool {
        matches!(self, Self::Card | Self::Adapter)
    }
}

/// What can be read of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware(BTreeMap<Part, BTreeSet<String>>);

impl Hardware {
    /// What can be read in the trees below `root`, which is `/` in the daemon.
    pub fn read(root: &Path) -> Self {
        let [built_in, adapters] = cards(&root.join("sys/class/net"));
        let mut parts = BTreeMap::from([
            (Part::Serial, one(&root.join("sys/firmware/devicetree/base/serial-number"))),
            (Part::Uuid, one(&root.join("sys/class/dmi/id/product_uuid"))),
            (Part::Card, built_in),
            (Part::Adapter, adapters),
        ]);
        parts.retain(|_, values| !values.is_empty());
        Self(parts)
    }

    /// What binds the key with this secret to the machine.
    pub fn binding(&self, secret: &[u8; 32]) -> Binding {
        let key = hash::derive(secret, b"atonce 1 hardware");
        let marks = self.0.iter().map(|(part, values)| {
            // An address is the same whether or not its card is known to be built in.
            let word = word(if part.is_network() { Part::Card } else { *part });
            let mark = |value: &String| hash::mac(&*key, &[word.as_bytes(), b" ", value.as_bytes()]).bytes();
            (*part, values.iter().map(mark).collect())
        });
        Binding(marks.collect())
    }
}

/// To which machine a key belongs: what was seen of it, of each part the last first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding(BTreeMap<Part, Vec<[u8; 16]>>);

impl Binding {
    /// Whether `now` is another machine than this one: something that is built in can be compared, and nothing agrees.
    pub fn is_other(&self, now: &Self) -> bool {
        let is_comparable = |part: &Part| *part != Part::Adapter && now.0.contains_key(part);
        let agrees =
            |(part, then): (&Part, &Vec<[u8; 16]>)| now.of_kind(*part).any(|mark| then.contains(mark));
        self.0.keys().any(is_comparable) && !self.0.iter().any(agrees)
    }

    /// As the machine is `now`; of what cannot be read now, as it was, and of the cards that are not there, too.
    #[must_use]
    pub fn renewed(mut self, now: Self) -> Self {
        for (part, mut marks) in now.0 {
            if part.is_network() {
                // A card counts among those that it was found among last.
                let other = if part == Part::Card { Part::Adapter } else { Part::Card };
                if let Some(others) = self.0.get_mut(&other) {
                    others.retain(|mark| !marks.contains(mark));
                }
                let before = self.0.remove(&part).unwrap_or_default();
                let gone: Vec<_> = before.into_iter().filter(|mark| !marks.contains(mark)).collect();
                marks.extend(gone);
                marks.truncate(CARDS_KEPT);
            }
            self.0.insert(part, marks);
        }
        self.0.retain(|_, marks| !marks.is_empty());
        self
    }

    /// The marks that may be one of `part`: a card may have been taken for an adapter.
    fn of_kind(&self, part: Part) -> impl Iterator<Item = &[u8; 16]> {
        let is_like = move |other: Part| other == part || (other.is_network() && part.is_network());
        self.0.iter().filter(move |(other, _)| is_like(**other)).flat_map(|(_, marks)| marks)
    }

    /// Whether the key would follow to any machine.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By what, for people.
    pub fn describe(&self) -> String {
        let named = PARTS.iter().filter(|(part, ..)| self.0.contains_key(part)).map(|(.., name)| *name);
        named.collect::<Vec<_>>().join(", ")
    }

    /// The lines of the key file, one a part.
    pub fn lines(&self) -> Vec<String> {
        let line = |part: Part, mark: &[u8; 16]| {
            format!("{} {}", word(part), BASE32_NOPAD.encode(mark).to_ascii_lowercase())
        };
        self.0.iter().flat_map(|(part, marks)| marks.iter().map(move |mark| line(*part, mark))).collect()
    }

    /// What such lines say; those of kinds that we do not know say nothing. None if one is no such line.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut parts: BTreeMap<Part, Vec<[u8; 16]>> = BTreeMap::new();
        for line in lines {
            let (kind, mark) = line.split_once(' ')?;
            let mark = BASE32_NOPAD.decode(mark.to_ascii_uppercase().as_bytes()).ok()?.try_into().ok()?;
            if let Some((part, ..)) = PARTS.iter().find(|(_, word, _)| *word == kind) {
                parts.entry(*part).or_default().push(mark);
            }
        }
        Some(Self(parts))
    }
}

fn word(part: Part) -> &'static str {
    PARTS.iter().find(|(known, ..)| *known == part).map_or("", |(_, word, _)| word)
}

/// The addresses of the network cards that have one of their own: of those that are built in, and of the others.
fn cards(net: &Path) -> [BTreeSet<String>; 2] {
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    let Ok(entries) = fs::read_dir(net) else { return found };
    for interface in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Some(address) = card(&interface) else { continue };
        let cards = &mut found[usize::from(is_removable(&interface))];
        if cards.len() < CARDS_MAX {
            cards.insert(address);
        }
    }
    found
}

/// Whether a card may be unplugged: the kernel says so of it or of something that it hangs on; or it hangs on USB, and not
/// everything up to the bus is said to be built in. (In a dock the card is fixed to a hub that is not.)
fn is_removable(interface: &Path) -> bool {
    let Ok(device) = fs::canonicalize(interface.join("device")) else { return false };
    let ancestors = || device.ancestors().take(ANCESTORS_MAX);
    let said = |at: &Path| part(&at.join("removable"));
    let is_bus = |at: &&Path| {
        let name = at.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("usb"));
        name.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let mut on_usb = ancestors().take_while(|at| !is_bus(at)).filter_map(said).peekable();
    let is_fixed = on_usb.peek().is_some() && on_usb.all(|said| said == "fixed");
    ancestors().filter_map(said).any(|said| said == "removable")
        || (ancestors().any(|at| is_bus(&at)) && !is_fixed)
}

fn card(interface: &Path) -> Option<String> {
    let is = |name: &str, value: &str| part(&interface.join(name)).is_some_and(|text| text == value);
    // Bridges, tunnels and the like have no device below them.
    let made = interface.join("device").exists() && is("type", ETHERNET) && is("addr_assign_type", PERMANENT);
    let address = part(&interface.join("address")).filter(|_| made)?;
    let first = u8::from_str_radix(address.get(..2)?, 16).ok()?;
    // The bit that says that somebody made it up: virtual machines do.
    (address.len() == 17 && first & 2 == 0).then_some(address)
}

fn one(path: &Path) -> BTreeSet<String> {
    part(path).into_iter().collect()
}

/// What stands in a file, if it says anything.
fn part(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(PART_BYTES_MAX).read_to_string(&mut text).ok()?;
    // Device trees end their texts with a zero.
    let text = text.trim_matches(|char: char| char == '\0' || char.is_whitespace()).to_ascii_lowercase();
    let says_nothing = {
        let mut characters = text.chars().filter(char::is_ascii_alphanumeric);
        let first = characters.next();
        characters.all(|character| Some(character) == first) && text.len() > 1
    };
    let nothing = text.is_empty() || says_nothing || NOBODYS.contains(&text.as_str());
    (!nothing).then_some(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine whose trees have these files.
    pub(crate) fn machine(files: &[(&str, &str)]) -> Hardware {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Hardware::read(root.path())
    }

    pub(crate) fn with_card(address: &str) -> Hardware {
        machine(&card_files("eth0", address, "0"))
    }

    fn card_files<'a>(name: &str, address: &'a str, assigned: &'a str) -> [(&'static str, &'a str); 4] {
        let path = |file: &str| -> &'static str { format!("sys/class/net/{name}/{file}").leak() };
        [
            (path("address"), address),
            (path("type"), "1\n"),
            (path("addr_assign_type"), assigned),
            (path("device/uevent"), ""),
        ]
    }

    const SERIAL: &str = "sys/firmware/devicetree/base/serial-number";
    const UUID: &str = "sys/class/dmi/id/product_uuid";
    const MAC: &str = "b8:27:eb:01:02:03\n";

    fn bound(hardware: &Hardware) -> Binding {
        hardware.binding(&[7; 32])
    }

    #[test]
    fn a_copy_is_known_by_a_part_that_differs_while_none_agrees() {
        let pi = |serial: &str, mac: &str| {
            bound(&machine(&[&[(SERIAL, serial)][..], &card_files("eth0", mac, "0")].concat()))
        };
        let original = pi("10000000abcd\0", MAC);
        assert!(original.is_other(&pi("10000000abce\0", "b8:27:eb:09:09:09")));
        // One part may be exchanged: a new board in the old case keeps its card, a new card its board.
        assert!(!original.is_other(&pi("10000000abcd\0", "b8:27:eb:09:09:09")));
        assert!(!original.is_other(&pi("10000000abce\0", MAC)));
        // What cannot be read now is no difference, and alone nothing can be compared.
        assert!(!original.is_other(&bound(&machine(&[(SERIAL, "10000000abcd")]))));
        assert!(original.is_other(&bound(&machine(&[(SERIAL, "10000000abce")]))));
        assert!(!original.is_other(&bound(&machine(&[(UUID, "1-2-3")]))));
        assert!(!original.is_other(&Binding::default()));
        assert!(!Binding::default().is_other(&original));
    }

    #[test]
    fn an_adapter_that_is_plugged_in_changes_nothing() {
        let one = card_files("wlan0", MAC, "0");
        let two = card_files("eth1", "00:e0:4c:01:02:03", "0");
        let (alone, both) = (bound(&machine(&one)), bound(&machine(&[one, two].concat())));
        assert!(!alone.is_other(&both) && !both.is_other(&alone));
        assert!(alone.is_other(&bound(&machine(&two))));
        assert_eq!(alone.renewed(both.clone()).lines().len(), both.lines().len());
    }

    /// The cards of a machine by their way from the root of all devices: `usb1/1-1` hangs on USB.
    fn with_cards(cards: &[(&str, &str)]) -> Hardware {
        let root = tempfile::tempdir().unwrap();
        for (number, (way, address)) in cards.iter().enumerate() {
            let device = root.path().join("sys/devices").join(way);
            let interface = root.path().join(format!("sys/class/net/if{number}"));
            fs::create_dir_all(&device).unwrap();
            fs::create_dir_all(&interface).unwrap();
            for (file, text) in [("address", *address), ("type", "1\n"), ("addr_assign_type", "0\n")] {
                fs::write(interface.join(file), text).unwrap();
            }
            let removable = root.path().join("sys/devices/pci-dock");
            if removable.exists() {
                fs::write(removable.join("removable"), "removable\n").unwrap();
            }
            std::os::unix::fs::symlink(device, interface.join("device")).unwrap();
        }
        Hardware::read(root.path())
    }

    const WIFI: (&str, &str) = ("pci0/0000:00:14.3", "00:28:f8:00:00:01");
    const OTHER_WIFI: (&str, &str) = ("pci0/0000:00:14.3", "00:28:f8:00:00:02");
    const CABLE: (&str, &str) = ("pci0/0000:00:1f.6", "8c:16:45:00:00:01");
    const DOCK: (&str, &str) = ("pci0/0000:00:14.0/usb1/1-4/1-4:1.0", "00:e0:4c:00:00:01");
    const OTHER_DOCK: (&str, &str) = ("pci0/0000:00:14.0/usb2/2-1/2-1:1.0", "00:e0:4c:00:00:02");
    const PCI_DOCK: (&str, &str) = ("pci-dock/0000:3a:00.0", "00:50:b6:00:00:01");

    #[test]
    fn docks_adapters_and_wifi_that_come_and_go_never_make_another_machine_of_one() {
        let starts: [&[(&str, &str)]; 12] = [
            &[DOCK],
            &[OTHER_DOCK],
            &[WIFI],
            &[DOCK],
            &[OTHER_DOCK, PCI_DOCK],
            &[],
            &[WIFI, CABLE],
            &[CABLE],
            &[PCI_DOCK],
            &[WIFI],
            &[DOCK, OTHER_DOCK],
            &[CABLE],
        ];
        // Whatever comes first.
        for first in 0..starts.len() {
            let mut known = bound(&with_cards(starts[first]));
            for cards in starts.iter().cycle().skip(first).take(2 * starts.len()) {
                // Of two built-in cards each must have been seen beside something known once.
                if [&[WIFI][..], &[CABLE]].contains(cards) && !known.lines().is_empty() {
                    known = known.renewed(bound(&with_cards(&[WIFI, CABLE])));
                }
                let now = bound(&with_cards(cards));
                assert!(!known.is_other(&now), "{first}: {cards:?}");
                known = known.renewed(now);
                let lines = known.lines();
                assert_eq!(Binding::parse(lines.iter().map(String::as_str)), Some(known.clone()));
            }
            assert_eq!(known.lines().len(), 5);
            // And a copy of the disk is still one, docked or not.
            assert!(known.is_other(&bound(&with_cards(&[OTHER_WIFI]))));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_was_seen_last_stays() {
        let card = |number: usize| with_card(&format!("b8:27:eb:00:00:{number:02x}"));
        let mut known = bound(&card(0));
        for number in 1..100 {
            known = known.renewed(bound(&card(number)));
        }
        assert_eq!(known.lines().len(), CARDS_KEPT);
        assert!(!known.is_other(&bound(&card(99))) && known.is_other(&bound(&card(1))));
    }

    #[test]
    fn an_adapter_that_an_older_version_took_for_a_card_is_still_known() {
        let text = bound(&with_cards(&[DOCK])).lines().join("\n").replace("adapter ", "card ");
        let old = Binding::parse(text.lines()).unwrap();
        let now = bound(&with_cards(&[DOCK, WIFI]));
        assert!(!old.is_other(&now));
        let renewed = old.renewed(now);
        assert_eq!(renewed.lines().len(), 2);
        assert!(renewed.is_other(&bound(&with_cards(&[OTHER_WIFI]))));
    }

    #[test]
    fn addresses_that_software_made_do_not_count() {
        let none = Hardware::default();
        // Random, made up by a virtual machine, no card's at all.
        assert_eq!(machine(&card_files("eth0", MAC, "1")), none);
        assert_eq!(with_card("52:54:00:12:34:56"), none);
        assert_eq!(with_card("00:00:00:00:00:00"), none);
        assert_eq!(machine(&card_files("docker0", MAC, "0")[..3]), none);
        let mut tunnel = card_files("tun0", MAC, "0");
        tunnel[1].1 = "65534";
        assert_eq!(machine(&tunnel), none);
        assert_ne!(with_card(MAC), none);
    }

    #[test]
    fn what_manufacturers_write_who_write_nothing_does_not_count() {
        for uuid in
            ["", "\n", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n"]
        {
            assert_eq!(machine(&[(UUID, uuid), (SERIAL, "0000000000000000\0")]), Hardware::default());
        }
        assert_eq!(machine(&[(UUID, "03000200-0400-0500-0006-000700080009\n")]), Hardware::default());
        assert_eq!(Hardware::read(Path::new("/nonexistent")), Hardware::default());
    }

    #[test]
    fn what_is_kept_reads_back_tells_nothing_of_the_machine_and_is_another_for_another_key() {
        let hardware = with_card(MAC);
        let (binding, lines) = (bound(&hardware), bound(&hardware).lines());
        assert_eq!(Binding::parse(lines.iter().map(String::as_str)), Some(binding.clone()));
        assert!(!lines[0].contains("b8") || !lines[0].contains(':'));
        assert!(binding.is_other(&hardware.binding(&[8; 32])));
        let newer = format!("tpm {}", "a".repeat(26));
        assert_eq!(Binding::parse([newer.as_str(), &lines[0]].into_iter()), Some(binding));
        assert_eq!(Binding::parse(["card"].into_iter()), None);
        assert_eq!(Binding::parse(["card aaaa"].into_iter()), None);
    }
}
