//! What the user may set, and where: flag before environment before credential before drop-ins, the last one first,
//! before file before default.
//!
//! Every flag `--some-name` is also the variable `ATONCE_SOME_NAME` and the top-level key `some_name` of the TOML files.
//! Without any of them the daemon works. [`Given`] is what was said and where, for either daemon; [`Settings`] is what
//! follows from it for `atonced`, [`rendezvous::Settings`] for `atonce-rendezvous`.

mod file;
mod given;
mod mistake;
pub mod rendezvous;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use serde::{Deserialize, Serialize};
use toml::Value;

pub(super) use self::given::variable;
pub use self::given::{Files, Given, OptionSet, Said};
use self::given::{log_filter, state_dir};
pub use self::mistake::{Mistake, Mistakes, Origin};
use crate::core::{BadHostPort, RendezvousServer, check_host_port};
use crate::edge::interfaces::InterfaceFilter;
use crate::edge::keyfile;
use crate::id::{NodeName, unprintable};
use crate::limits;

/// The port of the session sockets; another one when it is taken.
pub const DEFAULT_PORT: u16 = 28282;
/// The credential of the service manager that holds the network secret.
const SECRET_CREDENTIAL: &str = "network-secret";

/// The daemon of atonce: finds the other devices of this network and carries messages between their programs.
///
/// It starts without any configuration, as any user. Each option is also an environment variable and a top-level key
/// of the configuration file (with underscores).
#[derive(Clone, Debug, Default, Parser, Serialize, Deserialize)]
#[command(name = "atonced", version, max_term_width = 100)]
#[serde(default)]
pub struct Options {
    /// Read this file, and then conf.d/*.toml beside it [default: atonce.toml in $CONFIGURATION_DIRECTORY,
    /// $XDG_CONFIG_HOME/atonce or ~/.config/atonce if that exists, else /etc/atonce]
    #[arg(long, env = "ATONCE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
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
    /// The secret of the private network or an invitation, one line in this file; outranks `atonce network join`. A second line is the
    /// secret of before: who has it is still answered
    #[arg(long, env = "ATONCE_NETWORK_SECRET_FILE", value_name = "FILE")]
    pub network_secret_file: Option<PathBuf>,
    /// Also look for a peer here, for networks that drop multicast; may be repeated
    #[arg(long, env = "ATONCE_PEER", value_name = "HOST:PORT", value_delimiter = ',')]
    pub peer: Option<Vec<String>>,
    /// Let this server introduce us to members elsewhere, with its key if it is known; may be repeated. Only a private
    /// network is registered [default: none, nothing leaves the LAN]
    #[arg(long, env = "ATONCE_RENDEZVOUS", value_name = "HOST:PORT[#KEY]", value_delimiter = ',')]
    pub rendezvous: Option<Vec<String>>,
    /// Use only interfaces that match; may be repeated
    #[arg(long, env = "ATONCE_INTERFACE", value_name = "GLOB", value_delimiter = ',')]
    pub interface: Option<Vec<String>>,
    /// Use no interfaces that match; may be repeated [default: those of containers, virtual machines, tunnels and
    /// mobile carriers, as docker0, virbr0, wg0, wwan0]
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
    /// Relay for no peer, and be relayed by none
    #[arg(long, env = "ATONCE_NO_RELAY", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_relay: Option<bool>,
    /// Ask no router for a port by PCP, NAT-PMP or UPnP; without a rendezvous server none is asked anyway
    #[arg(long, env = "ATONCE_NO_PORT_MAPPING", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_port_mapping: Option<bool>,
    /// Open no many ports, and guess none of others, to get through a router that changes the port
    #[arg(long, env = "ATONCE_NO_BIRTHDAY_PUNCH", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_birthday_punch: Option<bool>,
    /// The network is paid by volume: relay for nobody, and no birthday punch
    #[arg(long, env = "ATONCE_METERED", value_name = "BOOL", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub metered: Option<bool>,
    /// Tell what would be used and where it was set, or all that is wrong, and end
    #[arg(long)]
    #[serde(skip)]
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
    /// The servers that introduce us to members elsewhere.
    pub rendezvous: Vec<RendezvousServer>,
    /// Which interfaces are used.
    pub interfaces: InterfaceFilter,
    /// Advertise and browse by multicast DNS.
    pub mdns: bool,
    /// Probe for name conflicts before advertising.
    pub mdns_probe: bool,
    /// Send hellos and hear them.
    pub hello: bool,
    /// Relay for peers, and be relayed for.
    pub relay: bool,
    /// Ask the router for a port.
    pub port_mapping: bool,
    /// Open many ports, and guess those of others.
    pub birthday_punch: bool,
    /// The network is paid by volume.
    pub metered: bool,
    /// What to log.
    pub log: String,
    /// What means nothing, and does no harm: unknown keys.
    pub warnings: Vec<Mistake>,
    given: Given,
}

