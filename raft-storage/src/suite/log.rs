//! The cases of entries: writing, cutting, reading.

use super::*;

pub(super) fn written_is_there(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=1));
    write(&mut *store, &batch_of(1, 2..=200));
    write(&mut *store, &batch_of(2, 201..=203));
    let mut expected = entries(1, 1..=200).to_vec();
    expected.extend_from_slice(&entries(2, 201..=203));
    assert_log(store, disk, &expected);
}

pub(super) fn nothing_is_written(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &Batch::new());
    write(&mut *store, &batch_of(1, 1..=1));
    write(&mut *store, &Batch::new());
    assert_log(store, disk, &entries(1, 1..=1));
}

pub(super) fn cut_in_a_run(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=40));
    write(&mut *store, &batch_of(1, 41..=80));
    write(&mut *store, &cut(17));
    assert_log(store, disk, &entries(1, 1..=16));
}

pub(super) fn cut_at_a_border(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=5));
    write(&mut *store, &batch_of(1, 6..=9));
    write(&mut *store, &batch_of(1, 10..=10));
    write(&mut *store, &cut(6));
    assert_log(store, disk, &entries(1, 1..=5));
}

pub(super) fn cut_behind_the_end(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &cut(1));
    write(&mut *store, &batch_of(1, 1..=5));
    write(&mut *store, &cut(6));
    write(&mut *store, &cut(100));
    write(&mut *store, &batch_of(1, 6..=6));
    assert_log(store, disk, &entries(1, 1..=6));
}

pub(super) fn cut_of_everything(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=70));
    write(&mut *store, &cut(1));
    assert_log(store, disk, &[]);
}

pub(super) fn cut_and_append(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=10));
    let mut batch = Batch::new();
    let new_term = hard_state(2, None);
    batch.push(Some(new_term), Some(LogIndex(4)), entries(2, 4..=100));
    batch.push(None, Some(LogIndex(90)), entries(3, 90..=91));
    write(&mut *store, &batch);
    let mut expected = entries(1, 1..=3).to_vec();
    expected.extend_from_slice(&entries(2, 4..=89));
    expected.extend_from_slice(&entries(3, 90..=91));
    assert_log(store, disk, &expected);
}

pub(super) fn terms_are_recovered(disk: &Disk) {
    let mut opened = open(disk);
    let store = &mut *opened.store;
    write(store, &batch_of(1, 1..=100));
    write(store, &batch_of(1, 101..=101));
    let mut batch = Batch::new();
    batch.push(None, None, entries(4, 102..=103));
    batch.push(None, None, entries(6, 104..=104));
    batch.push(None, None, entries(7, 105..=110));
    write(store, &batch);
    let mut batch = cut(104);
    batch.push(None, None, entries(9, 104..=104));
    write(store, &batch);
    drop(opened);
    let recovered = open(disk).recovered;
    assert_eq!(recovered.terms, [id(1, 1), id(4, 102), id(9, 104)]);
    assert_eq!(recovered.last, id(9, 104));
}

pub(super) fn configurations_are_recovered(disk: &Disk) {
    let of = |voters: &[u64]| Configuration::of(voters.iter().copied().map(NodeId));
    let (three, four, two) = (of(&[1, 2, 3]), of(&[1, 2, 3, 4]), of(&[1, 2]));
    let recovered = || {
        let recovered = open(disk).recovered;
        let positions = recovered.configurations.into_iter();
        positions
            .map(|(at, configuration)| (at.0, configuration))
            .collect::<Vec<_>>()
    };
    let mut opened = open(disk);
    let store = &mut *opened.store;
    write(store, &batch_of(1, 1..=70));
    let mut batch = Batch::new();
    batch.push(None, None, [configuration(1, 71, three.encode())].into());
    batch.push(None, None, entries(1, 72..=90));
    batch.push(None, None, [configuration(1, 91, four.encode())].into());
    write(store, &batch);
    drop(opened);
    assert_eq!(recovered(), [(71, three.clone()), (91, four.clone())]);
    let mut opened = open(disk);
    let store = &mut *opened.store;
    write(store, &cut(92));
    let mut batch = cut(91);
    let follows = [configuration(2, 91, two.encode()), entry(2, 92)];
    batch.push(None, None, follows.into());
    write(store, &batch);
    drop(opened);
    assert_eq!(recovered(), [(71, three.clone()), (91, two)]);
    write(&mut *self::store(disk), &cut(80));
    assert_eq!(recovered(), [(71, three)]);
    write(&mut *self::store(disk), &cut(71));
    assert_eq!(recovered(), []);
}

