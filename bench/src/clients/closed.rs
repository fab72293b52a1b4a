//! The closed loop: each client asks, waits for the answer, and asks again.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Window;
use super::seen::Seen;

/// After an error: something is wrong, and hammering will not mend it.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs `clients` clients on this thread until the window closes. What is answered inside the window counts.
pub(super) fn run<F>(ask: impl Fn() -> F, clients: usize, window: Window) -> Result<Seen>
where
    F: Future<Output = Result<(), String>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(self::clients(ask, clients, window))
}

/// The same, on the thread on which it is polled.
pub(super) async fn clients<F>(ask: impl Fn() -> F, clients: usize, window: Window) -> Result<Seen>
where
    F: Future<Output = Result<(), String>>,
{
    let seen = RefCell::new(Seen::new()?);
    let loops = (0..clients).map(|_| client(&ask, window, &seen));
    // All on this thread: they share `seen`, and borrow from it only between awaits.
    // Without the runtime's budget for a task, which would have most of many clients asked in vain.
    tokio::task::unconstrained(futures_util::future::join_all(loops)).await;
    Ok(seen.into_inner())
}

async fn client<F>(ask: &impl Fn() -> F, window: Window, seen: &RefCell<Seen>)
where
    F: Future<Output = Result<(), String>>,
{
    let mut before = Instant::now();
    loop {
        let outcome = ask().await;
        let now = Instant::now();
        let failed = outcome.is_err();
        {
            let mut seen = seen.borrow_mut();
            match outcome {
                Ok(()) => {
                    let inside = window.contains(now);
                    seen.answered(inside);
                    if inside {
                        seen.took(now - before);
                    }
                }
                Err(error) => seen.failed(error),
            }
        }
        if now >= window.closes {
            return;
        }
        // It asks again as soon as it is answered: the same moment.
        before = now;
        if failed {
            tokio::time::sleep(PAUSE).await;
            before = Instant::now();
        }
    }
}
