//! Who waits for the outcome of entries that this node has appended as a leader.

use std::collections::VecDeque;
use std::time::Instant;

use raft_core::{LogId, LogIndex, Term};

use crate::proposals::Proposal;

/// Proposals by their places in the log, in the order of their terms, and of their indexes within one.
#[derive(Default)]
pub(crate) struct Waiting {
    runs: VecDeque<Run>,
    /// No deadline of a proposal is before this.
    next_deadline: Option<Instant>,
}

/// Proposals for consecutive entries of one term; those that have been answered leave an empty place.
struct Run {
    first: LogIndex,
    term: Term,
    proposals: VecDeque<Option<Proposal>>,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Proposals that a leader has appended: from `first` on, in `term`.
    pub(crate) fn add(&mut self, first: LogIndex, term: Term, proposals: Vec<Proposal>) {
        let earliest = proposals.iter().map(|p| p.waiter.deadline).min();
        self.next_deadline = self.next_deadline.into_iter().chain(earliest).min();
        if proposals.is_empty() {
            return;
        }
        let proposals = proposals.into_iter().map(Some);
        match self.runs.back_mut() {
            Some(run)
                if run.term == term && run.first.0 + run.proposals.len() as u64 == first.0 =>
            {
                run.proposals.extend(proposals);
            }
            _ => self.runs.push_back(Run {
                first,
                term,
                proposals: proposals.collect(),
            }),
        }
    }

    /// The entry at `id` is committed: takes out who proposed it. Those whose places it has taken are `superseded`: their
    /// copies are not in the log, and never will be.
    pub(crate) fn meet(
        &mut self,
        id: LogId,
        mut superseded: impl FnMut(Proposal),
    ) -> Option<Proposal> {
        // An entry of a later term is committed at or before the rest of such a run, so by log matching nothing of the run
        // can be committed any more.
        while self.runs.front().is_some_and(|run| run.term < id.term)
            && let Some(run) = self.runs.pop_front()
        {
            run.proposals
                .into_iter()
                .flatten()
                .for_each(&mut superseded);
        }
        let run = self.runs.front_mut()?;
        if (run.term, run.first) != (id.term, id.index) {
            return None;
        }
        run.first = run.first.next();
        let proposal = run.proposals.pop_front().flatten();
        if run.proposals.is_empty() {
            self.runs.pop_front();
        }
        proposal
    }

    /// Takes out those whose time is up.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Proposal> {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.next_deadline = None;
        let late = self.take(|proposal| proposal.waiter.deadline <= now);
        let left = self.runs.iter().flat_map(|run| run.proposals.iter());
        self.next_deadline = left.flatten().map(|p| p.waiter.deadline).min();
        late
    }

    /// Takes out all that meet `condition`.
    pub(crate) fn take(&mut self, condition: impl Fn(&Proposal) -> bool) -> Vec<Proposal> {
        let places = self
            .runs
            .iter_mut()
            .flat_map(|run| run.proposals.iter_mut());
        let taken = places.filter_map(|place| place.take_if(|proposal| condition(proposal)));
        let taken = taken.collect();
        self.runs
            .retain(|run| run.proposals.iter().any(Option::is_some));
        taken
    }

    /// Takes out all that wait for entries up to `through`: nobody will see those.
    pub(crate) fn take_through(&mut self, through: LogIndex) -> Vec<Proposal> {
        let mut taken = Vec::new();
        while let Some(run) = self.runs.front_mut() {
            while run.first <= through
                && let Some(proposal) = run.proposals.pop_front()
            {
                run.first = run.first.next();
                taken.extend(proposal);
            }
            if !run.proposals.is_empty() {
                break;
            }
            self.runs.pop_front();
        }
        taken
    }
}
