//! The replica's life as a program sees it: start, status, signals, shutdown, end, and the exit code of each.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix::{Addr, MailboxError};
use raft_actor::{
    Config, Ended, GetStatus, NodeFailure, NodeId, NodeStatus, Phase, RaftActor, Shutdown,
    StartError,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::args::Start;

/// How long a node may take to say who it is.
const STATUS_MAX: Duration = Duration::from_secs(1);
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

    /// It is a member of its cluster no more, and never will be again.
    pub(crate) fn departed(message: impl Into<String>) -> Self {
        Self {
            code: 3,
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
    /// It was asked to leave, so that its end is no surprise.
    may_leave: bool,
    terminate: Signal,
    interrupt: Signal,
}

impl Node {
    /// Starts it, which may take until its cluster has let it in, and asks for its status each `status_interval`.
    pub(crate) async fn start(
        config: Config,
        start: Start,
        status_interval: Duration,
    ) -> Result<Self, Exit> {
        let no_signals = |error| Exit::failed_start(format!("no signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let starting = async {
            match start {
                Start::Listed => RaftActor::spawn(config),
                Start::Lead => RaftActor::lead(config).await,
                Start::Join(addresses) => RaftActor::join(config, addresses).await,
            }
        };
        let raft = tokio::select! {
            started = starting => started.map_err(|error| no_start(&error))?,
            // Nothing has begun that could not be begun again.
            _ = terminate.recv() => return Err(Exit::clean()),
            _ = interrupt.recv() => return Err(Exit::clean()),
        };
        let mut status_times = interval(status_interval);
        status_times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            ended: Some(Box::pin(raft.clone().send(Ended))),
            raft,
            closing: None,
            status: None,
            status_times,
            took_part: false,
            may_leave: false,
            terminate,
            interrupt,
        })
    }

    /// The node's address. A clone of it takes any message at once, in order, however full the mailbox is.
    pub(crate) fn raft(&self) -> Addr<RaftActor> {
        self.raft.clone()
    }

    /// Which node it is.
    pub(crate) async fn id(&self) -> Option<NodeId> {
        let status = timeout(STATUS_MAX, self.raft().send(GetStatus)).await;
        Some(status.ok()?.ok()?.id)
    }

    /// It is asked to leave its cluster: that ends it.
    pub(crate) fn may_leave(&mut self) {
        self.may_leave = true;
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
                    return Event::Over(match ended {
                        Ok(Ok(())) if self.may_leave => Exit::clean(),
                        ended => end_of(ended, self.took_part),
                    });
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

/// Why a node did not start.
fn no_start(error: &StartError) -> Exit {
    match error {
        StartError::Departed { .. } => Exit::departed(with_causes(error)),
        error => Exit::failed_start(with_causes(error)),
    }
}

/// What a node's end that nobody asked for means.
fn end_of(ended: Result<Result<(), NodeFailure>, MailboxError>, took_part: bool) -> Exit {
    let (never_will, cause) = match ended {
        Ok(Ok(())) => (
            false,
            "the node ended without having been asked to".to_owned(),
        ),
        Ok(Err(failure @ NodeFailure::Removed { .. })) => {
            return Exit::departed(format!("the node has ended: {failure}"));
        }
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
        let removed = || Ok(Err(NodeFailure::Removed { cluster: None }));
        assert_eq!(end_of(removed(), true).code, 3);
        assert_eq!(end_of(removed(), false).code, 3);
        let departed = no_start(&StartError::Departed { node: None });
        assert_eq!(departed.code, 3);
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
