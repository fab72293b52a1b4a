//! The command line.

use clap::{Parser, Subcommand};
use raft_actor::{Config, ConfigArgs};

use crate::chat::{COMMAND_BYTES_MAX, NAME_CHARS_MAX};

/// A chat across terminals: every node shows the same messages in the same order.
#[derive(Debug, Parser)]
#[command(name = "demo-chat", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begin a cluster, or go on with the one of the folder: `demo-chat lead --at 127.0.0.1:7001 --data data/a`.
    ///
    /// By hand, and once: a second one is a second cluster. A screen on a terminal, lines otherwise.
    Lead(NodeArgs),
    /// Join the cluster of any of these nodes, or go on with the one of the folder:
    /// `demo-chat join 127.0.0.1:7001 --at 127.0.0.1:7002 --data data/b`.
    ///
    /// Without an address it waits until a member adds it (/add).
    Join(JoinArgs),
    /// Run one of a fixed list of nodes: `demo-chat node --id 1 --peers 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT --data data/1`.
    ///
    /// With --at in place of --id and --peers it goes on with what its folder says.
    Node(NodeArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// Where members are found: addresses, or names that lead to several.
    #[arg(value_name = "HOST:PORT", value_delimiter = ',')]
    addresses: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    node: ConfigArgs,
    /// The name that your messages bear [default: node-ID].
    #[arg(long)]
    name: Option<String>,
    /// Lines instead of a screen: each line of the input is a message; deliveries go to the standard
    /// output, outcomes and logs to the standard error. Always so when either is no terminal.
    #[arg(long)]
    plain: bool,
}

/// What a node is run with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) start: Start,
    /// Whom this node's messages are from, if not from node-ID.
    pub(crate) name: Option<String>,
    pub(crate) plain: bool,
}

/// How a node comes into its cluster, the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With a list of all.
    Listed,
    /// As the first.
    Lead,
    /// By one that is found at any of these addresses.
    Join(Vec<String>),
}

impl Command {
    /// Everything, checked.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        match self {
            Self::Lead(node) => node.settings(Start::Lead),
            Self::Join(join) => join.node.settings(Start::Join(join.addresses.clone())),
            Self::Node(node) => node.settings(Start::Listed),
        }
    }
}

impl NodeArgs {
    fn settings(&self, start: Start) -> Result<Settings, String> {
        let defaults = |config: Config| config.command_bytes_max(COMMAND_BYTES_MAX);
        let config = self
            .node
            .config_over(defaults)
            .map_err(|error| error.to_string())?;
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        Ok(Settings {
            config,
            start,
            name: self.name.clone(),
            plain: self.plain,
        })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let chars = name.chars().count();
    if name.trim().is_empty() {
        Err("--name is empty".into())
    } else if chars > NAME_CHARS_MAX {
        Err(format!(
            "--name has {chars} characters, and {NAME_CHARS_MAX} is the most"
        ))
    } else if name.chars().any(char::is_control) {
        Err(format!("--name {name:?} has control characters"))
    } else if name == crate::chat::NOBODY {
        Err(format!(
            "--name {name:?} stands for entries that are no chat messages"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_printable() {
        assert!(check_name("Ada Lovelace").is_ok());
        for name in ["", "  ", "a\tb", "?", &"x".repeat(NAME_CHARS_MAX + 1)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_node_leads_joins_or_is_listed() {
        for (line, start) in [
            ("lead", Start::Lead),
            ("join", Start::Join(Vec::new())),
            (
                "join a:1,b:2 c:3",
                Start::Join(["a:1", "b:2", "c:3"].map(String::from).into()),
            ),
            ("node", Start::Listed),
        ] {
            let line = format!("demo-chat {line} --at d:4 --data x --plain");
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            let settings = args.command.settings().unwrap();
            assert_eq!(settings.start, start, "{line}");
            assert!(settings.plain && settings.name.is_none());
        }
    }

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