pub(super) fn no_configuration_is_named(disk: &Disk) {
    let mut store = store(disk);
    let mut batch = batch_of(1, 1..=4);
    batch.push(None, None, [configuration(1, 5, "nobody".into())].into());
    write(&mut *store, &batch);
    drop(store);
    match disk(Some(NODE)).expect_err("no configuration") {
        OpenError::Damaged {
            cause:
                StorageError::Damaged {
                    item: Item::Entry(index),
                    damage: Damage::Configuration(_),
                    ..
                },
            ..
        } => assert_eq!(index, LogIndex(5)),
        error => panic!("{error}"),
    }
}

pub(super) fn reads_are_bounded(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(1, 1..=150));
    write(&mut *store, &batch_of(1, 151..=151));
    let reader = store.reader();
    let read = |from, through, bytes_max| {
        let entries = reader.read(LogIndex(from), LogIndex(through), bytes_max);
        let indexes = entries.expect("reads").into_iter();
        indexes.map(|entry| entry.id.index.0).collect::<Vec<_>>()
    };
    assert_eq!(read(1, 1, usize::MAX), [1]);
    assert_eq!(read(60, 130, usize::MAX), (60..=130).collect::<Vec<_>>());
    assert_eq!(read(150, 999, usize::MAX), [150, 151]);
    assert_eq!(read(7, 9, 0), [7], "at least one");
    let one = entry(1, 100).size_bytes();
    assert_eq!(read(100, 999, one), [100], "the sum is reached");
    assert_eq!(read(100, 999, one + 1), [100, 101]);
    assert_eq!(read(100, 999, 3 * one), [100, 101, 102]);
}

pub(super) fn reads_that_fail(disk: &Disk) {
    let mut store = store(disk);
    let reader = store.reader();
    let read = |from, through| reader.read(LogIndex(from), LogIndex(through), usize::MAX);
    let missing = |result: Result<Vec<Entry>, StorageError>| match result {
        Err(StorageError::Missing { index, last }) => (index.0, last.0),
        other => panic!("not missing: {other:?}"),
    };
    assert_eq!(missing(read(1, 1)), (1, 0));
    write(&mut *store, &batch_of(1, 1..=100));
    assert_eq!(missing(read(101, 200)), (101, 100));
    assert!(matches!(read(5, 4), Err(StorageError::EmptyRange { .. })));
    let first = LogIndex(1);
    assert!(matches!(read(0, 4), Err(StorageError::Compacted { first: f }) if f == first));
}

pub(super) fn entries_keep_their_bytes(disk: &Disk) {
    let lengths = [0, 1, 256, 70_000, 64 << 10, 0, 3];
    let kinds = [EntryKind::Birth, EntryKind::Noop, EntryKind::Command];
    let entries: Arc<[Entry]> = lengths
        .iter()
        .zip(1..)
        .map(|(&length, index)| {
            let data = (0..length)
                .map(|byte| (byte % 251) as u8)
                .collect::<Vec<_>>();
            let kind = kinds[length % kinds.len()];
            Entry::new(Term(2), LogIndex(index), kind, Bytes::from(data))
        })
        .collect();
    let mut store = store(disk);
    let mut batch = Batch::new();
    batch.push(None, None, entries.clone());
    write(&mut *store, &batch);
    assert_log(store, disk, &entries);
}

pub(super) fn gap_is_refused(disk: &Disk) {
    let mut store = store(disk);
    write(&mut *store, &batch_of(2, 1..=2));
    let error = store.write(&batch_of(2, 4..=4)).expect_err("a gap");
    assert!(
        matches!(error, StorageError::Refused(Misfit::Gap { .. })),
        "{error}"
    );
    let error = store.write(&batch_of(2, 3..=3)).expect_err("poisoned");
    assert!(
        matches!(error, StorageError::Refused(Misfit::Gap { .. })),
        "{error}"
    );
    assert!(store.close().is_err());
    drop(store);
    let mut store = self::store(disk);
    let error = store.write(&batch_of(1, 3..=3)).expect_err("a lower term");
    assert!(
        matches!(error, StorageError::Refused(Misfit::Gap { .. })),
        "{error}"
    );
    drop(store);
    assert_log(self::store(disk), disk, &entries(2, 1..=2));
}