impl OptionSet for Options {
    const PROGRAM: &'static str = "atonced";
    const KEYS: &'static [&'static str] = &KEYS;
    const FILES: Files = Files { main: "atonce.toml", drop_ins: "conf.d" };
    const VARIABLES: &'static str = "ATONCE_";
    const VARIABLES_OF_OTHERS: Option<&'static str> = Some("ATONCE_RENDEZVOUS_");
    type Settings = Settings;

    fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn is_check(&self) -> bool {
        self.check
    }

    fn key_of(word: &str) -> &str {
        if word == "peers" { "peer" } else { word }
    }

    fn passed() -> Said {
        credential()
    }

    fn settings(given: Given, mistakes: &mut Vec<Mistake>) -> Option<Settings> {
        given.settings(mistakes).ok()
    }

    fn with_warnings(settings: Settings, warnings: Vec<Mistake>) -> Settings {
        Settings { warnings, ..settings }
    }
}

impl Given {
    fn settings(self, mistakes: &mut Vec<Mistake>) -> Result<Settings, ()> {
        let options = self.options().ok_or(())?;
        let mut wrong = |key: &str, what: String, tries: &str| {
            mistakes.push(Mistake::serious(self.origin(key), what, tries));
        };
        let everywhere = || vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let bind = options.bind.filter(|addrs| !addrs.is_empty()).unwrap_or_else(everywhere);
        for addr in bind.iter().filter(|addr| addr.is_multicast()) {
            wrong("bind", format!("{addr} is an address of no machine"), "an address of this machine");
        }
        let peers = options.peer.unwrap_or_default();
        for (peer, bad) in peers.iter().filter_map(|peer| Some((peer, check_host_port(peer).err()?))) {
            let tries = "HOST:PORT, such as pi.example.org:28282, 192.168.1.7:28282 or [fd00::7]:28282";
            let why = if bad == BadHostPort::Form { String::new() } else { format!(": {bad}") };
            wrong("peer", format!("`{}` is no address of a peer{why}", peer.escape_debug()), tries);
        }
        let mut rendezvous: Vec<RendezvousServer> = Vec::new();
        for text in options.rendezvous.unwrap_or_default() {
            match text.parse::<RendezvousServer>() {
                Ok(server) if rendezvous.iter().any(|known| known.name == server.name) => {
                    wrong("rendezvous", format!("{} is named twice", server.name), "each server once");
                }
                Ok(server) => rendezvous.push(server),
                Err(reason) => {
                    let what = format!("`{}` is no rendezvous server: {reason}", text.escape_debug());
                    wrong("rendezvous", what, "the line that atonce-rendezvous prints: HOST:PORT#KEY");
                }
            }
        }
        if rendezvous.len() > limits::RENDEZVOUS_SERVERS {
            let what = format!("at most {} rendezvous servers", limits::RENDEZVOUS_SERVERS);
            wrong("rendezvous", what, "the nearest ones; each member needs the same list");
            rendezvous.truncate(limits::RENDEZVOUS_SERVERS);
        }
        let name = options.name.map_or_else(host_name, |name| {
            name.parse().unwrap_or_else(|reason: crate::id::BadName| {
                let what = format!("`{}` cannot be a node's name: {reason}", name.escape_debug());
                wrong("name", what, "a name of 1 to 63 bytes of visible characters");
                host_name()
            })
        });
        if let Some(bytes) = options.socket.as_ref().map(|path| path.as_os_str().len())
            && bytes > limits::SOCKET_PATH_BYTES
        {
            let most = limits::SOCKET_PATH_BYTES;
            wrong(
                "socket",
                format!("the path has {bytes} bytes, and the system takes at most {most}"),
                "a shorter one",
            );
        }
        let log = log_filter(options.log, &mut wrong);
        let state_dir = state_dir(options.state_dir, "atonce", &mut wrong);
        Ok(Settings {
            state_dir,
            socket: options.socket,
            name,
            port: options.port,
            interfaces: InterfaceFilter::new(
                options.interface.unwrap_or_default(),
                options.ignore_interface,
                &bind,
            ),
            bind,
            network_secret_file: options.network_secret_file,
            peers,
            rendezvous,
            mdns: !options.no_mdns.unwrap_or(false),
            mdns_probe: options.mdns_probe.unwrap_or(false),
            hello: !options.no_hello.unwrap_or(false),
            relay: !options.no_relay.unwrap_or(false),
            port_mapping: !options.no_port_mapping.unwrap_or(false),
            birthday_punch: !options.no_birthday_punch.unwrap_or(false),
            metered: options.metered.unwrap_or(false),
            log,
            warnings: Vec::new(),
            given: self,
        })
    }
}

