use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};

use raft_core::NodeId;

use super::*;

const REQUIRED: [&str; 3] = ["--id=1", "--peers=1=h:1,2=h:2", "--data=d"];

fn args(flags: &[&str]) -> ConfigArgs {
    let command = ConfigArgs::augment_args(Command::new("program").no_binary_name(true));
    ConfigArgs::from_arg_matches(&command.get_matches_from(flags)).unwrap()
}

/// What flags (beside what must be given), variables and a file make.
fn read(
    flags: &[&str],
    variables: &[(&str, &str)],
    file: Option<&Path>,
) -> Result<Config, ConfigArgsError> {
    let mut all = flags.to_vec();
    all.extend(REQUIRED);
    let path = file.map(|path| format!("--config={}", path.display()));
    all.extend(path.as_deref());
    args(&all).read(Config::of_nobody(), |name| {
        let found = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(found.1.into())
    })
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

fn error(flags: &[&str], variables: &[(&str, &str)], file: Option<&Path>) -> String {
    read(flags, variables, file).unwrap_err().to_string()
}

#[test]
fn a_flag_goes_over_a_variable_that_over_the_file_and_that_over_the_default() {
    let file = file("session_timeout = \"11s\"\nproposals_max = 5");
    let flags = ["--session-timeout=13s"];
    let variables = [("RAFT_SESSION_TIMEOUT", "12s")];
    let timeout = |flags: &[&str], variables: &[(&str, &str)], file| {
        let config = read(flags, variables, file).unwrap();
        (config.session_timeout.as_secs(), config.proposals_max)
    };
    let path = Some(file.path());
    assert_eq!(timeout(&[], &[], None), (3600, 65_536));
    assert_eq!(timeout(&[], &[], path), (11, 5));
    assert_eq!(
        timeout(&[], &variables, path),
        (12, 5),
        "setting by setting"
    );
    assert_eq!(timeout(&flags, &variables, path), (13, 5));
    assert_eq!(timeout(&flags, &[], None), (13, 65_536));
    let empty = [("RAFT_SESSION_TIMEOUT", "")];
    assert_eq!(timeout(&[], &empty, path), (11, 5), "an empty one is none");
}

#[test]
fn a_program_has_its_own_defaults_and_all_sources_go_over_them() {
    let own = |config: Config| config.proposals_max(7, 8 << 20).command_bytes_max(9);
    let mut flags = REQUIRED.to_vec();
    flags.push("--command-bytes-max=10");
    let config = args(&flags).config_over(own).unwrap();
    assert_eq!((config.proposals_max, config.command_bytes_max), (7, 10));
}

#[test]
fn the_file_may_have_everything_and_be_named_by_a_variable() {
    let file = file(
        "id = 2\ndata = \"dir\"\nsnapshot_every_bytes = \"1MiB\"\nsnapshot_bytes_per_s = 65536\n\
         lease_clock_drift = \"30ms\"\n\n[peers]\n1 = \"h:1\"\n2 = \"[::1]:2\"",
    );
    let path = file.path().to_str().unwrap();
    let environment = |name: &str| (name == "RAFT_CONFIG").then(|| path.into());
    let config = args(&[]).read(Config::of_nobody(), environment).unwrap();
    assert_eq!(config.id, Some(NodeId(2)));
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.peers[1], (NodeId(2), "[::1]:2".to_owned()));
    assert_eq!(config.snapshots.every_bytes, 1 << 20);
    assert_eq!(config.snapshot_bytes_per_s, Some(65_536));
    assert_eq!(config.lease_reads, Some(Duration::from_millis(30)));
    assert!(matches!(&config.store, Store::Folder(dir) if dir == Path::new("dir")));
}

#[test]
fn off_goes_over_what_a_lower_source_switched_on() {
    let file = file("retention_entries = 100");
    let path = Some(file.path());
    assert_eq!(read(&[], &[], path).unwrap().retention, Some(100));
    let off = read(&["--retention-entries=off"], &[], path).unwrap();
    assert_eq!(off.retention, None);
}

#[test]
fn the_help_says_the_defaults_that_there_are() {
    let unset = Config::new(NodeId(1));
    for setting in SETTINGS
        .iter()
        .filter(|setting| !setting.default.is_empty())
    {
        let mut set = unset.clone();
        (setting.set)(&mut set, setting.default).unwrap();
        assert_eq!(format!("{set:?}"), format!("{unset:?}"), "{}", setting.name);
    }
    ConfigArgs::augment_args(Command::new("program")).debug_assert();
}

