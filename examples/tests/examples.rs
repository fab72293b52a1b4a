//! Each example is run as its README says, and what it prints is judged.

#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const README: &str = include_str!("../README.md");

/// Seconds are enough, on a machine that has nothing else to do.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the program to its end, which must be a good one, and gives the lines that it printed.
fn run(name: &str, program: &str) -> Vec<String> {
    let command = format!("\ncargo run --release -p examples --bin {name}\n");
    assert!(
        README.contains(&command),
        "the README does not have {command}"
    );
    let mut process = Command::new(program)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = process.stdout.take().unwrap();
    let printed = thread::spawn(move || {
        let mut printed = String::new();
        output.read_to_string(&mut printed).map(|_| printed)
    });
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let printed = printed.join().unwrap().unwrap();
    let status = status.unwrap_or_else(|| panic!("{name} has not ended in {LIMIT:?}:\n{printed}"));
    assert!(status.success(), "{name} ended with {status}:\n{printed}");
    printed.lines().map(str::to_owned).collect()
}

/// What stands behind `mark` in those lines that have it.
fn behind<'a>(lines: &'a [String], mark: &str) -> Vec<&'a str> {
    let found = lines.iter().filter_map(|line| line.split_once(mark));
    found.map(|(_, rest)| rest).collect()
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

#[test]
fn dinner_is_one_of_the_first_three_wishes_for_everybody_and_for_ever() {
    let lines = run("dinner", env!("CARGO_BIN_EXE_dinner"));
    let [agreed] = behind(&lines, "agreed: ")[..] else {
        panic!("{lines:#?}");
    };
    assert_eq!(behind(&lines, "and hears: "), [agreed; 4], "{lines:#?}");
    assert_eq!(behind(&lines, "reads: "), [agreed; 3], "{lines:#?}");
    let wished = behind(&lines, " wishes for ");
    let one_of_them = wished[..3]
        .iter()
        .any(|wish| wish.split(',').next() == Some(agreed));
    assert!(one_of_them, "{lines:#?}");
    assert_eq!(behind(&lines, " led, and has left").len(), 1, "{lines:#?}");
}

#[test]
fn counter_counts_what_was_added_while_leaders_are_killed() {
    let lines = run("counter", env!("CARGO_BIN_EXE_counter"));
    assert_eq!(behind(&lines, " led, and is killed").len(), 6, "{lines:#?}");
    assert_eq!(behind(&lines, " is back; its add ").len(), 6, "{lines:#?}");
    let added: u64 = behind(&lines, " has added ").into_iter().map(number).sum();
    let counter = behind(&lines, " were added, and the counter says ");
    assert_eq!(
        counter.into_iter().map(number).collect::<Vec<_>>(),
        [added],
        "{lines:#?}"
    );
    // A leader is killed when it has done a hundred.
    assert!(added >= 600, "{lines:#?}");
}

#[test]
fn tail_goes_on_where_it_was_and_mails_nothing_twice() {
    let lines = run("tail", env!("CARGO_BIN_EXE_tail"));
    let mails: Vec<_> = behind(&lines, "mailed: order ")
        .into_iter()
        .map(|mail| mail.split_once(", entry ").unwrap())
        .map(|(order, index)| (number(order), number(index)))
        .collect();
    let orders: Vec<_> = mails.iter().map(|(order, _)| *order).collect();
    assert_eq!(orders, (1..=20).collect::<Vec<_>>(), "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "20 orders, 20 mails");
    // It was stopped with order 8 in its hands: that one is handed over again, and none before it.
    let again = behind(&lines, "handed over again, and done already: ");
    assert_eq!(again, ["order 8"], "{lines:#?}");
    let begins = behind(&lines, "the worker begins at entry ");
    let begins: Vec<_> = begins.into_iter().map(number).collect();
    assert!(begins.len() == 2 && begins[0] <= mails[0].1, "{lines:#?}");
    assert!(
        mails[6].1 < begins[1] && begins[1] <= mails[7].1,
        "{lines:#?}"
    );
}
