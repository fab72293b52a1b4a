//! Frames as nobody who works would send them, made byte by byte: a header, and a body of MessagePack.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_bytes::ByteBuf;

/// The kinds of frames, by the number that travels.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const WELCOME: u8 = 2;
    pub(crate) const REFUSE: u8 = 3;
    pub(crate) const SNAPSHOT_HELLO: u8 = 4;
    pub(crate) const CONFIRM: u8 = 6;
    pub(crate) const VISIT: u8 = 7;
    pub(crate) const APPEND_ENTRIES: u8 = 16;
    pub(crate) const HEARTBEAT: u8 = 17;
    pub(crate) const HEARTBEAT_RESPONSE: u8 = 18;
    pub(crate) const REQUEST_VOTE: u8 = 32;
    pub(crate) const VOTE_RESPONSE: u8 = 33;
    pub(crate) const APPEND_ACCEPTED: u8 = 34;
    pub(crate) const ANSWERS: u8 = 49;
    pub(crate) const SNAPSHOT_OFFER: u8 = 64;
    pub(crate) const SNAPSHOT_WANTED: u8 = 65;
    pub(crate) const SNAPSHOT_CHUNK: u8 = 66;
}

/// The bytes of a frame's header.
pub(crate) const HEADER_LEN: usize = 24;
/// The longest time that a node may take for what it does at once.
const AT_ONCE: Duration = Duration::from_secs(8);

/// A body on its way: MessagePack, value by value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    /// An array of so many values, which follow.
    pub(crate) fn array(len: u32) -> Self {
        Self::default().list(len)
    }

    pub(crate) fn list(mut self, len: u32) -> Self {
        self.0.push(0xdd);
        self.0.extend(len.to_be_bytes());
        self
    }

    pub(crate) fn uint(mut self, number: u64) -> Self {
        self.0.push(0xcf);
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn uints(self, numbers: &[u64]) -> Self {
        numbers.iter().fold(self, |body, number| body.uint(*number))
    }

    pub(crate) fn bin(mut self, bytes: &[u8]) -> Self {
        self.0.push(0xc6);
        self.0.extend((bytes.len() as u32).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// Nothing, if they are none.
    pub(crate) fn bin_or_nil(mut self, bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            self.0.push(0xc0);
            return self;
        }
        self.bin(bytes)
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.push(0xdb);
        self.0.extend((text.len() as u32).to_be_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    pub(crate) fn flag(mut self, is: bool) -> Self {
        self.0.push(if is { 0xc3 } else { 0xc2 });
        self
    }

    /// So many arrays of one value, each in the one before.
    pub(crate) fn nested(mut self, deep: usize) -> Self {
        self.0.extend(std::iter::repeat_n(0x91, deep));
        self.0.push(0xc0);
        self
    }

    /// The whole frame.
    pub(crate) fn frame(&self, kind: u8) -> Vec<u8> {
        frame(version(kind), kind, self.0.len() as u32, &self.0)
    }
}

/// The version that frames of this kind carry.
fn version(kind: u8) -> u8 {
    u8::from(kind >= kind::APPEND_ENTRIES)
}

/// A frame whose header says what it is told to; the checksum is right.
pub(crate) fn frame(version: u8, kind: u8, len: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
    frame.extend(b"rAFt");
    frame.extend([version, kind, 0, 0]);
    frame.extend(0_u64.to_be_bytes());
    frame.extend(len.to_be_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&frame), body);
    frame.extend(sum.to_be_bytes());
    frame.extend(body);
    frame
}

/// What a side says of itself in the handshake.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) versions: (u64, u64),
    /// Empty if it is not born.
    pub(crate) cluster: Vec<u8>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) incarnation: Vec<u8>,
    pub(crate) starts: u64,
    pub(crate) run: u64,
    /// The incarnation that it knows the other side by.
    pub(crate) known: Vec<u8>,
    /// The term that its disk held, and the term and index of its last entry.
    pub(crate) held: [u64; 3],
    pub(crate) members: Vec<u64>,
    pub(crate) address: String,
    pub(crate) extra: Vec<u8>,
}

