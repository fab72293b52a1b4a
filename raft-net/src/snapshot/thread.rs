//! A thread for one transfer.
//!
//! Files block, a transfer lasts long and there are few at once; so each has a thread, on which it may block
//! as it likes, and a runtime for its socket and its limits of time. The thread of the node does none of the
//! copying and the checksums, and its heartbeats wait for none of it.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Builder;

use tracing::Instrument;

/// Runs `work` on a thread called `name` (of which the system shows 15 bytes), and then `done` with what came of it: nothing, if it panicked. All
/// that `work` held is dropped by then.
///
/// # Errors
/// The system gives no thread. Then both are dropped.
pub(super) fn run<F: Future>(
    name: String,
    work: impl FnOnce() -> F + Send + 'static,
    done: impl FnOnce(Option<io::Result<F::Output>>) + Send + 'static,
) -> io::Result<()> {
    let span = tracing::Span::current();
    Builder::new().name(name).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(async { work().instrument(span).await }))
        }));
        done(result.ok());
    })?;
    Ok(())
}
