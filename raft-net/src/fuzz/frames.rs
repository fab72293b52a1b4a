//! Frames of an established connection.

use raft_core::{Config, Effect, Envelope, Input, Message, NodeId, Raft, Recovered, Violation};

use super::{Choices, Pieces, heal, raw};
use crate::decode::{DecodeError, FrameDecoder, RawFrame, decode_body, decode_frame};
use crate::header::HEADER_LEN;
use crate::snapshot::wire::SnapshotFrame;
use crate::wire::PingBody;
use crate::{EncodeError, Frame, FrameEncoder, FrameKind, Limits, VISIT_ANSWER_LEN_MAX, visit};

/// How many lengths of pieces stand before the stream.
const PIECES: usize = 7;
/// What a buffer that never held more than a few bytes may take at once all the same.
const BUFFER_MIN: usize = 64 << 10;

/// `FrameDecoder`: bytes in pieces decode to what they decode to in one, and no room is made for what did not
/// come.
///
/// Bit 0 of the first byte says whether the checksums are made right, bit 1 whether it is a handshake; then come
/// the lengths of the pieces, then the stream.
pub fn frame_pieces(data: &[u8]) {
    let Some(([flags, lengths @ ..], stream)) = data.split_first_chunk::<{ 1 + PIECES }>() else {
        return;
    };
    let mut stream = stream.to_vec();
    if flags & 1 != 0 {
        heal(&mut stream);
    }
    let decoder = || match flags & 2 {
        0 => FrameDecoder::new(&Limits::default()),
        _ => FrameDecoder::for_handshake(&Limits::default()),
    };
    let whole = read(decoder(), Pieces::new(&stream, &[]), usize::MAX);
    let pieces = read(
        decoder(),
        Pieces::new(&stream, lengths),
        usize::from(u8::MAX),
    );
    assert_eq!(whole, pieces, "in pieces it is something else");
}

/// The frames of a stream, and the error that ended it.
#[derive(Debug, PartialEq)]
struct Read {
    frames: Vec<(FrameKind, Vec<u8>)>,
    error: Option<String>,
}

fn read(mut decoder: FrameDecoder, mut stream: Pieces<'_>, piece_max: usize) -> Read {
    let (mut frames, mut fed) = (Vec::new(), 0);
    loop {
        let piece = match piece_max {
            usize::MAX => std::mem::take(&mut stream.bytes),
            max => stream.next(max),
        };
        if piece.is_empty() {
            let error = None;
            return Read { frames, error };
        }
        decoder.feed(piece);
        fed += piece.len();
        loop {
            let room = decoder.buffer_mut().capacity();
            assert!(room <= BUFFER_MIN + 2 * fed, "room for {room} of {fed}");
            match decoder.next_raw() {
                Ok(Some(RawFrame { kind, body })) => frames.push((kind, body.to_vec())),
                Ok(None) => break,
                Err(error) => {
                    let error = Some(error.to_string());
                    return Read { frames, error };
                }
            }
        }
    }
}

/// The body of any kind of frame: what decodes encodes to the same frame again, and is nothing that the core
/// could choke on.
///
/// The first byte is the number of the kind; the rest is the body.
pub fn message(data: &[u8]) {
    let mut choices = Choices(data);
    let Some(kind) = choices.kind() else { return };
    let frame = raw(kind, choices.0);
    if let Ok(decoded) = decode_frame(kind, &frame.body) {
        assert!(!kind.is_handshake());
        same_again(&decoded);
        if let Frame::Raft(message) = decoded {
            taken_by_the_core(message);
        }
    }
    if matches!(kind, FrameKind::Ping | FrameKind::Pong | FrameKind::Confirm) {
        let _ = decode_body::<PingBody>(kind, &frame.body);
    }
    if matches!(kind, FrameKind::Visit | FrameKind::VisitAnswer)
        && let Ok(data) = visit::decode(&frame, VISIT_ANSWER_LEN_MAX)
    {
        let again = visit::encode(kind, &data, VISIT_ANSWER_LEN_MAX);
        let again = again.expect("what was decoded can be encoded");
        let body = raw(kind, &again.as_bytes()[HEADER_LEN..]);
        assert_eq!(visit::decode(&body, VISIT_ANSWER_LEN_MAX).ok(), Some(data));
    }
    if let Ok(decoded) = SnapshotFrame::decode(&frame) {
        snapshot_same_again(&decoded);
    }
}

fn same_again(frame: &Frame) {
    let limits = Limits::default();
    let encoded = FrameEncoder::new(&limits).encode(frame);
    let encoded = encoded.expect("what was decoded can be encoded");
    let mut decoder = FrameDecoder::new(&limits);
    decoder.feed(encoded.as_bytes());
    let again = decoder.next_frame().expect("what was encoded can be read");
    assert_eq!(again.as_ref(), Some(frame));
}

fn snapshot_same_again(frame: &SnapshotFrame) {
    let mut encoder = FrameEncoder::for_snapshots();
    let encoded = match frame.encode(&mut encoder) {
        Ok(encoded) => encoded,
        // What a member may say and nobody takes. It is judged when it has come whole.
        Err(EncodeError::Offer { .. }) => return,
        Err(error) => panic!("what was decoded cannot be encoded: {error}"),
    };
    let mut decoder = FrameDecoder::new(&Limits::default());
    decoder.feed(encoded.as_bytes());
    let again = decoder.next_raw().map(Option::unwrap);
    let again = again.and_then(|raw| SnapshotFrame::decode(&raw));
    assert_eq!(
        again.map_err(|error: DecodeError| error.to_string()),
        Ok(frame.clone())
    );
}

fn taken_by_the_core(message: Message) {
    let (id, from) = (NodeId(1), NodeId(2));
    let config = Config::new(id, [1, 2, 3].map(NodeId));
    let mut core = Raft::new(config, Recovered::default()).expect("a new node");
    let to = id;
    let effects = core.step(Input::Received(Envelope { from, to, message }));
    let broken = |effect: &&Effect| matches!(effect, Effect::Halt(Violation::Invariant(_)));
    assert_eq!(effects.iter().find(broken), None);
    assert_eq!(core.invariants(), Ok(()));
}
