//! What the user may set, and where: flag before environment before file before default.
//!
//! Every flag `--some-name` is also the variable `ATONCE_SOME_NAME` and the top-level key `some_name` of the TOML file.
//! Without any of them the daemon works.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use serde::Deserialize;
use thiserror::Error;

use crate::edge::interfaces::InterfaceFilter;
use crate::edge::keyfile::{self, StateError};
use crate::id::{NodeName, unprintable};
use crate::limits;

/// The port of the session sockets; another one when it is taken.
pub const DEFAULT_PORT: u16 = 28282;
/// Read when no other file is named.
const DEFAULT_FILE: &str = "/etc/atonce/atonce.toml";
const DEFAULT_LOG: &str = "info";

/// The daemon of atonce: finds the other devices of this network and carries messages between their programs.
///
/// It starts without any configuration, as any user. Each option is also an environment variable and a top-level key
/// of the configuration file (with underscores).
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "atonced", version, max_term_width = 100)]
pub struct Options {
    /// Read this file [default: /etc/atonce/atonce.toml if it exists]
    #[arg(long, env = "ATONCE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep the key and the known peers here [default: $STATE_DIRECTORY, $XDG_STATE_HOME/atonce, ~/.local/state/atonce]
    #[arg(long, env = "ATONCE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Serve apps here [default: the socket passed by systemd, $XDG_RUNTIME_DIR/atonce/atonced.sock,
    /// /tmp/atonce-$UID/atonced.sock]
    #[arg(long, env = "ATONCE_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What people call this node [default: the host's name]
    #[arg(long, env = "ATONCE_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// UDP port of the sessions [default: 28282, any free one when it is taken]
    #[arg(long, env = "ATONCE_PORT", value_name = "N")]
    pub port: Option<u16>,
    /// Use only this local address; may be repeated [default: all]
    #[arg(long, env = "ATONCE_BIND", value_name = "ADDR", value_delimiter = ',')]
    pub bind: Option<Vec<IpAddr>>,
    /// The secret of the private network, one line in this file; outranks `atonce network join`
    #[arg(long, env = "ATONCE_NETWORK_SECRET_FILE", value_name = "FILE")]
    pub network_secret_file: Option<PathBuf>,
    /// Also look for a peer here, for networks that drop multicast; may be repeated
    #[arg(long, env = "ATONCE_PEER", value_name = "HOST:PORT", value_delimiter = ',')]
    pub peer: Option<Vec<String>>,
    /// Use only interfaces that match; may be repeated
    #[arg(long, env = "ATONCE_INTERFACE", value_name = "GLOB", value_delimiter = ',')]
    pub interface: Option<Vec<String>>,
    /// Use no interfaces that match; may be repeated [default: docker*, br-*, veth*, virbr*, vmnet*, tun*, tap*, wg*,
    /// tailscale*, zt*]
    #[arg(long, env = "ATONCE_IGNORE_INTERFACE", value_name = "GLOB", value_delimiter = ',')]
    pub ignore_interface: Option<Vec<String>>,
    /// Neither advertise nor browse by multicast DNS
    #[arg(long, env = "ATONCE_NO_MDNS", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_mdns: Option<bool>,
    /// Probe for name conflicts before advertising: others see this node a second later
    #[arg(long, env = "ATONCE_MDNS_PROBE", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub mdns_probe: Option<bool>,
    /// Send no hello of our own, and hear none
    #[arg(long, env = "ATONCE_NO_HELLO", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_hello: Option<bool>,
    /// Check the configuration and end
    #[arg(long)]
    pub check: bool,
    /// What to log, such as `debug` or `atonce=debug,warn` [default: info]
    #[arg(long, env = "ATONCE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// What was set, with the defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The socket that the user named.
    pub socket: Option<PathBuf>,
    /// The node's name.
    pub name: NodeName,
    /// The port that the user named.
    pub port: Option<u16>,
    /// The addresses of the session sockets.
    pub bind: Vec<IpAddr>,
    /// The file with the network secret, if one is named.
    pub network_secret_file: Option<PathBuf>,
    /// `host:port` of peers.
    pub peers: Vec<String>,
    /// Which interfaces are used.
    pub interfaces: InterfaceFilter,
    /// Advertise and browse by multicast DNS.
    pub mdns: bool,
    /// Probe for name conflicts before advertising.
    pub mdns_probe: bool,
    /// Send hellos and hear them.
    pub hello: bool,
    /// What to log.
    pub log: String,
}

impl Settings {
    /// Looks at what the settings name, without touching it.
    ///
    /// # Errors
    ///
    /// A named file with the network secret holds none.
    pub fn check(&self) -> Result<(), StateError> {
        self.network_secret_file.as_deref().map_or(Ok(()), |path| keyfile::read_secret(path).map(|_| ()))
    }
}

