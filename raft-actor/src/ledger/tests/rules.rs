//! Each rule, by example.

use std::sync::Arc;

use super::*;

fn suppressed(log: &Log) -> Vec<u64> {
    let known = log.ledger.suppressed_from().0..=log.ledger.applied().index.0;
    known
        .filter(|index| log.ledger.is_suppressed(LogIndex(*index)))
        .collect()
}

#[test]
fn a_copy_is_answered_with_the_first_outcome() {
    let mut log = Log::new();
    let s = log.open(5000);
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.apply(&in_session(s, 2, 1)), applied(4));
    log.term = 4;
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.ran, [2, 4]);
    assert_eq!(log.ledger.lookup(id(s, 1)), Lookup::Settled(applied(2)));
    assert_eq!(suppressed(&log), [3, 5]);
}

#[test]
fn a_later_sequence_that_arrives_first_makes_no_duplicate_of_an_earlier_one() {
    let mut log = Log::new();
    let s = log.open(5000);
    for (index, sequence) in [(2, 5), (3, 1), (4, 4), (5, 2), (6, 3)] {
        assert_eq!(log.apply(&in_session(s, sequence, 1)), applied(index));
    }
    assert_eq!(log.ran, [2, 3, 4, 5, 6]);
}

#[test]
fn a_plain_command_runs_as_often_as_it_is_in_the_log() {
    let mut log = Log::new();
    let plain = Request::Plain {
        command: Bytes::from_static(b"again"),
    };
    assert_eq!(log.apply(&plain), applied(1));
    assert_eq!(log.apply(&plain), applied(2));
    assert_eq!(suppressed(&log), [0_u64; 0]);
}

#[test]
fn a_refusal_is_an_answer_and_so_is_an_empty_one() {
    let mut log = Log::new();
    let s = log.open(5000);
    let refusal = Err(Arc::from("no such account"));
    for (sequence, answer) in [(1, refusal), (2, nothing()), (3, Err(Arc::from("")))] {
        let first = log.answer(&in_session(s, sequence, 1), answer.clone());
        let at = at(1 + sequence);
        assert_eq!(first, Settlement::Applied { at, answer });
        assert_eq!(log.ledger.lookup(id(s, sequence)), Lookup::Settled(first));
    }
}

#[test]
fn a_cancelled_command_never_runs_and_an_applied_one_is_not_cancelled() {
    let mut log = Log::new();
    let s = log.open(5000);
    let cancelled = Settlement::Cancelled { at: at(2) };
    assert_eq!(log.apply(&cancel(s, 1, 1)), cancelled);
    assert_eq!(log.apply(&in_session(s, 1, 1)), cancelled);
    assert_eq!(log.apply(&cancel(s, 1, 1)), cancelled);
    assert_eq!(log.apply(&in_session(s, 2, 1)), applied(5));
    assert_eq!(log.apply(&cancel(s, 2, 1)), applied(5));
    assert_eq!(log.apply(&in_session(s, 2, 1)), applied(5));
    assert_eq!(log.ran, [5]);
    // The cancellations are no commands: they are not among the suppressed ones.
    assert_eq!(suppressed(&log), [3, 7]);
    assert_eq!(log.ledger.lookup(id(s, 1)), Lookup::Settled(cancelled));
}

#[test]
fn what_is_below_low_is_forgotten_and_low_never_goes_back() {
    let mut log = Log::new();
    let s = log.open(5000);
    for sequence in 1..=3 {
        log.apply(&in_session(s, sequence, 1));
    }
    assert_eq!(log.apply(&in_session(s, 4, 3)), applied(5));
    for low in [0, 1, 3] {
        assert_eq!(log.apply(&in_session(s, 2, low)), Settlement::Acknowledged);
        assert_eq!(log.apply(&in_session(s, 3, low)), applied(4));
    }
    assert_eq!(log.apply(&cancel(s, 1, 1)), Settlement::Acknowledged);
    let acknowledged = Lookup::Settled(Settlement::Acknowledged);
    assert_eq!(log.ledger.lookup(id(s, 2)), acknowledged);
    assert_eq!(log.ledger.sessions.answers().bytes(), {
        2 * (1 + answers::ANSWER_OVERHEAD_BYTES)
    });
}

