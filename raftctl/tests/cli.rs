//! The program itself: what it prints, for people and for scripts, and how it ends.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail by panicking, its helpers too"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use raft_core::{
    ClusterId, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, SnapshotMeta,
    SnapshotWrite, Term, membership::Configuration,
};
use raft_storage::{Batch, Record, open_rocksdb, suite};
use serde_json::Value;
use tempfile::TempDir;

const NODE: NodeId = NodeId(2);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

/// Three members, of which 3 is known by its address too.
fn known() -> Configuration {
    let folder = |node: u64| (NodeId(node), Incarnation(u128::from(node)));
    let mut known = Configuration::of_folders([1, 2, 3].map(folder));
    if let Some(member) = known.about.get_mut(&NodeId(3)) {
        member.address = "10.0.0.3:7001".to_owned();
    }
    known
}

/// The folder of a member of a cluster of three, with 120 entries in term 3.
fn member() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_rocksdb(dir.path(), Some(NODE)).unwrap().store;
    let record = Record {
        known: Some(known()),
        cluster: Some(ClusterId(0xabc)),
        cursors: [("printer".to_owned(), Some(LogIndex(9)))].into(),
        ..Record::default()
    };
    store.record(&record).unwrap();
    let mut batch = Batch::new();
    let hard_state = HardState {
        term: Term(3),
        voted_for: Some(NodeId(1)),
    };
    batch.push(Some(hard_state), None, [].into());
    store.write(&batch).unwrap();
    store.write(&suite::batch_of(3, 1..=120)).unwrap();
    store.close().unwrap();
    dir
}

fn compact(dir: &Path, last: LogId) {
    let mut store = open_rocksdb(dir, Some(NODE)).unwrap().store;
    let meta = SnapshotMeta {
        last,
        configuration: Configuration::of([NodeId(1), NODE, NodeId(3)]).into(),
    };
    let mut sink = store.snapshots().create(&meta).unwrap();
    sink.write(b"the whole state").unwrap();
    sink.finish().unwrap();
    let mut batch = Batch::new();
    batch.push_snapshot(SnapshotWrite {
        snapshot: meta,
        log_start: last,
        replaces_log: false,
    });
    store.write(&batch).unwrap();
    store.close().unwrap();
}

fn run(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_raftctl");
    Command::new(program).args(args).output().unwrap()
}

/// Runs it for people: its exit code, and what it wrote on the standard output and on the standard error.
fn told(args: &[&str]) -> (i32, String, String) {
    let output = run(args);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// Runs it for scripts: its exit code, and the JSON of each line.
fn json(args: &[&str]) -> (i32, Vec<Value>) {
    let (code, out, _) = told(&[&["--json"], args].concat());
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap());
    (code, lines.collect())
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn a_status_tells_people_and_scripts_the_same() {
    let dir = member();
    let dir = path(dir.path());
    let (code, text, _) = told(&["log", "status", dir]);
    assert_eq!(code, 0, "{text}");
    for expected in [
        "node           2\n",
        "in use         no\n",
        "members        1 (incarnation 00000000000000000000000000000001)\n",
        "               3 (incarnation 00000000000000000000000000000003, at 10.0.0.3:7001)\n",
        "log            entries 1 to 120 (120 of them",
        "terms          term 3: 1 to 120",
        "cursors        \"printer\" at 9",
        "a vote for node 1, entries up to 120 (of term 3)",
        "a node would open this folder",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    let (code, lines) = json(&["log", "status", dir]);
    let status = &lines[0];
    assert_eq!((code, lines.len()), (0, 1));
    assert_eq!(
        (status["opens"].as_bool(), status["node"].as_u64()),
        (Some(true), Some(2))
    );
    assert_eq!(status["content"]["log"]["entries"], 120);
    assert_eq!(status["content"]["cursors"]["printer"], 9);
    assert_eq!(status["mark"], status["database"]);
    assert_eq!(status["departed"], false);
    let third = &status["content"]["members"]["3"];
    assert_eq!(
        (&third["votes"], &third["tls_name"]),
        (&true.into(), &Value::Null)
    );
    assert_eq!(third["address"], "10.0.0.3:7001");
}

#[test]
fn a_status_tells_who_is_not_a_member_yet_and_who_is_none_any_more() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_rocksdb(dir.path(), None).unwrap());
    let (code, text, _) = told(&["log", "status", path(dir.path())]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("node           not a member yet"), "{text}");
    let (_, lines) = json(&["log", "status", path(dir.path())]);
    assert_eq!(lines[0]["node"], Value::Null);
    assert_eq!(lines[0]["content"]["members"], Value::Null);

    let dir = member();
    let left = Record {
        known: Some(known().reduced_to([NodeId(1), NodeId(3)])),
        ..Record::default()
    };
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    store.record(&left).unwrap();
    store.close().unwrap();
    let (code, text, _) = told(&["log", "status", path(dir.path())]);
    assert_eq!(code, 1, "{text}");
    let words = "a node would not start on this folder: node 2 has departed from its cluster";
    assert!(text.contains(words), "{text}");
    let (code, lines) = json(&["log", "status", path(dir.path())]);
    assert_eq!((code, &lines[0]["departed"]), (1, &Value::from(true)));
    let (_, text, _) = told(&["members", path(dir.path())]);
    assert!(text.contains("it has departed from its cluster"), "{text}");
    let (code, _, error) = told(&["recover", path(dir.path()), "--voters", "2", "--yes"]);
    assert_eq!(code, 2);
    assert!(error.contains("has departed from its cluster"), "{error}");
}

