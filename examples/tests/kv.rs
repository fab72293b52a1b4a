//! `kv`, on three nodes: what is put on one is read on all, while nodes are killed, come back and leave.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A node and its server. Dropped, it is killed.
struct Node {
    process: Child,
    http: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// Starts it, and waits until it serves.
    fn start(port: u16, folder: &Path, joins: Option<u16>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kv"));
        // The server is given a free port; it says which.
        command.arg("127.0.0.1:0").arg(format!("127.0.0.1:{port}"));
        command.arg(folder.join(port.to_string()));
        command.args(joins.map(|port| format!("127.0.0.1:{port}")));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let http = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        let http = http
            .unwrap_or_else(|| panic!("it does not serve: {line:?}"))
            .to_owned();
        Self { process, http }
    }

    /// A request, and the status and the body of its answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: kv\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.trim_end().to_owned())
    }

    fn put(&self, key: &str, value: &str) {
        let (status, said) = self.ask("PUT", &format!("/kv/{key}"), value);
        assert_eq!(status, 200, "{said}");
    }

    fn get(&self, key: &str) -> (u16, String) {
        self.ask("GET", &format!("/kv/{key}"), "")
    }

    /// Waits until what it says of the members is so.
    fn members(&self, is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (_, said) = self.ask("GET", "/members", "");
            if is_so(&said) {
                return;
            }
            assert!(Instant::now() < deadline, "{said:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn what_is_put_on_one_node_is_read_on_all_while_they_die_and_leave() {
    let folder = tempfile::tempdir().unwrap();
    let port = examples::free_ports().unwrap();
    let start = |n: u16, joins: Option<u16>| {
        let joins = joins.map(|n| port + n);
        Node::start(port + n, folder.path(), joins)
    };
    let first = start(0, None);
    first.put("a", "1");
    let second = start(1, Some(0));
    let third = start(2, Some(0));
    assert_eq!(third.get("a"), (200, "1".into()));
    assert_eq!(third.get("b").0, 404);
    second.put("b", "2");
    assert_eq!(third.get("b"), (200, "2".into()));
    assert_eq!(first.ask("DELETE", "/kv/a", "").1, "1");
    assert_eq!(second.get("a").0, 404);
    let stale = third.ask("GET", "/kv/b?stale", "");
    assert!(stale == (200, "2".into()) || stale.0 == 404, "{stale:?}");

    // One may die, whoever leads; what was put is there, and more can be.
    let all_are_well = |said: &str| said.contains("1 of 3 voters may fail");
    second.members(all_are_well);
    drop(first);
    second.put("c", "3");
    assert_eq!(third.get("b"), (200, "2".into()));
    let first = start(0, Some(1));
    assert_eq!(first.get("c"), (200, "3".into()));

    // And one may leave, which ends its program.
    third.members(all_are_well);
    let mut third = third;
    assert_eq!(
        third.ask("POST", "/leave", ""),
        (200, "gone for good".into())
    );
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match third.process.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "it has not ended"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    // It is named until it has been told that it is none of them any more.
    second.members(|said| said.contains("of 2 voters may fail") && !said.contains("node 3 "));
    second.put("d", "4");
    assert_eq!(first.get("d"), (200, "4".into()));
}
