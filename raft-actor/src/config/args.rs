//! The settings of a program's node, from its command line, its environment and a file.
//!
//! Invariants:
//! - One table, [`SETTINGS`], has every setting once; whatever its source, it is read by the same function.
//! - A flag goes over a variable, that over the file, and that over the program's defaults, setting by
//!   setting.
//! - An error says where the value stood that it is about.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use toml::de::{DeTable, DeValue};

use super::settings::{SETTINGS, SWITCH, flag, variable};
use super::{Config, Store};
use crate::ConfigError;

/// The settings of a node, for a program to flatten into its own command line.
///
/// Each setting has one name, in three forms: `--session-timeout`, `RAFT_SESSION_TIMEOUT`, and
/// `session_timeout` in a TOML file that `--config` or `RAFT_CONFIG` names. A flag goes over a variable, a
/// variable over the file, and the file over the defaults. An empty variable is none. In the file, unknown keys are
/// refused; `peers` may be a table there. `--help` lists all.
///
/// ```
/// use clap::Parser;
/// use raft_actor::ConfigArgs;
///
/// #[derive(Parser)]
/// struct Args {
///     #[command(flatten)]
///     node: ConfigArgs,
///     /// And what else the program takes.
///     #[arg(long)]
///     verbose: bool,
/// }
///
/// # fn main() -> Result<(), raft_actor::ConfigArgsError> {
/// let args = Args::parse_from(["program", "--id=1", "--peers=1=127.0.0.1:7001", "--data=data/1"]);
/// let config = args.node.config()?; // For `RaftActor::spawn`.
/// # let _ = (config, args.verbose);
/// # Ok(())
/// # }
/// ```
///
/// ```toml
/// # raft.toml, for `program --config raft.toml --id 1`
/// data = "/var/lib/program/raft"
/// session_timeout = "10min"
/// snapshot_every_bytes = "64MiB"
///
/// [peers]
/// 1 = "10.0.0.1:7001"
/// 2 = "10.0.0.2:7001"
/// 3 = "10.0.0.3:7001"
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConfigArgs {
    /// What the command line says, by the settings' names.
    flags: BTreeMap<&'static str, String>,
    file: Option<PathBuf>,
}

/// Where a value stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Origin {
    /// On the command line.
    #[error("--{0}")]
    Flag(String),
    /// In the environment.
    #[error("{0}")]
    Variable(String),
    /// In the file.
    #[error("{}:{line}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1 up.
        line: usize,
    },
    /// Nowhere: it is the program's default.
    #[error("the default of {0}")]
    Default(&'static str),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigArgsError {
    /// A value cannot be read.
    #[error("{origin}: {problem}")]
    Value {
        /// Where it stood.
        origin: Origin,
        /// What was written, and what was expected.
        problem: String,
    },
    /// A value was read, and cannot be.
    #[error("{origin}: {error}")]
    Refused {
        /// Where it stood.
        origin: Origin,
        /// What is wrong with it.
        error: ConfigError,
    },
    /// A setting that has no default was not given.
    #[error("no {setting}: give --{}, {}, or {setting} in a file named by --config", flag(.setting), variable(.setting))]
    Missing {
        /// Which.
        setting: &'static str,
    },
    /// The file cannot be read.
    #[error("{origin}: cannot read {}: {error}", .path.display())]
    Unreadable {
        /// Where it was named.
        origin: Origin,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin}: {problem}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What was expected.
        problem: String,
    },
    /// The file has a key that is no setting.
    #[error("{origin}: {key:?} is no setting")]
    Unknown {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
    },
}

/// The file's own flag and variable; it is no setting, for a file cannot name another.
const FILE: &str = "config";

impl ConfigArgs {
    /// The configuration, from all sources.
    ///
    /// # Errors
    /// [`ConfigArgsError`] says what is wrong with which setting, and where it was given. Every setting is
    /// checked, so [`spawn`](crate::RaftActor::spawn) has nothing to add but what is wrong with folder and address.
    pub fn config(&self) -> Result<Config, ConfigArgsError> {
        self.config_over(|config| config)
    }

    /// The configuration, from all sources, over a program's own defaults: `defaults` is handed the library's, and
    /// sets what the program wants otherwise.
    ///
    /// # Errors
    /// Those of [`config`](Self::config).
    pub fn config_over(
        &self,
        defaults: impl FnOnce(Config) -> Config,
    ) -> Result<Config, ConfigArgsError> {
        self.read(defaults(Config::of_nobody()), |name| std::env::var_os(name))
    }