#[test]
fn the_members_are_told_as_recorded_and_as_in_the_log() {
    let dir = member();
    let (code, text, _) = told(&["members", path(dir.path())]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("in the log     no change since the beginning"),
        "{text}"
    );
    let mut store = open_rocksdb(dir.path(), None).unwrap().store;
    let mut configuration = known().reduced_to([NODE, NodeId(3)]);
    configuration.learners.extend([4, 5].map(NodeId));
    configuration.joining.insert(NodeId(4));
    let data = configuration.encode();
    let entry = Entry::new(Term(3), LogIndex(121), EntryKind::Configuration, data);
    let mut batch = Batch::new();
    batch.push(None, None, [entry].into());
    store.write(&batch).unwrap();
    store.close().unwrap();
    let (code, text, _) = told(&["members", path(dir.path())]);
    assert_eq!(code, 0, "{text}");
    for expected in [
        "node           2\n",
        "recorded       1 (incarnation 00000000000000000000000000000001)\n",
        "in the log     2 (incarnation 00000000000000000000000000000002)\n",
        "               3 (incarnation 00000000000000000000000000000003, at 10.0.0.3:7001)\n",
        "               4 (a learner that joins)\n",
        "               5 (a learner)\n",
        "since entry 121\n",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    let (code, lines) = json(&["members", path(dir.path())]);
    let told = &lines[0];
    assert_eq!((code, &told["departed"]), (0, &Value::from(false)));
    assert_eq!(told["recorded"].as_object().unwrap().len(), 3);
    assert_eq!(told["log"]["4"]["joins"], true);
    assert_eq!((&told["since"], &told["next_id"]), (&121.into(), &6.into()));
}

#[test]
fn a_refused_folder_is_told_in_the_nodes_own_words() {
    let dir = member();
    fs::remove_file(dir.path().join("mark")).unwrap();
    let refusal = open_rocksdb(dir.path(), Some(NODE))
        .unwrap_err()
        .to_string();
    let (code, text, _) = told(&["log", "status", path(dir.path())]);
    assert_eq!(code, 1);
    assert!(
        text.contains(&format!("a node would refuse this folder: {refusal}")),
        "{text}"
    );
    let (code, lines) = json(&["log", "status", path(dir.path())]);
    assert_eq!((code, &lines[0]["refusal"]), (1, &Value::from(refusal)));
    let (code, lines) = json(&["log", "verify", path(dir.path())]);
    assert_eq!((code, &lines[0]["whole"]), (1, &Value::from(false)));
}

#[test]
fn entries_are_listed_from_and_through() {
    let dir = member();
    let dir = path(dir.path());
    let (code, text, _) = told(&["log", "entries", dir, "--from", "118", "--through", "119"]);
    let lines: Vec<_> = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(code, 0);
    assert_eq!(lines[0], ["index", "term", "kind", "bytes", "data"]);
    assert_eq!(
        lines[1],
        [
            "118", "3", "command", "19", "entry", "118", "of", "term", "3"
        ]
    );
    assert_eq!(lines.len(), 3);
    let (_, lines) = json(&["log", "entries", dir, "--limit", "2", "--data"]);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["preview"], "entry 1 of term 3");
    assert_eq!(lines[0]["data_hex"], "656e7472792031206f66207465726d2033");
    let (code, text, _) = told(&["log", "entries", dir, "--from", "500"]);
    assert_eq!((code, &*text), (0, ""));
}

