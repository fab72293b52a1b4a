//! `raftctl cert`: what it makes, a node takes.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail by panicking, its helpers too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use raft_core::NodeId;
use raft_net::{Tls, TlsFiles, TlsName};

/// Runs it; its exit code, and what it wrote on the standard output and on the standard error.
fn told(args: &[&str]) -> (i32, String, String) {
    let program = env!("CARGO_BIN_EXE_raftctl");
    let output = Command::new(program).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

fn files(ca: &Path, nodes: &Path, id: u64) -> TlsFiles {
    TlsFiles {
        ca: ca.join("ca.pem"),
        cert: nodes.join(format!("node-{id}.pem")),
        key: nodes.join(format!("node-{id}.key")),
    }
}

#[test]
fn a_ca_and_its_certificates_are_what_a_node_starts_with() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, nodes) = (dir.path().join("ca"), dir.path().join("nodes"));
    let (ca_text, nodes_text) = (ca.display().to_string(), nodes.display().to_string());
    let (code, out, _) = told(&["cert", "ca", "--out", &ca_text]);
    assert_eq!(code, 0);
    assert!(out.contains("ca.pem") && out.contains("--tls-ca"), "{out}");

    let mut node = vec!["cert", "node", "--ca", &ca_text, "--out", &nodes_text];
    node.extend([
        "--id",
        "2",
        "--days",
        "9",
        "--host",
        "10.1.2.3",
        "--host",
        "b.example",
    ]);
    let (code, out, error) = told(&node);
    assert_eq!(code, 0, "{error}");
    let flags = format!(
        "--tls-ca {ca_text}/ca.pem --tls-cert {nodes_text}/node-2.pem --tls-key {nodes_text}/node-2.key"
    );
    assert!(out.contains(&flags), "{out}");
    assert!(
        out.contains("for node-2, 10.1.2.3, b.example, valid until"),
        "{out}"
    );
    let tls = Tls::load(files(&ca, &nodes, 2), Some(TlsName::of(NodeId(2)))).unwrap();
    let left = tls
        .stats()
        .not_after
        .duration_since(SystemTime::now())
        .unwrap();
    let nine_days = Duration::from_secs(9 * 24 * 60 * 60);
    assert!(
        left <= nine_days && left > nine_days - Duration::from_secs(120),
        "{left:?}"
    );

    for (path, mode) in [
        (ca.join("ca.key"), 0o600),
        (nodes.join("node-2.key"), 0o600),
    ] {
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{}", path.display());
    }
    assert_eq!(
        fs::read_dir(&nodes).unwrap().count(),
        2,
        "nothing else is left"
    );
}

#[test]
fn another_name_is_told_with_how_to_bind_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().display().to_string();
    assert_eq!(told(&["cert", "ca", "--out", &text]).0, 0);
    let mut args = vec!["cert", "node", "--ca", &text, "--out", &text, "--id", "7"];
    args.extend(["--name", "seven.example"]);
    let (code, out, _) = told(&args);
    assert_eq!(code, 0);
    assert!(out.contains("--tls-names 7=seven.example"), "{out}");
    let load = |name| Tls::load(files(dir.path(), dir.path(), 7), Some(name));
    assert!(load(TlsName::of(NodeId(7))).is_err());
    load(TlsName::new("seven.example").unwrap()).unwrap();
    *args.last_mut().unwrap() = "10.0.0.1";
    let (code, _, error) = told(&args);
    assert_eq!(code, 2);
    assert!(error.contains("is no DNS name"), "{error}");
}

#[test]
fn a_node_that_joins_needs_a_name_and_no_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    told(&["cert", "ca", "--out", path]);
    let (code, _, error) = told(&["cert", "node", "--ca", path, "--out", path]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("--id"), "{error}");
    let args = [
        "cert",
        "node",
        "--ca",
        path,
        "--out",
        path,
        "--name",
        "new.example",
    ];
    let (code, out, error) = told(&args);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("--own-tls-name new.example"), "{out}");
    let files = TlsFiles {
        ca: dir.path().join("ca.pem"),
        cert: dir.path().join("new.example.pem"),
        key: dir.path().join("new.example.key"),
    };
    let name = TlsName::new("new.example").unwrap();
    Tls::load(files, Some(name)).unwrap();
}

#[test]
fn nothing_is_replaced_unless_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().display().to_string();
    let ca = ["cert", "ca", "--out", &text];
    assert_eq!(told(&ca).0, 0);
    let before = fs::read(dir.path().join("ca.pem")).unwrap();
    // One of the two is enough.
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let (code, _, error) = told(&ca);
    assert_eq!(code, 2);
    assert!(error.contains("ca.pem exists: nothing was done"), "{error}");
    assert!(!dir.path().join("ca.key").exists());
    assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), before);
    assert_eq!(told(&[&ca[..], &["--force"]].concat()).0, 0);
    assert_ne!(fs::read(dir.path().join("ca.pem")).unwrap(), before);

    let node = ["cert", "node", "--ca", &text, "--out", &text, "--id", "1"];
    assert_eq!(told(&node).0, 0);
    let key = dir.path().join("node-1.key");
    let before = fs::read(&key).unwrap();
    let (code, out, _) = told(&[&node[..], &["--json"]].concat());
    assert_eq!(code, 2);
    assert!(out.contains("\"error\""), "{out}");
    assert_eq!(fs::read(&key).unwrap(), before);
    let (code, out, _) = told(&[&node[..], &["--force", "--json"]].concat());
    assert_eq!(code, 0);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["key"], key.display().to_string());
    assert_ne!(fs::read(&key).unwrap(), before);
}

/// The files of two CAs: what they would sign together, nobody accepts.
#[test]
fn a_key_that_is_not_the_cas_makes_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let texts = [&one, &two].map(|dir| dir.path().display().to_string());
    for text in &texts {
        assert_eq!(told(&["cert", "ca", "--out", text]).0, 0);
    }
    fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let out = one.path().join("nodes").display().to_string();
    let (code, _, error) = told(&[
        "cert", "node", "--ca", &texts[0], "--out", &out, "--id", "1",
    ]);
    assert_eq!(code, 1);
    assert!(error.contains("is of a CA that is not trusted"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "nothing is left");
}
