//! The mark through torn slots, damage and lowering.

use super::*;

const NODE: NodeId = NodeId(7);
const INCARNATION: Incarnation = Incarnation(0xfeed);

fn claim(term: u64, position: (u64, u64)) -> Claim {
    Claim {
        starts: 1,
        records: 4,
        hard_state: HardState {
            term: Term(term),
            voted_for: Some(NodeId(2)),
        },
        position: id(position.0, position.1),
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

fn reopened(dir: &Path) -> Claim {
    Mark::open(dir).unwrap().unwrap().record().claim
}

fn overwrite(dir: &Path, slot: usize, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(dir.join(FILE)).unwrap();
    file.write_all_at(bytes, SLOT_AT[slot]).unwrap();
}

fn slot_claim(dir: &Path, slot: usize) -> Claim {
    let file = File::open(dir.join(FILE)).unwrap();
    read_slot(&file, SLOT_AT[slot]).unwrap().unwrap().1.claim
}

#[test]
fn a_new_mark_claims_nothing_and_a_missing_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Mark::open(dir.path()).unwrap().is_none());
    Mark::create(dir.path(), None, INCARNATION).unwrap();
    let record = Mark::open(dir.path()).unwrap().unwrap().record();
    assert_eq!((record.node, record.incarnation), (None, INCARNATION));
    assert_eq!(record.claim, Claim::default());
    assert!(!dir.path().join(FILE_NEW).exists());
}

#[test]
fn what_was_promised_or_noted_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut mark = Mark::create(dir.path(), Some(NODE), INCARNATION).unwrap();
    mark.promise(claim(3, (2, 9))).unwrap();
    assert_eq!(reopened(dir.path()), claim(3, (2, 9)));
    for index in 10..20 {
        mark.note(id(3, index)).unwrap();
        assert_eq!(reopened(dir.path()), claim(3, (3, index)));
    }
    mark.settle().unwrap();
    assert_eq!(reopened(dir.path()), claim(3, (3, 19)));
}

#[test]
fn notes_never_touch_the_slot_that_was_synced_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut mark = Mark::create(dir.path(), Some(NODE), INCARNATION).unwrap();
    for round in 1..=5 {
        mark.promise(claim(round, (round, 10 * round))).unwrap();
        let synced = 1 - mark.scratch;
        for step in 1..=3 {
            mark.note(id(round, 10 * round + step)).unwrap();
            assert_eq!(
                slot_claim(dir.path(), synced),
                claim(round, (round, 10 * round))
            );
        }
        // The power goes, and what was not synced is torn.
        overwrite(dir.path(), 1 - synced, &[0xaa; 100]);
        assert_eq!(reopened(dir.path()), claim(round, (round, 10 * round)));
    }
}

#[test]
fn a_mark_opened_over_a_torn_slot_writes_that_one_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut mark = Mark::create(dir.path(), Some(NODE), INCARNATION).unwrap();
    mark.promise(claim(1, (1, 1))).unwrap();
    let torn = mark.scratch;
    overwrite(dir.path(), torn, &[0; SLOT_LEN]);
    let mark = Mark::open(dir.path()).unwrap().unwrap();
    assert_eq!(mark.scratch, torn);
}

#[test]
fn lowering_reaches_both_slots() {
    let dir = tempfile::tempdir().unwrap();
    let mut mark = Mark::create(dir.path(), Some(NODE), INCARNATION).unwrap();
    mark.promise(claim(1, (1, 50))).unwrap();
    mark.note(id(1, 60)).unwrap();
    mark.lower(id(1, 40)).unwrap();
    assert_eq!(slot_claim(dir.path(), 0).position, id(1, 40));
    assert_eq!(slot_claim(dir.path(), 1).position, id(1, 40));
    mark.lower(id(1, 45)).unwrap();
    assert_eq!(
        reopened(dir.path()).position,
        id(1, 40),
        "nothing is raised"
    );
}

#[test]
fn two_bad_slots_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    Mark::create(dir.path(), Some(NODE), INCARNATION).unwrap();
    for slot in 0..2 {
        overwrite(dir.path(), slot, &[0; SLOT_LEN]);
    }
    let error = Mark::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::MarkDamaged { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(dir.path().join(FILE).to_str().unwrap())
    );
    File::create(dir.path().join(FILE)).unwrap();
    let error = Mark::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, OpenError::MarkDamaged { .. }),
        "an empty file: {error}"
    );
}

#[test]
fn a_newer_mark_is_refused_by_name_with_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let mark = Mark::create(dir.path(), Some(NODE), INCARNATION).unwrap();
    let mut slot = encode(9, &mark.record());
    slot[MAGIC.len()] = 2;
    sealed::finish(MAGIC, &mut slot[MAGIC.len()..]);
    overwrite(dir.path(), 1, &slot);
    let error = Mark::open(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn any_flipped_bit_of_a_slot_makes_it_bad() {
    let mark = Record {
        node: Some(NODE),
        incarnation: INCARNATION,
        claim: claim(5, (4, 1000)),
    };
    let slot: [u8; SLOT_LEN] = encode(3, &mark).try_into().unwrap();
    assert_eq!(decode(&slot), Ok((3, mark)));
    for bit in 0..SLOT_LEN * 8 {
        let mut damaged = slot;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_mark_is_given_to_a_node_in_both_slots() {
    let dir = tempfile::tempdir().unwrap();
    let mut mark = Mark::create(dir.path(), None, INCARNATION).unwrap();
    mark.promise_twice(Some(NODE), claim(2, (1, 5))).unwrap();
    drop(mark);
    let file = File::open(dir.path().join(FILE)).unwrap();
    for at in SLOT_AT {
        let (_, record) = read_slot(&file, at).unwrap().unwrap();
        assert_eq!((record.node, record.claim), (Some(NODE), claim(2, (1, 5))));
    }
}