#[test]
fn a_verification_ends_with_0_with_1_or_with_2() {
    let dir = member();
    compact(dir.path(), id(3, 100));
    let (code, text, _) = told(&["log", "verify", path(dir.path())]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("1 snapshot chunks") && text.contains("no problem found"),
        "{text}"
    );
    let folder = fs::read_dir(dir.path().join("snapshots")).unwrap();
    let file = folder.last().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, text, _) = told(&["log", "verify", path(dir.path())]);
    assert_eq!(code, 1);
    let problem = format!(
        "problem: {}: chunk 0 of the snapshot: does not match its checksum",
        file.display()
    );
    assert!(
        text.contains(&problem) && text.contains("1 problem found"),
        "{text}"
    );
    let (code, lines) = json(&["log", "verify", path(dir.path())]);
    assert_eq!(code, 1);
    assert_eq!(lines[0]["problems"][0]["item"], "chunk 0 of the snapshot");
    let (code, _, error) = told(&["log", "verify", "/nowhere/at/all"]);
    assert_eq!(code, 2);
    assert!(
        error.contains("/nowhere/at/all is no data folder"),
        "{error}"
    );
}

#[test]
fn a_snapshot_goes_from_one_folder_to_another() {
    let (from, to, temp) = (member(), member(), tempfile::tempdir().unwrap());
    compact(from.path(), id(3, 100));
    let file = temp.path().join("snapshot");
    let export = ["snapshot", "export", path(from.path()), "--to", path(&file)];
    let (code, text, _) = told(&export);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("through 100@3, 15 bytes of state"), "{text}");
    let (code, _, error) = told(&export);
    assert_eq!(code, 2);
    assert!(
        error.contains("exists already") && error.contains("--force"),
        "{error}"
    );
    assert_eq!(told(&[&export[..], &["--force"]].concat()).0, 0);
    let raw = run(&[
        "snapshot",
        "export",
        path(from.path()),
        "--to",
        "-",
        "--raw",
    ]);
    assert_eq!(raw.stdout, b"the whole state");

    let import = ["snapshot", "import", path(to.path()), path(&file)];
    let (code, text, _) = told(&import);
    assert_eq!(code, 2);
    assert!(
        text.contains("20 entries stay") && text.contains("add --yes"),
        "{text}"
    );
    let (_, lines) = json(&["log", "status", path(to.path())]);
    assert_eq!(lines[0]["snapshot"], Value::Null);
    let (code, lines) = json(&[&import[..], &["--yes"]].concat());
    assert_eq!((code, &lines[0]["done"]), (0, &Value::from(true)));
    assert_eq!(lines[0]["entries_kept"], 20);
    let (_, lines) = json(&["log", "status", path(to.path())]);
    assert_eq!(lines[0]["snapshot"]["last"]["index"], 100);
    assert_eq!(lines[0]["content"]["log"]["entries"], 20);
    let (code, _, error) = told(&[&import[..], &["--yes"]].concat());
    assert_eq!(code, 1);
    assert!(error.contains("only a newer one is taken"), "{error}");
}

