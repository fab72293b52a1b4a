//! Who belongs to the cluster, and who leads it.

use raft_core::NodeId;
use tokio::sync::oneshot;

use super::Raft;
use crate::leaving::LeaveAndTell;
use crate::{ChangeMembership, Changed, GetMembers, Members, MembershipError, TransferLeadership};

impl Raft {
    /// Takes a node out of the cluster, for good; see [`ChangeMembership`]. Any node can be asked, and any can be removed.
    ///
    /// # Errors
    /// [`MembershipError`]. It can be asked again.
    pub async fn remove(&self, node: NodeId) -> Result<Changed, MembershipError> {
        self.change(ChangeMembership::new().remove(node)).await
    }

    /// Lets a learner vote, as soon as it has caught up.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn promote(&self, node: NodeId) -> Result<Changed, MembershipError> {
        self.change(ChangeMembership::new().promote(node)).await
    }

    /// Makes a learner of a voter.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn demote(&self, node: NodeId) -> Result<Changed, MembershipError> {
        self.change(ChangeMembership::new().demote(node)).await
    }

    /// Says who is to lead rather than others: a voter with a higher priority than the leader's is handed the leadership as
    /// soon as it is close behind. 0 is everybody's at first.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub async fn set_priority(
        &self,
        node: NodeId,
        priority: u32,
    ) -> Result<Changed, MembershipError> {
        self.change(ChangeMembership::new().priority(node, priority))
            .await
    }

    /// Changes the membership, in several things at once, say; see [`ChangeMembership`].
    ///
    /// ```
    /// # use raft_actor::{ChangeMembership, Config, MemberRole, MemoryDisk, MembershipError, NodeId, Raft};
    /// # futures_executor::block_on(async {
    /// # let peers = [(NodeId(1), "127.0.0.1:7001")];
    /// # let config = Config::new(NodeId(1)).peers(peers).listen("127.0.0.1:0").memory(MemoryDisk::new());
    /// let raft = Raft::start(config).await?;
    /// let change = ChangeMembership::new().priority(NodeId(1), 7);
    /// assert!(raft.change(change.clone()).await?.index.is_some());
    /// // What is so already is not done again.
    /// assert_eq!(raft.change(change).await?.index, None);
    ///
    /// let members = raft.members().await?;
    /// assert_eq!((members.members[0].role, members.members[0].priority), (Some(MemberRole::Voter), 7));
    /// assert_eq!(raft.remove(NodeId(1)).await, Err(MembershipError::LastVoter));
    /// # anyhow::Ok(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`MembershipError`]. It can be asked again.
    pub async fn change(&self, change: ChangeMembership) -> Result<Changed, MembershipError> {
        let sent = self.addr().send(change).await;
        sent.unwrap_or(Err(MembershipError::NodeEnded))
    }

    /// Has the leadership handed over, to `to` or to the best of the other voters; see [`TransferLeadership`]. Any node can be
    /// asked.
    ///
    /// # Errors
    /// [`MembershipError`]: nobody leads, or the other one did not take over.
    pub async fn transfer_leadership(
        &self,
        to: impl Into<Option<NodeId>>,
    ) -> Result<NodeId, MembershipError> {
        let transfer = TransferLeadership { to: to.into() };
        let sent = self.addr().send(transfer).await;
        sent.unwrap_or(Err(MembershipError::NodeEnded))
    }

    /// Leaves the cluster, for good, and ends the node; see [`Leave`](crate::Leave). Any node can, the
    /// leader too, but not the last voter.
    ///
    /// # Errors
    /// [`MembershipError`]: then the node takes part as before, and can be asked again.
    pub async fn leave(&self) -> Result<(), MembershipError> {
        // The system ends with the node, perhaps before an answer of the actor's would be handed over.
        let (teller, told) = oneshot::channel();
        self.addr().do_send(LeaveAndTell(teller));
        told.await.unwrap_or(Err(MembershipError::NodeEnded))
    }

    /// Asks the leader who belongs to the cluster, how far each of them is, and how many more may fail; see [`GetMembers`].
    ///
    /// # Errors
    /// [`MembershipError`]: nobody leads, say.
    pub async fn members(&self) -> Result<Members, MembershipError> {
        let sent = self.addr().send(GetMembers).await;
        sent.unwrap_or(Err(MembershipError::NodeEnded))
    }
}
