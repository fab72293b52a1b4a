//! What a document says is to be run, in its order.
//!
//! A fence of `sh` is run; a fence of `text` under `<!-- typed -->` is typed. A comment before a fence says more about it:
//!
//! | comment | means |
//! |---|---|
//! | `<!-- terminal 2 -->` | in a shell of its own; every document begins with terminal 1 |
//! | `<!-- goes on -->` | its last command does not end; `expect` says when it is on its way |
//! | `<!-- typed -->` | these lines are typed into what goes on in the terminal |
//! | `<!-- expect: TEXT -->` | the terminal shows this text then, at the latest after a minute |
//! | `<!-- until: TEXT -->` | it is run, or typed, again and again until the terminal shows this text |
//! | `<!-- exit: 3 -->` | it ends with this code, and not with 0 |
//!
//! `<!-- ctrl-c in terminal 2 -->` and `<!-- ctrl-\ in terminal 2 -->` stand for themselves.
//!
//! Invariant: nothing is left out in silence. A comment that is none of these, one that no fence follows, and a fence that does
//! not say its language are mistakes, each with its line.

use anyhow::{Context as _, Result, bail, ensure};

/// What is done at one place of a document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where the fence, or the comment, begins; counted from 1.
    pub(crate) line: usize,
    pub(crate) terminal: u32,
    pub(crate) action: Action,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Commands for the shell.
    Run {
        script: String,
        expect: Vec<String>,
        /// They are repeated until this is seen.
        until: Option<String>,
        exit: i32,
        /// The last one stays when all that is expected has been seen.
        goes_on: bool,
    },
    /// Lines for the program that goes on there.
    Type {
        lines: String,
        expect: Vec<String>,
        until: Option<String>,
    },
    /// A key that ends it: ctrl-c, or ctrl-\, which leaves it no time for a word.
    Press(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    CtrlC,
    CtrlBackslash,
}

/// A word of a document that must be true of the repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    pub(crate) what: Thing,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    /// `make TARGET`, in inline code.
    Target(String),
    /// The target of a link to a file, as it is written.
    File(String),
    /// A fence of Rust: somebody must compile it.
    Rust,
}

/// A document, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) steps: Vec<Step>,
    pub(crate) mentions: Vec<Mention>,
}

/// The comments that stand before a fence.
#[derive(Default)]
struct Remarks {
    /// The line of the first.
    line: Option<usize>,
    terminal: Option<u32>,
    expect: Vec<String>,
    until: Option<String>,
    exit: Option<i32>,
    goes_on: bool,
    typed: bool,
}

/// Languages of fences that are read and not run here: Rust is compiled, as doctests.
const NOT_RUN: [&str; 3] = ["text", "toml", "rust"];

impl Document {
    /// The error names the line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut document = Self::default();
        let mut remarks = Remarks::default();
        let mut lines = (1..).zip(text.lines());
        while let Some((line, text)) = lines.next() {
            if let Some(language) = text.strip_prefix("```") {
                let mut body = String::new();
                loop {
                    let (_, text) = lines
                        .next()
                        .with_context(|| format!("line {line}: the fence does not end"))?;
                    if text.starts_with("```") {
                        break;
                    }
                    body.push_str(text);
                    body.push('\n');
                }
                if language.starts_with("rust") {
                    let what = Thing::Rust;
                    document.mentions.push(Mention { line, what });
                }
                let action = std::mem::take(&mut remarks)
                    .fence(language, body)
                    .with_context(|| format!("line {line}"))?;
                document.steps.extend(action.map(|(terminal, action)| Step {
                    line,
                    terminal,
                    action,
                }));
            } else if let Some(comment) = text.strip_prefix("<!--") {
                let comment = comment.strip_suffix("-->").with_context(|| {
                    format!("line {line}: the comment does not end in its line")
                })?;
                if let Some((terminal, key)) = pressed(comment.trim()) {
                    let action = Action::Press(key);
                    document.steps.push(Step {
                        line,
                        terminal,
                        action,
                    });
                } else {
                    remarks
                        .take(line, comment.trim())
                        .with_context(|| format!("line {line}"))?;
                }
            } else {
                document.mentions.extend(mentions(line, text));
                if !text.trim().is_empty() {
                    remarks.end()?;
                }
            }
        }
        remarks.end()?;
        Ok(document)
    }
}

