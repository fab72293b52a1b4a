//! What is full, and what then happens.

use super::{
    answers::{ANSWER_OVERHEAD_BYTES, ANSWERS_BYTES_MAX},
    sessions::{OUTCOMES_MAX, OUTCOMES_SURE, SESSIONS_MAX},
    window::WINDOW,
    *,
};

const MIB: usize = 1 << 20;

fn restored(ledger: &Ledger) -> Ledger {
    Ledger::decode(&ledger.encode()).unwrap()
}

#[test]
fn a_window_ends_65536_sequences_from_low_on() {
    let mut log = Log::new();
    let s = log.open(5000);
    let beyond = |low| Settlement::BeyondWindow { low };
    assert_eq!(log.apply(&in_session(s, 1 + WINDOW, 1)), beyond(1));
    assert_eq!(log.apply(&cancel(s, u64::MAX, 1)), beyond(1));
    assert_eq!(log.ledger.lookup(id(s, 1 + WINDOW)), Lookup::NotYet);
    assert!(log.ledger.is_suppressed(LogIndex(2)));
    assert_eq!(log.apply(&in_session(s, WINDOW, 1)), applied(4));
    // The same command, once low has moved.
    assert_eq!(log.apply(&in_session(s, 1 + WINDOW, 2)), applied(5));
    assert_eq!(log.apply(&in_session(s, 2 + WINDOW, 2)), beyond(2));
    assert_eq!(log.apply(&in_session(s, u64::MAX, u64::MAX)), applied(7));
    assert_eq!(log.ledger.sessions.outcomes(), 1);
    assert_eq!(log.ledger, restored(&log.ledger));
}

#[test]
fn all_windows_together_are_bounded_and_each_has_some_room_for_sure() {
    let mut log = Log::new();
    let full = OUTCOMES_MAX as u64 / WINDOW;
    let sessions: Vec<_> = (0..=full).map(|_| log.open(5000)).collect();
    let (last, others) = sessions.split_last().unwrap();
    for s in others {
        log.apply(&in_session(*s, WINDOW, 1));
    }
    assert_eq!(log.ledger.sessions.outcomes(), OUTCOMES_MAX);
    let sure = OUTCOMES_SURE as u64;
    let beyond = Settlement::BeyondWindow { low: 1 };
    assert_eq!(log.apply(&in_session(*last, sure + 1, 1)), beyond);
    let index = log.entries.len() as u64 + 1;
    assert_eq!(log.apply(&in_session(*last, sure, 1)), applied(index));
    assert_eq!(log.apply(&in_session(*last, sure + 1, 1)), beyond);
    // What does not stretch a window needs no room.
    assert_eq!(log.apply(&in_session(others[0], 1, 1)), applied(index + 2));
    log.apply(&Request::Close {
        session: SessionId(others[0]),
    });
    assert_eq!(
        log.apply(&in_session(*last, sure + 1, 1)),
        applied(index + 4)
    );
    assert_eq!(log.ledger, restored(&log.ledger));
}

#[test]
fn there_are_10000_sessions_at_most() {
    let mut log = Log::new();
    for _ in 0..SESSIONS_MAX {
        log.open(5000);
    }
    let open = Request::Open { timeout_ms: 5000 };
    assert_eq!(log.apply(&open), Settlement::TooManySessions);
    log.ledger = restored(&log.ledger);
    assert_eq!(log.apply(&open), Settlement::TooManySessions);
    log.apply(&Request::Close {
        session: SessionId(77),
    });
    log.open(5000);
    assert_eq!(log.apply(&open), Settlement::TooManySessions);
    log.at(6000).open(5000);
    assert_eq!(log.ledger.sessions.iter().len(), 1);
}

#[test]
fn the_oldest_answers_go_first_in_a_restored_ledger_too() {
    let mut log = Log::new();
    let (a, b) = (log.open(5000), log.open(5000));
    let big = Bytes::from(vec![7; MIB]);
    let fit = (ANSWERS_BYTES_MAX / (MIB + ANSWER_OVERHEAD_BYTES)) as u64;
    let sequences = |ledger: &Ledger, s| {
        let kept = |sequence: &u64| match ledger.lookup(id(s, *sequence)) {
            Lookup::Settled(Settlement::Applied { .. }) => true,
            Lookup::Settled(Settlement::AnswerForgotten { at }) => {
                assert_eq!(at.term, Term(3));
                false
            }
            other => panic!("{other:?}"),
        };
        (1..=fit).filter(kept).collect::<Vec<_>>()
    };
    for sequence in 1..=fit {
        let s = if sequence % 2 == 0 { a } else { b };
        log.answer(&in_session(s, sequence, 1), Ok(big.clone()));
        log.answer(&in_session(a + b - s, sequence, 1), nothing());
    }
    let all: Vec<_> = (1..=fit).collect();
    assert_eq!(sequences(&log.ledger, a), all);
    let before = log.ledger.encode();
    let mut copy = Log::new();
    copy.ledger = Ledger::decode(&before).unwrap();
    for log in [&mut log, &mut copy] {
        for sequence in fit + 1..=fit + 3 {
            log.answer(&in_session(b, sequence, 1), Ok(big.clone()));
        }
        // Sequence 2 of `a`, and 1 and 3 of `b`; empty answers cost nothing, so they stay.
        assert_eq!(sequences(&log.ledger, a), [&[1], &all[2..]].concat());
        assert_eq!(sequences(&log.ledger, b), [&[2], &all[3..]].concat());
        let forgotten = log.apply(&in_session(a, 2, 1));
        assert_eq!(forgotten, Settlement::AnswerForgotten { at: at(5) });
        assert_eq!(log.apply(&cancel(a, 2, 1)), forgotten);
    }
    assert_eq!(log.ledger, copy.ledger);
    assert!(log.ledger.encode().len() < ANSWERS_BYTES_MAX + MIB);
}

#[test]
fn an_answer_beyond_the_bound_is_not_kept_at_nobodys_cost() {
    let mut log = Log::new();
    let s = log.open(5000);
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    let answer: Answer = Ok(Bytes::from(vec![0; ANSWERS_BYTES_MAX]));
    let first = log.answer(&in_session(s, 2, 1), answer.clone());
    assert_eq!(first, Settlement::Applied { at: at(3), answer });
    let forgotten = Settlement::AnswerForgotten { at: at(3) };
    assert_eq!(log.apply(&in_session(s, 2, 1)), forgotten);
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.ledger, restored(&log.ledger));
}

#[test]
fn a_kept_answer_holds_no_larger_buffer() {
    let mut log = Log::new();
    let s = log.open(5000);
    let buffer = Bytes::from(vec![1; MIB]);
    log.answer(&in_session(s, 1, 1), Ok(buffer.slice(..1)));
    assert!(buffer.is_unique());
}

#[test]
fn a_window_gives_its_room_back_after_a_burst() {
    let mut log = Log::new();
    let s = log.open(5000);
    log.apply(&in_session(s, WINDOW, 1));
    log.apply(&in_session(s, WINDOW + 1, WINDOW));
    let session = log.ledger.sessions.get(SessionId(s)).unwrap();
    assert!(session.window.outcomes.capacity() <= 64);
}

#[test]
fn opened_and_closed_sessions_leave_nothing_filed() {
    let mut log = Log::new();
    for _ in 0..100 {
        let s = log.open(u64::MAX);
        log.apply(&Request::Close {
            session: SessionId(s),
        });
    }
    assert_eq!(log.ledger.sessions.filed(), 0);
}
