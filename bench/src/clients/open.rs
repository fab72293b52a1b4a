//! The open loop: the n-th proposal is due at a moment that only the rate decides, and its latency counts from there.
//!
//! A closed loop stops asking while the system stalls, and so leaves out just the latencies that its users would have
//! seen (coordinated omission). Here a stall delays nobody's due moment:
//! - all that were due inside the window count, whenever they are answered;
//! - what could not even be sent before the window closed, because too much was on its way, counts with the time that it had
//!   waited by then, which is less than it would have taken.
//!
//! A thread keeps the time, since a runtime's timers are too coarse for it, and hands what it has sent to another one that
//! waits for the answers.

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::Window;
use super::seen::Seen;

/// The clock is looked at so often, at most: less is less than a sleep takes anyway.
const NAP: Duration = Duration::from_micros(50);

/// Asks at `rate` per second until the window closes, with at most `in_flight` on their way, and waits for all answers.
pub(super) fn run<F>(
    ask: impl Fn() -> F + Send + 'static,
    rate: u64,
    in_flight: usize,
    window: Window,
) -> Result<Seen>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    // With those that the channel holds and the one in hand, no more than `in_flight`.
    let (sent, answers) = mpsc::channel(in_flight.div_ceil(2));
    let outstanding_max = (in_flight / 2).max(1);
    let pacer = thread::Builder::new().name("pacer".into());
    let pacer = pacer.spawn(move || pace(&ask, rate, window, &sent))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .context("a runtime")?;
    let mut seen = Seen::new()?;
    runtime.block_on(collect(answers, outstanding_max, window, &mut seen));
    let unsent = pacer.join().map_err(|_| anyhow!("the pacer panicked"))?;
    for due in unsent {
        if window.contains(due) {
            seen.took(window.closes - due);
        }
    }
    Ok(seen)
}

/// The moments at which proposals are due, from `start` on.
fn schedule(start: Instant, rate: u64) -> impl Iterator<Item = Instant> {
    let rate = u128::from(rate.max(1));
    (0u128..).map(move |n| {
        let nanos = n * 1_000_000_000 / rate;
        start + Duration::from_nanos(nanos as u64)
    })
}

/// Sends each proposal when it is due, or as soon after as there is room; tells which were due and never sent.
fn pace<F>(
    ask: &impl Fn() -> F,
    rate: u64,
    window: Window,
    sent: &mpsc::Sender<(Instant, F)>,
) -> Vec<Instant> {
    let mut moments = schedule(Instant::now(), rate).take_while(|due| *due < window.closes);
    let mut unsent = Vec::new();
    for due in moments.by_ref() {
        loop {
            let now = Instant::now();
            if due <= now {
                break;
            }
            thread::sleep((due - now).max(NAP));
        }
        // Room first, and then the question: what is asked has a place to be waited for.
        let Some(place) = place(sent, window.closes) else {
            unsent.push(due);
            break;
        };
        place.send((due, ask()));
    }
    unsent.extend(moments);
    unsent
}

/// A place on the way to those who wait for answers, unless there is none before `until`.
fn place<T>(sent: &mpsc::Sender<T>, until: Instant) -> Option<mpsc::Permit<'_, T>> {
    loop {
        match sent.try_reserve() {
            Ok(place) => return Some(place),
            Err(mpsc::error::TrySendError::Closed(())) => return None,
            Err(mpsc::error::TrySendError::Full(())) if Instant::now() >= until => return None,
            Err(mpsc::error::TrySendError::Full(())) => thread::sleep(NAP),
        }
    }
}

async fn collect<F>(
    mut answers: mpsc::Receiver<(Instant, F)>,
    outstanding_max: usize,
    window: Window,
    seen: &mut Seen,
) where
    F: Future<Output = Result<(), String>>,
{
    let mut outstanding = FuturesUnordered::new();
    let mut more = true;
    while more || !outstanding.is_empty() {
        tokio::select! {
            biased;
            Some((due, outcome)) = outstanding.next() => note(due, outcome, window, seen),
            asked = answers.recv(), if more && outstanding.len() < outstanding_max => match asked {
                Some((due, answer)) => outstanding.push(async move { (due, answer.await) }),
                None => more = false,
            },
        }
    }
}

fn note(due: Instant, outcome: Result<(), String>, window: Window, seen: &mut Seen) {
    let now = Instant::now();
    match outcome {
        Ok(()) => {
            seen.answered(window.contains(now));
            if window.contains(due) {
                seen.took(now - due);
            }
        }
        Err(error) => seen.failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 2_000;

    fn window() -> Window {
        let opens = Instant::now() + Duration::from_millis(20);
        Window {
            opens,
            closes: opens + Duration::from_millis(500),
        }
    }

    #[test]
    fn the_schedule_is_the_rates_and_does_not_drift() {
        let start = Instant::now();
        let mut moments = schedule(start, 3);
        assert_eq!(moments.next(), Some(start));
        assert_eq!(
            moments.next(),
            Some(start + Duration::from_nanos(333_333_333))
        );
        assert_eq!(moments.nth(1), Some(start + Duration::from_secs(1)));
        assert_eq!(
            schedule(start, 7).nth(7_000_000),
            Some(start + Duration::from_secs(1_000_000))
        );
    }

    #[test]
    fn a_stall_counts_for_all_who_were_due_in_it() {
        let window = window();
        // Answers at once, but for 200 ms in the middle of the window, in which nobody is answered.
        let stall = window.opens + Duration::from_millis(150);
        let over = stall + Duration::from_millis(200);
        let ask = move || async move {
            if (stall..over).contains(&Instant::now()) {
                // As the system would: everybody behind the stalled one waits as well.
                thread::sleep(over.saturating_duration_since(Instant::now()));
            }
            Ok(())
        };
        let seen = run(ask, RATE, 10_000, window).unwrap();
        let measured = seen.measured(Duration::from_millis(500), Some(RATE));
        // Two fifths were due in the stall, and waited for 100 ms on average: a closed loop of one client
        // would have seen one such latency in a thousand.
        assert!(measured.p90_us > 120_000, "{measured:?}");
        assert!(measured.max_us > 190_000, "{measured:?}");
        assert_eq!(measured.errors, 0);
        assert!(measured.commits_in_all >= 900, "{measured:?}");
    }

    #[test]
    fn what_could_not_be_sent_counts_and_the_rate_was_not_held() {
        let window = window();
        let closes = window.closes;
        // Nothing is answered before the window has closed, and two may be on their way.
        let ask = move || async move {
            let left = closes.saturating_duration_since(Instant::now());
            thread::sleep(left + Duration::from_millis(1));
            Ok(())
        };
        let seen = run(ask, RATE, 2, window).unwrap();
        let measured = seen.measured(Duration::from_millis(500), Some(RATE));
        assert!(!measured.held, "{measured:?}");
        assert_eq!(measured.commits, 0);
        // A thousand were due in the window; those at its beginning waited for all of it.
        assert!(measured.max_us > 490_000, "{measured:?}");
        assert!(
            (200_000..300_000).contains(&measured.median_us),
            "{measured:?}"
        );
    }
}
