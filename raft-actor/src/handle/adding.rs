//! Adding and replacing nodes from a member's side.

use std::time::{Duration, Instant};

use raft_core::NodeId;

use super::Raft;
use crate::{Invite, MemberRole, MembershipError};

/// For so long at most a new leader is waited for, to know who is healthy.
const NEW: Duration = Duration::from_secs(10);
/// How often it is asked whether the new one votes.
const LOOK: Duration = Duration::from_millis(100);

impl Raft {
    /// Adds the node that waits at `address`, which votes once it has caught up; see [`Invite`]. Any node can be asked.
    ///
    /// # Errors
    /// [`MembershipError`]. It can be asked again.
    pub async fn add(&self, address: impl Into<String>) -> Result<NodeId, MembershipError> {
        self.invite(Invite::new(address)).await
    }

    /// Adds the node that waits at `address` as a learner, which is sent everything and does not vote.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn add_learner(&self, address: impl Into<String>) -> Result<NodeId, MembershipError> {
        self.invite(Invite::new(address).learner(true)).await
    }

    /// Adds the node that waits at an address, as the invitation says.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn invite(&self, invite: Invite) -> Result<NodeId, MembershipError> {
        let sent = self.addr().send(invite).await;
        sent.unwrap_or(Err(MembershipError::NodeEnded))
    }

    /// Has the node that waits at `address` take the place of `old`. If that is gone, one entry does both. If it is there,
    /// the new one joins first, and the old one is removed when that votes, so that the cluster can bear no less
    /// meanwhile. Broken off, it is called again.
    ///
    /// # Errors
    /// As [`add`](Self::add). [`MembershipError::TimedOut`] if the new one does not catch up within a minute.
    pub async fn replace(
        &self,
        old: NodeId,
        address: impl Into<String>,
    ) -> Result<NodeId, MembershipError> {
        let since = Instant::now();
        let members = loop {
            let members = self.members().await?;
            // A leader that is new has heard of nobody yet.
            if members.tolerance.is_some() || since.elapsed() >= NEW {
                break members.members;
            }
            self.running.pause(LOOK).await;
        };
        let Some(found) = members.iter().find(|member| member.id == old) else {
            return Err(MembershipError::NotAMember(old));
        };
        if found.healthy == Some(false) {
            return self.invite(Invite::new(address).replacing(old)).await;
        }
        let since = Instant::now();
        let invite = Invite::new(address);
        let timeout = invite.timeout;
        let new = self.invite(invite).await?;
        loop {
            let members = self.members().await?.members;
            let found = members.iter().find(|member| member.id == new);
            match found.map(|member| member.role) {
                Some(Some(MemberRole::Voter)) => break,
                Some(_) if since.elapsed() < timeout => self.running.pause(LOOK).await,
                Some(_) => {
                    let waited = since.elapsed();
                    return Err(MembershipError::TimedOut { waited });
                }
                None => return Err(MembershipError::IdUsed(new)),
            }
        }
        self.remove(old).await?;
        Ok(new)
    }
}
