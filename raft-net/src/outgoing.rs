//! What a peer is sent: bytes for a wire, or the frame itself where there is none between the two.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::check::Content;
use crate::queue::Queue;
use crate::{EncodedFrame, Frame};

/// A frame on its way to one peer. What it costs in the queues is about the same in either form.
#[derive(Debug)]
pub struct Outgoing {
    pub(crate) form: Form,
    pub(crate) len: usize,
    pub(crate) urgent: bool,
}

#[derive(Debug)]
pub(crate) enum Form {
    Encoded(EncodedFrame),
    /// As it is, for a peer in this process.
    Whole(Frame),
}

impl Outgoing {
    pub(crate) fn within_process(frame: Frame, content: Content, frame_len_max: usize) -> Self {
        Self {
            form: Form::Whole(frame),
            // An estimate, and what is no longer than a frame may be is taken for none that is.
            len: content.len_max().min(frame_len_max),
            urgent: content.kind.is_urgent(),
        }
    }
}

impl From<EncodedFrame> for Outgoing {
    fn from(frame: EncodedFrame) -> Self {
        Self {
            len: frame.len(),
            urgent: frame.is_urgent(),
            form: Form::Encoded(frame),
        }
    }
}

/// A frame handed over within the process. It counts as waiting until it is [taken](Self::take).
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) frame: Frame,
    pub(crate) len: usize,
    /// Where it counts, and for which of its connections.
    pub(crate) queue: Arc<Queue>,
    pub(crate) connection: u64,
}

impl Handed {
    pub(crate) fn take(self) -> Frame {
        self.queue.taken(self.connection, self.len);
        self.frame
    }
}

/// Without a bound of its own: what it holds is bounded by the queue in which that counts.
pub(crate) type Handing = mpsc::UnboundedSender<Handed>;
pub(crate) type Handings = mpsc::UnboundedReceiver<Handed>;
