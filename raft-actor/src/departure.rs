//! How the end of a peer's process is told from a link that broke.
//!
//! A process that dies has its connections ended by its host, and then nobody listens at its address. A link that breaks
//! does neither: what is sent into it is lost, or its dials find no answer. So three things are waited for: that our
//! connection was ended by the other side, that a dial after that was refused by its host, and that the connection on
//! which the peer spoke is read to its end. The last because what a leader said before it died may still wait in this
//! node's sockets: heard behind the news of its end, it would make the leader live once more, and this node wait for it.
//!
//! Invariants: a process is found to be gone at most once for each connection to it; whatever else happens to a
//! connection says nothing of the process.

/// What is known of a peer's end. See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Departure {
    /// The other side ended our connection, and has not answered since.
    reset: bool,
    /// And then its host refused a dial.
    refused: bool,
    /// The peer's own connection to this node is there.
    speaks: bool,
}

impl Departure {
    /// It has answered a dial, if only to turn this node away.
    pub(crate) fn connected(&mut self) {
        (self.reset, self.refused) = (false, false);
    }

    /// Our connection is lost; `reset` by the other side, or otherwise.
    pub(crate) fn lost(&mut self, reset: bool) {
        (self.reset, self.refused) = (reset, false);
    }

    /// A dial failed; `refused` by the peer's host, or otherwise.
    pub(crate) fn unreachable(&mut self, refused: bool) {
        // What another of its addresses says later takes nothing back.
        self.refused |= self.reset && refused;
    }

    /// The peer's dial was accepted.
    pub(crate) fn accepted(&mut self) {
        self.speaks = true;
    }

    /// All that the peer said on its connection has been handled.
    pub(crate) fn closed(&mut self) {
        self.speaks = false;
    }

    /// Whether the process is gone. True once; then it takes another connection.
    pub(crate) fn is_complete(&mut self) -> bool {
        let gone = self.reset && self.refused && !self.speaks;
        if gone {
            self.connected();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::Departure;

    type Happens = fn(&mut Departure);

    const RESET: Happens = |d| d.lost(true);
    const BROKEN: Happens = |d| d.lost(false);
    const REFUSED: Happens = |d| d.unreachable(true);
    const SILENT: Happens = |d| d.unreachable(false);
    const CONNECTED: Happens = Departure::connected;
    const ACCEPTED: Happens = Departure::accepted;
    const CLOSED: Happens = Departure::closed;

    /// How often the process was found to be gone.
    fn gone(happenings: &[Happens]) -> usize {
        let mut departure = Departure::default();
        let seen = happenings.iter().filter(|happens| {
            happens(&mut departure);
            departure.is_complete()
        });
        seen.count()
    }

    #[test]
    fn a_process_is_gone_when_it_was_reset_and_refused_and_read_to_its_end() {
        assert_eq!(gone(&[RESET, REFUSED]), 1);
        assert_eq!(gone(&[ACCEPTED, RESET, CLOSED, REFUSED]), 1);
        assert_eq!(gone(&[ACCEPTED, CLOSED, RESET, REFUSED]), 1);
        // What it said last is heard first.
        assert_eq!(gone(&[ACCEPTED, RESET, REFUSED]), 0);
        assert_eq!(gone(&[ACCEPTED, RESET, REFUSED, CLOSED]), 1);
        // It was heard to its end only behind a dial of another address.
        assert_eq!(gone(&[ACCEPTED, RESET, REFUSED, SILENT, CLOSED]), 1);
        // The host was still closing when it was dialled.
        assert_eq!(gone(&[RESET, SILENT, REFUSED]), 1);
    }

    #[test]
    fn nothing_less_says_so() {
        let all: [&[Happens]; 7] = [
            &[RESET],
            &[REFUSED],
            &[BROKEN, REFUSED],
            &[RESET, SILENT],
            &[RESET, CONNECTED, REFUSED],
            &[REFUSED, RESET],
            &[RESET, BROKEN, REFUSED],
        ];
        for (number, happenings) in all.iter().enumerate() {
            assert_eq!(gone(happenings), 0, "{number}");
        }
    }

    #[test]
    fn it_is_gone_once_until_it_was_there_again() {
        assert_eq!(gone(&[RESET, REFUSED, REFUSED, REFUSED]), 1);
        assert_eq!(gone(&[RESET, REFUSED, CONNECTED, RESET, REFUSED]), 2);
    }
}
