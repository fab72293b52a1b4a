//! Reads on their way to being confirmed: linearizable on any node, without an entry of the log (thesis §6.4).
//!
//! A read is asked of the protocol again and again until it is confirmed or its time is up: asking changes nothing. Then it
//! waits with [`Delivery`](crate::delivery::Delivery) until this node has applied enough.
//!
//! Bound: [`READS_MAX`] reads on each node, wherever they wait; one more is `Busy`.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{Input, LogIndex, ReadId, ReadReady, Rejection};

use crate::config::TICK;
use crate::delivery::{ReadJob, ReadsReady, Replica, guarded};
use crate::door::TIMEOUT_MAX;
use crate::error::ReadObstacle;
use crate::ledger::Lookup;
use crate::message::{Consistency, Read, ReadIndex, ReadValue, Resolve};
use crate::node::{Life, Node};
use crate::proposals::{Budget, Settled, committed};
use crate::reply::{Answer, Later, later};
use crate::{Committed, ProposeError, ReadError, UnknownCause};

/// Reads that wait on one node.
pub(crate) const READS_MAX: usize = 10_000;

/// A read on its way from the front to the node.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ask(pub(crate) ReadJob);

/// Reads have gathered. Told by the node to itself behind what is in its mailbox.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AskTogether;

/// Makes reads, and counts them.
pub(crate) struct Reading {
    budget: Arc<Budget>,
    timeout: Duration,
}

impl Reading {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            budget: Budget::new(READS_MAX, usize::MAX),
            timeout,
        }
    }

    fn job(
        &self,
        consistency: Consistency,
        timeout: Option<Duration>,
        run: impl FnOnce(Result<&Replica, ReadError>) + Send + 'static,
    ) -> Option<Ask> {
        let permit = self.budget.take(0);
        let run = Box::new(run);
        let Some(permit) = permit else {
            run(Err(ReadError::Busy));
            return None;
        };
        let since = Instant::now();
        Some(Ask(ReadJob {
            consistency,
            since,
            deadline: since + timeout.unwrap_or(self.timeout).min(TIMEOUT_MAX),
            obstacle: ReadObstacle::NoLeader,
            run,
            _permit: permit,
        }))
    }

    /// A read of the state machine. It is asked only if there is room for it.
    pub(crate) fn read<S: 'static, R: Send + 'static>(
        &self,
        message: Read<S, R>,
    ) -> (Later<Result<ReadValue<R>, ReadError>>, Option<Ask>) {
        let (reply, answer) = later(|| Err(ReadError::NodeEnded));
        let Read {
            consistency,
            timeout,
            read,
        } = message;
        let job = self.job(consistency, timeout, move |replica| {
            answer.give(replica.and_then(|replica| {
                let machine = replica.machine().and_then(<dyn Any>::downcast_ref::<S>);
                let machine = machine.ok_or(ReadError::NoSuchMachine)?;
                let value = guarded(|| read(machine)).map_err(ReadError::Panicked)?;
                let index = replica.applied().index;
                Ok(ReadValue { value, index })
            }));
        });
        (reply, job)
    }

    pub(crate) fn read_index(
        &self,
        message: ReadIndex,
    ) -> (Later<Result<LogIndex, ReadError>>, Option<Ask>) {
        let (reply, answer) = later(|| Err(ReadError::NodeEnded));
        let job = self.job(message.consistency, message.timeout, move |replica| {
            answer.give(replica.map(|replica| replica.applied().index));
        });
        (reply, job)
    }

    pub(crate) fn resolve(
        &self,
        Resolve(id): Resolve,
    ) -> (Later<Result<Option<Committed>, ProposeError>>, Option<Ask>) {
        if id.sequence == 0 {
            return (Later::now(Err(ProposeError::SequenceZero)), None);
        }
        let unknown = || {
            let (cause, id) = (UnknownCause::NodeEnded, None);
            Err(ProposeError::Unknown { cause, id })
        };
        let (reply, answer): (_, Answer<Result<Option<Committed>, ProposeError>>) = later(unknown);
        let job = self.job(Consistency::Linearizable, None, move |replica| {
            answer.give(match replica {
                Ok(replica) => match replica.ledger.lookup(id) {
                    Lookup::NotYet => Ok(None),
                    Lookup::Expired => Err(ProposeError::SessionExpired(id.session)),
                    Lookup::Settled(settlement) => {
                        let at = replica.applied();
                        committed(Settled { at, settlement }, Some(id)).map(Some)
                    }
                },
                Err(ReadError::Busy) => Err(ProposeError::Busy),
                Err(ReadError::Failed(failure)) => Err(ProposeError::Failed(failure)),
                Err(_) => Err(ProposeError::Unknown {
                    cause: UnknownCause::TimedOut,
                    id: Some(id),
                }),
            });
        });
        (reply, job)
    }
}

