//! The disk keeps what it promises, and not more.

use std::collections::BTreeSet;

use super::*;

fn file(disk: &mut Disk, name: &str) -> u64 {
    disk.make(ROOT, name, false, 0o600).expect("made")
}

fn text(disk: &mut Disk, name: &str) -> Option<Vec<u8>> {
    let number = disk.lookup(ROOT, name).ok()?;
    disk.read(number, 0, 1 << 20).ok()
}

fn losses(mut each: impl FnMut(&mut Disk, Loss, &mut Random)) {
    for seed in 0..200 {
        for loss in Loss::KINDS {
            each(&mut Disk::default(), loss, &mut Random::new(seed));
        }
    }
}

#[test]
fn what_was_synced_survives_every_loss() {
    losses(|disk, loss, random| {
        let number = file(disk, "a");
        disk.write(number, 0, &[1; 10_000]).expect("written");
        disk.sync(number).expect("synced");
        disk.write(number, 10_000, &[2; 10_000]).expect("written");
        disk.lose(loss, random);
        let found = text(disk, "a").expect("there");
        assert_eq!(found[..10_000], [1; 10_000], "{loss:?}");
        assert!(found[10_000..].iter().all(|byte| [0, 2].contains(byte)));
    });
}

#[test]
fn each_loss_takes_what_it_is_named_for() {
    let mut sizes = BTreeSet::new();
    let mut holes = 0;
    losses(|disk, loss, random| {
        let number = file(disk, "a");
        disk.sync(number).expect("synced");
        disk.write(number, 0, &[2; 20_000]).expect("written");
        disk.lose(loss, random);
        let found = text(disk, "a").expect("there");
        sizes.insert(found.len());
        match loss {
            Loss::All => assert!(found.is_empty()),
            Loss::Nothing => assert_eq!(found, [2; 20_000]),
            _ => {
                let zero = found.iter().position(|byte| *byte == 0);
                let written = found.iter().rposition(|byte| *byte == 2);
                holes += u32::from(zero.is_some() && zero < written);
            }
        }
    });
    assert!(sizes.len() > 5 && holes > 50, "{sizes:?}, {holes}");
}

#[test]
fn a_sync_counts_for_the_size_that_was_set_before_it() {
    losses(|disk, loss, random| {
        let number = file(disk, "a");
        disk.resize(number, 100).expect("resized");
        disk.write(number, 0, &[3; 200]).expect("written");
        disk.sync(number).expect("synced");
        disk.lose(loss, random);
        assert_eq!(text(disk, "a"), Some(vec![3; 200]), "{loss:?}");
    });
}

#[test]
fn a_cut_that_was_not_synced_is_kept_or_not() {
    let mut found = BTreeSet::new();
    losses(|disk, loss, random| {
        let number = file(disk, "a");
        disk.write(number, 0, &[3; 9000]).expect("written");
        disk.sync(number).expect("synced");
        disk.resize(number, 5000).expect("resized");
        disk.lose(loss, random);
        let bytes = text(disk, "a").expect("there");
        // What was to go may be zeros already: the page of the new end is written before the journal.
        assert_eq!(bytes[..5000], [3; 5000]);
        assert!(bytes[5000..].iter().all(|byte| [0, 3].contains(byte)));
        found.insert(bytes.len());
    });
    assert_eq!(found, [5000, 9000].into());
}

#[test]
fn names_go_in_order_and_a_synced_one_brings_all_before_it() {
    losses(|disk, loss, random| {
        let first = file(disk, "first");
        let second = file(disk, "second");
        disk.sync(second).expect("synced");
        disk.rename(ROOT, "second", ROOT, "third").expect("renamed");
        disk.remove(ROOT, "first", false).expect("removed");
        disk.lose(loss, random);
        let names = disk
            .list(ROOT)
            .expect("listed")
            .into_iter()
            .collect::<BTreeMap<_, _>>();
        let renamed = names.contains_key("third");
        assert!(renamed || names.contains_key("second"), "{names:?}");
        assert!(names.get("first") == Some(&first) || renamed, "{names:?}");
    });
}

#[test]
fn a_synced_folder_keeps_its_names() {
    losses(|disk, loss, random| {
        file(disk, "new");
        disk.rename(ROOT, "new", ROOT, "name").expect("renamed");
        disk.sync(ROOT).expect("synced");
        disk.lose(loss, random);
        assert!(disk.lookup(ROOT, "name").is_ok(), "{loss:?}");
    });
}

#[test]
fn the_power_fails_at_the_call_that_was_named() {
    let mut disk = Disk::default();
    let number = file(&mut disk, "a");
    disk.cut_after(3);
    assert_eq!(disk.write(number, 0, b"x"), Ok(()));
    assert_eq!(disk.sync(number), Ok(()));
    assert_eq!(disk.write(number, 1, b"y"), Err(Refusal::Off));
    assert!(disk.is_off() && disk.read(number, 0, 1).is_err());
    disk.lose(Loss::Nothing, &mut Random::new(1));
    assert_eq!(text(&mut disk, "a"), Some(b"x".to_vec()));
}

#[test]
fn a_disk_that_lies_loses_what_was_synced() {
    let mut disk = Disk::default();
    disk.lie();
    let number = file(&mut disk, "a");
    disk.sync(number).expect("it says so");
    disk.lose(Loss::All, &mut Random::new(1));
    assert_eq!(text(&mut disk, "a"), None);
}
