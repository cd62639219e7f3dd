//! What was said, and where: the same for every program that has options.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fmt::{self, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Mistake, Mistakes, Options, Origin, file};
use crate::edge::log;
use crate::pasted;

const DEFAULT_LOG: &str = "info";

/// What the keys are set to, and where.
pub type Said = BTreeMap<String, (Value, Origin)>;

/// The names of the files of a program.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The file.
    pub main: &'static str,
    /// The directory beside it whose files outrank it.
    pub drop_ins: &'static str,
}

/// The options of a program: flags, variables and keys of its files are the same.
pub trait OptionSet: CommandFactory + FromArgMatches + Serialize + DeserializeOwned {
    /// The program's name.
    const PROGRAM: &'static str;
    /// The keys of the files, as they are written there.
    const KEYS: &'static [&'static str];
    /// Its files.
    const FILES: Files;
    /// What the names of its variables begin with.
    const VARIABLES: &'static str;
    /// What those of another program of ours begin with, if they begin with that too.
    const VARIABLES_OF_OTHERS: Option<&'static str>;
    /// What follows from what was said.
    type Settings;

    /// The file that the user named.
    fn config(&self) -> Option<&Path>;

    /// Whether the configuration is only to be checked.
    fn is_check(&self) -> bool;

    /// The key that is meant by a word in a file.
    fn key_of(word: &str) -> &str {
        word
    }

    /// What outranks the files beside flags and variables.
    fn passed() -> Said {
        Said::new()
    }

    /// What follows; none if it makes no sense at all.
    fn settings(given: Given<Self>, mistakes: &mut Vec<Mistake>) -> Option<Self::Settings>;

    /// The same with what means nothing and does no harm.
    fn with_warnings(settings: Self::Settings, warnings: Vec<Mistake>) -> Self::Settings;
}

/// What the user said, key by key, and where.
pub struct Given<O = Options> {
    config: Option<PathBuf>,
    check: bool,
    said: Said,
    options: PhantomData<fn() -> O>,
}

impl<O: OptionSet> Given<O> {
    /// Reads the command line and the environment.
    ///
    /// # Errors
    ///
    /// They make no sense, or ask for help: clap's error says which.
    pub fn from_process() -> Result<Self, clap::Error> {
        Self::from_args(env::args_os())
    }

    pub(super) fn from_args<A: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = A>,
    ) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let plain = O::command();
        let Tidy { mut command, args: tidy, from_variables } = tidied(O::command(), &args);
        let matches =
            command.try_get_matches_from_mut(tidy).map_err(|error| with_variable(error, &plain, &args))?;
        let options = O::from_arg_matches(&matches)?;
        let table = Table::try_from(&options)
            .map_err(|error| command.error(clap::error::ErrorKind::InvalidUtf8, error))?;
        let said = table.into_iter().map(|(key, value)| {
            let is_variable = from_variables.contains(&key)
                || matches!(matches.value_source(&key), Some(ValueSource::EnvVariable));
            let origin = if is_variable {
                Origin::Variable(format!("{}{}", O::VARIABLES, key.to_uppercase()))
            } else {
                Origin::Flag(key.clone())
            };
            (key, (cleaned(value), origin))
        });
        let (said, config) = (said.collect(), options.config().map(Path::to_owned));
        Ok(Self { said, config, check: options.is_check(), options: PhantomData })
    }

    /// Whether the configuration is only to be checked.
    pub const fn only_check(&self) -> bool {
        self.check
    }

    /// Reads the files as they are now, and fills in the defaults.
    ///
    /// # Errors
    ///
    /// All that the user wrote and that makes no sense.
    pub fn settle(&self) -> Result<O::Settings, Mistakes> {
        let mut mistakes = unknown_variables::<O>();
        let mut given = self.clone();
        given.add(O::passed());
        for path in file::paths(self.config.as_deref(), O::FILES, &mut mistakes).iter().rev() {
            given.add(file::read::<O>(path, &mut mistakes));
        }
        given.finish(mistakes)
    }

    /// The same with this text, as of a file at `path`, in the place of all files.
    ///
    /// # Errors
    ///
    /// All that the user wrote and that makes no sense.
    pub fn settle_with(&self, text: &str, path: &Path) -> Result<O::Settings, Mistakes> {
        let (mut given, mut mistakes) = (self.clone(), Vec::new());
        given.add(file::parse::<O>(text, path, &mut mistakes));
        given.finish(mistakes)
    }

    fn finish(self, mut mistakes: Vec<Mistake>) -> Result<O::Settings, Mistakes> {
        for key in ["state_dir", "socket", "network_secret_file"] {
            if self.value(key).and_then(Value::as_str) == Some("") {
                let what = format!("`{key}` is empty");
                mistakes.push(Mistake::serious(self.origin(key), what, "a path, or leave it out"));
            }
        }
        let settings = O::settings(self, &mut mistakes);
        let (serious, warnings): (Vec<_>, Vec<_>) = mistakes.into_iter().partition(|mistake| mistake.serious);
        match settings {
            Some(settings) if serious.is_empty() => Ok(O::with_warnings(settings, warnings)),
            _ => Err(Mistakes(serious.into_iter().chain(warnings).collect())),
        }
    }

    /// Takes what was not said before.
    fn add(&mut self, lower: Said) {
        for (key, said) in lower {
            self.said.entry(key).or_insert(said);
        }
    }

    /// All that was said. Each value was read as an option before it got here.
    pub(super) fn options(&self) -> Option<O> {
        let values: Table = self.said.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        O::deserialize(values).ok()
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        self.said.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.said.get(key).map(|(value, _)| value)
    }

    /// What would be used, as a configuration file that tells where each value was set.
    pub(super) fn describe(&self, default_of: impl Fn(&str) -> Option<String>) -> String {
        let mut text = String::new();
        for key in O::KEYS {
            // For what can stand in the files, JSON is TOML as well.
            let json = |value: &Value| serde_json::to_string(value).unwrap_or_default();
            let _ = match (self.value(key), default_of(key)) {
                (Some(value), _) => writeln!(text, "{key} = {}  # {}", json(value), self.origin(key)),
                (None, Some(default)) => writeln!(text, "{key} = {default}  # default"),
                (None, None) => writeln!(text, "# {key} is not set"),
            };
        }
        text
    }
}

