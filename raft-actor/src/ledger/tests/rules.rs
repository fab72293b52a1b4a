//! Each rule, by example.

use super::*;

#[test]
fn a_copy_is_answered_with_the_first_outcome() {
    let mut log = Log::new();
    let s = log.open(5000);
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.apply(&in_session(s, 2, 1)), applied(4));
    assert_eq!(log.apply(&in_session(s, 1, 1)), applied(2));
    assert_eq!(log.ran, [2, 4]);
    assert_eq!(log.ledger.lookup(id(s, 1)), Lookup::Settled(applied(2)));
    let suppressed = (1..=5).filter(|i| log.ledger.is_suppressed(LogIndex(*i)));
    assert_eq!(suppressed.collect::<Vec<_>>(), [3, 5]);
}
