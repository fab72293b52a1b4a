//! Lines for scripts.
//!
//! Each line of the standard input is a message, and the n-th message gets one line on the standard error:
//!
//! - `ack n index`: it is committed, at this place of the log;
//! - `err n REASON`: it is not in the log and never will be;
//! - `unknown n REASON`: it may be in the log, now or later.
//!
//! Commands (`/help` lists them) are no messages and are not counted; neither is a line with a slash
//! that is none of them. `/status` and `/members` get a line of JSON on the standard error, each other thing that the
//! cluster is asked one that begins with it: `done /remove 3: …` or `failed /remove 3: …`. `/leave` ends the program once
//! the others know. Messages are proposed in the order of their lines and many wait for their outcome at
//! a time; outcomes come in the order in which they are known. When too many wait, reading pauses.
//!
//! The standard output carries what is delivered and nothing else: `index<TAB>from<TAB>text`, with control
//! characters [escaped](chat::escape_into).
//!
//! The end of the input leaves the node running. `/quit` waits for the outcomes of the lines before it, and
//! for their delivery, and ends it; SIGTERM and SIGINT end it at once. When nobody reads the standard output
//! any more the program ends too.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::io::{self, BufReader};
use std::time::Duration;

use actix::{Actor, Arbiter, MailboxError, Recipient};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use raft_actor::{Committed, DeliveredBatch, GetStatus, Propose, ProposeError, Subscribe};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::args::Settings;
use crate::chat::{self, Message};
use crate::command::{self, Entry};
use crate::lines::{Line, Lines};
use crate::node::{Event, Exit, Node};
use crate::printer::{Flush, Printed, Printer};
use crate::stderr::Stderr;
use crate::wish::{Said, WISHES_MAX, Wish};
use crate::{logs, status};

/// How many messages, and how many bytes of them, may wait for their outcome. Beyond it no line is read.
const OUTSTANDING_MAX: usize = 1024;
const OUTSTANDING_BYTES_MAX: usize = 16 << 20;
/// How many lines are read ahead.
const LINES_AHEAD: usize = 16;
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// How long `/quit` waits for what was said before it.
const QUIT_PATIENCE: Duration = Duration::from_secs(5);
/// How long an ending program waits for outcomes, and for its readers.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Outcome = (u64, Result<Result<Committed, ProposeError>, MailboxError>);

/// Runs a node until it ends.
pub(crate) async fn run(settings: Settings) -> Exit {
    let stderr = match Stderr::start() {
        Ok(stderr) => stderr,
        Err(error) => {
            return Exit::failed_start(format!("no thread for the standard error: {error}"));
        }
    };
    let writer = stderr.clone();
    logs::start(move || writer.clone());
    let Settings {
        config,
        start,
        name,
        ..
    } = settings;
    let exit = match Node::start(config, start, STATUS_INTERVAL).await {
        Ok(node) => {
            let name = chat::name(name, node.id().await);
            converse(node, name, &stderr).await
        }
        Err(exit) => exit,
    };
    stderr.flush(LAST_WORDS).await;
    exit
}