impl<O> Clone for Given<O> {
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), check: self.check, said: self.said.clone(), options: PhantomData }
    }
}

impl<O> Default for Given<O> {
    fn default() -> Self {
        Self { config: None, check: false, said: Said::new(), options: PhantomData }
    }
}

impl<O> fmt::Debug for Given<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("config", &self.config)
            .field("said", &self.said)
            .finish_non_exhaustive()
    }
}

/// A command line that says the same as it and the environment did, with lists and variables as they were meant.
struct Tidy {
    command: Command,
    args: Vec<OsString>,
    /// The ids of the options in `args` that were variables.
    from_variables: BTreeSet<String>,
}

/// A variable with nothing in it counts as unset, since many tools can only set one; of any other what is around its
/// value does not count, such as the quotes that a container's `--env-file` passes on.
fn tidied(command: Command, args: &[OsString]) -> Tidy {
    let lists: Vec<String> = command
        .get_arguments()
        .filter(|arg| arg.get_value_delimiter().is_some())
        .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
        .collect();
    let mut tidy: Vec<OsString> = Vec::with_capacity(args.len());
    for arg in args {
        let text = arg.to_string_lossy();
        let value_of = |list: &String| text.strip_prefix(list.as_str())?.strip_prefix('=').map(join);
        let split = lists.iter().find_map(|list| Some((list, value_of(list)?)));
        let follows = tidy.last().is_some_and(|before| lists.iter().any(|list| *before == **list));
        tidy.push(match split {
            Some((list, value)) => format!("{list}={value}").into(),
            None if follows => join(&text).into(),
            None => arg.clone(),
        });
    }
    let is_given = |long: &str| {
        args.iter().any(|arg| arg.to_string_lossy().split('=').next() == Some(&format!("--{long}")))
    };
    let mut from_variables = BTreeSet::new();
    let command = command.mut_args(|arg| {
        let value = arg.get_env().and_then(env::var_os);
        let (Some(long), Some(value)) = (arg.get_long(), value.as_ref().and_then(|value| value.to_str()))
        else {
            return arg;
        };
        let meant =
            if arg.get_value_delimiter().is_some() { join(value) } else { pasted::cleaned(value).to_owned() };
        if meant == value && !meant.is_empty() {
            return arg;
        }
        if !meant.is_empty() && !is_given(long) {
            tidy.push(format!("--{long}={meant}").into());
            from_variables.insert(arg.get_id().to_string());
        }
        arg.env(None::<&'static str>)
    });
    Tidy { command, args: tidy, from_variables }
}

fn join(list: &str) -> String {
    pasted::listed(list).collect::<Vec<_>>().join(",")
}

/// The value without what people put around texts; of a list without entries that are none.
pub(super) fn cleaned(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(pasted::cleaned(&text).to_owned()),
        Value::Array(entries) => {
            let entries = entries.into_iter().map(cleaned);
            Value::Array(entries.filter(|entry| entry.as_str() != Some("")).collect())
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => {
            value
        }
    }
}

/// The error, with the name of the variable in the place of the flag's where the value came from one.
fn with_variable(mut error: clap::Error, command: &Command, args: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = named.split([' ', '=', '[']).next().unwrap_or_default();
    let of_flag = |arg: &&Arg| arg.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
    let variable = command.get_arguments().find(of_flag).and_then(Arg::get_env);
    let is_given = args.iter().any(|arg| arg.to_string_lossy().split('=').next() == Some(flag));
    let variable = variable.filter(|variable| !is_given && env::var_os(variable).is_some());
    if let Some(variable) = variable {
        let name = format!("${}", variable.display());
        error.insert(ContextKind::InvalidArg, ContextValue::String(name));
    }
    error
}

/// The variables that begin like ours and mean nothing.
fn unknown_variables<O: OptionSet>() -> Vec<Mistake> {
    let is_known = |word: &str| word == "CONFIG" || O::KEYS.iter().any(|key| key.to_uppercase() == word);
    let is_unknown = |name: &String| {
        let of_others = O::VARIABLES_OF_OTHERS.is_some_and(|start| name.starts_with(start));
        !of_others && name.strip_prefix(O::VARIABLES).is_some_and(|word| !is_known(word))
    };
    let is_set = |value: &OsString| value.to_str().is_none_or(|value| !pasted::cleaned(value).is_empty());
    let names =
        env::vars_os().filter(|(_, value)| is_set(value)).filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> = names.filter(is_unknown).collect();
    unknown.sort();
    let told = |name: &String| Mistake::unknown_variable(name, O::VARIABLES, O::KEYS, O::PROGRAM);
    unknown.iter().map(told).collect()
}

/// The log filter, or the usual one; what is none is told to `wrong`.
pub(super) fn log_filter(said: Option<String>, wrong: &mut impl FnMut(&str, String, &str)) -> String {
    let log = said.unwrap_or_else(|| DEFAULT_LOG.to_owned());
    if let Err(reason) = log::targets(&log) {
        wrong("log", format!("`{}` is no log filter: {reason}", log.escape_debug()), "debug");
    } else if let Some(word) = log.split(',').map(str::trim).find(|word| is_no_level(word)) {
        // A word alone that is no level would be taken for a target, and silence all others.
        let what = format!("`{}` is no level", word.escape_debug());
        wrong("log", what, "error, warn, info, debug or trace, or a target and its level: atonce=debug");
    }
    log
}

fn is_no_level(word: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_target =
        word.contains(['=', ':', '[']) || word.starts_with("atonce") || word.starts_with("mdns_sd");
    !is_target && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

/// The state directory, or the usual one, which is called `name`; that there is none is told to `wrong`.
pub(super) fn state_dir(
    said: Option<PathBuf>,
    name: &str,
    wrong: &mut impl FnMut(&str, String, &str),
) -> PathBuf {
    let usual = || {
        service_directory("STATE_DIRECTORY")
            .or_else(|| variable("XDG_STATE_HOME").map(|dir| dir.join(name)))
            .or_else(|| variable("HOME").map(|dir| dir.join(".local/state").join(name)))
    };
    said.or_else(usual).unwrap_or_else(|| {
        let what = "no state directory: neither $STATE_DIRECTORY nor $XDG_STATE_HOME nor $HOME is set";
        wrong("state_dir", what.to_owned(), "--state-dir DIR");
        PathBuf::new()
    })
}

/// A directory that the service manager made for us. It joins several with colons; the first is ours.
pub(super) fn service_directory(name: &str) -> Option<PathBuf> {
    variable(name)
        .and_then(|dirs| Some(PathBuf::from(dirs.to_str()?.split(':').find(|dir| !dir.is_empty())?)))
}

/// The path in a variable; none if there is nothing in it.
pub(in crate::edge) fn variable(name: &str) -> Option<PathBuf> {
    let value = env::var_os(name)?;
    let cleaned = value.to_str().map(|text| OsString::from(pasted::cleaned(text)));
    cleaned.or(Some(value)).filter(|value| !value.is_empty()).map(PathBuf::from)
}
