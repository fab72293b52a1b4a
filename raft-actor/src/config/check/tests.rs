use super::*;
use crate::Snapshots;

fn valid() -> Config {
    Config::new(NodeId(1)).peers([(NodeId(1), "h:1"), (NodeId(2), "h:2")])
}

/// The setting that is refused, if one is.
fn refused(config: &Config) -> Option<&'static str> {
    match config.validate() {
        Ok(_) => None,
        Err(ConfigError::OutOfRange { setting, why, .. }) => {
            assert!(!why.is_empty());
            Some(setting)
        }
        Err(error) => panic!("{error}"),
    }
}

const MS: Duration = Duration::from_millis(1);
const GRAIN: Duration = Duration::from_nanos(1);

#[test]
fn what_production_needs_is_what_there_is_unless_said() {
    let config = valid();
    assert_eq!(refused(&config), None);
    assert_eq!(config.session_timeout, Duration::from_secs(3600));
    assert_eq!(
        config.snapshots,
        Snapshots {
            every_entries: 100_000,
            every_bytes: 256 << 20,
            margin_entries: 10_000
        }
    );
    assert_eq!(
        (
            config.retention,
            config.lease_reads,
            config.snapshot_bytes_per_s
        ),
        (None, None, Some(32 << 20))
    );
    assert_eq!(config.unapplied_bytes_max, 64 << 20);
    assert_eq!(config.core(NodeId(1), [NodeId(1)]).lease_drift_ticks, None);
}

/// Both borders, and one beyond each.
#[test]
fn every_range_holds_at_its_borders_and_not_beyond() {
    type Set<T> = fn(Config, T) -> Config;
    fn borders<T: Copy + std::fmt::Debug>(
        name: &str,
        set: Set<T>,
        below: Option<T>,
        min: T,
        max: T,
        above: T,
    ) {
        for border in [min, max] {
            assert_eq!(refused(&set(valid(), border)), None, "{name} {border:?}");
        }
        for beyond in below.into_iter().chain([above]) {
            assert_eq!(refused(&set(valid(), beyond)), Some(name), "{beyond:?}");
        }
    }
    let day = 24 * 3600 * 1000 * MS;
    // The heartbeat's upper border is the election timeout's, and that one's lower border is the heartbeat.
    let beat: Set<Duration> = |config, beat| {
        let wait = (beat + 10 * MS).min(DAY - TICK);
        config
            .heartbeat_interval(beat)
            .election_timeout(wait, wait + TICK)
    };
    borders(
        "heartbeat_interval",
        beat,
        Some(10 * MS - GRAIN),
        10 * MS,
        day - 20 * MS,
        day + GRAIN,
    );
    let shortest: Set<Duration> = |config, min| config.election_timeout(min, (min + TICK).min(DAY));
    borders(
        "election_timeout_min",
        shortest,
        Some(110 * MS - GRAIN),
        110 * MS,
        day - 10 * MS,
        day + GRAIN,
    );
    let longest: Set<Duration> = |config, max| config.election_timeout(500 * MS, max);
    borders(
        "election_timeout_max",
        longest,
        Some(510 * MS - GRAIN),
        510 * MS,
        day,
        day + GRAIN,
    );
    let command: Set<usize> = Config::command_bytes_max;
    borders(
        "command_bytes_max",
        command,
        Some(0),
        1,
        4 << 20,
        (4 << 20) + 1,
    );
    let count: Set<usize> = |config, count| config.proposals_max(count, 64 << 20);
    borders("proposals_max", count, Some(0), 1, 1 << 24, (1 << 24) + 1);
    let bytes: Set<usize> = |config, bytes| config.proposals_max(1, bytes);
    borders(
        "proposals_bytes_max",
        bytes,
        Some((1 << 20) - 1),
        1 << 20,
        1 << 40,
        (1 << 40) + 1,
    );
    let wait: Set<Duration> = Config::propose_timeout;
    borders(
        "propose_timeout",
        wait,
        Some(MS - GRAIN),
        MS,
        day,
        day + GRAIN,
    );
    let session: Set<Duration> = Config::session_timeout;
    let (least, most) = (10_000 * MS, 30 * day);
    borders(
        "session_timeout",
        session,
        Some(least - GRAIN),
        least,
        most,
        most + GRAIN,
    );
    let entries: Set<u64> = |config, every_entries| {
        config.snapshots(Snapshots {
            every_entries,
            ..Snapshots::default()
        })
    };
    borders(
        "snapshot_every_entries",
        entries,
        None,
        0,
        1 << 40,
        (1 << 40) + 1,
    );
    let size: Set<u64> = |config, every_bytes| {
        config.snapshots(Snapshots {
            every_bytes,
            ..Snapshots::default()
        })
    };
    borders(
        "snapshot_every_bytes",
        size,
        None,
        0,
        1 << 40,
        (1 << 40) + 1,
    );
    let margin: Set<u64> = |config, margin_entries| {
        config.snapshots(Snapshots {
            margin_entries,
            ..Snapshots::default()
        })
    };
    borders(
        "snapshot_margin_entries",
        margin,
        None,
        0,
        1 << 40,
        (1 << 40) + 1,
    );
    let kept: Set<u64> = |config, entries| config.retention(entries);
    borders(
        "retention_entries",
        kept,
        Some(0),
        1,
        1 << 40,
        (1 << 40) + 1,
    );
    let behind: Set<usize> = Config::unapplied_bytes_max;
    borders(
        "unapplied_bytes_max",
        behind,
        Some((1 << 20) - 1),
        1 << 20,
        1 << 40,
        (1 << 40) + 1,
    );
    let rate: Set<u64> = |config, rate| config.snapshot_bytes_per_s(rate);
    borders(
        "snapshot_bytes_per_s",
        rate,
        Some((64 << 10) - 1),
        64 << 10,
        1 << 40,
        (1 << 40) + 1,
    );
    let drift: Set<Duration> = |config, drift| config.lease_reads(drift);
    borders(
        "lease_clock_drift",
        drift,
        Some(MS - GRAIN),
        MS,
        480 * MS,
        480 * MS + GRAIN,
    );
}