impl Remarks {
    fn take(&mut self, line: usize, comment: &str) -> Result<()> {
        self.line.get_or_insert(line);
        let (word, rest) = comment.split_once([':', ' ']).unwrap_or((comment, ""));
        let rest = rest.trim();
        match word {
            "terminal" => self.terminal = Some(rest.parse().context("which terminal?")?),
            "expect" if !rest.is_empty() => self.expect.push(rest.to_owned()),
            "until" if !rest.is_empty() => self.until = Some(rest.to_owned()),
            "exit" => self.exit = Some(rest.parse().context("which exit code?")?),
            "goes" if rest == "on" => self.goes_on = true,
            "typed" if rest.is_empty() => self.typed = true,
            _ => bail!("not understood: <!-- {comment} -->"),
        }
        Ok(())
    }

    /// No fence follows.
    fn end(&self) -> Result<()> {
        match self.line {
            None => Ok(()),
            Some(line) => bail!("line {line}: no fence follows this comment"),
        }
    }

    fn fence(self, language: &str, body: String) -> Result<Option<(u32, Action)>> {
        let Self {
            terminal,
            expect,
            until,
            exit,
            goes_on,
            typed,
            line,
        } = self;
        let terminal = terminal.unwrap_or(1);
        let word = language.split(',').next().unwrap_or_default();
        if word == "sh" {
            ensure!(!typed, "what is typed is a fence of text");
            ensure!(
                !goes_on || !expect.is_empty(),
                "what goes on must be expected to say something"
            );
            ensure!(
                until.is_none() || (expect.is_empty() && exit.is_none() && !goes_on),
                "what is repeated until it says something has no other expectation"
            );
            return Ok(Some((
                terminal,
                Action::Run {
                    script: body,
                    expect,
                    until,
                    exit: exit.unwrap_or(0),
                    goes_on,
                },
            )));
        }
        ensure!(
            NOT_RUN.contains(&word),
            "a fence of {word:?}: neither sh, which is run, nor one of {NOT_RUN:?}"
        );
        if typed {
            ensure!(word == "text", "what is typed is a fence of text");
            ensure!(
                exit.is_none() && !goes_on,
                "how a program ends is said where it is started"
            );
            return Ok(Some((
                terminal,
                Action::Type {
                    lines: body,
                    expect,
                    until,
                },
            )));
        }
        ensure!(line.is_none(), "a comment before a fence that is not run");
        Ok(None)
    }
}

/// `ctrl-c in terminal 2`.
fn pressed(comment: &str) -> Option<(u32, Key)> {
    let (key, terminal) = comment.split_once(" in terminal ")?;
    let key = match key {
        "ctrl-c" => Key::CtrlC,
        "ctrl-\\" => Key::CtrlBackslash,
        _ => return None,
    };
    Some((terminal.parse().ok()?, key))
}

/// The targets of make and the links in a line of prose.
fn mentions(line: usize, text: &str) -> Vec<Mention> {
    let mut mentions = Vec::new();
    // Every second piece is code; a link may stand in the others alone.
    for (n, piece) in text.split('`').enumerate() {
        if n % 2 == 1
            && let Some(target) = target_of(piece)
        {
            let what = Thing::Target(target.to_owned());
            mentions.push(Mention { line, what });
        }
    }
    for piece in text.split("](").skip(1) {
        let link = piece.split([')', '#']).next().unwrap_or_default();
        if !link.is_empty() && !link.contains("://") {
            let what = Thing::File(link.to_owned());
            mentions.push(Mention { line, what });
        }
    }
    mentions
}