#[test]
fn a_backup_says_what_it_is_for() {
    let (dir, temp) = (member(), tempfile::tempdir().unwrap());
    let to = temp.path().join("copy");
    let (code, text, _) = told(&["backup", path(dir.path()), path(&to)]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("120 entries of node 2") && text.contains("Never start it"),
        "{text}"
    );
    let (code, _, error) = told(&["backup", path(dir.path()), path(&to)]);
    assert_eq!(code, 2);
    assert!(error.contains("not empty"), "{error}");
    let (_, lines) = json(&["log", "status", path(&to)]);
    assert_eq!(lines[0]["content"]["starts"], 0);
    assert_eq!(lines[0]["opens"], true);
}

#[test]
fn a_recovery_says_its_price_and_waits_for_a_yes() {
    let dir = member();
    let dir = path(dir.path());
    let (_, before) = json(&["log", "status", dir]);
    let (code, text, _) = told(&["recover", dir, "--voters", "2"]);
    assert_eq!(code, 2);
    for expected in [
        "1 of 3 voters are left (2)",
        "gone for good",
        "may become committed",
        "the lost nodes (1, 3) must never come back",
        "with the same list",
        "raftctl log status",
        "the log ends at 120@3",
        "nothing was changed; to do it, add --yes",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    let (code, lines) = json(&["recover", dir, "--voters", "2"]);
    assert_eq!((code, &lines[0]["done"]), (2, &Value::from(false)));
    assert!(lines[0]["costs"].as_array().unwrap().len() >= 5);
    let (_, after) = json(&["log", "status", dir]);
    assert_eq!(before, after, "without a yes nothing changes");

    let (code, lines) = json(&["recover", dir, "--voters", "2", "--yes"]);
    assert_eq!((code, &lines[0]["done"]), (0, &Value::from(true)));
    let (_, status) = json(&["log", "status", dir]);
    assert_eq!(status[0]["content"]["cluster"], lines[0]["cluster"]);
    assert_eq!(
        status[0]["content"]["forced"]["voters"],
        Value::from(vec![2])
    );
    assert_eq!(status[0]["opens"], true);
    let (code, text, _) = told(&["recover", dir, "--voters", "2", "--yes"]);
    assert_eq!(code, 0);
    assert!(text.contains("nothing was changed"), "{text}");
}

#[test]
fn wrong_questions_end_with_2_and_a_sentence() {
    let dir = member();
    let dir = path(dir.path());
    for (args, words) in [
        (
            vec!["recover", dir, "--voters", "2,7"],
            "node 7 is no member",
        ),
        (
            vec!["recover", dir, "--voters", "1,3"],
            "is not among the voters",
        ),
        (
            vec!["recover", dir, "--voters", "0"],
            "an id is a number from 1 up",
        ),
        (vec!["recover", dir], "--voters"),
        (vec!["log", "status", "/nowhere"], "is no data folder"),
        (vec!["log"], "Usage"),
    ] {
        let (code, _, error) = told(&args);
        assert_eq!(code, 2, "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }
    let (_, lines) = json(&["log", "status", "/nowhere"]);
    assert!(lines[0]["error"].as_str().unwrap().contains("/nowhere"));
}

#[test]
fn a_running_nodes_folder_is_read_and_not_written() {
    let dir = member();
    let store = open_rocksdb(dir.path(), Some(NODE)).unwrap().store;
    let (code, text, _) = told(&["log", "status", path(dir.path())]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("once it is not in use"), "{text}");
    let (_, lines) = json(&["log", "status", path(dir.path())]);
    assert_eq!(lines[0]["in_use"], true);
    let (code, _, error) = told(&["recover", path(dir.path()), "--voters", "2", "--yes"]);
    assert_eq!(code, 1);
    assert!(error.contains("in use"), "{error}");
    drop(store);
}
