//! The frame around every stored value: format version, checksum, body.
//!
//! ```text
//! 0      version, one byte
//! 1..5   crc32c of the value's key, the version and the body; big-endian, as all numbers here
//! 5..    body
//! ```
//!
//! Invariants:
//! - Every version keeps this frame, so that a newer version is told from a damaged value.
//! - A value found under another key than it was written under does not match its checksum.

use crate::Damage;

/// The version that this program writes, and the newest that it reads.
pub(crate) const VERSION: u8 = 1;
/// What goes before a body.
pub(crate) const HEADER_LEN: usize = 5;

/// Begins a value in `out`, which is emptied: the body goes behind, then [`finish`] is called.
pub(crate) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
}

/// Completes the value whose body was written behind [`begin`].
pub(crate) fn finish(key: &[u8], value: &mut [u8]) {
    let sum = checksum(key, value).to_be_bytes();
    value[1..HEADER_LEN].copy_from_slice(&sum);
}

/// The body of a value found under `key`.
pub(crate) fn open<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], Damage> {
    let (header, body) = value
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Damage::Length)?;
    let [version, sum @ ..] = *header;
    if u32::from_be_bytes(sum) != checksum(key, value) {
        return Err(Damage::Checksum);
    }
    if version > VERSION {
        let (found, known) = (version, VERSION);
        return Err(Damage::NewerVersion { found, known });
    }
    Ok(body)
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), &value[..1]);
    crc32c::crc32c_append(sum, &value[HEADER_LEN..])
}

/// Reads a body field by field.
pub(crate) struct Fields<'v>(pub(crate) &'v [u8]);

impl<'v> Fields<'v> {
    /// All that was not read yet.
    pub(crate) fn rest(&mut self) -> &'v [u8] {
        std::mem::take(&mut self.0)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Length)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        self.take().map(u8::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Damage> {
        self.take().map(u128::from_be_bytes)
    }

    /// An optional number: a byte that is 1 if there is one, and the number or 0.
    pub(crate) fn option_u64(&mut self) -> Result<Option<u64>, Damage> {
        let present = self.u8()?;
        let number = self.u64()?;
        Ok((present == 1).then_some(number))
    }
}

/// Writes what [`Fields::option_u64`] reads.
pub(crate) fn put_option_u64(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    out.extend_from_slice(&number.unwrap_or(0).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &[u8], body: &[u8]) -> Vec<u8> {
        let mut value = vec![1, 2, 3];
        begin(&mut value);
        value.extend_from_slice(body);
        finish(key, &mut value);
        value
    }

    #[test]
    fn the_bytes_are_frozen() {
        assert_eq!(sealed(b"key", b"body"), b"\x01\x1a\xdb\x11\x29body");
    }

    #[test]
    fn any_flipped_bit_and_any_other_key_is_noticed() {
        let value = sealed(b"key", b"body");
        assert_eq!(open(b"key", &value), Ok(b"body".as_slice()));
        assert_eq!(open(b"kez", &value), Err(Damage::Checksum));
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(b"key", &damaged), Err(Damage::Checksum), "bit {bit}");
        }
        assert_eq!(open(b"key", &value[..4]), Err(Damage::Length));
    }

    #[test]
    fn a_newer_version_is_named_and_not_taken_for_damage() {
        let mut value = sealed(b"key", b"body");
        value[0] = VERSION + 1;
        finish(b"key", &mut value);
        let (found, known) = (VERSION + 1, VERSION);
        assert_eq!(
            open(b"key", &value),
            Err(Damage::NewerVersion { found, known })
        );
    }
}