/// The target of `make -s -C FOLDER target VARIABLE=value`.
pub(crate) fn target_of(command: &str) -> Option<&str> {
    let mut words = command.split_whitespace();
    if words.next()? != "make" {
        return None;
    }
    while let Some(word) = words.next() {
        match word {
            "-C" => drop(words.next()),
            _ if word.starts_with('-') || word.contains('=') => {}
            _ => return Some(word),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Action {
        Action::Run {
            script: script.into(),
            expect: Vec::new(),
            until: None,
            exit: 0,
            goes_on: false,
        }
    }

    #[test]
    fn fences_and_the_comments_before_them_are_steps() {
        let text = "prose\n```sh\na\nb\n```\n\n<!-- terminal 2 -->\n<!-- goes on -->\n<!-- expect: up: 7001 -->\n```sh\nnode\n```\n\
            <!-- terminal 2 -->\n<!-- typed -->\n<!-- until: two -->\n\n```text\n/members\n```\n<!-- ctrl-\\ in terminal 2 -->\n\
            ```rust,no_run\n```\n```text\n```\n<!-- exit: 3 -->\n```sh\nc\n```\n";
        let steps = Document::parse(text).unwrap().steps;
        let step = |line, terminal, action| Step {
            line,
            terminal,
            action,
        };
        let node = Action::Run {
            script: "node\n".into(),
            expect: vec!["up: 7001".into()],
            until: None,
            exit: 0,
            goes_on: true,
        };
        let typed = Action::Type {
            lines: "/members\n".into(),
            expect: Vec::new(),
            until: Some("two".into()),
        };
        let Action::Run {
            script,
            expect,
            until,
            goes_on,
            ..
        } = run("c\n")
        else {
            unreachable!()
        };
        let failing = Action::Run {
            script,
            expect,
            until,
            exit: 3,
            goes_on,
        };
        assert_eq!(
            steps,
            [
                step(2, 1, run("a\nb\n")),
                step(10, 2, node),
                step(17, 2, typed),
                step(20, 2, Action::Press(Key::CtrlBackslash)),
                step(26, 1, failing),
            ]
        );
    }

    #[test]
    fn what_would_be_left_out_is_a_mistake() {
        for (text, mistake) in [
            ("```sh\na\n", "line 1: the fence does not end"),
            ("```\na\n```", "line 1: a fence of \"\""),
            ("```bash\na\n```", "line 1: a fence of \"bash\""),
            ("<!-- skip -->\n```sh\n```", "line 1: not understood"),
            ("<!-- expect: -->\n```sh\n```", "line 1: not understood"),
            ("<!-- exit: no -->\n```sh\n```", "line 1: which exit code?"),
            ("\n<!-- exit: 1 -->\nprose", "line 2: no fence follows"),
            ("<!-- exit: 1 -->", "line 1: no fence follows"),
            ("<!-- exit: 1\n-->", "line 1: the comment does not end"),
            ("<!-- exit: 1 -->\n```text\n```", "line 2: a comment before"),
            ("<!-- goes on -->\n```sh\n```", "line 2: what goes on must"),
            ("<!-- typed -->\n```sh\n```", "line 2: what is typed"),
        ] {
            let error = format!("{:#}", Document::parse(text).unwrap_err());
            assert!(error.starts_with(mistake), "{text:?}: {error}");
        }
    }

    #[test]
    fn prose_names_targets_and_files() {
        let text = "`make sim SEED=7` and [`a`](docs/a.md#b), [c](https://c) or `make -s -C ../d archive-env`; make do; `made`\n\
            ```text\n`make nothing`\n```\n```rust,no_run\n```";
        let mentions = Document::parse(text).unwrap().mentions;
        let things: Vec<_> = mentions.into_iter().map(|mention| mention.what).collect();
        assert_eq!(
            things,
            [
                Thing::Target("sim".into()),
                Thing::Target("archive-env".into()),
                Thing::File("docs/a.md".into()),
                Thing::Rust,
            ]
        );
    }
}