impl Settings {
    /// What would be used, as a configuration file that tells where each value was set.
    ///
    /// # Errors
    ///
    /// Something in it would not do what the user hopes: an unknown key, or a file without a network secret.
    pub fn check(mut self) -> Result<String, Mistakes> {
        if let Some(Err(error)) = self.network_secret_file.as_deref().map(keyfile::read_secrets) {
            let origin = self.given.origin("network_secret_file");
            self.warnings.push(Mistake { origin, what: error.to_string(), tries: None, serious: true });
        }
        if !self.warnings.is_empty() {
            return Err(Mistakes(self.warnings));
        }
        Ok(self.given.describe(|key| self.default_of(key)))
    }

    /// The name that the host has now, if this node is called like it.
    pub fn followed_name(&self) -> Option<NodeName> {
        (self.given.origin("name") == Origin::Default).then(host_name)
    }

    /// Whether the service manager passed the network secret: its file is a copy that nobody can change.
    pub fn secret_is_passed(&self) -> bool {
        self.given.origin("network_secret_file") == Origin::Credential
    }

    /// The keys whose values are not those of `other`.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differ = |key: &&str| self.given.value(key) != other.given.value(key);
        KEYS.into_iter().filter(differ).collect()
    }

    fn default_of(&self, key: &str) -> Option<String> {
        let json = |text: &str| serde_json::to_string(text).ok();
        match key {
            "state_dir" => json(self.state_dir.to_str()?),
            "name" => json(self.name.as_str()),
            "port" => Some(DEFAULT_PORT.to_string()),
            "log" => json(&self.log),
            "no_mdns" | "mdns_probe" | "no_hello" | "no_relay" | "no_port_mapping" | "no_birthday_punch"
            | "metered" => Some("false".to_owned()),
            _ => None,
        }
    }
}

/// The keys of the files, as they are written there.
const KEYS: [&str; 18] = [
    "state_dir",
    "socket",
    "name",
    "port",
    "bind",
    "network_secret_file",
    "peer",
    "rendezvous",
    "interface",
    "ignore_interface",
    "no_mdns",
    "mdns_probe",
    "no_hello",
    "no_relay",
    "no_port_mapping",
    "no_birthday_punch",
    "metered",
    "log",
];

