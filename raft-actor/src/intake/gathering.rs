//! Where a leader's [`Rhythm`](crate::rhythm) meets the door, the turns and the clock.

use std::time::Instant;

use actix::prelude::*;
use raft_core::Role;

use crate::door::Knock;
use crate::node::{Life, Node};
use crate::rhythm::{HELD_BYTES_MAX, HELD_MAX, RETURN_MAX};

impl Node {
    /// Whether what has come to this leader is left to gather.
    pub(super) fn gathers(&mut self, ctx: &mut Context<Self>) -> bool {
        let leads = matches!(&self.life, Life::Running(raft) if raft.role() == Role::Leader);
        let standing = self.standing();
        let intake = &mut self.intake;
        let gathers = leads
            && self.door.waiting_bytes() < HELD_BYTES_MAX
            && intake.rhythm.holds(standing, Instant::now());
        if gathers {
            if intake.rhythm.is_under_way() {
                // The first who comes begins to be held.
                self.door.want(if standing > 0 { HELD_MAX } else { 1 });
            }
        } else {
            intake.rhythm.release();
            if let Some(alarm) = intake.alarm.take() {
                ctx.cancel_future(alarm);
            }
        }
        gathers
    }

    /// A turn is over: those whom it answers may be about to come again.
    pub(crate) fn keep_rhythm(&mut self, ctx: &mut Context<Self>) {
        let under_way = match &self.life {
            Life::Running(raft) => raft.role() == Role::Leader && raft.last().index > raft.commit(),
            _ => false,
        };
        let outstanding = self.door.waiting_count();
        let standing = self.standing();
        let rhythm = &mut self.intake.rhythm;
        let Some(count) = rhythm.turned(under_way, outstanding, Instant::now()) else {
            return;
        };
        if standing >= count {
            // Nobody else is about to come.
            rhythm.release();
            self.door.want(1);
            if standing > 0 {
                ctx.notify(Knock);
            }
            return;
        }
        self.door.want(count);
        let alone = count <= 1;
        if !alone || !self.not_urgent.is_empty() && !rhythm.is_steady() {
            let look_again = |node: &mut Self, ctx: &mut Context<Self>| {
                let _span = node.span().entered();
                node.intake.alarm = None;
                node.flush(ctx);
                node.end_turn(ctx);
            };
            let alarm = ctx.run_later(RETURN_MAX, look_again);
            if let Some(alarm) = self.intake.alarm.replace(alarm) {
                ctx.cancel_future(alarm);
            }
        }
    }

    /// What a flush has to do.
    pub(super) fn standing(&self) -> usize {
        self.door.standing() + self.intake.standing()
    }

    /// As [`flush`](Self::flush), and nothing is left to gather.
    pub(crate) fn flush_all(&mut self, ctx: &mut Context<Self>) {
        self.intake.rhythm.release();
        self.flush(ctx);
    }
}
