//! The machine below us, as far as it tells itself from another one: so that a copied disk is known for what it is.
//!
//! Three kinds of parts: the serial number of the device tree (a Raspberry Pi has one), the product UUID of the firmware,
//! and the permanent addresses of network cards. What a card was given by software does not count, nor what comes from
//! no device at all: images and containers copy those. Each kind is judged by itself, since not every user may read
//! every part, and cards come and go. All cards count, not only the first: which one is first changes with every
//! adapter that is plugged in.
//!
//! What is kept is a [`Binding`]: keyed hashes, under the key that they bind. They tell nothing of the machine to who
//! does not have the key, and who has it has all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use data_encoding::BASE32_NOPAD;

use crate::crypto::hash;

/// Cards that are kept; no board has as many.
const CARDS_MAX: usize = 16;
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
}

const PARTS: [(Part, &str, &str); 3] = [
    (Part::Serial, "serial", "its serial number"),
    (Part::Uuid, "uuid", "its product UUID"),
    (Part::Card, "card", "its network card"),
];

/// What can be read of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware(BTreeMap<Part, BTreeSet<String>>);

impl Hardware {
    /// What can be read in the trees below `root`, which is `/` in the daemon.
    pub fn read(root: &Path) -> Self {
        let mut parts = BTreeMap::from([
            (Part::Serial, one(&root.join("sys/firmware/devicetree/base/serial-number"))),
            (Part::Uuid, one(&root.join("sys/class/dmi/id/product_uuid"))),
            (Part::Card, cards(&root.join("sys/class/net"))),
        ]);
        parts.retain(|_, values| !values.is_empty());
        Self(parts)
    }

    /// What binds the key with this secret to the machine.
    pub fn binding(&self, secret: &[u8; 32]) -> Binding {
        let key = hash::derive(secret, b"atonce 1 hardware");
        let marks = self.0.iter().map(|(part, values)| {
            let mark =
                |value: &String| hash::mac(&*key, &[word(*part).as_bytes(), b" ", value.as_bytes()]).bytes();
            (*part, values.iter().map(mark).collect())
        });
        Binding(marks.collect())
    }
}

/// To which machine a key belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding(BTreeMap<Part, BTreeSet<[u8; 16]>>);

impl Binding {
    /// Whether `now` is another machine than this one: something can be compared, and nothing of it agrees.
    pub fn is_other(&self, now: &Self) -> bool {
        let mut compared = self.0.iter().filter_map(|(part, then)| Some((then, now.0.get(part)?))).peekable();
        compared.peek().is_some() && compared.all(|(then, now)| then.is_disjoint(now))
    }

    /// As the machine is `now`; of what cannot be read now, as it was.
    #[must_use]
    pub fn renewed(mut self, now: Self) -> Self {
        self.0.extend(now.0);
        self
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
        let mut parts: BTreeMap<Part, BTreeSet<[u8; 16]>> = BTreeMap::new();
        for line in lines {
            let (kind, mark) = line.split_once(' ')?;
            let mark = BASE32_NOPAD.decode(mark.to_ascii_uppercase().as_bytes()).ok()?.try_into().ok()?;
            if let Some((part, ..)) = PARTS.iter().find(|(_, word, _)| *word == kind) {
                parts.entry(*part).or_default().insert(mark);
            }
        }
        Some(Self(parts))
    }
}

fn word(part: Part) -> &'static str {
    PARTS.iter().find(|(known, ..)| *known == part).map_or("", |(_, word, _)| word)
}

/// The addresses of the network cards that have one of their own.
fn cards(net: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(net) else { return BTreeSet::new() };
    let interfaces = entries.filter_map(Result::ok).map(|entry| entry.path());
    interfaces.filter_map(|interface| card(&interface)).take(CARDS_MAX).collect()
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
        assert_eq!(alone.renewed(both.clone()), both);
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