/// What is let through here is what the core lets through: neither less nor more.
#[test]
fn a_drift_leaves_a_lease_where_the_core_says_so() {
    for ms in [1, 10, 11, 480, 481, 490, 500] {
        let config = valid().lease_reads(ms * MS);
        let core = raft_core::Raft::new(
            config.core(NodeId(1), [NodeId(1)]),
            raft_core::Recovered::default(),
        );
        assert_eq!(config.validate().is_ok(), core.is_ok(), "{ms} ms");
    }
    let ticks = |drift| {
        valid()
            .lease_reads(drift)
            .core(NodeId(1), [NodeId(1)])
            .lease_drift_ticks
    };
    assert_eq!(ticks(10 * MS), Some(1));
    assert_eq!(
        ticks(10 * MS + GRAIN),
        Some(2),
        "rounded up: no lease is longer than was meant"
    );
}

#[test]
fn an_election_timeout_too_short_for_any_lease_is_the_drifts_error() {
    let config = valid()
        .heartbeat_interval(10 * MS)
        .election_timeout(20 * MS, 30 * MS);
    assert_eq!(refused(&config), None);
    assert_eq!(refused(&config.lease_reads(MS)), Some("lease_clock_drift"));
}

#[test]
fn the_error_says_what_it_is_what_it_may_be_and_why() {
    let error = valid()
        .session_timeout(Duration::from_secs(5))
        .validate()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "session_timeout is 5s; it must be from 10s to 30d: a session must outlive a change of the leader, \
         and the cluster forgets it one day"
    );
    let error = valid()
        .snapshot_bytes_per_s(1000)
        .validate()
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("snapshot_bytes_per_s is 1000B; it must be from 64KiB to 1TiB: "),
        "{error}"
    );
}

#[test]
fn an_address_has_a_host_and_a_port() {
    for address in ["h", "h:", ":1", "h:0", "h:65536", ""] {
        let config = Config::new(NodeId(1)).peers([(NodeId(1), address)]);
        assert!(
            matches!(config.validate(), Err(ConfigError::Address { .. })),
            "{address:?}"
        );
        let config = Config::new(NodeId(1)).peers([(NodeId(1), "h:1")]);
        assert!(
            matches!(
                config.advertise(address).validate(),
                Err(ConfigError::OwnAddress { .. })
            ),
            "{address:?}"
        );
    }
}

#[test]
fn with_tls_no_address_is_inside_the_process() {
    let inside = valid().listen("memory/test:1");
    assert_eq!(refused(&inside), None);
    let secured = |config: Config| config.tls("ca", "cert", "key").validate();
    let expected = ConfigError::TlsWithinProcess {
        address: "memory/test:1".into(),
    };
    assert_eq!(secured(inside), Err(expected.clone()));
    let peers = [(NodeId(1), "memory/test:1")];
    assert_eq!(secured(Config::new(NodeId(1)).peers(peers)), Err(expected));
    assert!(secured(valid()).is_ok());
}
