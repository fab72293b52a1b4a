//! Ending a connection from outside, with a reason.
//!
//! Invariant: the first reason given is the one that counts.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::{Ending, Refusal};

/// Why a connection is ended from outside.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    Replaced,
    Contradicted(Refusal),
    Evicted,
}

/// Ends one connection. Clones end the same one.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    token: CancellationToken,
    why: Arc<OnceLock<Why>>,
}

impl Cut {
    /// A cut that also falls, without a reason, when `stop` is cancelled.
    pub(crate) fn below(stop: &CancellationToken) -> Self {
        Self {
            token: stop.child_token(),
            why: Arc::default(),
        }
    }

    pub(crate) fn cut(&self, why: Why) {
        // A reason that came first stays.
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// Waits for the cut.
    pub(crate) async fn fallen(&self) -> Ending {
        self.token.cancelled().await;
        match self.why.get() {
            None => Ending::Stopped,
            Some(Why::Replaced) => Ending::Replaced,
            Some(Why::Evicted) => Ending::Evicted,
            Some(Why::Contradicted(refusal)) => Ending::Contradicted(refusal.clone()),
        }
    }

    /// Runs `work` unless the cut falls first; a cut that has fallen stops it at once.
    pub(crate) async fn guard<T>(
        &self,
        work: impl Future<Output = Result<T, Ending>>,
    ) -> Result<T, Ending> {
        tokio::select! {
            biased;
            ending = self.fallen() => Err(ending),
            result = work => result,
        }
    }
}