/// Why the configuration cannot be used: always something that the user wrote.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {error}\ntry: check the path and its permissions", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not TOML, or a key has a value of another kind.
    #[error("{} is not a configuration: {error}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// It has a key that means nothing.
    #[error("{} has the unknown key `{key}`\ntry: `{nearest}`, or remove it", path.display())]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// The known key that is most like it.
        nearest: &'static str,
    },
    /// The name is none.
    #[error(
        "`{name}` cannot be a node's name: {reason}\ntry: --name with 1 to 63 bytes of visible characters"
    )]
    Name {
        /// What was given.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A peer is no `host:port`.
    #[error(
        "`{0}` is no address of a peer\ntry: HOST:PORT, such as pi.example.org:28282, 192.168.1.7:28282 or [fd00::7]:28282"
    )]
    Peer(String),
    /// There is no place for the state.
    #[error(
        "no state directory: neither $STATE_DIRECTORY nor $XDG_STATE_HOME nor $HOME is set\ntry: --state-dir DIR"
    )]
    NoStateDir,
}

impl Options {
    /// Reads the file, if there is one, and fills in the defaults.
    ///
    /// # Errors
    ///
    /// Something that the user wrote makes no sense.
    pub fn settle(mut self) -> Result<Settings, ConfigError> {
        match self.config.take() {
            Some(path) => self.settle_with(&read(&path)?, &path),
            None if Path::new(DEFAULT_FILE).exists() => {
                self.settle_with(&read(Path::new(DEFAULT_FILE))?, Path::new(DEFAULT_FILE))
            }
            None => self.settings(),
        }
    }

    /// Fills in the text of the file, which is at `path`, and the defaults.
    ///
    /// # Errors
    ///
    /// Something that the user wrote makes no sense.
    pub fn settle_with(self, text: &str, path: &Path) -> Result<Settings, ConfigError> {
        self.or(FileOptions::parse(text, path)?).settings()
    }

    fn or(self, file: FileOptions) -> Self {
        Self {
            config: None,
            state_dir: self.state_dir.or(file.state_dir),
            socket: self.socket.or(file.socket),
            name: self.name.or(file.name),
            port: self.port.or(file.port),
            bind: self.bind.or(file.bind),
            network_secret_file: self.network_secret_file.or(file.network_secret_file),
            peer: self.peer.or(file.peer),
            interface: self.interface.or(file.interface),
            ignore_interface: self.ignore_interface.or(file.ignore_interface),
            no_mdns: self.no_mdns.or(file.no_mdns),
            mdns_probe: self.mdns_probe.or(file.mdns_probe),
            no_hello: self.no_hello.or(file.no_hello),
            check: self.check,
            log: self.log.or(file.log),
        }
    }

    fn settings(self) -> Result<Settings, ConfigError> {
        let everywhere = || vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let bind = self.bind.filter(|addrs| !addrs.is_empty()).unwrap_or_else(everywhere);
        let peers = self.peer.unwrap_or_default();
        if let Some(wrong) = peers.iter().find(|peer| !is_host_port(peer)) {
            return Err(ConfigError::Peer(wrong.clone()));
        }
        Ok(Settings {
            state_dir: self.state_dir.map_or_else(default_state_dir, Ok)?,
            socket: self.socket,
            name: self.name.map_or_else(|| Ok(host_name()), given_name)?,
            port: self.port,
            interfaces: InterfaceFilter::new(
                self.interface.unwrap_or_default(),
                self.ignore_interface,
                &bind,
            ),
            bind,
            network_secret_file: self.network_secret_file,
            peers,
            mdns: !self.no_mdns.unwrap_or(false),
            mdns_probe: self.mdns_probe.unwrap_or(false),
            hello: !self.no_hello.unwrap_or(false),
            log: self.log.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
        })
    }
}

/// The keys of the file, as they are written there.
const KEYS: [&str; 13] = [
    "state_dir",
    "socket",
    "name",
    "port",
    "bind",
    "network_secret_file",
    "peer",
    "interface",
    "ignore_interface",
    "no_mdns",
    "mdns_probe",
    "no_hello",
    "log",
];

#[derive(Debug, Default, Deserialize)]
struct FileOptions {
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    name: Option<String>,
    port: Option<u16>,
    bind: Option<Vec<IpAddr>>,
    network_secret_file: Option<PathBuf>,
    #[serde(alias = "peers")]
    peer: Option<Vec<String>>,
    interface: Option<Vec<String>>,
    ignore_interface: Option<Vec<String>>,
    no_mdns: Option<bool>,
    mdns_probe: Option<bool>,
    no_hello: Option<bool>,
    log: Option<String>,
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}

impl FileOptions {
    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error| ConfigError::Syntax { path: path.to_owned(), error: Box::new(error) };
        let table: toml::Table = toml::from_str(text).map_err(syntax)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str()) && *key != "peers") {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                nearest: nearest(key),
            });
        }
        toml::from_str(text).map_err(syntax)
    }
}

fn nearest(key: &str) -> &'static str {
    KEYS.into_iter().min_by_key(|known| distance(key, known)).unwrap_or("name")
}

