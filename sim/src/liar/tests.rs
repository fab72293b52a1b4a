use std::path::Path;

use crate::liar;
use crate::random::Random;

/// What a fuzzer found worth keeping.
#[test]
fn the_corpus_of_steps() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/step");
    let inputs = std::fs::read_dir(corpus).unwrap();
    let inputs = inputs.map(|input| std::fs::read(input.unwrap().path()).unwrap());
    let count = inputs.map(|input| liar(&input)).count();
    assert!(count > 10, "a corpus of {count} inputs");
}

/// What nobody chose.
#[test]
fn ten_thousand_random_lives() {
    let mut random = Random::new(6);
    for _ in 0..10_000 {
        let len = random.below(600);
        let bytes: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
        liar(&bytes);
    }
}
