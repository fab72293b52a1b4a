//! Reads that wait until enough of the log is applied here.

use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use raft_core::LogIndex;

use super::{Replica, Told};
use crate::ReadError;
use crate::boot_time::boot_time;
use crate::error::ReadObstacle;
use crate::message::Consistency;
use crate::proposals::Permit;

/// Reads, and answers who asked.
pub(crate) type RunRead = Box<dyn FnOnce(Result<&Replica, ReadError>) + Send>;

/// One read, and who waits for it. Dropped, it says that the node has ended.
pub(crate) struct ReadJob {
    pub(crate) consistency: Consistency,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    /// What keeps it, for the answer should its time be up.
    pub(crate) obstacle: ReadObstacle,
    pub(crate) run: RunRead,
    pub(crate) _permit: Permit,
}

impl ReadJob {
    /// Its time is up.
    pub(crate) fn late(self, now: Instant) {
        let waited = now.saturating_duration_since(self.since);
        let why = self.obstacle;
        (self.run)(Err(ReadError::TimedOut { waited, why }));
    }

    pub(crate) fn refuse(self, error: ReadError) {
        (self.run)(Err(error));
    }
}

/// These reads may be answered when the state has come so far.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReadsReady {
    pub(crate) index: LogIndex,
    /// The end of the lease on which that rests, by [`boot_time`].
    pub(crate) until: Option<Duration>,
    pub(crate) jobs: Vec<ReadJob>,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Reads(Vec<ReadsReady>);

impl Reads {
    pub(crate) fn add(&mut self, mut ready: ReadsReady) {
        for job in &mut ready.jobs {
            job.obstacle = ReadObstacle::Behind;
        }
        self.0.push(ready);
    }

    /// Answers those that `replica` has come far enough for. What rests on a lease that is over goes back to `node`.
    pub(crate) fn answer(&mut self, replica: &Replica, node: &Recipient<Told>) {
        if self.0.is_empty() {
            return;
        }
        let applied = replica.applied().index;
        let mut again = Vec::new();
        for ready in self.0.extract_if(.., |ready| ready.index <= applied) {
            for job in ready.jobs {
                // Looked at for each: one read may take its time, and a lease ends at its time.
                if ready.until.is_some_and(|until| boot_time() >= until) {
                    again.push(job);
                } else {
                    (job.run)(Ok(replica));
                }
            }
        }
        if !again.is_empty() {
            node.do_send(Told::Reads(again));
        }
    }

    /// Answers those whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        for ready in &mut self.0 {
            for job in ready.jobs.extract_if(.., |job| job.deadline <= now) {
                job.late(now);
            }
        }
        self.0.retain(|ready| !ready.jobs.is_empty());
    }
}