async fn converse(mut node: Node, name: String, stderr: &Stderr) -> Exit {
    let (told, mut printed) = watch::channel(Printed::default());
    // It blocks on the standard output, and nothing else may.
    let thread = Arbiter::new();
    let printer =
        Printer::start_in_arbiter(&thread.handle(), move |_| Printer::new(io::stdout(), told));
    let mut lines = match read_stdin(Message::text_len_max(&name)) {
        Ok(lines) => lines,
        Err(error) => {
            return Exit::failed_start(format!("no thread for the standard input: {error}"));
        }
    };
    let subscriber: Recipient<DeliveredBatch> = printer.clone().recipient();
    let subscribed = node.raft().send(Subscribe::from_start(subscriber)).await;
    if let Ok(Err(error)) = subscribed {
        tracing::error!(%error, "no subscription");
    }

    let mut talk = Talk::new(name);
    let mut outcomes = FuturesUnordered::new();
    let mut wishes = FuturesUnordered::new();
    let mut input_ended = false;
    let mut quitting: Option<Instant> = None;
    let started = Instant::now();
    let mut cause = None;
    let exit = loop {
        let may_read = !input_ended && quitting.is_none() && !node.is_ending() && talk.has_room();
        if quitting.is_some_and(|until| {
            until <= Instant::now() || talk.is_settled(printed.borrow().through)
        }) {
            node.shut_down();
            quitting = None;
        }
        tokio::select! {
            event = node.next() => match event {
                Event::Over(exit) => break exit,
                Event::Status(_) | Event::Ending => {}
            },
            Some(outcome) = outcomes.next(), if !outcomes.is_empty() => {
                if matches!(outcome, (_, Ok(Ok(_)))) {
                    node.has_taken_part();
                }
                talk.settle(outcome);
            },
            Some(said) = wishes.next(), if !wishes.is_empty() => talk.say(line_of(said)),
            () = stderr.room(), if talk.has_to_tell() => talk.tell(stderr),
            line = lines.recv(), if may_read => match line {
                Some(Line::TooLong { len }) => talk.refuse_too_long(len),
                Some(Line::Whole(line)) => match std::str::from_utf8(&line) {
                    Err(error) => talk.refuse(&format!("the line is not UTF-8: {error}")),
                    Ok(line) => match Entry::parse(line) {
                        Entry::Message(text) => {
                            let (n, command) = talk.begin(text);
                            let answer = node.raft().send(Propose::new(command));
                            outcomes.push(async move { (n, answer.await) });
                        }
                        Entry::Quit => quitting = Some(Instant::now() + QUIT_PATIENCE),
                        Entry::Status => talk.say(report(&node).await),
                        Entry::Wish(wish) if wishes.len() >= WISHES_MAX => {
                            talk.say(format!("failed {wish}: too many wait for their outcome\n"));
                        }
                        Entry::Wish(wish) => {
                            if wish == Wish::Leave {
                                node.may_leave();
                            }
                            wishes.push(wish.carry_out(node.raft()));
                        }
                        Entry::Help => talk.say(format!("demo-chat: {}\n", command::HELP)),
                        Entry::Unknown(line) => {
                            let line = chat::one_line(&line.chars().take(80).collect::<String>());
                            talk.say(format!("demo-chat: unknown command {line}: {}\n", command::HELP));
                        }
                    },
                },
                None => input_ended = true,
            },
            Ok(()) = printed.changed() => {
                node.has_taken_part();
                if let Some(error) = &printed.borrow_and_update().failed {
                    cause = Some(stdout_failed(error));
                    node.shut_down();
                }
            },
            () = sleep_until(quitting.unwrap_or(started)), if quitting.is_some() => {}
        }
    };

    let last_outcomes = async {
        while let Some(outcome) = outcomes.next().await {
            talk.settle(outcome);
        }
    };
    let _ = timeout(LAST_WORDS, last_outcomes).await;
    talk.give_up();
    let last_wishes = async {
        while let Some(said) = wishes.next().await {
            talk.say(line_of(said));
        }
    };
    let _ = timeout(LAST_WORDS, last_wishes).await;
    let _ = timeout(LAST_WORDS, printer.send(Flush)).await;
    let last_words = async {
        while talk.has_to_tell() {
            stderr.room().await;
            talk.tell(stderr);
        }
    };
    let _ = timeout(LAST_WORDS, last_words).await;
    match cause {
        Some(cause) if exit.code == 0 => cause,
        _ => exit,
    }
}

/// Reads lines on a thread of its own, which blocks there and ends with the program.
fn read_stdin(len_max: usize) -> io::Result<mpsc::Receiver<Line>> {
    let (read, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut input = Lines::new(BufReader::with_capacity(1 << 16, io::stdin().lock()), len_max);
        loop {
            match input.next_line() {
                Ok(Some(line)) => {
                    if read.blocking_send(line).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the standard input cannot be read: taken for its end");
                    return;
                }
            }
        }
    })?;
    Ok(lines)
}

/// What is told of a wish, on one line.
fn line_of(said: Said) -> String {
    match said {
        Said::Members { json, .. } => json + "\n",
        Said::Line(line) => chat::one_line(&line) + "\n",
    }
}

/// The node's status as one line of JSON; or why there is none.
async fn report(node: &Node) -> String {
    match timeout(LAST_WORDS, node.raft().send(GetStatus)).await {
        Ok(Ok(status)) => status::json(&status) + "\n",
        Ok(Err(_)) | Err(_) => "demo-chat: the node does not answer\n".into(),
    }
}

/// What it means that the standard output takes no more. A reader that went away is no failure.
fn stdout_failed(error: &io::Error) -> Exit {
    let message = format!("the standard output cannot be written: {error}");
    if error.kind() == io::ErrorKind::BrokenPipe {
        Exit {
            code: 0,
            message: Some(message),
        }
    } else {
        Exit::failed(message)
    }
}

/// Counts messages, and says what became of each.
struct Talk {
    name: String,
    /// How many messages there were.
    count: u64,
    /// Those without an outcome, with the lengths of their commands.
    outstanding: BTreeMap<u64, usize>,
    outstanding_bytes: usize,
    /// The greatest index that was acknowledged.
    acked: u64,
    /// Lines for the standard error, which may be slow.
    telling: VecDeque<String>,
}

impl Talk {
    fn new(name: String) -> Self {
        Self {
            name,
            count: 0,
            outstanding: BTreeMap::new(),
            outstanding_bytes: 0,
            acked: 0,
            telling: VecDeque::new(),
        }
    }

    fn has_room(&self) -> bool {
        self.outstanding.len() + self.telling.len() < OUTSTANDING_MAX
            && self.outstanding_bytes < OUTSTANDING_BYTES_MAX
    }