type Fields = (
    u64,
    u64,
    Option<ByteBuf>,
    u64,
    u64,
    ByteBuf,
    u64,
    u64,
    Option<ByteBuf>,
    u64,
    u64,
    u64,
    Vec<u64>,
    String,
    ByteBuf,
);

impl Introduction {
    /// What node 3 might say to `to`, by somebody who knows nothing of the cluster.
    pub(crate) fn nobodys(to: u64) -> Self {
        Self {
            versions: (1, 1),
            cluster: vec![1; 16],
            from: 3,
            to,
            incarnation: vec![2; 16],
            starts: 1,
            run: 1,
            known: vec![3; 16],
            held: [0; 3],
            members: vec![1, 2, 3],
            address: String::new(),
            extra: Vec::new(),
        }
    }

    /// As a frame of this kind.
    pub(crate) fn frame(&self, kind: u8) -> Vec<u8> {
        let body = Body::array(15)
            .uints(&[self.versions.0, self.versions.1])
            .bin_or_nil(&self.cluster)
            .uints(&[self.from, self.to])
            .bin(&self.incarnation)
            .uints(&[self.starts, self.run])
            .bin(&self.known)
            .uints(&self.held)
            .list(self.members.len() as u32)
            .uints(&self.members)
            .text(&self.address)
            .bin(&self.extra);
        body.frame(kind)
    }

    /// What says back the number that this `Welcome` asks for.
    pub(crate) fn confirm(&self) -> Result<Vec<u8>> {
        let number = self.extra.first_chunk().context("it asks for nothing")?;
        let body = Body::array(1).uint(u64::from_be_bytes(*number));
        Ok(body.frame(kind::CONFIRM))
    }

    /// Reads the body of one that a born node sent.
    pub(crate) fn read(body: &[u8]) -> Result<Self> {
        let fields: Fields = rmp_serde::from_slice(body).context("an introduction")?;
        let (min, max, cluster, from, to, incarnation, starts, run, known, ..) = fields;
        let (term, last_term, last_index) = (fields.9, fields.10, fields.11);
        let (members, address, extra) = (fields.12, fields.13, fields.14);
        Ok(Self {
            versions: (min, max),
            cluster: cluster.context("it is not born")?.into_vec(),
            from,
            to,
            incarnation: incarnation.into_vec(),
            starts,
            run,
            known: known.map(ByteBuf::into_vec).unwrap_or_default(),
            held: [term, last_term, last_index],
            members,
            address,
            extra: extra.into_vec(),
        })
    }
}

/// Connects; every wait on the connection ends.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, AT_ONCE).context("connect")?;
    stream.set_read_timeout(Some(AT_ONCE))?;
    stream.set_write_timeout(Some(AT_ONCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The next frame: its kind and its body.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).context("a frame's header")?;
    ensure!(&header[..4] == b"rAFt", "what came is no frame");
    let len = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).context("a frame's body")?;
    Ok((header[5], body))
}

/// Sends `bytes`, which the other side may not read to their end.
pub(crate) fn send(stream: &mut TcpStream, bytes: &[u8]) {
    // A refusal is seen when the end is waited for.
    let _ = stream.write_all(bytes);
}

/// Reads until the other side has ended the connection.
pub(crate) fn wait_end(stream: &mut TcpStream) -> Result<Duration> {
    let started = Instant::now();
    let mut sink = vec![0; 16 << 10];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => break,
            Ok(_) if started.elapsed() < AT_ONCE => {}
            Ok(_) => bail!("it goes on talking"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error).context("wait for the end of a connection"),
        }
    }
    // It is over on both sides.
    let _ = stream.shutdown(Shutdown::Both);
    Ok(started.elapsed())
}
