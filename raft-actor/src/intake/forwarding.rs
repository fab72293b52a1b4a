//! Proposals between nodes: to the leader, and its answers back.

use super::*;

impl Node {
    /// Hands what waits to the leader. What its queue does not take waits on.
    pub(super) fn forward(&mut self, leader: NodeId) {
        let Some(peer) = self.peers.get(&leader).filter(|peer| peer.connected) else {
            return;
        };
        while !self.intake.waiting.is_empty() && self.intake.may_forward(leader) {
            let (count, frame) = self.intake.next_forward();
            match self
                .encoder
                .encode_for(&peer.sender, frame)
                .map(|frame| peer.sender.try_send(frame))
            {
                Ok(Ok(())) => self.intake.went_away(leader, count),
                Ok(Err(_)) => return,
                Err(error) => {
                    return tracing::error!(peer = %leader, "cannot encode proposals: {error}");
                }
            }
        }
    }

    /// A peer hands over proposals of its own, for the next flush.
    pub(crate) fn forwarded_here(&mut self, from: NodeId, proposals: Vec<Forwarded>) {
        let since = Instant::now();
        let max = self.intake.command_bytes_max;
        let lagging = self.is_lagging();
        let mut refused = Vec::new();
        for Forwarded { request, data } in proposals {
            let taken = match (&self.life, self.intake.peer_budgets.get(&from)) {
                (Life::Running(_), Some(_)) if lagging => Err(ForwardOutcome::Busy),
                (Life::Running(_), Some(budget)) => take_in(&data, max, budget),
                _ => Err(ForwardOutcome::NotLeader { leader: None }),
            };
            match taken {
                Ok((asked, permit)) => {
                    let to = ReplyTo::Peer {
                        node: from,
                        request,
                    };
                    let waiter = Waiter::new(to, since, since + self.intake.timeout, permit);
                    self.intake.from_peers.push(Proposal::new(asked, waiter));
                }
                Err(outcome) => refused.push((from, PeerAnswer { request, outcome })),
            }
        }
        self.answer_peers(refused);
    }

    /// The leader answers what this node forwarded to it.
    pub(crate) fn answered(&mut self, from: NodeId, answers: Vec<PeerAnswer>) {
        for PeerAnswer { request, outcome } in answers {
            let away = self.intake.forwarded.get(&request);
            if away.is_none_or(|away| away.leader != from) {
                continue; // Its time was up, or it was sent again.
            }
            let Some(mut proposal) = self.intake.come_back(request) else {
                continue;
            };
            match from_peer(&proposal.request, outcome) {
                FromPeer::Outcome(Ok(settled)) => self.settled(proposal, settled),
                FromPeer::Outcome(Err(error)) => drop(proposal.answer(Err(error))),
                FromPeer::NotTaken => {
                    proposal.copies -= 1;
                    self.intake.spurn(from);
                    self.intake.wait(proposal);
                }
                FromPeer::Busy => {
                    proposal.copies -= 1;
                    if proposal.copies == 0 {
                        proposal.answer(Err(ProposeError::Busy));
                    } else {
                        self.intake.spurn(from);
                        self.intake.wait(proposal);
                    }
                }
                FromPeer::Superseded => self.superseded(proposal),
                FromPeer::Unsure => self.unsure(proposal, UnknownCause::LeaderUnsure(from)),
            }
        }
    }

    /// The connection to `peer` broke: what was forwarded over it may have arrived, or not.
    pub(crate) fn connection_lost(&mut self, peer: NodeId) {
        for proposal in self.intake.take_away(|away| away.leader == peer) {
            self.unsure(proposal, UnknownCause::ConnectionLost(peer));
        }
    }

    /// Tells peers what became of what they forwarded. One that cannot be told stops waiting by itself.
    pub(crate) fn answer_peers(&mut self, answers: Vec<(NodeId, PeerAnswer)>) {
        let mut by_peer: BTreeMap<NodeId, Vec<PeerAnswer>> = BTreeMap::new();
        for (peer, answer) in answers {
            by_peer.entry(peer).or_default().push(answer);
        }
        for (id, answers) in by_peer {
            if let Some(peer) = self.peers.get(&id) {
                send_answers(id, &peer.sender, &mut self.encoder, answers);
            }
        }
    }
}

/// Checks what a peer forwarded, and finds a place for it.
fn take_in(
    data: &Bytes,
    command_bytes_max: usize,
    budget: &Arc<Budget>,
) -> Result<(Request, crate::proposals::Permit), ForwardOutcome> {
    let malformed = |_| ForwardOutcome::NotApplied {
        why: NotApplied::Malformed,
    };
    let (_, asked) = Request::decode(data).map_err(malformed)?;
    if let Request::Plain { command } | Request::InSession { command, .. } = &asked
        && command.len() > command_bytes_max
    {
        let max = command_bytes_max as u64;
        return Err(ForwardOutcome::TooLarge { max });
    }
    let permit = budget.take(data.len()).ok_or(ForwardOutcome::Busy)?;
    Ok((asked, permit))
}

/// Sends `answers` to the peer `id`, in as many frames as they need. What cannot be sent is dropped.
pub(crate) fn send_answers(
    id: NodeId,
    sender: &PeerSender,
    encoder: &mut FrameEncoder,
    answers: Vec<PeerAnswer>,
) {
    let mut answers = answers.into_iter().peekable();
    while answers.peek().is_some() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < FORWARD_MAX
            && bytes < FORWARD_BYTES_MAX
            && let Some(answer) = answers.next()
        {
            bytes += response_len(&answer);
            batch.push(answer);
        }
        let mut send = |batch| {
            encoder
                .encode_for(sender, Frame::Answers(batch))
                .map(|frame| sender.try_send(frame))
        };
        let sent = match batch.last() {
            Some(last) if response_len(last) >= FORWARD_BYTES_MAX => {
                // It may be longer than any frame. That it was applied must be told at least.
                let short = without_response(batch.clone());
                match send(batch) {
                    Ok(Err(SendError::TooLarge { .. })) | Err(_) => send(short),
                    sent => sent,
                }
            }
            _ => send(batch),
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return tracing::debug!(peer = %id, "cannot answer what it forwarded: {error}");
            }
            Err(error) => return tracing::error!(peer = %id, "cannot encode answers: {error}"),
        }
    }
}

fn response_len(answer: &PeerAnswer) -> usize {
    match &answer.outcome {
        ForwardOutcome::Committed { response, .. } => response.len(),
        _ => 0,
    }
}

/// The same answers, without a response that may be too long for a frame.
fn without_response(mut answers: Vec<PeerAnswer>) -> Vec<PeerAnswer> {
    for answer in &mut answers {
        if response_len(answer) >= FORWARD_BYTES_MAX
            && let ForwardOutcome::Committed { index, term, .. } = answer.outcome
        {
            let why = NotApplied::AnswerForgotten { index, term };
            answer.outcome = ForwardOutcome::NotApplied { why };
        }
    }
    answers
}