    /// Whether all that was said has its outcome, and all that was acknowledged up to `shown` is shown.
    fn is_settled(&self, shown: u64) -> bool {
        self.outstanding.is_empty() && self.acked <= shown
    }

    /// Counts a message that is to be proposed.
    fn begin(&mut self, text: &str) -> (u64, Vec<u8>) {
        let command = Message::encode(&self.name, text);
        self.count += 1;
        self.outstanding.insert(self.count, command.len());
        self.outstanding_bytes += command.len();
        (self.count, command)
    }

    /// Counts a message that cannot be proposed.
    fn refuse(&mut self, reason: &str) {
        self.count += 1;
        self.say_outcome("err", self.count, reason);
    }

    fn refuse_too_long(&mut self, text_len: usize) {
        let len = Message::encoded_len(&self.name, text_len);
        self.refuse(
            &ProposeError::TooLarge {
                len,
                max: chat::COMMAND_BYTES_MAX,
            }
            .to_string(),
        );
    }

    fn settle(&mut self, (n, outcome): Outcome) {
        let Some(len) = self.outstanding.remove(&n) else {
            return;
        };
        self.outstanding_bytes -= len;
        match outcome {
            Ok(Ok(committed)) => {
                self.acked = self.acked.max(committed.index.0);
                self.say_outcome("ack", n, committed.index);
            }
            Ok(Err(ProposeError::Unknown { cause, .. })) => self.say_outcome("unknown", n, cause),
            Ok(Err(error)) => self.say_outcome("err", n, error),
            Err(_) => self.say_outcome("unknown", n, "the node ended before it answered"),
        }
    }

    /// The program ends: nobody will know what became of these.
    fn give_up(&mut self) {
        self.outstanding_bytes = 0;
        for n in std::mem::take(&mut self.outstanding).into_keys() {
            self.say_outcome(
                "unknown",
                n,
                "the program ended before the outcome was known",
            );
        }
    }

    /// Has a line told, which ends with a newline.
    fn say(&mut self, line: String) {
        self.telling.push_back(line);
    }

    fn say_outcome(&mut self, word: &str, n: u64, what: impl Display) {
        self.say(format!(
            "{word} {n} {}\n",
            chat::one_line(&what.to_string())
        ));
    }

    fn has_to_tell(&self) -> bool {
        !self.telling.is_empty()
    }

    /// Hands lines over for as long as there is room.
    fn tell(&mut self, stderr: &Stderr) {
        while let Some(line) = self.telling.pop_front() {
            if let Err(line) = stderr.line(line) {
                self.telling.push_front(line);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_actor::{LogIndex, Term, UnknownCause};

    use super::*;

    #[test]
    fn each_message_gets_one_outcome() {
        let mut talk = Talk::new("ada".into());
        assert_eq!(Message::decode(&talk.begin("a").1).unwrap().text, "a");
        talk.refuse_too_long(2 << 20);
        for text in ["b", "c", "d", "e"] {
            talk.begin(text);
        }
        let committed = Committed {
            index: LogIndex(9),
            term: Term(1),
            response: "".into(),
        };
        talk.settle((3, Ok(Ok(committed))));
        talk.settle((1, Ok(Err(ProposeError::Busy))));
        let (cause, id) = (UnknownCause::TimedOut, None);
        talk.settle((4, Ok(Err(ProposeError::Unknown { cause, id }))));
        talk.settle((5, Err(MailboxError::Closed)));
        assert!(!talk.is_settled(9));
        talk.give_up();
        assert!(talk.is_settled(9) && !talk.is_settled(8));
        assert_eq!(talk.outstanding_bytes, 0);
        let told: Vec<String> = talk.telling.into();
        assert_eq!(
            told,
            [
                "err 2 the command has 2097163 bytes, and 1048576 is the most\n",
                "ack 3 9\n",
                "err 1 too many proposals wait for their outcome\n",
                "unknown 4 no outcome was known in time\n",
                "unknown 5 the node ended before it answered\n",
                "unknown 6 the program ended before the outcome was known\n",
            ]
        );
    }

    #[test]
    fn reading_pauses_when_too_much_waits() {
        let mut talk = Talk::new("ada".into());
        for _ in 0..OUTSTANDING_MAX {
            assert!(talk.has_room());
            talk.begin("x");
        }
        assert!(!talk.has_room());
        talk.settle((1, Ok(Err(ProposeError::Busy))));
        assert!(!talk.has_room(), "the outcome is not told yet");
        talk.telling.clear();
        assert!(talk.has_room());
        talk.begin(&"x".repeat(OUTSTANDING_BYTES_MAX));
        talk.settle((2, Ok(Err(ProposeError::Busy))));
        talk.settle((3, Ok(Err(ProposeError::Busy))));
        assert!(!talk.has_room(), "too many bytes");
    }
}
