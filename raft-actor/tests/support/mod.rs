//! A cluster of real nodes in this process, for those test programs that need one of their own.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_actor::{Config, MemoryDisk, NodeId, RaftActor};

/// A port that nobody listens on, each only once. Below those that the system gives to outgoing
/// connections, one of which could take it while a node is down.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() * 64;
    loop {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The settings of nodes 1 to `size`, and their disks.
pub(crate) fn configs(size: u64) -> Vec<(Config, MemoryDisk)> {
    let addresses = (0..size).map(|_| format!("127.0.0.1:{}", free_port()));
    let peers: Vec<_> = (1..=size).map(NodeId).zip(addresses).collect();
    let config = |id: u64| {
        let disk = MemoryDisk::new();
        let config = Config::new(NodeId(id)).peers(peers.clone());
        (config.memory(disk.clone()), disk)
    };
    (1..=size).map(config).collect()
}

/// Starts them.
pub(crate) fn spawn(configs: &[(Config, MemoryDisk)]) -> Vec<Addr<RaftActor>> {
    let spawn = |(config, _): &(Config, MemoryDisk)| RaftActor::spawn(config.clone()).unwrap();
    configs.iter().map(spawn).collect()
}

/// Looks until there is something, for 20 seconds.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
