//! The replica's life as a program sees it: start, status, signals, shutdown, end, and the exit code of each.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix::{Addr, MailboxError};
use raft_actor::{
    Config, Ended, GetStatus, NodeFailure, NodeStatus, Phase, RaftActor, Shutdown, StartError,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// How long a shutdown may take.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

type Future0<T> = Pin<Box<dyn Future<Output = T>>>;

/// How the program ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    /// What the last line on the standard error says.
    pub(crate) message: Option<String>,
}

impl Exit {
    /// As it was asked to.
    pub(crate) fn clean() -> Self {
        Self {
            code: 0,
            message: None,
        }
    }

    /// It never took part.
    pub(crate) fn failed_start(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: Some(message.into()),
        }
    }

    /// It did, and cannot any more.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: Some(message.into()),
        }
    }
}

/// Something that whoever shows the chat must heed.
#[derive(Debug)]
pub(crate) enum Event {
    /// How the node sees itself now.
    Status(Box<NodeStatus>),
    /// A first signal: the shutdown has begun.
    Ending,
    /// The node is no more. Nothing comes after this.
    Over(Exit),
}

/// A running replica, and the signals that end it.
pub(crate) struct Node {
    raft: Addr<RaftActor>,
    ended: Option<Future0<Result<Result<(), NodeFailure>, MailboxError>>>,
    closing: Option<Future0<Exit>>,
    status: Option<Future0<Result<NodeStatus, MailboxError>>>,
    status_times: Interval,
    took_part: bool,
    terminate: Signal,
    interrupt: Signal,
}

impl Node {
    /// Starts it, and asks for its status each `status_interval`.
    pub(crate) fn start(config: Config, status_interval: Duration) -> Result<Self, Exit> {
        let no_signals = |error| Exit::failed_start(format!("no signals: {error}"));
        let terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let raft = RaftActor::spawn(config)
            .map_err(|error: StartError| Exit::failed_start(with_causes(&error)))?;
        let mut status_times = interval(status_interval);
        status_times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            ended: Some(Box::pin(raft.clone().send(Ended))),
            raft,
            closing: None,
            status: None,
            status_times,
            took_part: false,
            terminate,
            interrupt,
        })
    }

    /// The node's address. A clone of it takes any message at once, in order, however full the mailbox is.
    pub(crate) fn raft(&self) -> Addr<RaftActor> {
        self.raft.clone()
    }

    /// Something was delivered or acknowledged here.
    pub(crate) fn has_taken_part(&mut self) {
        self.took_part = true;
    }

    /// Whether the shutdown has begun.
    pub(crate) fn is_ending(&self) -> bool {
        self.closing.is_some()
    }

    /// Begins the shutdown. [`Event::Over`] says how it went.
    pub(crate) fn shut_down(&mut self) {
        let raft = self.raft();
        self.closing.get_or_insert_with(|| {
            Box::pin(async move {
                match timeout(SHUTDOWN_MAX, raft.send(Shutdown)).await {
                    Ok(Ok(Ok(()))) => Exit::clean(),
                    Ok(Ok(Err(failure))) => Exit::failed(failure.to_string()),
                    Ok(Err(_)) => Exit::failed("the node died while it was shut down"),
                    Err(_) => Exit::failed(format!(
                        "the node did not end within {} s",
                        SHUTDOWN_MAX.as_secs()
                    )),
                }
            })
        });
    }

    /// The next event. Nothing is lost when it is dropped before one comes.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                exit = poll(&mut self.closing) => return Event::Over(exit),
                // Once the shutdown has begun, its own answer says more.
                ended = poll(&mut self.ended), if self.closing.is_none() => {
                    return Event::Over(end_of(ended, self.took_part));
                }
                status = poll(&mut self.status) => if let Ok(status) = status {
                    self.took_part |= matches!(status.phase, Phase::Running);
                    return Event::Status(Box::new(status));
                },
                _ = self.status_times.tick() => if self.status.is_none() {
                    self.status = Some(Box::pin(self.raft.clone().send(GetStatus)));
                },
                _ = self.terminate.recv() => return self.signalled(15),
                _ = self.interrupt.recv() => return self.signalled(2),
            }
        }
    }

    fn signalled(&mut self, number: i32) -> Event {
        if self.is_ending() {
            Event::Over(Exit {
                code: 128 + number,
                message: Some("ended by a second signal".into()),
            })
        } else {
            self.shut_down();
            Event::Ending
        }
    }
}

/// Waits for what is in `slot` and empties it; for ever, if nothing is.
async fn poll<T>(slot: &mut Option<Future0<T>>) -> T {
    match slot {
        Some(future) => {
            let value = future.await;
            *slot = None;
            value
        }
        None => std::future::pending().await,
    }
}

/// What a node's end that nobody asked for means.
fn end_of(ended: Result<Result<(), NodeFailure>, MailboxError>, took_part: bool) -> Exit {
    let (never_will, cause) = match ended {
        Ok(Ok(())) => (
            false,
            "the node ended without having been asked to".to_owned(),
        ),
        Ok(Err(failure)) => (
            matches!(
                failure,
                NodeFailure::Refused { .. } | NodeFailure::LostAcknowledged { .. }
            ),
            format!("the node failed: {failure}"),
        ),
        Err(_) => (false, "the node died, probably by a panic".to_owned()),
    };
    if never_will || !took_part {
        Exit::failed_start(cause)
    } else {
        Exit::failed(cause)
    }
}

/// An error with those behind it, unless it names them itself.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_a_node_that_never_was_from_one_that_failed() {
        let failure = || Ok(Err(NodeFailure::Storage("no space".into())));
        assert_eq!(end_of(failure(), true).code, 1);
        assert_eq!(end_of(failure(), false).code, 2);
        assert_eq!(end_of(Err(MailboxError::Closed), true).code, 1);
        assert_eq!(
            end_of(failure(), true).message.unwrap(),
            "the node failed: storage: no space"
        );
    }

    #[test]
    fn causes_are_named_once() {
        #[derive(Debug)]
        struct Outer(&'static str, std::fmt::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.1)
            }
        }
        let inner = std::fmt::Error.to_string();
        assert_eq!(
            with_causes(&Outer("cannot open", std::fmt::Error)),
            format!("cannot open: {inner}")
        );
        let named: &'static str = Box::leak(format!("cannot open: {inner}").into_boxed_str());
        assert_eq!(with_causes(&Outer(named, std::fmt::Error)), named);
    }
}