/// How many letters must be put in, taken out or changed to make one word of the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let changed = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let v6 = host.starts_with('[') && host.ends_with(']');
    !host.is_empty() && (v6 || !host.contains(':')) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn given_name(name: String) -> Result<NodeName, ConfigError> {
    name.parse().map_err(|reason: crate::id::BadName| ConfigError::Name { reason: reason.to_string(), name })
}

/// The host's name without its domain, made fit to be shown.
fn host_name() -> NodeName {
    let uname = rustix::system::uname();
    legal_name(&uname.nodename().to_string_lossy())
}

fn legal_name(host: &str) -> NodeName {
    let host = host.split('.').next().unwrap_or_default();
    let mut name = String::new();
    for character in host.chars().filter(|character| !unprintable(*character)) {
        if name.len() + character.len_utf8() > limits::NAME_BYTES {
            break;
        }
        name.push(character);
    }
    name.parse().unwrap_or_else(|_| "atonce".parse().unwrap_or_else(|_| unreachable!("it is a legal name")))
}

fn default_state_dir() -> Result<PathBuf, ConfigError> {
    let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd joins several with colons; the first is ours.
    let given =
        var("STATE_DIRECTORY").and_then(|dirs| Some(PathBuf::from(dirs.to_str()?.split(':').next()?)));
    given
        .or_else(|| var("XDG_STATE_HOME").map(|dir| dir.join("atonce")))
        .or_else(|| var("HOME").map(|dir| dir.join(".local/state/atonce")))
        .ok_or(ConfigError::NoStateDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Options {
        Options::try_parse_from([&["atonced", "--state-dir", "/s"], args].concat()).unwrap()
    }

    fn file(text: &str) -> Result<FileOptions, ConfigError> {
        FileOptions::parse(text, Path::new("a.toml"))
    }

    fn settled(args: &[&str], text: &str) -> Settings {
        flags(args).or(file(text).unwrap()).settings().unwrap()
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let none = settled(&[], "");
        assert_eq!((none.port, none.mdns, none.hello, none.log.as_str()), (None, true, true, "info"));
        assert_eq!(none.bind.len(), 2);

        let text = "port = 7\nname = \"pi\"\nno_mdns = true\npeers = [\"a:1\"]\nlog = \"debug\"";
        let from_file = settled(&[], text);
        assert_eq!((from_file.port, from_file.mdns, from_file.name.as_str()), (Some(7), false, "pi"));
        assert_eq!((from_file.peers.as_slice(), from_file.log.as_str()), (&["a:1".to_owned()][..], "debug"));

        let args = ["--port", "9", "--no-mdns=false", "--no-hello", "--peer", "b:1,c:2", "--peer", "[::1]:3"];
        let both = settled(&args, text);
        assert_eq!((both.port, both.mdns, both.hello, both.name.as_str()), (Some(9), true, false, "pi"));
        assert_eq!(both.peers, ["b:1", "c:2", "[::1]:3"]);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_key_that_was_meant() {
        for (wrong, right) in
            [("no-mdns", "no_mdns"), ("nmae", "name"), ("ports", "port"), ("socket_path", "socket")]
        {
            let error = file(&format!("{wrong} = 1")).unwrap_err();
            let ConfigError::UnknownKey { key, nearest, .. } = error else { panic!("{error}") };
            assert_eq!((key.as_str(), nearest), (wrong, right));
        }
        assert!(matches!(file("port = \"x\""), Err(ConfigError::Syntax { .. })));
        assert!(matches!(file("port"), Err(ConfigError::Syntax { .. })));
    }

    #[test]
    fn every_key_of_the_file_is_an_option_with_its_variable() {
        use clap::CommandFactory;
        let command = Options::command();
        for key in KEYS {
            let arg = command.get_arguments().find(|arg| arg.get_id() == key).unwrap();
            assert_eq!(arg.get_long(), Some(key.replace('_', "-").as_str()));
            assert_eq!(
                arg.get_env().unwrap().to_str(),
                Some(format!("ATONCE_{}", key.to_uppercase()).as_str())
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused_before_the_start() {
        for peer in ["pi", "pi:", "pi:0", ":1", "::1:5", "pi:70000"] {
            let refused = flags(&["--peer", peer]).settings();
            assert!(matches!(refused, Err(ConfigError::Peer(_))), "{peer}");
        }
        assert!(matches!(flags(&["--name", "a\u{1b}b"]).settings(), Err(ConfigError::Name { .. })));
        assert!(Options::try_parse_from(["atonced", "--name", ""]).is_err());
        assert!(Options::try_parse_from(["atonced", "--bind", "eth0"]).is_err());
    }

    #[test]
    fn any_host_name_becomes_a_legal_name() {
        assert_eq!(legal_name("pi-attic.example.org").as_str(), "pi-attic");
        assert_eq!(legal_name("").as_str(), "atonce");
        assert_eq!(legal_name("a\u{1b}b").as_str(), "ab");
        assert_eq!(legal_name(&"é".repeat(40)).as_str().len(), 62);
    }
}
