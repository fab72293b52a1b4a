//! Subscribers that count what they are handed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::{Context as _, Result, bail};
use raft_actor::{DeliveredBatch, RaftActor, Subscribe};
use tokio::sync::oneshot;

use crate::protocol::Replayed;

/// Longer than this no replay may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Subscribes `count` counters from the start, on the thread of `arbiter`.
pub(crate) async fn subscribe(
    raft: &Addr<RaftActor>,
    count: usize,
    arbiter: &ArbiterHandle,
) -> Result<Vec<Arc<AtomicU64>>> {
    let mut counts = Vec::new();
    for _ in 0..count {
        let delivered = Arc::new(AtomicU64::new(0));
        let counter = Counter {
            delivered: Arc::clone(&delivered),
            until: None,
        };
        let counter = Counter::start_in_arbiter(arbiter, |_| counter);
        raft.send(Subscribe::from_start(counter.recipient::<DeliveredBatch>()))
            .await
            .context("the node")?
            .context("subscribe")?;
        counts.push(delivered);
    }
    Ok(counts)
}

/// Subscribes one more from the start, and waits until it has been handed so many.
pub(crate) async fn replay(raft: &Addr<RaftActor>, deliveries: u64) -> Result<Replayed> {
    let (told, reached) = oneshot::channel();
    let counter = Counter {
        delivered: Arc::default(),
        until: Some((deliveries, told)),
    };
    let arbiter = Arbiter::new();
    let counter = Counter::start_in_arbiter(&arbiter.handle(), |_| counter);
    let start = Instant::now();
    let subscribed = raft
        .send(Subscribe::from_start(counter.recipient::<DeliveredBatch>()))
        .await
        .context("the node")?
        .context("subscribe")?;
    let reached = tokio::select! {
        reached = reached => reached.context("the subscriber")?,
        ended = subscribed.ended() => bail!("the subscription ended: {ended}"),
        () = tokio::time::sleep(PATIENCE) => bail!("no {deliveries} deliveries in {PATIENCE:?}"),
    };
    subscribed.cancel();
    arbiter.stop();
    Ok(Replayed {
        deliveries,
        seconds: (reached - start).as_secs_f64(),
    })
}

struct Counter {
    delivered: Arc<AtomicU64>,
    /// Who is told when it has been handed so many.
    until: Option<(u64, oneshot::Sender<Instant>)>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<DeliveredBatch> for Counter {
    type Result = ();

    fn handle(&mut self, DeliveredBatch(batch): DeliveredBatch, _: &mut Self::Context) {
        let more = batch.len() as u64;
        let delivered = self.delivered.fetch_add(more, Ordering::Relaxed) + more;
        if let Some((_, told)) = self.until.take_if(|(until, _)| delivered >= *until) {
            // Nobody may have the patience any more.
            let _ = told.send(Instant::now());
        }
    }
}
