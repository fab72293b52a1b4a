//! Frames made by hand, as somebody with another program would make them: nothing here comes from raft-net.
//!
//! A header is magic `rAFt`, version, kind, flags (2 bytes), group (8), length of the body (4), crc32c of all
//! before it and the body (4), in big-endian.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) const HELLO: u8 = 1;
pub(crate) const WELCOME: u8 = 2;
pub(crate) const REFUSE: u8 = 3;
pub(crate) const CONFIRM: u8 = 6;

/// Who the stranger says it is: protocol versions, and the ids of itself and of whom it wants. Its disk is empty.
pub(crate) fn introduction(versions: (u8, u8), from: u64, to: u64) -> Vec<u8> {
    let incarnation = bytes16(0x5744_5744);
    let body = (
        versions.0,
        versions.1,
        None::<u8>,
        from,
        to,
        Bytes(&incarnation),
        1_u64,
        99_u64,
        None::<u8>,
        0_u64,
        0_u64,
        0_u64,
        [from.min(to), from.max(to)],
        "",
        Bytes(b""),
    );
    rmp_serde::to_vec(&body).unwrap()
}

pub(crate) fn frame(version: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = b"rAFt".to_vec();
    frame.extend([version, kind, 0, 0]);
    frame.extend([0; 8]);
    frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), body);
    frame.extend(crc.to_be_bytes());
    frame.extend(body);
    frame
}

/// Kind and body of the next frame.
pub(crate) fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 24];
    stream.read_exact(&mut header)?;
    assert_eq!(&header[..4], b"rAFt");
    let len = u32::from_be_bytes(header[16..20].try_into().unwrap());
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..20]), &body);
    assert_eq!(header[20..], crc.to_be_bytes());
    Ok((header[5], body))
}

/// The text of a refusal: an array of its number, its text and its details, of which only the text is read.
pub(crate) fn refusal(body: &[u8]) -> String {
    let (_, text, _): (u8, String, serde::de::IgnoredAny) = rmp_serde::from_slice(body).unwrap();
    text
}

/// Writes all, if the other side takes it, and reads until it closes the connection. Fails if it does not.
pub(crate) fn closes_after(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    // It may be closed in the middle of what is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the connection was not closed: {error}"),
    }
    answer
}

fn bytes16(number: u128) -> [u8; 16] {
    number.to_be_bytes()
}

struct Bytes<'a>(&'a [u8]);

impl serde::Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