/// The network secret that the service manager passed, if it did.
fn credential() -> BTreeMap<String, (Value, Origin)> {
    let path = variable("CREDENTIALS_DIRECTORY").map(|dir| dir.join(SECRET_CREDENTIAL));
    let text = path.filter(|path| path.exists()).and_then(|path| path.into_os_string().into_string().ok());
    let said = text.map(|text| ("network_secret_file".to_owned(), (Value::String(text), Origin::Credential)));
    said.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn given(args: &[&str]) -> Given {
        Given::from_args([&["atonced", "--state-dir", "/s"], args].concat()).unwrap()
    }

    fn settled(args: &[&str], text: &str) -> Result<Settings, Mistakes> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        std::fs::write(&path, text).unwrap();
        given(&[&["--config", path.to_str().unwrap()], args].concat()).settle()
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let none = settled(&[], "").unwrap();
        assert_eq!((none.port, none.mdns, none.hello, none.log.as_str()), (None, true, true, "info"));
        assert_eq!(none.bind.len(), 2);

        let text = "port = 7\nname = \"pi\"\nno_mdns = true\npeers = [\"a:1\"]\nlog = \"debug\"";
        let from_file = settled(&[], text).unwrap();
        assert_eq!((from_file.port, from_file.mdns, from_file.name.as_str()), (Some(7), false, "pi"));
        assert_eq!((from_file.peers.as_slice(), from_file.log.as_str()), (&["a:1".to_owned()][..], "debug"));

        let args = ["--port", "9", "--no-mdns=false", "--no-hello", "--peer", "b:1,c:2", "--peer", "[::1]:3"];
        let both = settled(&args, text).unwrap();
        assert_eq!((both.port, both.mdns, both.hello, both.name.as_str()), (Some(9), true, false, "pi"));
        assert_eq!(both.peers, ["b:1", "c:2", "[::1]:3"]);
        assert_eq!(both.differences(&from_file), ["port", "peer", "no_mdns", "no_hello"]);
    }

    #[test]
    fn every_key_of_the_file_is_an_option_with_its_variable() {
        let command = Options::command();
        for key in KEYS {
            let arg = command.get_arguments().find(|arg| arg.get_id() == key).unwrap();
            assert_eq!(arg.get_long(), Some(key.replace('_', "-").as_str()));
            assert_eq!(
                arg.get_env().unwrap().to_str(),
                Some(format!("ATONCE_{}", key.to_uppercase()).as_str())
            );
        }
        // Besides them there are only --config and --check.
        assert_eq!(command.get_arguments().count(), KEYS.len() + 2);
    }

    #[test]
    fn what_cannot_be_is_refused_before_the_start_and_all_of_it_is_told() {
        for peer in ["pi", "pi:", "pi:0", ":1", "::1:5", "pi:70000"] {
            let error = given(&["--peer", peer]).settle().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--peer: `{peer}` is no address of a peer\ntry: ")),
                "{error}"
            );
        }
        let wrong = "name = \"\"\nport = 70000\n\npeer = [\"pi\"]\nlog = \"a=b=c\"\nbind = [\"eth0\"]\n";
        let error = settled(&[], wrong).unwrap_err().to_string();
        for (line, what) in [(1, "`` cannot be"), (2, ""), (4, "`pi` is no"), (5, "`a=b=c` is no"), (6, "")] {
            assert!(error.contains(&format!("a.toml:{line}: {what}")), "{line}: {error}");
        }
        for (peer, why) in
            [("a b:1", "its host"), ("0.0.0.0:1", "no single host"), ("[fe80::1]:1", "a link-local")]
        {
            let error = settled(&[], &format!("\npeers = [{peer:?}]")).unwrap_err().to_string();
            assert!(error.contains(&format!("a.toml:2: `{peer}` is no address of a peer: {why}")), "{error}");
        }
        let error = settled(&[], "socket = \"\"\nbind = [\"224.0.0.1\"]").unwrap_err().to_string();
        assert!(
            error.contains("a.toml:1: `socket` is empty") && error.contains("a.toml:2: 224.0.0.1 is"),
            "{error}"
        );
        assert!(Given::<Options>::from_args(["atonced", "--name", ""]).is_err());
        assert!(Given::<Options>::from_args(["atonced", "--bind", "eth0"]).is_err());
    }

    #[test]
    fn lists_and_texts_are_what_stands_between_blanks_and_commas_wherever_they_were_said() {
        let text =
            "peers = [\" a:1 \", \"\", \"b:2\\r\"]\nbind = [\" ::1 \"]\nname = \" pi \"\ninterface = []\n";
        let from_file = settled(&[], text).unwrap();
        assert_eq!(
            (from_file.peers, from_file.name.as_str()),
            (vec!["a:1".to_owned(), "b:2".to_owned()], "pi")
        );
        assert_eq!(from_file.bind, [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        let args = ["--peer", " a:1 , b:2,", "--peer= c:3", "--bind= 127.0.0.1, ::1 ,", "--name", "\tpi\r"];
        let from_flags = settled(&args, "").unwrap();
        assert_eq!(from_flags.peers, ["a:1", "b:2", "c:3"]);
        assert_eq!((from_flags.bind.len(), from_flags.name.as_str()), (2, "pi"));
        assert_eq!(settled(&[], "\u{feff}port = 7\r\n").unwrap().port, Some(7));
    }

    #[test]
    fn a_check_tells_where_each_value_was_set() {
        let text = settled(&["--port", "9"], "\nname = \"a \\\"b\\\"\"\n").unwrap().check().unwrap();
        assert!(text.contains("port = 9  # --port\n"), "{text}");
        assert!(text.contains("name = \"a \\\"b\\\"\"  # ") && text.contains("/a.toml:2\n"), "{text}");
        assert!(
            text.contains("log = \"info\"  # default\n# ") || text.contains("log = \"info\"  # default\n")
        );
        // What it tells is itself a configuration.
        let again = settled(&[], &text).unwrap();
        assert_eq!((again.port, again.name.as_str()), (Some(9), "a \"b\""));
    }

    #[test]
    fn any_host_name_becomes_a_legal_name() {
        assert_eq!(legal_name("pi-attic.example.org").as_str(), "pi-attic");
        assert_eq!(legal_name("").as_str(), "atonce");
        assert_eq!(legal_name("a\u{1b}b").as_str(), "ab");
        assert_eq!(legal_name(&"é".repeat(40)).as_str().len(), 62);
    }
}
