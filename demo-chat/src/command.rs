//! What somebody typed: a message, or a command that begins with a slash.

use raft_actor::NodeId;

use crate::wish::Wish;

/// One line of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// Say this.
    Message(&'a str),
    /// End the node, and the program with it.
    Quit,
    /// Show how the node sees itself and its cluster.
    Status,
    /// Show what can be typed.
    Help,
    /// Something for the cluster to say or to do.
    Wish(Wish),
    /// None of these: a slip of the fingers, which nobody else should see.
    Unknown(&'a str),
}

/// What can be typed, in one line.
pub(crate) const HELP: &str = "/quit, /status, /members, /leave, /remove ID [--force], /promote ID, /demote ID [--force], \
     /priority ID N, /transfer [ID], /add HOST:PORT, /help; //text says /text; anything else is a message";

impl<'a> Entry<'a> {
    /// A second slash makes a message of a line that begins with one.
    pub(crate) fn parse(line: &'a str) -> Self {
        let Some(command) = line.strip_prefix('/') else {
            return Self::Message(line);
        };
        if command.starts_with('/') {
            return Self::Message(command);
        }
        let mut words = [""; 4];
        let mut count = 0;
        for word in command.split_ascii_whitespace() {
            let Some(place) = words.get_mut(count) else {
                return Self::Unknown(line);
            };
            *place = word;
            count += 1;
        }
        // "/ quit" is not "/quit".
        if command.starts_with(|c: char| c.is_ascii_whitespace()) {
            return Self::Unknown(line);
        }
        match &words[..count] {
            ["quit"] => Self::Quit,
            ["status"] => Self::Status,
            ["help"] => Self::Help,
            words => wish(words).map_or(Self::Unknown(line), Self::Wish),
        }
    }
}

fn wish(words: &[&str]) -> Option<Wish> {
    Some(match words {
        ["members"] => Wish::Members,
        ["leave"] => Wish::Leave,
        ["remove", node] => Wish::Remove(id(node)?, false),
        ["remove", node, "--force"] => Wish::Remove(id(node)?, true),
        ["promote", node] => Wish::Promote(id(node)?),
        ["demote", node] => Wish::Demote(id(node)?, false),
        ["demote", node, "--force"] => Wish::Demote(id(node)?, true),
        ["priority", node, priority] => Wish::Priority(id(node)?, priority.parse().ok()?),
        ["transfer"] => Wish::Transfer(None),
        ["transfer", node] => Wish::Transfer(Some(id(node)?)),
        ["add", address] => Wish::Add((*address).to_owned()),
        _ => return None,
    })
}

fn id(word: &str) -> Option<NodeId> {
    word.parse().ok().filter(|id| *id > 0).map(NodeId)
}

#[cfg(test)]
mod tests {
    use super::Entry::{self, *};
    use super::Wish;
    use raft_actor::NodeId;

    #[test]
    fn slashes_make_commands_and_two_make_a_message() {
        for (line, entry) in [
            ("", Message("")),
            ("hi /quit", Message("hi /quit")),
            (" /quit", Message(" /quit")),
            ("//quit", Message("/quit")),
            ("///", Message("//")),
            ("/quit", Quit),
            ("/quit \r", Quit),
            ("/status", Status),
            ("/help", Help),
            ("/", Unknown("/")),
            ("/ quit", Unknown("/ quit")),
            ("/quit now", Unknown("/quit now")),
            ("/Quit", Unknown("/Quit")),
        ] {
            assert_eq!(Entry::parse(line), entry, "{line:?}");
        }
    }

    #[test]
    fn the_cluster_is_asked_with_what_it_needs_to_know_and_nothing_else() {
        let three = NodeId(3);
        for (line, wish) in [
            ("/members", Wish::Members),
            ("/leave", Wish::Leave),
            ("/remove 3", Wish::Remove(three, false)),
            ("/remove  3 --force\r", Wish::Remove(three, true)),
            ("/promote 3", Wish::Promote(three)),
            ("/demote 3", Wish::Demote(three, false)),
            ("/demote 3 --force", Wish::Demote(three, true)),
            ("/priority 3 7", Wish::Priority(three, 7)),
            ("/transfer", Wish::Transfer(None)),
            ("/transfer 3", Wish::Transfer(Some(three))),
            ("/add [::1]:7001", Wish::Add("[::1]:7001".into())),
        ] {
            assert_eq!(Entry::parse(line), Entry::Wish(wish), "{line:?}");
        }
        for line in [
            "/remove",
            "/remove 0",
            "/remove -1",
            "/remove x",
            "/remove 3 4",
            "/remove 3 --forced",
            "/remove 3 --force now please",
            "/leave 3",
            "/priority 3",
            "/priority 3 -1",
            "/transfer 3 4",
            "/add",
        ] {
            assert_eq!(Entry::parse(line), Unknown(line), "{line:?}");
        }
    }
}
