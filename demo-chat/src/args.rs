//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use raft_actor::{Config, NodeId};

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
    /// This node's number, one of those in --peers.
    #[arg(long)]
    id: u64,
    /// All nodes, this one among them, the same list on each: 1=127.0.0.1:7001,2=127.0.0.1:7002,3=…
    #[arg(long, value_name = "ID=HOST:PORT,…")]
    peers: String,
    /// The folder of this node's log. Made if it is missing; no other node or process may use it.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen, if that is not this node's address in --peers.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
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
    /// Everything but what [`Config`] checks by itself.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| format!("node-{}", self.id));
        check_name(&name)?;
        let mut config = Config::new(NodeId(self.id))
            .peers(parse_peers(&self.peers)?)
            .data_dir(&self.data)
            .command_bytes_max(COMMAND_BYTES_MAX);
        if let Some(listen) = &self.listen {
            config = config.listen(listen);
        }
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

/// `ID=HOST:PORT`, separated by commas. Whether the list makes sense as a whole is [`Config`]'s to say.
fn parse_peers(list: &str) -> Result<Vec<(NodeId, String)>, String> {
    list.split(',')
        .enumerate()
        .map(|(at, item)| {
            let wrong = |what: &str| format!("--peers, item {} ({item:?}): {what}", at + 1);
            let item = item.trim();
            if item.is_empty() {
                return Err(wrong("it is empty; each is ID=HOST:PORT"));
            }
            let (id, address) = item
                .split_once('=')
                .ok_or_else(|| wrong("there is no '='; each is ID=HOST:PORT"))?;
            let (id, address) = (id.trim(), address.trim());
            // `parse` would take a sign too.
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong("its id is not a number; each is ID=HOST:PORT"));
            }
            let id = id.parse().map_err(|_| wrong("its id is too large"))?;
            let (host, port) = address
                .rsplit_once(':')
                .ok_or_else(|| wrong("its address is not HOST:PORT"))?;
            if host.is_empty() {
                return Err(wrong("its address has no host"));
            }
            match port.parse::<u16>() {
                Ok(0) | Err(_) => Err(wrong("its port is not a number from 1 to 65535")),
                Ok(_) => Ok((NodeId(id), address.to_owned())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_peers_is_read() {
        let peers = parse_peers("1=127.0.0.1:7001, 2=host:7002,3=[::1]:7003").unwrap();
        let expected = [(1, "127.0.0.1:7001"), (2, "host:7002"), (3, "[::1]:7003")];
        assert_eq!(
            peers,
            expected.map(|(id, address)| (NodeId(id), address.to_owned()))
        );
    }

    #[test]
    fn a_duplicate_is_left_for_the_node_to_name() {
        assert_eq!(parse_peers("1=a:1,1=b:2").unwrap().len(), 2);
    }

    #[test]
    fn each_malformed_item_is_named_with_what_is_wrong() {
        for (list, expected) in [
            ("", "item 1 (\"\"): it is empty"),
            ("1=a:1,", "item 2 (\"\"): it is empty"),
            ("1=a:1,,2=b:1", "item 2"),
            ("127.0.0.1:7001", "no '='"),
            ("=a:1", "its id is not a number"),
            ("one=a:1", "its id is not a number"),
            ("+1=a:1", "its id is not a number"),
            ("-1=a:1", "its id is not a number"),
            ("99999999999999999999=a:1", "its id is too large"),
            ("1=", "not HOST:PORT"),
            ("1=host", "not HOST:PORT"),
            ("1=:7001", "no host"),
            ("1=host:", "its port"),
            ("1=host:0", "its port"),
            ("1=host:65536", "its port"),
        ] {
            let error = parse_peers(list).unwrap_err();
            assert!(
                error.contains(expected) && error.starts_with("--peers, item"),
                "{list}: {error}"
            );
        }
    }

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
