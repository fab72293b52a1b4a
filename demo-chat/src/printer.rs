//! Writes what is delivered to the standard output: a batch at a time, in order, on a thread of its own, for a
//! reader may be slow. It then falls behind by itself; the node goes on.

use std::io::{self, Write};
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use raft_actor::{Delivered, DeliveredBatch};
use tokio::sync::watch;

use crate::chat::{self, Message};

/// How far the standard output has got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Printed {
    /// The index of the last message that was written.
    pub(crate) through: u64,
    /// Why nothing more can be.
    pub(crate) failed: Option<Arc<io::Error>>,
}

/// The subscriber.
pub(crate) struct Printer<W> {
    output: W,
    printed: watch::Sender<Printed>,
}

impl<W> Printer<W> {
    pub(crate) fn new(output: W, printed: watch::Sender<Printed>) -> Self {
        Self { output, printed }
    }
}

impl<W: Write + Unpin + 'static> Actor for Printer<W> {
    type Context = Context<Self>;
}

impl<W: Write + Unpin + 'static> Handler<DeliveredBatch> for Printer<W> {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(batch): DeliveredBatch, _: &mut Self::Context) {
        if self.printed.borrow().failed.is_some() {
            return;
        }
        let Some(last) = batch.last().map(|delivered| delivered.index.0) else {
            return;
        };
        let lines: String = batch.iter().map(line).collect();
        let written = self
            .output
            .write_all(lines.as_bytes())
            .and_then(|()| self.output.flush());
        self.printed.send_modify(|printed| match written {
            Ok(()) => printed.through = last,
            Err(error) => printed.failed = Some(Arc::new(error)),
        });
    }
}

/// Answered when all is written that was handed over before.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Flush;

impl<W: Write + Unpin + 'static> Handler<Flush> for Printer<W> {
    type Result = ();

    fn handle(&mut self, Flush: Flush, _: &mut Self::Context) {}
}

/// `index<TAB>from<TAB>text<NEWLINE>`.
fn line(delivered: &Delivered) -> String {
    let Message { from, text } = Message::decode_or_describe(&delivered.command);
    let mut line = format!("{}\t", delivered.index);
    line.reserve(from.len() + text.len() + 2);
    chat::escape_into(&mut line, &from);
    line.push('\t');
    chat::escape_into(&mut line, &text);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use raft_actor::{LogIndex, Term};

    use super::*;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn delivered(index: u64, command: impl Into<Vec<u8>>) -> Delivered {
        Delivered {
            replay: false,
            index: LogIndex(index),
            term: Term(1),
            command: command.into().into(),
        }
    }

    #[test]
    fn a_delivery_is_one_line_of_three_fields() {
        assert_eq!(
            line(&delivered(7, Message::encode("a\tda", "x\ny\\"))),
            "7\ta\\tda\tx\\ny\\\\\n"
        );
        assert_eq!(
            line(&delivered(8, "\x1b")),
            "8\t?\tno chat message, 1 bytes: \\\\x1b\n"
        );
    }

    #[actix::test]
    async fn a_closed_output_is_told_once() {
        let (told, mut printed) = watch::channel(Printed::default());
        let printer = Printer::new(Broken, told).start();
        for index in 1..3 {
            printer
                .send(DeliveredBatch(Arc::new(vec![delivered(index, "x")])))
                .await
                .unwrap();
        }
        printer.send(Flush).await.unwrap();
        let printed = printed.borrow_and_update().clone();
        assert_eq!(printed.failed.unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(printed.through, 0);
    }
}
