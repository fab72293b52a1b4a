//! What somebody typed: a message, or a command that begins with a slash.

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
    /// None of these: a slip of the fingers, which nobody else should see.
    Unknown(&'a str),
}

/// What can be typed, in one line.
pub(crate) const HELP: &str =
    "/quit, /status, /help; //text says /text; anything else is a message";

impl<'a> Entry<'a> {
    /// A second slash makes a message of a line that begins with one.
    pub(crate) fn parse(line: &'a str) -> Self {
        let Some(command) = line.strip_prefix('/') else {
            return Self::Message(line);
        };
        if command.starts_with('/') {
            return Self::Message(command);
        }
        match command.trim_end() {
            "quit" => Self::Quit,
            "status" => Self::Status,
            "help" => Self::Help,
            _ => Self::Unknown(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Entry::{self, *};

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
            ("/quit now", Unknown("/quit now")),
            ("/Quit", Unknown("/Quit")),
        ] {
            assert_eq!(Entry::parse(line), entry, "{line:?}");
        }
    }
}
