//! What an entry costs. `cargo test --release -p raft-actor --lib ledger::tests::speed -- --ignored --nocapture`

use std::time::{Duration, Instant};

use super::*;

const ENTRIES: u64 = 200_000;
const RUN: usize = 2_000;

fn measure(
    what: &str,
    sessions: u64,
    request: impl Fn(u64) -> Request,
    answer: &Answer,
) -> Duration {
    let mut log = Log::new();
    for _ in 0..sessions {
        log.open(60_000);
    }
    let entry = |i| {
        let data = envelope(&request(i), 1000 + i / 100);
        let index = LogIndex(sessions + 1 + i);
        Entry::new(Term(3), index, EntryKind::Command, data)
    };
    let entries: Vec<_> = (0..ENTRIES).map(entry).collect();
    // The machine may be busy with something else for most of the time, but not for all of it.
    let mut each = Duration::MAX;
    for run in entries.chunks(RUN) {
        let start = Instant::now();
        for entry in run {
            if let Step::Run { command } = log.ledger.begin(entry).unwrap() {
                std::hint::black_box(command);
                std::hint::black_box(log.ledger.ran(answer.clone()).unwrap());
            }
        }
        each = each.min(start.elapsed() / RUN as u32);
    }
    let start = Instant::now();
    let copy = log.ledger.clone();
    let cloned = start.elapsed();
    let start = Instant::now();
    let bytes = copy.encode();
    let encoded = start.elapsed();
    println!(
        "{what}: {each:?} an entry (best run); then clone {cloned:?}, encode {encoded:?}, {} bytes",
        bytes.len()
    );
    each
}

fn of_256_bytes(sessions: u64, outstanding: u64) -> impl Fn(u64) -> Request {
    move |i| {
        let sequence = 1 + i / sessions;
        Request::InSession {
            id: id(1 + i % sessions, sequence),
            low: sequence.saturating_sub(outstanding),
            command: Bytes::from_static(&[7; 256]),
        }
    }
}

#[test]
#[ignore = "measures; by itself and in release"]
fn an_entry_costs_well_under_a_microsecond() {
    let some = Ok(Bytes::from_static(b"an answer of 24 bytes ok"));
    let plain = |_| Request::Plain {
        command: Bytes::from_static(&[7; 256]),
    };
    let all = [
        measure("plain", 0, plain, &some),
        measure("1 session, no answer", 1, of_256_bytes(1, 16), &nothing()),
        measure("1 session, 16 outstanding", 1, of_256_bytes(1, 16), &some),
        measure(
            "1 session, 10000 outstanding",
            1,
            of_256_bytes(1, 10_000),
            &some,
        ),
        measure(
            "100 sessions, 16 outstanding",
            100,
            of_256_bytes(100, 16),
            &some,
        ),
        measure(
            "10000 sessions, 16 outstanding",
            10_000,
            of_256_bytes(10_000, 16),
            &some,
        ),
    ];
    assert!(
        all.iter().all(|each| *each < Duration::from_micros(1)),
        "{all:?}"
    );
}
