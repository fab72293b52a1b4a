//! What a hostile or broken peer, disk or caller could hand to a node, and what the core then does: it
//! ignores the message, or it ends the node; it never panics, and never goes on with a wrong log.
#![allow(clippy::unwrap_used)]

mod support;

use raft_core::{
    Config, DurableMessage, Effect, HeartbeatResponse, Input, LogId, Message, OpenMessage, PreVote,
    Raft, Role, Term, Violation,
};
use support::disk::Disk;
use support::node::{Node, config, disk, entry, heartbeat, id, request_vote, sent};

/// Two leaders in a term, or a leader that contradicts what is committed: the safety that all rests on is
/// gone, and the node ends rather than choose a side.
#[test]
fn broken_safety_ends_the_node_for_good() {
    let mut node = Node::new(1, None, &[]);
    node.append(2, 1, LogId::ZERO, &[entry(1, 1)], 1);
    let mut other = Node::new(1, None, &[]);
    other.append(2, 1, LogId::ZERO, &[entry(1, 1)], 1);
    let effects = other.open(3, heartbeat(1, 0));
    let two = |e: &Effect| matches!(e, Effect::Halt(Violation::TwoLeaders { .. }));
    assert!(effects.iter().any(two), "{effects:?}");
    let effects = node.append(3, 2, LogId::ZERO, &[entry(2, 1)], 1);
    let conflict = |e: &Effect| matches!(e, Effect::Halt(Violation::CommittedConflict { .. }));
    assert!(effects.iter().any(conflict), "{effects:?}");
    assert_eq!(node.step(Input::Tick), []);
}

/// Numbers that no log and no election reaches are refused, and nothing overflows.
#[test]
fn numbers_beyond_all_elections_and_logs_do_no_harm() {
    let far = u64::MAX;
    for number in [far, far - 1, far / 2 + 1] {
        let term = Term(number);
        let last = id(number, number);
        let messages: Vec<Message> = vec![
            heartbeat(number, number).into(),
            OpenMessage::HeartbeatResponse(HeartbeatResponse { term }).into(),
            OpenMessage::PreVote(PreVote { term, last }).into(),
            request_vote(number, last).into(),
            heartbeat(0, 0).into(),
            request_vote(0, LogId::ZERO).into(),
        ];
        for message in messages {
            let mut node = Node::leader(config(3), 1, &[1]);
            let effects = node.receive(2, message.clone());
            let [Effect::Ignored { .. }] = effects[..] else {
                panic!("{message:?}: {effects:?}");
            };
            assert_eq!(node.raft.role(), Role::Leader);
        }
        // Of this term, with positions from nowhere.
        let mut node = Node::leader(config(3), 1, &[1]);
        node.acknowledge(2, number);
        node.refuse(2, number, id(number, number));
        node.refuse(2, 1, id(number, number));
        assert_eq!((node.raft.role(), node.commit()), (Role::Leader, 0));
        let mut node = Node::new(2, None, &[1]);
        node.append(2, 2, id(1, number), &[entry(2, number)], number);
        node.append(2, 2, id(1, 1), &[entry(2, number)], number);
        node.append(2, 2, id(1, 1), &[entry(number, 2)], number);
        node.append(2, 2, LogId::ZERO, &[entry(0, 1)], number);
        node.open(2, heartbeat(2, number));
        assert_eq!((node.raft.status().last, node.commit()), (id(1, 1), 0));
    }
}

/// Strangers, and a message to somebody else, are not heard.
#[test]
fn only_members_are_heard() {
    let mut node = Node::new(1, None, &[]);
    for from in [0, 1, 4] {
        let effects = node.durable(from, request_vote(9, id(9, 9)));
        assert!(matches!(effects[..], [Effect::Ignored { .. }]));
    }
    assert_eq!(node.raft.term(), Term(1));
}