/// Reads that are not confirmed.
#[derive(Default)]
pub(crate) struct Unconfirmed {
    /// Have come since the node asked last, and are asked about together.
    gathered: Vec<ReadJob>,
    /// By the names that the protocol knows them by: those that came together have one.
    asked: BTreeMap<ReadId, Vec<ReadJob>>,
    /// Are to be asked again.
    waiting: Vec<ReadJob>,
    last: u64,
}

impl Unconfirmed {
    fn take(&mut self, reads: Vec<ReadId>) -> Vec<ReadJob> {
        let asked = &mut self.asked;
        reads
            .into_iter()
            .filter_map(|read| asked.remove(&read))
            .flatten()
            .collect()
    }

    /// Takes out those that were asked about and whose time is up.
    fn take_late(&mut self, now: Instant) -> Vec<ReadJob> {
        let mut late = Vec::new();
        self.asked.retain(|_, jobs| {
            late.extend(jobs.extract_if(.., |job| job.deadline <= now));
            !jobs.is_empty()
        });
        late
    }

    /// Ends all that is here.
    pub(crate) fn end(&mut self, error: &ReadError) {
        let asked = std::mem::take(&mut self.asked).into_values().flatten();
        let waiting = std::mem::take(&mut self.waiting);
        for job in asked
            .chain(waiting)
            .chain(std::mem::take(&mut self.gathered))
        {
            job.refuse(error.clone());
        }
    }
}

impl Node {
    /// Takes a read in.
    pub(crate) fn ask(&mut self, job: ReadJob, ctx: &mut Context<Self>) {
        if self.unconfirmed.gathered.is_empty() {
            ctx.notify(AskTogether);
        }
        self.unconfirmed.gathered.push(job);
    }

    /// Asks the protocol how far this node must have applied the log for the reads that have gathered. They need one round
    /// together, and not one for the first of them and another one for the rest.
    pub(crate) fn ask_together(&mut self, ctx: &mut Context<Self>) {
        let mut jobs = std::mem::take(&mut self.unconfirmed.gathered);
        if self.door.is_open() {
            let is_stale = |job: &mut ReadJob| job.consistency == Consistency::Stale;
            let stale: Vec<_> = jobs.extract_if(.., is_stale).collect();
            if !stale.is_empty() {
                self.parts.delivery.do_send(ReadsReady {
                    index: LogIndex::ZERO,
                    until: None,
                    jobs: stale,
                });
            }
        }
        if jobs.is_empty() {
            return;
        }
        let refuse_all = |jobs: Vec<ReadJob>, error: ReadError| {
            jobs.into_iter().for_each(|job| job.refuse(error.clone()));
        };
        match &self.life {
            Life::Running(_) => {
                self.unconfirmed.last += 1;
                let read = ReadId(self.unconfirmed.last);
                self.unconfirmed.asked.insert(read, jobs);
                self.step(Input::ReadIndex(read), ctx);
            }
            Life::Forming { .. } => self.unconfirmed.waiting.append(&mut jobs),
            Life::Draining { .. } | Life::Closing => refuse_all(jobs, ReadError::NodeEnded),
            Life::Failed { why, .. } => refuse_all(jobs, ReadError::Failed(why.clone())),
        }
    }

    /// The protocol has confirmed reads.
    pub(crate) fn read_ready(&mut self, ready: ReadReady) {
        let jobs = self.unconfirmed.take(ready.reads);
        if jobs.is_empty() {
            return; // Their time was up.
        }
        let lease = |ticks| self.took_part_since.saturating_add(ticks_long(ticks));
        self.parts.delivery.do_send(ReadsReady {
            index: ready.index,
            until: ready.lease_until_ticks.map(lease),
            jobs,
        });
    }

    /// The protocol cannot confirm these now.
    pub(crate) fn read_failed(&mut self, reads: Vec<ReadId>, reason: Rejection) {
        for mut job in self.unconfirmed.take(reads) {
            job.obstacle = match reason {
                Rejection::ReadTimedOut => ReadObstacle::NotConfirmed,
                _ => ReadObstacle::NoLeader,
            };
            self.unconfirmed.waiting.push(job);
        }
    }

    /// The lease on which these rested is over.
    pub(crate) fn reads_again(&mut self, jobs: Vec<ReadJob>, ctx: &mut Context<Self>) {
        for job in jobs {
            self.ask(job, ctx);
        }
    }

    /// Answers those whose time is up, and asks again for those that wait.
    pub(crate) fn tend_reads(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        for job in self.unconfirmed.take_late(now) {
            job.late(now);
        }
        for job in std::mem::take(&mut self.unconfirmed.waiting) {
            if job.deadline <= now {
                job.late(now);
            } else {
                self.ask(job, ctx);
            }
        }
    }
}

/// How long so many ticks are. A node may run for years.
fn ticks_long(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(TICK.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_at_its_time_after_years_too() {
        let years = 20 * 365 * 24 * 60 * 60;
        assert_eq!(ticks_long(years * 100), Duration::from_secs(years));
    }
}
