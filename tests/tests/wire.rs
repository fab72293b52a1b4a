//! What strangers send to a node's port: the connection is closed, it is logged, and the cluster goes on.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use tests::cluster::Cluster;

use crate::stranger::{
    CONFIRM, HELLO, REFUSE, WELCOME, closes_after, frame, introduction, read_frame, refusal,
};
use crate::{WAIT, cluster, running, works};

fn address(cluster: &Cluster, id: u64) -> String {
    let status = cluster.node(id).unwrap().status(WAIT).unwrap();
    status
        .members
        .iter()
        .find(|member| member.id == id)
        .unwrap()
        .address
        .clone()
}

#[test]
fn garbage_closes_the_connection_and_nothing_else() {
    let (cluster, leader) = running("garbage", 3);
    works(&cluster, "before");
    let address = address(&cluster, leader);
    let hello = frame(0, HELLO, &introduction((1, 1), leader % 3 + 1, leader));
    let mut wrong_crc = hello.clone();
    *wrong_crc.last_mut().unwrap() ^= 1;
    let mut endless = hello.clone();
    endless[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let cases: [(&str, &[u8]); 7] = [
        ("a browser", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("noise", &noise),
        ("a wrong checksum", &wrong_crc),
        ("a length of 4 GiB", &endless),
        (
            "a body that is no MessagePack",
            &frame(0, HELLO, &[0xc1; 40]),
        ),
        ("an append before the handshake", &frame(1, 16, &[0x90])),
        ("a kind that does not exist", &frame(0, 200, b"")),
    ];
    for (case, bytes) in cases {
        let answer = closes_after(&address, bytes);
        assert!(
            answer.is_empty() || answer.starts_with(b"rAFt"),
            "{case}: {answer:?}"
        );
    }
    // One that says nothing at all is closed, too.
    let started = std::time::Instant::now();
    closes_after(&address, b"rAF");
    assert!(started.elapsed() < Duration::from_secs(12));
    let node = cluster.node(leader).unwrap();
    node.logged(&["handshake"], WAIT).unwrap();
    works(&cluster, "after");
    assert_eq!(cluster.wait_leader(WAIT).unwrap(), leader);
}

#[test]
fn a_dialler_of_another_version_is_told_so() {
    let (cluster, leader) = running("version", 3);
    let address = address(&cluster, leader);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream
        .write_all(&frame(
            0,
            HELLO,
            &introduction((98, 99), leader % 3 + 1, leader),
        ))
        .unwrap();
    let (kind, body) = read_frame(&mut stream).unwrap();
    assert_eq!(kind, REFUSE);
    let text = refusal(&body);
    assert!(
        text.contains("98 to 99") && text.contains("upgrade"),
        "{text}"
    );
    cluster
        .node(leader)
        .unwrap()
        .logged(&["versions 98 to 99"], WAIT)
        .unwrap();
    works(&cluster, "after");
}

#[test]
fn a_listener_of_another_version_is_waited_for_by_name() {
    let mut cluster = cluster("old-listener", 2);
    let spec = cluster.spec(2).unwrap().clone();
    let (_, address) = spec.peers.split_once(",2=").unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let node = cluster.start(1).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let (kind, _) = read_frame(&mut stream).unwrap();
        assert_eq!(kind, HELLO);
        stream
            .write_all(&frame(0, WELCOME, &introduction((98, 99), 2, 1)))
            .unwrap();
        // The number of the welcome is said back first, and then what this side can act on.
        let (kind, _) = read_frame(&mut stream).unwrap();
        assert_eq!(kind, CONFIRM);
        let (kind, body) = read_frame(&mut stream).unwrap();
        assert_eq!(kind, REFUSE);
        assert!(refusal(&body).contains("versions"));
    });
    node.logged(&["98 to 99"], WAIT).unwrap();
    answering.join().unwrap();
    // The right one comes, and the cluster is born.
    cluster.start(2).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "after");
}

#[test]
fn many_silent_strangers_do_not_keep_the_peers_out() {
    let (mut cluster, leader) = running("silent", 3);
    let address = address(&cluster, leader);
    let silent: Vec<_> = (0..200)
        .filter_map(|_| TcpStream::connect(&address).ok())
        .collect();
    assert!(silent.len() > 100);
    let follower = leader % 3 + 1;
    cluster.kill(&[follower]).unwrap();
    cluster.start(follower).unwrap();
    cluster.wait_leader(WAIT).unwrap();
    works(&cluster, "through the crowd");
    drop(silent);
}
