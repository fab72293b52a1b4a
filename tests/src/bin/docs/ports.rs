//! Ports of this run's own in the place of those that the documents name, so that two runs do not collide.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Of 70xx and of 80xx as many as documents may name: from 7000 to 7019, and from 8000 to 8019.
const EACH: u16 = 20;
const NAMED: [u16; 2] = [7000, 8000];
/// Below 32768, where Linux's range of source ports begins: a dial could be given the very port that it dials.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// Where the documents' ports are in this run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    base: u16,
}

impl Ports {
    /// Ports that nobody listens on.
    pub(crate) fn free() -> Result<Self> {
        let blocks = (LAST - FIRST) / (2 * EACH);
        let start = std::process::id() % u32::from(blocks);
        let base = |n: u16| FIRST + (start as u16 + n) % blocks * 2 * EACH;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        (0..blocks)
            .map(base)
            .find(|base| (*base..base + 2 * EACH).all(is_free))
            .map(|base| Self { base })
            .context("no free ports")
    }

    /// Where 7001 is.
    pub(crate) fn first(self) -> u16 {
        self.base + 1
    }

    /// `text` with its ports moved: each number of four digits that is one of them.
    pub(crate) fn moved(self, text: &str) -> String {
        let mut moved = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let word = &rest[start..];
            let len = word
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(word.len());
            moved.push_str(&rest[..start]);
            match self.of(&word[..len]) {
                Some(port) => moved.push_str(&port.to_string()),
                None => moved.push_str(&word[..len]),
            }
            rest = &word[len..];
        }
        moved.push_str(rest);
        moved
    }

    fn of(self, word: &str) -> Option<u16> {
        let port: u16 = word.parse().ok()?;
        (0..).zip(NAMED).find_map(|(n, named)| {
            let place = port.checked_sub(named).filter(|place| *place < EACH)?;
            Some(self.base + n * EACH + place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_documents_are_moved_and_nothing_else() {
        let ports = Ports { base: 10_040 };
        assert_eq!(
            ports.moved("1=127.0.0.1:7001,2=[::1]:7019/8000 7020 x7001 17001 7001, ü 8001"),
            "1=127.0.0.1:10041,2=[::1]:10059/10060 7020 x7001 17001 10041, ü 10061"
        );
    }

    #[test]
    fn what_is_given_is_free() {
        let ports = Ports::free().unwrap();
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.first())).unwrap();
        assert_ne!(Ports::free().unwrap().first(), ports.first());
        drop(bound);
    }
}
