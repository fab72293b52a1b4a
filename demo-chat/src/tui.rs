//! The chat on a terminal.
//!
//! One loop on one thread: what the node delivers, what becomes of proposals, how the node sees itself, keys.
//! Each changes [`App`](app::App) and nothing else; the screen is drawn only after a change, and at most 30
//! times a second. Logs stay in memory, behind F2: on the screen they would be in the way.

mod app;
mod history;
mod input;
mod screen;
mod view;
#[cfg(test)]
mod view_tests;
mod wrap;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, MailboxError, Recipient};
use crossterm::event::EventStream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use raft_actor::{Committed, DeliveredBatch, Propose, ProposeError, Subscribe};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use self::app::{Action, App, Overlay, OwnState};
use self::screen::Screen;
use crate::args::{Settings, Start};
use crate::chat::{self, Message};
use crate::logs::{self, Recent};
use crate::node::{Event, Exit, Node};
use crate::stderr;
use crate::wish::{WISHES_MAX, Wish};

const FRAME_TIME: Duration = Duration::from_millis(33);
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// Runs a node until it ends.
pub(crate) async fn run(settings: Settings) -> Exit {
    let logs = Recent::default();
    let writer = logs.clone();
    logs::start(move || writer.clone());
    if settings.start != Start::Listed {
        // There is no screen before there is a node, and whom it waits for may take a while.
        stderr::complain("looking for the cluster; ctrl-c gives up");
    }
    let Settings {
        config,
        start,
        name,
        ..
    } = settings;
    let mut node = match Node::start(config, start, STATUS_INTERVAL).await {
        Ok(node) => node,
        Err(exit) => return exit,
    };
    let name = chat::name(name, node.id().await);
    match Screen::open(&format!("{name} – demo-chat")) {
        Ok(screen) => converse(node, screen, App::new(name, logs)).await,
        Err(error) => {
            node.shut_down();
            while !matches!(node.next().await, Event::Over(_)) {}
            Exit::failed_start(format!("the terminal cannot be used: {error}"))
        }
    }
}

/// Puts what is delivered into the history, on the thread that draws it.
struct Feed {
    app: Rc<RefCell<App>>,
    news: Rc<Notify>,
}

impl Actor for Feed {
    type Context = Context<Self>;
}

impl Handler<DeliveredBatch> for Feed {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(batch): DeliveredBatch, _: &mut Self::Context) {
        let mut app = self.app.borrow_mut();
        for delivered in batch.iter() {
            let message = Message::decode_or_describe(&delivered.command);
            app.history.push(delivered.index.0, &message);
        }
        app.delivered();
        self.news.notify_one();
    }
}

async fn converse(mut node: Node, mut screen: Screen, app: App) -> Exit {
    let app = Rc::new(RefCell::new(app));
    let news = Rc::new(Notify::new());
    let subscriber: Recipient<DeliveredBatch> = Feed {
        app: app.clone(),
        news: news.clone(),
    }
    .start()
    .recipient();
    let subscribed = node.raft().send(Subscribe::from_start(subscriber)).await;
    if let Ok(Err(error)) = subscribed {
        tracing::error!(%error, "no subscription");
    }

    let mut keys = EventStream::new();
    let mut outcomes = FuturesUnordered::new();
    let mut wishes = FuturesUnordered::new();
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut lost_terminal = None;
    let (mut is_stale, mut next_frame) = (true, Instant::now());
    loop {
        tokio::select! {
            event = node.next() => match event {
                Event::Over(exit) => return with_cause(exit, lost_terminal),
                Event::Ending => {
                    app.borrow_mut().is_ending = true;
                    is_stale = true;
                }
                Event::Status(status) => {
                    let mut app = app.borrow_mut();
                    is_stale |= app.overlay == Some(Overlay::Logs) || app.status.as_ref() != Some(&status);
                    app.status = Some(*status);
                }
            },
            key = keys.next(), if lost_terminal.is_none() => match key {
                Some(Ok(event)) => {
                    is_stale = true;
                    let action = app.borrow_mut().on_event(&event);
                    match action {
                        Some(Action::Send(number, text)) => {
                            let command = Message::encode(&app.borrow().name, &text);
                            let answer = node.raft().send(Propose::new(command));
                            outcomes.push(async move { (number, answer.await) });
                        }
                        Some(Action::Quit) if node.is_ending() => {
                            return Exit { code: 130, message: Some("ended by a second ctrl-c".into()) };
                        }
                        Some(Action::Quit) => {
                            app.borrow_mut().is_ending = true;
                            node.shut_down();
                        }
                        Some(Action::Ask(wish)) if wishes.len() < WISHES_MAX => {
                            if wish == Wish::Leave {
                                node.may_leave();
                            }
                            wishes.push(wish.carry_out(node.raft()));
                        }
                        Some(Action::Ask(_)) => {
                            app.borrow_mut().notice = Some("too many questions wait".into());
                        }
                        Some(Action::Redraw) => lost_terminal = screen.clear().err(),
                        None => {}
                    }
                }
                Some(Err(error)) => lost_terminal = Some(error),
                None => lost_terminal = Some(io::ErrorKind::UnexpectedEof.into()),
            },
            Some((number, outcome)) = outcomes.next(), if !outcomes.is_empty() => {
                if matches!(outcome, Ok(Ok(_))) {
                    node.has_taken_part();
                }
                app.borrow_mut().settle(number, own_state(outcome));
                is_stale = true;
            },
            Some(said) = wishes.next(), if !wishes.is_empty() => {
                app.borrow_mut().told(said);
                is_stale = true;
            },
            () = news.notified() => {
                node.has_taken_part();
                is_stale = true;
            },
            Some(()) = hung_up(&mut hangup) => {
                lost_terminal.get_or_insert(io::ErrorKind::UnexpectedEof.into());
            },
            () = sleep_until(next_frame), if is_stale && lost_terminal.is_none() => {
                lost_terminal = screen.draw(&mut app.borrow_mut()).err();
                (is_stale, next_frame) = (false, Instant::now() + FRAME_TIME);
            },
        }
        if lost_terminal.is_some() && !node.is_ending() {
            node.shut_down();
        }
    }
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// A terminal that goes away ends the chat in order, and is said to have; nothing has failed.
fn with_cause(exit: Exit, lost_terminal: Option<io::Error>) -> Exit {
    match lost_terminal {
        Some(error) if exit.code == 0 => Exit {
            message: Some(format!("the terminal is gone: {error}")),
            ..exit
        },
        _ => exit,
    }
}

fn own_state(outcome: Result<Result<Committed, ProposeError>, MailboxError>) -> OwnState {
    match outcome {
        Ok(Ok(committed)) => OwnState::Committed(committed.index.0),
        Ok(Err(ProposeError::Unknown { cause, .. })) => OwnState::Unknown(cause.to_string()),
        Ok(Err(error)) => OwnState::Failed(error.to_string()),
        Err(_) => OwnState::Unknown("the node ended before it answered".into()),
    }
}