    /// [`config`](Self::config), with an environment of the caller's.
    fn read(
        &self,
        mut config: Config,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Config, ConfigArgsError> {
        let variable_of = |name: &str| {
            let variable = variable(name);
            let value = environment(&variable).filter(|value| !value.is_empty())?;
            Some((Origin::Variable(variable), value))
        };
        let named = match &self.file {
            Some(path) => Some((Origin::Flag(FILE.into()), path.clone())),
            None => variable_of(FILE).map(|(origin, path)| (origin, PathBuf::from(path))),
        };
        let mut file = named.map_or_else(
            || Ok(BTreeMap::new()),
            |(origin, path)| read_file(origin, &path),
        )?;
        let mut origins = BTreeMap::new();
        for setting in SETTINGS {
            let name = setting.name;
            let given = if let Some(value) = self.flags.get(name) {
                Some((Origin::Flag(flag(name)), value.clone()))
            } else if let Some((origin, value)) = variable_of(name) {
                let value = value
                    .into_string()
                    .map_err(|value| ConfigArgsError::Value {
                        origin: origin.clone(),
                        problem: format!("{value:?} is not UTF-8"),
                    })?;
                Some((origin, value))
            } else {
                file.remove(name)
            };
            let Some((origin, value)) = given else {
                continue;
            };
            (setting.set)(&mut config, value.trim()).map_err(|problem| ConfigArgsError::Value {
                origin: origin.clone(),
                problem,
            })?;
            origins.insert(name, origin);
        }
        for (setting, missing) in [
            ("id", config.id.is_none() && config.at.is_none()),
            ("peers", config.peers.is_empty() && config.at.is_none()),
            ("data", matches!(config.store, Store::Missing)),
        ] {
            if missing {
                return Err(ConfigArgsError::Missing { setting });
            }
        }
        match config.validate() {
            Ok(_) => Ok(config),
            Err(error) => {
                let setting = error.setting().unwrap_or_default();
                let origin = origins.remove(setting).unwrap_or(Origin::Default(setting));
                Err(ConfigArgsError::Refused { origin, error })
            }
        }
    }
}

/// What the file says: by setting, where and what.
fn read_file(
    named: Origin,
    path: &Path,
) -> Result<BTreeMap<&'static str, (Origin, String)>, ConfigArgsError> {
    let content = std::fs::read_to_string(path).map_err(|error| ConfigArgsError::Unreadable {
        origin: named,
        path: path.to_owned(),
        error,
    })?;
    let at = |offset: usize| Origin::File {
        path: path.to_owned(),
        line: 1 + content
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count(),
    };
    let table = DeTable::parse(&content).map_err(|error| ConfigArgsError::Syntax {
        origin: at(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let origin = at(key.span().start);
        let Some(setting) = SETTINGS
            .iter()
            .find(|setting| setting.name == key.get_ref())
        else {
            let key = key.get_ref().to_string();
            return Err(ConfigArgsError::Unknown { origin, key });
        };
        let value = match (setting.name, value.get_ref()) {
            ("peers", DeValue::Table(peers)) => {
                let mut list = Vec::new();
                for (id, address) in peers {
                    let DeValue::String(address) = address.get_ref() else {
                        let problem = format!("the address of node {} is no string", id.get_ref());
                        let origin = at(id.span().start);
                        return Err(ConfigArgsError::Value { origin, problem });
                    };
                    list.push(format!("{}={address}", id.get_ref()));
                }
                list.join(",")
            }
            (_, DeValue::String(text)) => text.to_string(),
            (_, DeValue::Integer(number)) => number.to_string(),
            (_, DeValue::Boolean(on)) => if *on { "on" } else { "off" }.to_owned(),
            (name, _) => {
                let problem = format!("{name} is neither a string nor a number");
                return Err(ConfigArgsError::Value { origin, problem });
            }
        };
        values.insert(setting.name, (origin, value));
    }
    Ok(values)
}

impl clap::Args for ConfigArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("A TOML file with these settings, for what is said neither here nor there [env: {}]", variable(FILE)));
        let settings = SETTINGS.iter().map(|setting| {
            let mut help = format!("{} [env: {}]", setting.help, variable(setting.name));
            if !setting.default.is_empty() {
                help += &format!(" [default: {}]", setting.default);
            }
            let arg = Arg::new(setting.name)
                .long(flag(setting.name))
                .value_name(setting.value_name)
                .hide_short_help(!setting.default.is_empty())
                .help(help);
            if setting.value_name != SWITCH {
                return arg;
            }
            arg.num_args(0..=1).default_missing_value("on")
        });
        settings.chain([file]).fold(command, |command, arg| {
            command.arg(arg.help_heading("Node"))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if matches.value_source(setting.name) == Some(ValueSource::CommandLine)
                && let Some(value) = matches.get_one::<String>(setting.name)
            {
                self.flags.insert(setting.name, value.clone());
            }
        }
        if let Some(path) = matches.get_one::<PathBuf>(FILE) {
            self.file = Some(path.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