/// A recovered log that contradicts itself would make its node lie.
#[test]
fn a_node_does_not_start_on_a_log_that_contradicts_itself() {
    let good = disk(3, None, &[1, 1, 3]).recover(2);
    assert!(Raft::new(config(3), good.clone()).is_ok());
    let broken: [fn(&mut raft_core::Recovered); 8] = [
        |r| r.hard_state.term = Term(2),
        |r| r.hard_state.term = Term(u64::MAX),
        |r| r.last = id(3, u64::MAX),
        |r| r.last = LogId::ZERO,
        |r| r.terms.clear(),
        |r| r.terms.swap(0, 1),
        |r| drop(r.tail.remove(1)),
        |r| r.tail[0].id = id(2, 2),
    ];
    for (at, breaking) in broken.iter().enumerate() {
        let mut recovered = good.clone();
        breaking(&mut recovered);
        assert!(Raft::new(config(3), recovered).is_err(), "{at}");
    }
}

/// The reads of a leader whose memory holds nothing: [`Effect::Read`].
mod reads {
    use raft_core::{LogIndex, PreVoteResponse, RequestId, VoteResponse, WriteId};

    use super::*;

    fn far_ahead() -> Config {
        let mut config = config(3);
        config.append_entries_max = 2;
        config
    }

    /// Leads with four entries on disk, and none of them in memory.
    fn leader() -> (Node, Disk) {
        let disk = disk(1, None, &[1, 1, 1, 1]);
        let raft = Raft::new(far_ahead(), disk.recover(0)).unwrap();
        let last_write = WriteId(0);
        let mut node = Node { raft, last_write };
        lead(&mut node);
        (node, disk)
    }

    fn lead(node: &mut Node) {
        let (term, granted) = (node.raft.term().next(), true);
        node.step(Input::Campaign);
        node.open(
            2,
            OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }),
        );
        node.persisted();
        node.durable(
            2,
            DurableMessage::VoteResponse(VoteResponse { term, granted }),
        );
        assert_eq!(node.raft.role(), Role::Leader);
    }

    fn asked(effects: &[Effect]) -> (RequestId, LogIndex, LogIndex) {
        match effects {
            [
                Effect::Read {
                    request,
                    from,
                    through,
                    ..
                },
            ] => (*request, *from, *through),
            other => panic!("{other:?}"),
        }
    }

    fn read(disk: &Disk, effects: &[Effect]) -> Input {
        let (request, from, through) = asked(effects);
        let result = disk.read(from, through, usize::MAX);
        Input::EntriesRead { request, result }
    }

    /// While the disk reads, a late acknowledgement shows that the follower has more: the answer of the
    /// read is of no use any more, and no reason to end.
    #[test]
    fn an_acknowledgement_overtakes_a_read() {
        let (mut node, disk) = leader();
        let effects = node.refuse(2, 4, LogId::ZERO);
        assert_eq!(asked(&effects).1, LogIndex(1));
        node.acknowledge(2, 3);
        let next = node.step(read(&disk, &effects));
        assert_eq!(asked(&next).1, LogIndex(4));
    }

    /// A reign ends while its read is under way, and the next one begins: its reads have other names.
    #[test]
    fn a_read_of_a_former_reign_is_nobodys() {
        let (mut node, disk) = leader();
        let old = node.refuse(2, 4, LogId::ZERO);
        node.open(3, heartbeat(7, 0));
        lead(&mut node);
        let new = node.refuse(3, 5, id(1, 2));
        assert_ne!(asked(&old).0, asked(&new).0);
        assert_eq!(node.step(read(&disk, &old)), []);
        let message = sent(&node.step(read(&disk, &new)));
        let [OpenMessage::AppendEntries(m)] = &message[..] else {
            panic!("{message:?}");
        };
        assert_eq!((m.prev, m.entries.len()), (id(1, 2), 2));
    }

    /// A read that fails, or brings other entries than the log has, ends the node: an empty success would
    /// make the follower's log wrong.
    #[test]
    fn a_failed_or_wrong_read_ends_the_node() {
        let results = [
            Err(raft_core::ReadFailure("checksum".into())),
            Ok(vec![]),
            Ok(vec![entry(2, 1)]),
            Ok(vec![entry(1, 2)]),
        ];
        for result in results {
            let (mut node, _) = leader();
            let (request, ..) = asked(&node.refuse(2, 4, LogId::ZERO));
            let effects = node.step(Input::EntriesRead { request, result });
            assert!(matches!(effects[..], [Effect::Halt(Violation::Log(_))]));
        }
    }
}
