//! What is sent at once, from whatever thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::tls::{Pki, secured};
use super::{Node, ONE, PATIENCE, TWO, bulk, commit, encode, local};
use crate::{Frame, PeerSender, SendError};

/// Two nodes, of which the first has dialled the second.
async fn two_nodes() -> (Node, Node, PeerSender) {
    let mut one = Node::new(local(ONE));
    let two = Node::new(local(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    (one, two, to_two)
}

/// All that has come, until so many commit indexes have.
async fn commits(node: &mut Node, count: usize) -> Vec<Frame> {
    let mut commits = Vec::new();
    while commits.len() < count {
        let frames = node.batch().await.frames.into_iter();
        commits.extend(frames.filter(|frame| *frame != bulk(60 << 10)));
    }
    commits
}

#[actix_rt::test]
async fn it_is_with_the_system_when_the_call_returns() {
    let (_one, mut two, to_two) = two_nodes().await;
    to_two.try_send_now(encode(&commit(1))).unwrap();
    // No task of the connection has run meanwhile.
    let stats = to_two.stats();
    assert_eq!((stats.frames, stats.writes), (1, 1));
    assert_eq!((stats.queued_frames, stats.queued_bytes), (0, 0));
    assert_eq!(stats.bytes, encode(&commit(1)).len() as u64);
    assert_eq!(commits(&mut two, 1).await, [commit(1)]);
}

#[actix_rt::test]
async fn it_does_not_overtake_what_waits() {
    let (_one, mut two, to_two) = two_nodes().await;
    to_two.try_send(encode(&commit(1))).unwrap();
    to_two.try_send_now(encode(&commit(2))).unwrap();
    assert_eq!(to_two.stats().queued_frames, 2);
    to_two.try_send(encode(&commit(3))).unwrap();
    let all = [commit(1), commit(2), commit(3)];
    assert_eq!(commits(&mut two, 3).await, all);
    to_two.try_send_now(encode(&commit(4))).unwrap();
    assert_eq!(to_two.stats().queued_frames, 0, "nothing waits any more");
    assert_eq!(commits(&mut two, 1).await, [commit(4)]);
}

#[actix_rt::test]
async fn what_the_system_does_not_take_goes_out_behind_it() {
    let (_one, mut two, to_two) = two_nodes().await;
    // What is not handled stops the reading, and the sockets fill.
    let held = two.hold().await;
    let (mut sent, since) = (0, Instant::now());
    while to_two.stats().queued_frames < 4 {
        assert!(since.elapsed() < PATIENCE);
        to_two.try_send_now(encode(&bulk(60 << 10))).unwrap();
        sent += 1;
        to_two.try_send_now(encode(&commit(sent))).unwrap();
    }
    let stats = to_two.stats();
    assert!(stats.queued_bytes > 0 && stats.frames > 0);
    drop(held);
    let all: Vec<_> = (1..=sent).map(commit).collect();
    assert_eq!(commits(&mut two, all.len()).await, all);
    let stats = to_two.stats();
    assert_eq!((stats.frames, stats.queued_bytes), (2 * sent, 0));
}

#[actix_rt::test]
async fn many_threads_send_whole_frames_each_in_its_order() {
    const EACH: u64 = 2_000;
    let (_one, mut two, to_two) = two_nodes().await;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let to_two = to_two.clone();
            thread::spawn(move || {
                for number in 1..=EACH {
                    let frame = encode(&commit(thread * EACH + number));
                    let send = match number % 3 {
                        0 => PeerSender::try_send,
                        _ => PeerSender::try_send_now,
                    };
                    while let Err(error) = send(&to_two, frame.clone()) {
                        assert!(matches!(error, SendError::Full { .. }), "{error}");
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        })
        .collect();
    let heard = commits(&mut two, 4 * EACH as usize).await;
    for thread in threads {
        thread.join().unwrap();
    }
    for thread in 0..4 {
        let own: Vec<_> = (1..=EACH)
            .map(|number| commit(thread * EACH + number))
            .collect();
        let of_it: Vec<_> = heard
            .iter()
            .filter(|frame| own.contains(frame))
            .cloned()
            .collect();
        assert_eq!(of_it, own, "thread {thread}");
    }
}

#[actix_rt::test]
async fn connections_come_and_go_beneath_it() {
    let (mut one, mut two, to_two) = two_nodes().await;
    let ended = Arc::new(AtomicBool::new(false));
    let sending = {
        let (ended, to_two) = (Arc::clone(&ended), to_two.clone());
        thread::spawn(move || {
            let mut sent = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                // There may be no connection, or too much may wait for it.
                let _ = to_two.try_send_now(encode(&commit(1)));
                sent += 1;
                if sent.is_multiple_of(64) {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        })
    };
    for _ in 0..5 {
        two.restart_listener().await;
        one.connected(TWO).await;
    }
    ended.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    to_two.try_send_now(encode(&commit(2))).unwrap();
    let heard = async { while !two.batch().await.frames.contains(&commit(2)) {} };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    let stats = to_two.stats();
    assert_eq!(
        (stats.queued_frames, stats.queued_bytes),
        (0, 0),
        "{stats:?}"
    );
    assert_eq!(stats.connects, 6);
}

#[actix_rt::test]
async fn with_tls_it_goes_through_the_connection() {
    let pki = Pki::new();
    let mut one = secured(ONE, &pki.tls(ONE));
    let mut two = secured(TWO, &pki.tls(TWO));
    let to_two = one.dial(TWO, two.address);
    one.connected(TWO).await;
    to_two.try_send_now(encode(&commit(1))).unwrap();
    assert_eq!(to_two.stats().queued_frames, 1);
    assert_eq!(commits(&mut two, 1).await, [commit(1)]);
}
