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
    /// Run one node of the chat: a screen on a terminal, lines otherwise.
    Node(NodeArgs),
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
    pub(crate) plain: bool,
}

/// What a node is run with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// Whom this node's messages are from.
    pub(crate) name: String,
}

impl NodeArgs {
    /// Everything, checked.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let defaults = |config: Config| config.command_bytes_max(COMMAND_BYTES_MAX);
        let config = self
            .node
            .config_over(defaults)
            .map_err(|error| error.to_string())?;
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| format!("node-{}", config.id()));
        check_name(&name)?;
        Ok(Settings { config, name })
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
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
