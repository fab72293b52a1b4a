//! Bytes that nobody's ledger encoded.

use proptest::prelude::*;

use super::*;
use crate::ledger::encode::LedgerDamaged;

/// Makes a ledger one that cannot be.
type Spoil = fn(&mut Ledger);

/// What is taken must be the one encoding of what it is taken for.
fn never_panics(bytes: &[u8]) -> Result<(), LedgerDamaged> {
    let ledger = Ledger::decode(bytes)?;
    assert!(ledger.encode() == bytes);
    Ok(())
}

#[test]
fn every_truncation_is_refused_and_so_is_what_follows() {
    let bytes = bytes_of::one_of_each().ledger.encode();
    for cut in 0..bytes.len() {
        let short = Ledger::decode(&bytes[..cut]);
        assert!(matches!(short, Err(LedgerDamaged::Short(_))), "{cut}");
    }
    let long = Ledger::decode(&[&bytes[..], b"more"].concat());
    assert_eq!(long.unwrap_err(), LedgerDamaged::Long(4));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut bytes = Ledger::new().encode();
    bytes[0] = 2;
    let newer = Ledger::decode(&bytes).unwrap_err();
    assert_eq!(
        newer.to_string(),
        "the ledger has format 2, and this program knows format 1 at most"
    );
}

/// A session that is opened at the end of time would have ended when it begins, and nobody could read the ledger.
#[test]
fn a_time_that_no_clock_shows_is_no_envelopes_nor_ledgers() {
    let open = Request::Open { timeout_ms: 1 };
    let mut ledger = Ledger::new();
    let mut settled = |time_ms| {
        let index = ledger.applied().index.next();
        let data = envelope(&open, time_ms);
        let entry = Entry::new(Term(1), index, EntryKind::Command, data);
        let Step::Settled(settlement) = ledger.begin(&entry).unwrap() else {
            panic!("it runs nothing");
        };
        assert_eq!(Ledger::decode(&ledger.encode()).unwrap(), ledger);
        settlement
    };
    let opened = |settlement| matches!(settlement, Settlement::Opened { .. });
    assert!(opened(settled(TIME_MAX_MS)));
    for time_ms in [TIME_MAX_MS + 1, u64::MAX] {
        assert_eq!(settled(time_ms), Settlement::Malformed);
    }
    ledger.time_ms = TIME_MAX_MS + 1;
    let refused = LedgerDamaged::Impossible("a log time that no clock shows");
    assert_eq!(Ledger::decode(&ledger.encode()).unwrap_err(), refused);
}

/// Each number in turn claims the most that it can, and something small.
#[test]
fn huge_claims_are_refused() {
    let bytes = bytes_of::one_of_each().ledger.encode();
    let mut refused = 0;
    for at in 0..bytes.len() - 8 {
        for claim in [u64::MAX, u64::MAX / 2, 1 << 40, 65_537, 0] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&claim.to_be_bytes());
            refused += u32::from(never_panics(&bytes).is_err());
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_no_ledger_can_be_is_refused() {
    let bytes = bytes_of::one_of_each().ledger.encode();
    let good = Ledger::decode(&bytes).unwrap();
    let wrong: [(&str, Spoil); 8] = [
        ("a session that has expired", |l| l.time_ms = 1 << 40),
        ("a session out of order", |l| {
            l.applied = at(1);
            l.suppressed.ranges.clear();
        }),
        ("an outcome of a later entry", |l| {
            l.applied = at(4);
            l.suppressed.ranges.clear();
        }),
        ("an entry that no log has", |l| {
            l.applied.term = Term(u64::MAX)
        }),
        ("a suppressed index out of order", |l| {
            l.suppressed.ranges.push_back((LogIndex(9), LogIndex(8)));
        }),
        ("a suppressed index out of order", |l| {
            let (_, last) = *l.suppressed.ranges.back().unwrap();
            l.suppressed.ranges.push_back((last.next(), last.next()));
        }),
        ("a suppressed index out of order", |l| {
            l.suppressed.from = LogIndex(100);
        }),
        ("a session's window", |l| {
            l.sessions.insert(SessionId(9), 5000, 1000, {
                let mut window = window::Window::new();
                window.outcomes.push_back(None);
                window
            });
        }),
    ];
    for (what, spoil) in wrong {
        let mut spoiled = good.clone();
        spoil(&mut spoiled);
        let refused = Ledger::decode(&spoiled.encode());
        assert_eq!(refused.unwrap_err(), LedgerDamaged::Impossible(what));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = never_panics(&bytes);
        let _ = never_panics(&[&[1], &bytes[..]].concat());
        let data = Bytes::from(bytes);
        if let Ok((time_ms, request)) = Request::decode(&data) {
            prop_assert_eq!(envelope(&request, time_ms), data);
        }
    }

    #[test]
    fn spoiled_ledgers_never_panic(
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = SPOILED.with(Clone::clone);
        for (at, byte) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = never_panics(&bytes);
    }
}

thread_local! {
    static SPOILED: Vec<u8> = bytes_of::one_of_each().ledger.encode();
}