/// Every setting that has a range can be given, under the name that the error says.
#[test]
fn every_range_is_of_a_setting() {
    let mut config = Config::new(NodeId(1));
    config = config
        .retention(1)
        .snapshot_bytes_per_s(1)
        .lease_reads(Duration::ZERO);
    for name in config.range_names() {
        assert!(
            SETTINGS.iter().any(|setting| setting.name == name),
            "{name}"
        );
    }
}

#[test]
fn an_error_says_where_the_value_stood() {
    let one = file("# of node 1\n\nsession_timeout = \"5s\"\n");
    let path = one.path().display().to_string();
    let refused = "session_timeout is 5s; it must be from 10s to 30d: ";
    let at_file = error(&[], &[], Some(one.path()));
    assert!(
        at_file.starts_with(&format!("{path}:3: {refused}")),
        "{at_file}"
    );
    let in_variable = error(&[], &[("RAFT_SESSION_TIMEOUT", "5s")], None);
    let expected = format!("RAFT_SESSION_TIMEOUT: {refused}");
    assert!(in_variable.starts_with(&expected), "{in_variable}");
    let by_flag = error(
        &["--session-timeout=5s"],
        &[("RAFT_SESSION_TIMEOUT", "6s")],
        None,
    );
    assert!(
        by_flag.starts_with(&format!("--session-timeout: {refused}")),
        "{by_flag}"
    );
    // The default is wrong only beside what was given.
    let default = error(&["--heartbeat-interval=600ms"], &[], None);
    let expected =
        "the default of election_timeout_min: election_timeout_min is 500ms; it must be from 610ms";
    assert!(default.starts_with(expected), "{default}");
}

#[test]
fn what_cannot_be_read_is_shown_with_what_was_expected() {
    for (flag, expected) in [
        (
            "--propose-timeout=10",
            "--propose-timeout: \"10\" is no duration like",
        ),
        (
            "--command-bytes-max=big",
            "--command-bytes-max: \"big\" is no size like",
        ),
        (
            "--proposals-max=-1",
            "--proposals-max: \"-1\" is not a number",
        ),
        (
            "--retention-entries=none",
            "--retention-entries: \"none\" is not a number; or \"off\"",
        ),
    ] {
        let error = error(&[flag], &[], None);
        assert!(error.starts_with(expected), "{error}");
    }
    let file = file("id = 1\nproposals_max = 1.5");
    let error = error(&[], &[], Some(file.path()));
    assert!(
        error.ends_with(":2: proposals_max is neither a string nor a number"),
        "{error}"
    );
}

#[test]
fn the_list_of_peers_is_checked_as_a_whole_and_says_where_it_stood() {
    let mut flags = vec!["--id=1", "--data=d", "--peers=1=h:1,1=h:2"];
    let wrong = |flags: &[&str]| {
        let read = args(flags).read(Config::of_nobody(), |_| None);
        read.unwrap_err().to_string()
    };
    let twice = wrong(&flags);
    assert_eq!(twice, "--peers: node 1 is listed twice, as h:1 and as h:2");
    flags[2] = "--peers=2=h:1";
    assert_eq!(
        wrong(&flags),
        "--id: node 1 is not in its own list of peers (2)"
    );
    flags[2] = "--peers=1";
    assert!(wrong(&flags).starts_with("--peers: item 1 (\"1\"): there is no '='"));
    let file = file("id = 1\ndata = \"d\"\n[peers]\n1 = \"h:1\"\nx = \"h:2\"\n");
    let config = format!("--config={}", file.path().display());
    let in_table = wrong(&[&config]);
    assert!(
        in_table.contains(":3: item 2 (\"x=h:2\"): its id"),
        "{in_table}"
    );
}