#[test]
fn no_proposal_is_below_the_low_that_it_carries() {
    let mut log = Log::new();
    let s = log.open(5000);
    assert_eq!(log.apply(&in_session(s, 7, 100)), applied(2));
    assert_eq!(log.apply(&in_session(s, 7, u64::MAX)), applied(2));
    assert_eq!(log.apply(&in_session(s, 6, 1)), Settlement::Acknowledged);
    let cancelled = Settlement::Cancelled { at: at(5) };
    assert_eq!(log.apply(&cancel(s, 9, u64::MAX)), cancelled);
    assert_eq!(log.apply(&in_session(s, 8, 1)), Settlement::Acknowledged);
}

#[test]
fn a_session_expires_by_log_time_alone() {
    let mut log = Log::new();
    let s = log.at(1000).open(500);
    log.at(1499).apply(&in_session(s, 1, 1));
    // Each entry that names it gives it another 500 ms, whatever becomes of that entry.
    log.at(1998).apply(&in_session(s, 1, 1));
    log.at(2497).apply(&cancel(s, 1, 1));
    assert_eq!(log.at(2996).apply(&in_session(s, 2, 1)), applied(5));
    // Log time never goes back: a late stamp gives nothing back, and takes nothing.
    log.at(10).apply(&in_session(s, 2, 1));
    assert_eq!(log.ledger.time_ms(), 2996);
    // Entries without a time end nothing, however many.
    for _ in 0..1000 {
        log.append(EntryKind::Noop, Bytes::new(), nothing());
    }
    assert_eq!(log.ledger.lookup(id(s, 3)), Lookup::NotYet);
    let other = log.at(3495).open(500);
    assert_eq!(log.ledger.lookup(id(s, 2)), Lookup::Settled(applied(5)));
    // Judged before the entry counts: at its deadline it is too late.
    let expired = log.at(3496).apply(&in_session(s, 3, 1));
    assert_eq!(expired, Settlement::SessionExpired);
    assert_eq!(log.apply(&cancel(s, 3, 1)), Settlement::SessionExpired);
    assert_eq!(log.ledger.lookup(id(s, 2)), Lookup::Expired);
    assert_eq!(log.ledger.lookup(id(other, 1)), Lookup::NotYet);
    assert!(
        log.ledger
            .is_suppressed(LogIndex(log.entries.len() as u64 - 1))
    );
}

#[test]
fn a_closed_session_is_gone_with_its_answers() {
    let mut log = Log::new();
    let s = log.open(5000);
    log.apply(&in_session(s, 1, 1));
    let close = Request::Close {
        session: SessionId(s),
    };
    assert_eq!(log.apply(&close), Settlement::Closed);
    assert_eq!(log.apply(&close), Settlement::Closed);
    assert_eq!(log.apply(&in_session(s, 1, 1)), Settlement::SessionExpired);
    assert_eq!(log.ledger.sessions.answers().bytes(), 0);
    assert_eq!(log.ledger.sessions.outcomes(), 0);
    assert_eq!(log.ran, [2]);
}

#[test]
fn a_session_that_this_node_has_not_applied_yet_has_not_expired() {
    let mut log = Log::new();
    assert_eq!(log.ledger.lookup(id(1, 1)), Lookup::NotYet);
    assert_eq!(log.apply(&in_session(2, 1, 1)), Settlement::SessionExpired);
    assert_eq!(log.ledger.lookup(id(1, 1)), Lookup::Expired);
    assert_eq!(log.ledger.lookup(id(2, 1)), Lookup::NotYet);
    let s = log.open(5000);
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(3));
}

