//! Answers that are given later than the handler returns.
//!
//! A future for each waiting caller would be polled with all its siblings (a third of a millisecond for
//! each message with 10,000 of them), so the caller's channel is kept instead and answered once.
//!
//! Invariant: every caller is answered. An [`Answer`] that is dropped gives its fallback.

use std::sync::{Arc, Mutex, PoisonError};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};

enum Slot<R> {
    Empty,
    Asked(OneshotSender<R>),
    Answered(R),
    Done,
}

/// What a handler returns to answer later.
pub struct Later<R>(Arc<Mutex<Slot<R>>>);

/// What it keeps to do so.
pub(crate) struct Answer<R> {
    to: To<R>,
    fallback: fn() -> R,
}

enum To<R> {
    /// Who asked is not known before the handler has returned.
    Slot(Arc<Mutex<Slot<R>>>),
    Caller(OneshotSender<R>),
    /// To nobody, or it has been given.
    Nobody,
}

/// Makes both ends. `fallback` is the answer should none be given.
pub(crate) fn later<R>(fallback: fn() -> R) -> (Later<R>, Answer<R>) {
    let slot = Arc::new(Mutex::new(Slot::Empty));
    (
        Later(Arc::clone(&slot)),
        Answer {
            to: To::Slot(slot),
            fallback,
        },
    )
}

impl<R> Later<R> {
    /// An answer that is known already.
    pub(crate) fn now(answer: R) -> Self {
        Self(Arc::new(Mutex::new(Slot::Answered(answer))))
    }
}

impl<R> Answer<R> {
    /// An answer to who is known already, if anybody is.
    pub(crate) fn to(caller: Option<OneshotSender<R>>, fallback: fn() -> R) -> Self {
        Self {
            to: caller.map_or(To::Nobody, To::Caller),
            fallback,
        }
    }

    /// Answers. A caller that does not wait any more is none.
    pub(crate) fn give(mut self, answer: R) {
        self.put(answer);
    }

    fn put(&mut self, answer: R) {
        let slot = match std::mem::replace(&mut self.to, To::Nobody) {
            To::Slot(slot) => slot,
            To::Caller(caller) => return drop(caller.send(answer)),
            To::Nobody => return,
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Done) {
            Slot::Asked(caller) => drop(caller.send(answer)),
            Slot::Empty => *slot = Slot::Answered(answer),
            Slot::Answered(_) | Slot::Done => {}
        }
    }
}

impl<R> Drop for Answer<R> {
    fn drop(&mut self) {
        if !matches!(self.to, To::Nobody) {
            self.put((self.fallback)());
        }
    }
}

impl<A, M, R> MessageResponse<A, M> for Later<R>
where
    A: Actor,
    M: Message<Result = R>,
    R: 'static,
{
    fn handle(self, _: &mut A::Context, caller: Option<OneshotSender<R>>) {
        let Some(caller) = caller else { return };
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Done) {
            Slot::Empty => *slot = Slot::Asked(caller),
            Slot::Answered(answer) => drop(caller.send(answer)),
            Slot::Asked(_) | Slot::Done => {}
        }
    }
}
