//! Frozen bytes: logs and snapshots outlive the program that wrote them.

use std::sync::Arc;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Bytes {
    let hex: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.chunks(2).map(byte).collect()
}

/// Every envelope at log time 0x0102, and its bytes.
fn envelopes() -> [(Request, &'static str); 6] {
    let command = Bytes::from_static(b"hi");
    [
        (
            Request::Plain {
                command: command.clone(),
            },
            "01 0000000000000102 6869",
        ),
        (
            Request::Plain {
                command: Bytes::new(),
            },
            "01 0000000000000102",
        ),
        (
            Request::InSession {
                id: id(7, 300),
                low: 299,
                command,
            },
            "02 0000000000000102 0000000000000007 000000000000012c 000000000000012b 6869",
        ),
        (
            Request::Open { timeout_ms: 60_000 },
            "03 0000000000000102 000000000000ea60",
        ),
        (
            Request::Close {
                session: SessionId(7),
            },
            "04 0000000000000102 0000000000000007",
        ),
        (
            cancel(7, 300, 299),
            "05 0000000000000102 0000000000000007 000000000000012c 000000000000012b",
        ),
    ]
}

#[test]
fn envelopes_keep_their_bytes() {
    for (request, bytes) in envelopes() {
        let bytes = unhex(bytes);
        assert_eq!(envelope(&request, 0x0102), bytes, "{request:?}");
        assert_eq!(Request::decode(&bytes), Ok((0x0102, request)));
    }
}

#[test]
fn a_decoded_command_is_a_part_of_the_entry() {
    let data = envelope(&in_session(7, 1, 1), 5);
    let Ok((5, Request::InSession { command, .. })) = Request::decode(&data) else {
        panic!("not what was encoded");
    };
    assert_eq!(command.as_ptr(), data[33..].as_ptr());
}

#[test]
fn what_is_no_envelope_is_malformed() {
    let mut wrong = vec![
        Bytes::new(),
        unhex("00 0000000000000102"),
        unhex("06 0000000000000102 0000000000000007"),
        // No sequence 0, no timeout 0.
        envelope(&in_session(7, 0, 0), 1),
        envelope(&cancel(7, 0, 0), 1),
        envelope(&Request::Open { timeout_ms: 0 }, 1),
    ];
    for (request, bytes) in envelopes() {
        let (bytes, least) = (unhex(bytes), 9 + 24);
        let has_command = matches!(request, Request::Plain { .. } | Request::InSession { .. });
        let shortest = match request {
            Request::Plain { .. } => 9,
            Request::InSession { .. } => least,
            _ => bytes.len(),
        };
        wrong.extend((0..shortest).map(|cut| bytes.slice(..cut)));
        if !has_command {
            wrong.push(Bytes::from([&bytes[..], b"!"].concat()));
        }
    }
    for data in wrong {
        assert_eq!(Request::decode(&data), Err(Malformed), "{}", hex(&data));
    }
}

/// A ledger with one of each.
pub(super) fn one_of_each() -> Log {
    let mut log = Log::new();
    log.append(EntryKind::Birth, Bytes::from_static(b"born"), nothing());
    let a = log.open(5000);
    let b = log.at(1001).open(7000);
    log.answer(&in_session(a, 1, 1), Ok(Bytes::from_static(b"gone")));
    log.at(1002);
    log.answer(&in_session(a, 3, 2), Ok(Bytes::from_static(b"yes")));
    log.answer(&in_session(a, 2, 2), Err(Arc::from("no")));
    log.answer(&in_session(a, 3, 2), nothing());
    log.answer(&in_session(a, 5, 2), nothing());
    log.apply(&cancel(a, 6, 2));
    log.apply(&in_session(a, 6, 2));
    let huge = Ok(Bytes::from(vec![0; answers::ANSWERS_BYTES_MAX]));
    log.answer(&in_session(b, 2, 1), huge);
    log
}

#[test]
fn a_ledger_keeps_its_bytes() {
    let bytes = concat!(
        "01 ",
        "000000000000000b 0000000000000003 ",
        "00000000000003ea ",
        "4bf356f5cb3a1fb66b9f489f84e8250a ",
        "0000000000000001 0000000000000002 ",
        "0000000000000007 0000000000000007 ",
        "000000000000000a 000000000000000a ",
        "0000000000000002 ",
        "0000000000000002 0000000000001388 00000000000003ea 0000000000000002 0000000000000005 ",
        "03 0000000000000006 0000000000000003 0000000000000002 6e6f ",
        "02 0000000000000005 0000000000000003 0000000000000003 796573 ",
        "00 ",
        "01 0000000000000008 0000000000000003 ",
        "05 0000000000000009 0000000000000003 ",
        "0000000000000003 0000000000001b58 00000000000003ea 0000000000000001 0000000000000002 ",
        "00 ",
        "04 000000000000000b 0000000000000003 ",
    );
    let log = one_of_each();
    assert_eq!(hex(&log.ledger.encode()), hex(&unhex(bytes)));
    assert_eq!(Ledger::decode(&unhex(bytes)).unwrap(), log.ledger);
}
