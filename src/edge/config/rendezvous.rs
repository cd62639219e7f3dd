//! What the operator of a rendezvous server may set.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::{Deserialize, Serialize};

use super::given::{log_filter, state_dir};
use super::{Files, Given, Mistake, Mistakes, OptionSet};
use crate::wire::rendezvous::PORT;

/// The rendezvous server of atonce: introduces the devices of private networks to each other across the internet.
///
/// It starts without any configuration, as any user. Each option is also an environment variable and a top-level key
/// of the configuration file (with underscores).
#[derive(Clone, Debug, Default, Parser, Serialize, Deserialize)]
#[command(name = "atonce-rendezvous", version, max_term_width = 100)]
#[serde(default)]
pub struct Options {
    /// Read this file, and then rendezvous.d/*.toml beside it [default: atonce-rendezvous.toml in
    /// $CONFIGURATION_DIRECTORY, $XDG_CONFIG_HOME/atonce or ~/.config/atonce if that exists, else /etc/atonce]
    #[arg(long, env = "ATONCE_RENDEZVOUS_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Serve at this address, all of them with one port; may be repeated [default: port 28283 of all addresses, IPv4 and IPv6]
    #[arg(long, env = "ATONCE_RENDEZVOUS_BIND", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub bind: Option<Vec<SocketAddr>>,
    /// Tell at this port too how an address looks from outside, and nothing else: by the two of them members learn what
    /// their routers do [default: the one above that of --bind; 0: at none]
    #[arg(long, env = "ATONCE_RENDEZVOUS_SECOND_PORT", value_name = "PORT")]
    pub second_port: Option<u16>,
    /// Keep the key here [default: $STATE_DIRECTORY, $XDG_STATE_HOME/atonce-rendezvous,
    /// ~/.local/state/atonce-rendezvous]
    #[arg(long, env = "ATONCE_RENDEZVOUS_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Show counters for Prometheus here, by HTTP; no address and no network is in them [default: nowhere]
    #[arg(long, env = "ATONCE_RENDEZVOUS_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Tell what would be used and where it was set, or all that is wrong, and end
    #[arg(long)]
    #[serde(skip)]
    pub check: bool,
    /// What to log, such as `debug` or `atonce=debug,warn` [default: info]
    #[arg(long, env = "ATONCE_RENDEZVOUS_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// What was set, with the defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it serves; all have one port.
    pub bind: Vec<SocketAddr>,
    /// The port beside that one; zero: none is wanted; not set: the next one.
    pub second_port: Option<u16>,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Where the counters are shown.
    pub metrics: Option<SocketAddr>,
    /// What to log.
    pub log: String,
    /// What means nothing, and does no harm: unknown keys.
    pub warnings: Vec<Mistake>,
    given: Given<Options>,
}

impl OptionSet for Options {
    const PROGRAM: &'static str = "atonce-rendezvous";
    const KEYS: &'static [&'static str] = &["bind", "second_port", "state_dir", "metrics", "log"];
    const FILES: Files = Files { main: "atonce-rendezvous.toml", drop_ins: "rendezvous.d" };
    const VARIABLES: &'static str = "ATONCE_RENDEZVOUS_";
    const VARIABLES_OF_OTHERS: Option<&'static str> = None;
    type Settings = Settings;

    fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    fn is_check(&self) -> bool {
        self.check
    }

    fn settings(given: Given<Self>, mistakes: &mut Vec<Mistake>) -> Option<Settings> {
        let options = given.options()?;
        let mut wrong = |key: &str, what: String, tries: &str| {
            mistakes.push(Mistake::serious(given.origin(key), what, tries));
        };
        let bind = options.bind.filter(|addrs| !addrs.is_empty()).unwrap_or_else(everywhere);
        if bind.iter().any(|addr| addr.port() != bind[0].port()) {
            let what = "the addresses of one server have one port".to_owned();
            wrong("bind", what, "a second atonce-rendezvous with its own --state-dir for another port");
        }
        let second_port = options.second_port;
        if second_port.is_some_and(|port| port != 0 && port == bind[0].port()) {
            wrong(
                "second_port",
                "the second port is the first one".to_owned(),
                "another --second-port, or none",
            );
        }
        let log = log_filter(options.log, &mut wrong);
        let state_dir = state_dir(options.state_dir, "atonce-rendezvous", &mut wrong);
        let metrics = options.metrics;
        Some(Settings { bind, second_port, state_dir, metrics, log, warnings: Vec::new(), given })
    }

    fn with_warnings(settings: Settings, warnings: Vec<Mistake>) -> Settings {
        Settings { warnings, ..settings }
    }
}

