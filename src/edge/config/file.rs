//! The configuration files: which there are, and what stands in them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, Error};
use toml::{Table, Value};

use super::given::{Files, OptionSet, cleaned, service_directory, variable};
use super::{Mistake, Origin};
use crate::pasted;
use crate::wire::complaint;

const SYSTEM_DIRECTORY: &str = "/etc/atonce";
/// Bytes of the largest file that we read: a thousand peers take a twentieth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The files that count, the weakest first: the one that the user named, or the usual one if it is there, and then the
/// drop-ins beside it in the order of their names.
pub(super) fn paths(named: Option<&Path>, files: Files, mistakes: &mut Vec<Mistake>) -> Vec<PathBuf> {
    let main = named.map_or_else(|| directory().join(files.main), Path::to_owned);
    let drop_ins = main.with_file_name(files.drop_ins);
    let mut paths = match fs::read_dir(&drop_ins).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries.iter().map(fs::DirEntry::path).filter(|path| is_drop_in(path)).collect(),
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                mistakes.push(unreadable(&drop_ins, &error));
            }
            Vec::new()
        }
    };
    paths.sort();
    if named.is_some() || !matches!(main.try_exists(), Ok(false)) {
        paths.insert(0, main);
    }
    paths
}

/// What the keys of a file are set to; what cannot be read as an option is a mistake.
pub(super) fn read<O: OptionSet>(
    path: &Path,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, (Value, Origin)> {
    match text_of(path) {
        Ok(text) => {
            let mut here = Vec::new();
            let said = parse::<O>(&text, path, &mut here);
            let line = |mistake: &Mistake| {
                if let Origin::File { line, .. } = mistake.origin { line } else { None }
            };
            here.sort_by_key(line);
            mistakes.extend(here);
            said
        }
        Err(error) => {
            mistakes.push(unreadable(path, &error));
            BTreeMap::new()
        }
    }
}

pub(super) fn parse<O: OptionSet>(
    text: &str,
    path: &Path,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, (Value, Origin)> {
    let at = |offset: usize| {
        let lines = text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
        Origin::File { path: path.to_owned(), line: Some(lines + 1) }
    };
    let wrong = |error: &Error, key: usize| {
        let offset = error.span().map_or(key, |span| span.start);
        Mistake { origin: at(offset), what: complaint::of(error.message()), tries: None, serious: true }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        mistakes.extend(errors.iter().map(|error| wrong(error, 0)));
        return BTreeMap::new();
    }
    let mut said = BTreeMap::new();
    for (key, value) in table.into_inner() {
        let (start, span) = (key.span().start, value.span().start);
        let key = O::key_of(key.get_ref().as_ref());
        if !O::KEYS.contains(&key) {
            mistakes.push(Mistake::unknown_key(at(start), key, O::KEYS, O::PROGRAM));
            continue;
        }
        let read = Value::deserialize(toml::de::ValueDeserializer::from(value)).and_then(|value| {
            let value = cleaned(value);
            let alone = Table::from_iter([(key.to_owned(), value.clone())]);
            O::deserialize(alone).map(|_| value)
        });
        match read {
            Ok(value) => drop(said.insert(key.to_owned(), (value, at(start)))),
            Err(error) => {
                let mistake = wrong(&error, span);
                let (verb, tries) = match &mistake.what {
                    what if what.ends_with("should be a list") => (" is", Some(format!("{key} = [\"…\"]"))),
                    what if what.contains("should be") => (" is", None),
                    // Of what is in the list.
                    _ => (":", Some("an address of this machine, such as 192.168.1.2 or fd00::2".to_owned())),
                };
                mistakes.push(Mistake { what: format!("`{key}`{verb} {}", mistake.what), tries, ..mistake });
            }
        }
    }
    said
}

/// Where the files are: where the service manager says, else of this user if there are any, else of the host.
fn directory() -> PathBuf {
    let of_user = || {
        let config =
            variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        config.map(|config| config.join("atonce")).filter(|directory| directory.is_dir())
    };
    service_directory("CONFIGURATION_DIRECTORY").or_else(of_user).unwrap_or_else(|| SYSTEM_DIRECTORY.into())
}

/// Whether it is one for us, and not what an editor left behind.
fn is_drop_in(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "toml")
}

fn text_of(path: &Path) -> io::Result<String> {
    // A pipe would keep us waiting, a device never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    pasted::decoded(&bytes).map(str::to_owned).map_err(io::Error::other)
}

fn unreadable(path: &Path, error: &io::Error) -> Mistake {
    let origin = Origin::File { path: path.to_owned(), line: None };
    Mistake::serious(
        origin,
        format!("the configuration cannot be read: {error}"),
        "another path, or other permissions",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    fn mistakes(text: &[u8]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut mistakes) = (dir.path().join("a.toml"), Vec::new());
        fs::write(&path, text).unwrap();
        read::<Options>(&path, &mut mistakes);
        let start = format!("{}", path.display());
        mistakes.iter().map(|mistake| mistake.to_string().replacen(&start, "a.toml", 1)).collect()
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        let told =
            mistakes(b"# first\nnmae = 1\nport = \"x\"\nbind = [\n  \"::\",\n  \"eth0\"]\nno_mdns = 1\n");
        let starts = [
            "2: unknown key `nmae`, did you mean `name`?",
            "3: `port` is ",
            "4: `bind`: ",
            "7: `no_mdns` is ",
        ];
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        for (told, start) in told.iter().zip(starts) {
            assert!(told.starts_with(&format!("a.toml:{start}")), "{told}");
        }
        assert!(mistakes(b"port = 1\nname\n")[0].starts_with("a.toml:2: "));
    }

    #[test]
    fn what_is_no_text_or_endless_is_a_mistake_too() {
        assert!(mistakes(&[0xff])[0].starts_with("a.toml: the configuration cannot be read: "));
        assert!(mistakes(&vec![b'#'; 1 + FILE_BYTES_MAX as usize])[0].contains("more than 1048576 bytes"));
        let mut told = Vec::new();
        read::<Options>(Path::new("/dev/zero"), &mut told);
        assert!(told[0].what.ends_with("it is no file"), "{told:?}");
    }

    #[test]
    fn drop_ins_follow_the_file_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("conf.d");
        fs::create_dir(&conf).unwrap();
        for name in ["20-b.toml", "10-a.toml", ".hidden.toml", "10-a.toml~", "README"] {
            fs::write(conf.join(name), "").unwrap();
        }
        let (main, mut mistakes) = (dir.path().join("atonce.toml"), Vec::new());
        let paths = paths(Some(&main), Options::FILES, &mut mistakes);
        assert_eq!(paths, [main, conf.join("10-a.toml"), conf.join("20-b.toml")]);
        assert_eq!(mistakes, []);
    }
}
