//! The parts of raft-actor, timed one by one: `make bench-micro`. What they are is said in the library (`src/lib.rs`);
//! `make instructions` counts the same lines where the clock is too noisy to judge.
//!
//! Throughput is in commands (of 256 bytes) or messages. What cargo is given behind `--` is criterion's: a name of a
//! benchmark, or `--save-baseline before` and later `--baseline before` to compare two states of the code.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a program that measures; what fails shows itself"
)]

use std::time::{Duration, Instant};

use actix::System;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parts::codec::Codec;
use parts::mailbox::Mailbox;
use parts::node::Nodes;
use parts::protocol::Protocol;
use parts::storage::Storage;

/// Commands to a batch: one alone, what a store puts into one value, what many clients make.
const SIZES: [usize; 3] = [1, 64, 1024];

/// Times `run(n)` on what `make` makes, which is neither timed nor kept: a part grows with what it has done.
fn part<P>(
    criterion: &mut Criterion,
    (group, name, size): (&str, &str, usize),
    make: impl Fn() -> P,
    run: impl Fn(&mut P, usize),
) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function(BenchmarkId::new(name, size), |bencher| {
        bencher.iter_custom(|batches| {
            let mut part = make();
            run(&mut part, 16);
            let began = Instant::now();
            run(&mut part, batches as usize);
            began.elapsed()
        });
    });
    group.finish();
}

/// Three cores, from the proposal to all three having handed it out.
fn protocol(criterion: &mut Criterion) {
    for size in SIZES {
        let at = ("protocol", "commit", size);
        part(criterion, at, Protocol::new, |cores, n| cores.run(n, size));
    }
}

fn codec(criterion: &mut Criterion) {
    for size in SIZES {
        let of = |name| ("codec", name, size);
        part(criterion, of("append_encode"), Codec::new, |codec, n| {
            codec.encode(n, size).unwrap();
        });
        part(criterion, of("append_both_ways"), Codec::new, |codec, n| {
            codec.append_entries(n, size).unwrap();
        });
        part(
            criterion,
            of("forward_both_ways"),
            Codec::new,
            |codec, n| {
                codec.forwarded(n, size).unwrap();
            },
        );
    }
}

fn storage(criterion: &mut Criterion) {
    let memory = || Storage::memory().unwrap();
    // Where the target folder is, there is a disk and not memory.
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir_in(target).unwrap();
    let next = std::cell::Cell::new(0);
    let rocksdb = || {
        next.set(next.get() + 1);
        Storage::rocksdb(&folder.path().join(next.get().to_string())).unwrap()
    };
    for size in SIZES {
        let run = |store: &mut Storage, n| store.run(n, size).unwrap();
        part(criterion, ("storage", "memory", size), memory, run);
        part(criterion, ("storage", "rocksdb_synced", size), rocksdb, run);
    }
}

fn mailbox(criterion: &mut Criterion) {
    let system = System::new();
    let mut group = criterion.benchmark_group("mailbox");
    for across in [false, true] {
        let place = if across { "across" } else { "here" };
        let mailbox = || {
            if across {
                Mailbox::across()
            } else {
                Mailbox::here()
            }
        };
        for (name, things) in [("do_send", 1), ("do_send_of_64", 64)] {
            group.throughput(Throughput::Elements(things as u64));
            group.bench_function(BenchmarkId::new(name, place), |bencher| {
                bencher.iter_custom(|messages| {
                    system.block_on(async {
                        let mailbox = mailbox();
                        let began = Instant::now();
                        mailbox.tell(messages as usize, things).await.unwrap();
                        began.elapsed()
                    })
                });
            });
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("send_one_by_one", place), |bencher| {
            bencher.iter_custom(|questions| {
                system.block_on(async {
                    let mailbox = mailbox();
                    let began = Instant::now();
                    mailbox.round_trips(questions as usize).await.unwrap();
                    began.elapsed()
                })
            });
        });
        group.bench_function(BenchmarkId::new("oneshot_64_at_once", place), |bencher| {
            bencher.iter_custom(|questions| {
                system.block_on(async {
                    let mailbox = mailbox();
                    let began = Instant::now();
                    mailbox.oneshots(questions as usize).await.unwrap();
                    began.elapsed()
                })
            });
        });
    }
    group.finish();
}

/// A node alone, from the proposal to the answers and, on each subscriber, the delivery. What one subscriber costs is the
/// difference of two.
fn delivery(criterion: &mut Criterion) {
    for subscribers in [0, 1, 10] {
        let name = format!("{subscribers}_subscribers");
        let nodes = || Nodes::start(1, subscribers).unwrap();
        part(criterion, ("delivery", &name, 64), nodes, |node, n| {
            node.run(n, 64).unwrap();
        });
    }
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = protocol, codec, storage, mailbox, delivery
}
criterion_main!(parts);
