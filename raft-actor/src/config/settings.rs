//! Every setting as programs take it: its name, of which flag and variable are made, how it is written, what it
//! does.
//!
//! Invariant: what can be set here is what [`Config`] has, and the defaults that people read are its own; a test
//! holds them together.

use std::path::PathBuf;

use raft_core::NodeId;

use super::{Config, Store, text};

/// A setting as the sources know it.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value_name: &'static str,
    /// As it could be given; empty if there is none.
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

/// What a program cannot do without comes first.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "id",
        value_name: "ID",
        default: "",
        help: "This node's number, one of those in --peers",
        set: |config, text| {
            put(
                &mut config.id,
                text::number(text).map(|id| Some(NodeId(id))),
            )
        },
    },
    Setting {
        name: "peers",
        value_name: "ID=HOST:PORT,…",
        default: "",
        help: "All nodes, this one among them, the same list on each: 1=127.0.0.1:7001,2=127.0.0.1:7002,3=…",
        set: |config, text| put(&mut config.peers, text::peers(text)),
    },
    Setting {
        name: "at",
        value_name: "HOST:PORT",
        default: "",
        help: "Where this node is, in place of --id and --peers: to lead or join a cluster, or go on where its folder left off",
        set: |config, text| put(&mut config.at, Ok(Some(text.to_owned()))),
    },
    Setting {
        name: "data",
        value_name: "DIR",
        default: "",
        help: "The folder of this node's log. Made if it is missing; no other node or process may use it",
        set: |config, text| put(&mut config.store, Ok(Store::Folder(PathBuf::from(text)))),
    },
    Setting {
        name: "listen",
        value_name: "IP:PORT",
        default: "",
        help: "Where to listen, if that is not this node's address in --peers",
        set: |config, text| put(&mut config.listen, Ok(Some(text.to_owned()))),
    },
    Setting {
        name: "advertise",
        value_name: "HOST:PORT",
        default: "",
        help: "Where the others find this node, if that is not its address in --peers",
        set: |config, text| put(&mut config.advertise, Ok(Some(text.to_owned()))),
    },
    Setting {
        name: "heartbeat_interval",
        value_name: "TIME",
        default: "100ms",
        help: "How often a leader is heard of",
        set: |config, text| put(&mut config.heartbeat_interval, text::duration(text)),
    },
    Setting {
        name: "election_timeout_min",
        value_name: "TIME",
        default: "500ms",
        help: "How long a follower waits for its leader, at least",
        set: |config, text| put(&mut config.election_timeout_min, text::duration(text)),
    },
    Setting {
        name: "election_timeout_max",
        value_name: "TIME",
        default: "1s",
        help: "And at most",
        set: |config, text| put(&mut config.election_timeout_max, text::duration(text)),
    },
    Setting {
        name: "early_campaign",
        value_name: SWITCH,
        default: "on",
        help: "Whether a leader whose process has died is replaced at once; off: after the election timeout",
        set: |config, text| put(&mut config.early_campaign, text::on_or_off(text)),
    },
    Setting {
        name: "sync_inline",
        value_name: SWITCH,
        default: "off",
        help: "Sync the log on the node's own thread: quicker for few callers, and deaf while the disk does not answer",
        set: |config, text| put(&mut config.sync_inline, text::on_or_off(text)),
    },
    Setting {
        name: "command_bytes_max",
        value_name: "SIZE",
        default: "1MiB",
        help: "The longest command; the same on every node",
        set: |config, text| put(&mut config.command_bytes_max, text::bytes_here(text)),
    },
    Setting {
        name: "proposals_max",
        value_name: "COUNT",
        default: "65536",
        help: "How many proposals may wait for their outcome; one more is busy",
        set: |config, text| put(&mut config.proposals_max, text::count(text)),
    },
    Setting {
        name: "proposals_bytes_max",
        value_name: "SIZE",
        default: "64MiB",
        help: "How many bytes of them",
        set: |config, text| put(&mut config.proposals_bytes_max, text::bytes_here(text)),
    },
    Setting {
        name: "propose_timeout",
        value_name: "TIME",
        default: "10s",
        help: "How long a proposal waits for its outcome, unless it says so itself",
        set: |config, text| put(&mut config.propose_timeout, text::duration(text)),
    },
    Setting {
        name: "session_timeout",
        value_name: "TIME",
        default: "1h",
        help: "How long a session may be silent before the cluster forgets it",
        set: |config, text| put(&mut config.session_timeout, text::duration(text)),
    },
    Setting {
        name: "snapshot_every_entries",
        value_name: "COUNT",
        default: "100000",
        help: "A snapshot after so many entries; 0: their number does not matter",
        set: |config, text| put(&mut config.snapshots.every_entries, text::number(text)),
    },
    Setting {
        name: "snapshot_every_bytes",
        value_name: "SIZE",
        default: "256MiB",
        help: "A snapshot after so many bytes of entries; 0: their size does not matter",
        set: |config, text| put(&mut config.snapshots.every_bytes, text::bytes(text)),
    },
    Setting {
        name: "snapshot_margin_entries",
        value_name: "COUNT",
        default: "10000",
        help: "Entries before a snapshot that the log keeps for nodes that were away for a moment",
        set: |config, text| put(&mut config.snapshots.margin_entries, text::number(text)),
    },
    Setting {
        name: "retention_entries",
        value_name: "COUNT|off",
        default: "off",
        help: "Without a state machine: how many entries the log keeps; off: all",
        set: |config, text| put(&mut config.retention, text::or_off(text, text::number)),
    },
    Setting {
        name: "lease_clock_drift",
        value_name: "TIME|off",
        default: "off",
        help: "Reads by lease, and how far clocks drift apart in an election timeout; on at all nodes or none",
        set: |config, text| put(&mut config.lease_reads, text::or_off(text, text::duration)),
    },
    Setting {
        name: "unapplied_bytes_max",
        value_name: "SIZE",
        default: "64MiB",
        help: "How far applying may be behind before proposals are busy",
        set: |config, text| put(&mut config.unapplied_bytes_max, text::bytes_here(text)),
    },
    Setting {
        name: "snapshot_bytes_per_s",
        value_name: "SIZE|off",
        default: "32MiB",
        help: "How fast snapshots are sent to another node, in a second; off: as fast as it goes",
        set: |config, text| {
            put(
                &mut config.snapshot_bytes_per_s,
                text::or_off(text, text::bytes),
            )
        },
    },
    Setting {
        name: "tls_ca",
        value_name: "FILE",
        default: "",
        help: "TLS between the nodes: the CAs that are trusted (PEM), the same on each. With --tls-cert and --tls-key",
        set: |config, text| put(&mut config.tls.ca, Ok(Some(PathBuf::from(text)))),
    },
    Setting {
        name: "tls_cert",
        value_name: "FILE",
        default: "",
        help: "This node's certificate (PEM), with the name node-ID or the one in --tls-names. Looked at again when it changes",
        set: |config, text| put(&mut config.tls.cert, Ok(Some(PathBuf::from(text)))),
    },
    Setting {
        name: "tls_key",
        value_name: "FILE",
        default: "",
        help: "The key of that certificate (PEM), which not every user of the host may read",
        set: |config, text| put(&mut config.tls.key, Ok(Some(PathBuf::from(text)))),
    },
    Setting {
        name: "tls_names",
        value_name: "ID=NAME,…",
        default: "",
        help: "The DNS names of the nodes' certificates, where they are not node-ID; the same on each",
        set: |config, text| put(&mut config.tls_names, text::names(text)),
    },
    Setting {
        name: "own_tls_name",
        value_name: "NAME",
        default: "",
        help: "To join: the DNS name that this node's certificate holds, if that is not node-ID",
        set: |config, text| put(&mut config.own_tls_name, Ok(Some(text.to_owned()))),
    },
    Setting {
        name: "learner",
        value_name: SWITCH,
        default: "off",
        help: "To join: stay a learner, which is sent everything and does not vote",
        set: |config, text| put(&mut config.learner, text::on_or_off(text)),
    },
    Setting {
        name: "replacing",
        value_name: "ID",
        default: "",
        help: "To join: take the place of this node, which is gone",
        set: |config, text| {
            put(
                &mut config.replacing,
                text::number(text).map(|id| Some(NodeId(id))),
            )
        },
    },
    Setting {
        name: "joins",
        value_name: SWITCH,
        default: "on",
        help: "Whether others may join while this node leads",
        set: |config, text| put(&mut config.joins, text::on_or_off(text)),
    },
    Setting {
        name: "join_timeout",
        value_name: "TIME",
        default: "60s",
        help: "To join: how long it is tried",
        set: |config, text| put(&mut config.join_timeout, text::duration(text)),
    },
    Setting {
        name: "joiner_timeout",
        value_name: "TIME",
        default: "10min",
        help: "How long a node that was let in, and is never heard of, stays in before it is removed again",
        set: |config, text| put(&mut config.joiner_timeout, text::duration(text)),
    },
    Setting {
        name: "insecure",
        value_name: SWITCH,
        default: "off",
        help: "Listen beyond loopback without TLS, in a network in which everybody is trusted",
        set: |config, text| put(&mut config.insecure, text::on_or_off(text)),
    },
];

/// The name of the value of a setting that is on when its flag is there without one.
pub(super) const SWITCH: &str = "on|off";

/// What was read, if it could be.
fn put<T>(to: &mut T, read: Result<T, String>) -> Result<(), String> {
    *to = read?;
    Ok(())
}

/// Its flag.
pub(super) fn flag(name: &str) -> String {
    name.replace('_', "-")
}

/// Its variable.
pub(super) fn variable(name: &str) -> String {
    format!("RAFT_{}", name.to_uppercase())
}