impl Settings {
    /// What would be used, as a configuration file that tells where each value was set.
    ///
    /// # Errors
    ///
    /// Something in it would not do what the user hopes: an unknown key.
    pub fn check(self) -> Result<String, Mistakes> {
        if !self.warnings.is_empty() {
            return Err(Mistakes(self.warnings));
        }
        let default_of = |key: &str| match key {
            "bind" => serde_json::to_string(&self.bind).ok(),
            // A port that is chosen at the start has a next one that is not known yet.
            "second_port" if self.bind[0].port() != 0 => {
                Some(next(self.bind[0].port()).unwrap_or(0).to_string())
            }
            "state_dir" => serde_json::to_string(&self.state_dir).ok(),
            "log" => serde_json::to_string(&self.log).ok(),
            _ => None,
        };
        Ok(self.given.describe(default_of))
    }
}

/// The second port of a server that serves at `port`, if nothing else is wished; the last one has none.
pub const fn next(port: u16) -> Option<u16> {
    port.checked_add(1)
}

fn everywhere() -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, PORT).into(), (Ipv6Addr::UNSPECIFIED, PORT).into()]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn settled(args: &[&str], text: &str) -> Result<Settings, Mistakes> {
        let given = Given::<Options>::from_args([&["atonce-rendezvous", "--state-dir", "/s"], args].concat());
        given.unwrap().settle_with(text, Path::new("a.toml"))
    }

    #[test]
    fn every_key_of_the_file_is_an_option_with_its_variable() {
        let command = Options::command();
        for key in Options::KEYS {
            let arg = command.get_arguments().find(|arg| arg.get_id() == key).unwrap();
            let variable = format!("ATONCE_RENDEZVOUS_{}", key.to_uppercase());
            assert_eq!(arg.get_long(), Some(key.replace('_', "-").as_str()));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(variable.as_str()));
        }
        // Besides them there are only --config and --check.
        assert_eq!(command.get_arguments().count(), Options::KEYS.len() + 2);
    }

    #[test]
    fn a_check_tells_where_each_value_was_set_and_is_itself_a_configuration() {
        let told = settled(&["--metrics", "127.0.0.1:9100"], "log = \"debug\"").unwrap().check().unwrap();
        assert_eq!(
            told,
            "bind = [\"0.0.0.0:28283\",\"[::]:28283\"]  # default\nsecond_port = 28284  # default\n\
             state_dir = \"/s\"  # --state-dir\n\
             metrics = \"127.0.0.1:9100\"  # --metrics\nlog = \"debug\"  # a.toml:1\n"
        );
        assert_eq!(settled(&[], &told).unwrap().second_port, Some(28284));
        assert_eq!(settled(&[], &told).unwrap().metrics, Some(([127, 0, 0, 1], 9100).into()));
    }

    #[test]
    fn the_second_port_is_the_next_one_or_the_one_that_is_named_and_a_last_one_has_none() {
        for (args, told) in [
            (&["--bind", "192.0.2.1:7"][..], "second_port = 8  # default"),
            (&["--bind", "192.0.2.1:65535"], "second_port = 0  # default"),
            (&["--second-port", "0"], "second_port = 0  # --second-port"),
            (&["--second-port", "7000"], "second_port = 7000  # --second-port"),
        ] {
            let all = settled(args, "").unwrap().check().unwrap();
            assert!(all.contains(told), "{all}");
        }
        let told = settled(&["--second-port", "28283"], "").unwrap_err().to_string();
        assert!(told.contains("the second port is the first one"), "{told}");
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_place() {
        let told = settled(&[], "bind = [\"0.0.0.0:1\", \"[::]:2\"]\nlogs = 1\nlog = \"x\"")
            .unwrap_err()
            .to_string();
        assert!(told.contains("a.toml:1: the addresses of one server have one port"), "{told}");
        assert!(told.contains("a.toml:2: unknown key `logs`, did you mean `log`?"), "{told}");
        assert!(told.contains("a.toml:3: `x` is no level"), "{told}");
        assert!(
            settled(&[], "colour = 1")
                .unwrap()
                .check()
                .unwrap_err()
                .to_string()
                .contains("atonce-rendezvous --help")
        );
    }
}