#[test]
fn tls_takes_three_files_and_names_which_is_missing() {
    let flags = [
        "--tls-ca=ca.pem",
        "--tls-cert=1.pem",
        "--tls-key=1.key",
        "--tls-names=2=two.example",
    ];
    let config = read(&flags, &[], None).unwrap();
    let (files, names) = config.checked_tls().unwrap().unwrap();
    assert_eq!(
        (files.ca, files.cert, files.key),
        ("ca.pem".into(), "1.pem".into(), "1.key".into())
    );
    assert_eq!(names.len(), 1);
    assert!(
        read(&[], &[], None)
            .unwrap()
            .checked_tls()
            .unwrap()
            .is_none()
    );
    let incomplete = "tls_ca is given and tls_key is not: TLS takes tls_ca, tls_cert and tls_key";
    assert_eq!(
        error(&flags[..2], &[], None),
        format!("--tls-ca: {incomplete}")
    );
    let said = error(&[], &[("RAFT_TLS_KEY", "1.key")], None);
    assert!(
        said.starts_with("RAFT_TLS_KEY: tls_key is given and tls_ca is not"),
        "{said}"
    );
    let said = error(&["--tls-names=1=10.0.0.1"], &[], None);
    assert_eq!(
        said,
        "--tls-names: the TLS name of node 1, \"10.0.0.1\", is no DNS name"
    );
}

#[test]
fn no_name_is_that_of_two_nodes() {
    let twice = ["--tls-names=1=a.example,2=a.example"];
    assert_eq!(
        error(&twice, &[], None),
        "--tls-names: nodes 1 and 2 would both go by the TLS name a.example"
    );
    let usual = ["--tls-names=1=node-2"];
    assert_eq!(
        error(&usual, &[], None),
        "--tls-names: nodes 1 and 2 would both go by the TLS name node-2"
    );
    let swapped = ["--tls-names=1=node-2,2=node-1"];
    assert!(read(&swapped, &[], None).is_ok());
}

#[test]
fn insecure_is_a_switch_everywhere() {
    let insecure = |flags: &[&str], variables: &[(&str, &str)], file| {
        read(flags, variables, file).unwrap().insecure
    };
    let file = file("insecure = true");
    let path = Some(file.path());
    assert!(!insecure(&[], &[], None));
    assert!(insecure(&["--insecure"], &[], None) && insecure(&["--insecure=on"], &[], None));
    assert!(insecure(&[], &[("RAFT_INSECURE", "on")], None) && insecure(&[], &[], path));
    assert!(!insecure(
        &["--insecure=off"],
        &[("RAFT_INSECURE", "on")],
        path
    ));
}

#[test]
fn unknown_keys_are_refused_by_file_and_line() {
    let unknown = file("id = 1\n\nsesion_timeout = \"10s\"\n");
    let said = error(&[], &[], Some(unknown.path()));
    assert!(
        said.ends_with(":3: \"sesion_timeout\" is no setting"),
        "{said}"
    );
    // Neither is the file's own name one.
    let nested = file("config = \"other.toml\"");
    let said = error(&[], &[], Some(nested.path()));
    assert!(said.ends_with(":1: \"config\" is no setting"), "{said}");
    let broken = file("id = 1\nid = 2\n");
    let said = error(&[], &[], Some(broken.path()));
    assert!(
        said.contains(":2: ") && said.contains("duplicate"),
        "{said}"
    );
    let broken = file("id = 1\n\ndata = [\n");
    assert!(error(&[], &[], Some(broken.path())).contains(":"), "{said}");
}

#[test]
fn what_is_missing_is_named_with_the_three_ways_to_give_it() {
    let missing = |flags: &[&str]| {
        let read = args(flags).read(Config::of_nobody(), |_| None);
        read.unwrap_err().to_string()
    };
    let expected = "no id: give --id, RAFT_ID, or id in a file named by --config";
    assert_eq!(missing(&[]), expected);
    assert!(missing(&REQUIRED[..1]).starts_with("no peers: give --peers, RAFT_PEERS"));
    assert!(missing(&REQUIRED[..2]).starts_with("no data: give --data, RAFT_DATA"));
    assert_eq!(
        missing(&["--id=0", REQUIRED[1], REQUIRED[2]]),
        "--id: node 0 is not in its own list of peers (1, 2)"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_who_named_it() {
    let nowhere = Path::new("/nonexistent/raft.toml");
    let by_flag = error(&[], &[], Some(nowhere));
    let expected = "--config: cannot read /nonexistent/raft.toml: No such file";
    assert!(by_flag.starts_with(expected), "{by_flag}");
    let by_variable = error(&[], &[("RAFT_CONFIG", "/nonexistent/raft.toml")], None);
    assert!(
        by_variable.starts_with("RAFT_CONFIG: cannot read"),
        "{by_variable}"
    );
}