#[test]
fn suppressed_indexes_are_forgotten_with_the_log() {
    let mut log = Log::new();
    let s = log.open(5000);
    for _ in 2..=6 {
        log.apply(&in_session(s, 1, 1));
    }
    log.apply(&in_session(s, 2, 1));
    log.apply(&in_session(s, 2, 1));
    assert_eq!(suppressed(&log), [3, 4, 5, 6, 8]);
    assert_eq!(log.ledger.suppressed.ranges.len(), 2);
    log.ledger.forget_before(LogIndex(5));
    assert_eq!(suppressed(&log), [5, 6, 8]);
    assert!(!log.ledger.is_suppressed(LogIndex(4)));
    log.ledger.forget_before(LogIndex(2));
    assert_eq!(log.ledger.suppressed_from(), LogIndex(5));
    log.ledger.forget_before(LogIndex(7));
    assert_eq!(suppressed(&log), [8]);
    // A log that begins behind what is applied, as behind an installed snapshot.
    log.ledger.forget_before(LogIndex(10));
    log.apply(&in_session(s, 2, 1));
    log.apply(&in_session(s, 2, 1));
    assert_eq!(suppressed(&log), [10]);
}

#[test]
fn the_digest_tells_any_difference() {
    let digest_of = |kind, data: &Bytes, answer: Answer, term| {
        let mut log = Log::new();
        log.term = term;
        log.append(kind, data.clone(), answer);
        log.ledger.digest()
    };
    let plain = |command| envelope(&Request::Plain { command }, 5);
    let (a, b) = (
        plain(Bytes::from_static(b"a")),
        plain(Bytes::from_static(b"b")),
    );
    let command = EntryKind::Command;
    let digests = [
        digest_of(command, &a, nothing(), 3),
        digest_of(command, &a, nothing(), 4),
        digest_of(command, &b, nothing(), 3),
        digest_of(command, &a, Ok(Bytes::from_static(b"x")), 3),
        digest_of(command, &a, Err(Arc::from("x")), 3),
        digest_of(command, &Bytes::new(), nothing(), 3),
        digest_of(EntryKind::Noop, &Bytes::new(), nothing(), 3),
        digest_of(EntryKind::Birth, &Bytes::new(), nothing(), 3),
        Ledger::new().digest(),
    ];
    for (i, one) in digests.iter().enumerate() {
        for other in &digests[..i] {
            assert_ne!(one, other, "{digests:x?}");
        }
    }
}

#[test]
fn what_is_told_out_of_turn_changes_nothing() {
    let mut log = Log::new();
    log.append(EntryKind::Noop, Bytes::new(), nothing());
    let before = log.ledger.clone();
    let noop = |index| Entry::new(Term(3), LogIndex(index), EntryKind::Noop, Bytes::new());
    for index in [0, 1, 3] {
        let gap = OutOfTurn::Gap {
            applied: at(1),
            entry: at(index),
        };
        assert_eq!(log.ledger.begin(&noop(index)), Err(gap));
    }
    let nothing_runs = OutOfTurn::NothingRuns { applied: at(1) };
    assert_eq!(log.ledger.ran(nothing()), Err(nothing_runs));
    assert_eq!(log.ledger, before);

    let command = Bytes::from_static(b"a");
    let data = envelope(
        &Request::Plain {
            command: command.clone(),
        },
        9,
    );
    let entry = Entry::new(Term(3), LogIndex(2), EntryKind::Command, data);
    assert_eq!(
        log.ledger.begin(&entry),
        Ok(Step::Run { command: &command })
    );
    assert_eq!(log.ledger.applied(), at(1));
    let still_runs = OutOfTurn::StillRuns {
        running: at(2),
        entry: at(3),
    };
    assert_eq!(log.ledger.begin(&noop(3)), Err(still_runs));
    log.ledger.ran(nothing()).unwrap();
    assert_eq!(log.ledger.applied(), at(2));
}

#[test]
fn a_malformed_entry_is_settled_as_such_and_the_log_goes_on() {
    let mut log = Log::new();
    let s = log.open(5000);
    for data in [&b""[..], b"garbage", &[2; 33][..32]] {
        let data = Bytes::copy_from_slice(data);
        let settled = log.append(EntryKind::Command, data, nothing());
        assert_eq!(settled, Some(Settlement::Malformed));
    }
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(5));
    assert_eq!(log.ledger.time_ms(), 1000);
}
