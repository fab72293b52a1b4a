//! The committed corpus, without a fuzzer.

use std::path::Path;

/// Runs `target` over its corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let inputs = std::fs::read_dir(corpus.join(name)).unwrap();
    let inputs = inputs.map(|input| std::fs::read(input.unwrap().path()).unwrap());
    let count = inputs.map(|input| target(&input)).count();
    assert!(count > 10, "a corpus of {count} inputs");
}

#[test]
fn frame_pieces() {
    replay("frame_pieces", super::frame_pieces);
}

#[test]
fn handshake() {
    replay("handshake", super::handshake);
}

#[test]
fn message() {
    replay("message", super::message);
}

#[test]
fn snapshot_chunk() {
    replay("snapshot_chunk", super::snapshot_chunk);
}
