//! The language of the golden scripts; `tests/scripts/README.md` describes it.

use bytes::Bytes;
use raft_core::membership::{Change, Configuration, Member, Step};
use raft_core::{Config, HardState, Incarnation, Input, LogIndex, NodeId, ReadId, Term};

use super::cluster::{Cluster, Link};

/// Runs a script and gives it back with the output that it has now.
///
/// # Errors
/// A command that is none, in words that name its line.
pub(crate) fn run(script: &str) -> Result<String, String> {
    let mut cluster = Cluster::default();
    let mut text = String::new();
    for (line, number) in script.lines().zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            text += &format!("{line}\n");
            continue;
        }
        let Some(command) = line.strip_prefix('>') else {
            continue; // Output, which is written anew.
        };
        text += &format!("{line}\n");
        let quiet = command.trim().strip_prefix('(');
        let quiet = quiet.and_then(|c| c.strip_suffix(')'));
        run_command(&mut cluster, quiet.unwrap_or(command))
            .map_err(|error| format!("line {number}, {line:?}: {error}"))?;
        let lines = cluster.take_lines();
        if quiet.is_some() {
            continue;
        }
        if lines.is_empty() {
            text += "nothing\n";
        }
        for line in lines {
            text += &format!("{line}\n");
        }
    }
    Ok(text)
}

fn run_command(cluster: &mut Cluster, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let mut words = Words(&words);
    match words.next("a command")? {
        "nodes" => {
            let n = words.number("how many nodes")?;
            let all = Configuration::of((1..=n).map(NodeId));
            for id in (1..=n).map(NodeId) {
                cluster.add(config(id, all.clone(), words.0)?)?;
            }
            return Ok(());
        }
        "node" => {
            let id = NodeId(words.number("a node")?);
            cluster.add(config(id, Configuration::default(), words.0)?)?;
            return Ok(());
        }
        "disk" => return disk(cluster, words),
        "campaign" => cluster.step(words.node(cluster)?, Input::Campaign),
        "propose" => {
            let id = words.node(cluster)?;
            let commands = words.rest().iter().map(|w| Bytes::from((*w).to_owned()));
            cluster.step(id, Input::Propose(commands.collect()));
        }
        "tick" => {
            let ids = words.nodes(cluster)?;
            for _ in 0..words.maybe_number()?.unwrap_or(1) {
                for id in &ids {
                    cluster.step(*id, Input::Tick);
                }
            }
        }
        "run" => {
            for _ in 0..words.number("how many ticks")? {
                for id in cluster.up() {
                    cluster.step(id, Input::Tick);
                }
                cluster.settle()?;
            }
        }
        "persist" => {
            let ids = words.nodes(cluster)?;
            let count = words.count()?;
            for id in ids {
                cluster.persist(id, count);
            }
        }
        "read" => cluster.answer_reads(words.node(cluster)?),
        "deliver" => {
            let newest_first = words.0.last() == Some(&"newest-first");
            if newest_first {
                words.0 = &words.0[..words.0.len() - 1];
            }
            let link = words.link(cluster)?;
            cluster.deliver(link, words.count()?, newest_first);
        }
        "drop" => {
            let link = words.link(cluster)?;
            cluster.drop_messages(link, words.count()?);
        }
        "duplicate" => cluster.duplicate(words.link(cluster)?),
        "change" => {
            let id = words.node(cluster)?;
            let change = change(words.rest())?;
            cluster.step(id, Input::ChangeMembership(change));
        }
        "transfer" => {
            let id = words.node(cluster)?;
            let to = words.maybe_number()?.map(NodeId);
            cluster.step(id, Input::TransferLeadership { to });
        }
        "readindex" => {
            let id = words.node(cluster)?;
            let read = ReadId(words.number("the name of a read")?);
            cluster.step(id, Input::ReadIndex(read));
        }
        "snapshot" => {
            let id = words.node(cluster)?;
            cluster.take_snapshot(id, words.maybe_number()?.map(LogIndex));
        }
        "file" => {
            let id = words.node(cluster)?;
            let arrived = match words.rest() {
                [] => true,
                ["broken"] => false,
                other => {
                    return Err(format!(
                        "{:?} is neither nothing nor broken",
                        other.join(" ")
                    ));
                }
            };
            cluster.end_transfer(id, arrived);
        }
        "pause" => {
            let id = words.node(cluster)?;
            let ticks = words.number("how many ticks")?;
            cluster.step(id, Input::Paused { ticks });
        }
        "gone" => {
            let (id, peer) = (words.node(cluster)?, words.node(cluster)?);
            cluster.step(id, Input::PeerGone(peer));
        }
        "forgot" => {
            let (id, peer) = (words.node(cluster)?, words.node(cluster)?);
            cluster.step(id, Input::PeerForgot(peer));
        }
        "unreachable" => {
            let (id, peer) = (words.node(cluster)?, words.node(cluster)?);
            cluster.step(id, Input::PeerUnreachable(peer));
        }
        "cut" => match words.0.first() {
            Some(word) if word.contains("->") => {
                let Link { from, to } = words.link(cluster)?;
                let ends = from.zip(to).ok_or("a cut takes both ends, such as 1->2")?;
                cluster.cut(ends.0, ends.1);
            }
            _ => {
                let id = words.node(cluster)?;
                for other in cluster.ids() {
                    cluster.cut(id, other);
                    cluster.cut(other, id);
                }
            }
        },
        "heal" => cluster.heal(),
        "crash" => {
            let id = words.node(cluster)?;
            cluster.crash(id, words.maybe_number()?.unwrap_or(0) as usize);
        }
        "restart" => {
            let id = words.node(cluster)?;
            if cluster.is_up(id) {
                return Err(format!("node {id} is up: crash it first"));
            }
            cluster.restart(id, words.count()?)?;
        }
        "settle" => cluster.settle()?,
        "network" => cluster.show_network(),
        "members" => {
            for id in words.nodes_or_all(cluster)? {
                cluster.show_members(id);
            }
        }
        "status" => {
            for id in words.nodes_or_all(cluster)? {
                cluster.show_status(id);
            }
        }
        "log" => {
            for id in words.nodes_or_all(cluster)? {
                cluster.show_log(id);
            }
        }
        other => return Err(format!("there is no command {other:?}")),
    }
    words.end()
}

/// The words of a command that nobody has taken yet.
struct Words<'a>(&'a [&'a str]);

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        let (first, rest) = self
            .0
            .split_first()
            .ok_or_else(|| format!("{what} is missing"))?;
        self.0 = rest;
        Ok(first)
    }

    fn rest(&mut self) -> &'a [&'a str] {
        std::mem::take(&mut self.0)
    }

    fn end(self) -> Result<(), String> {
        match self.0 {
            [] => Ok(()),
            rest => Err(format!("{:?} is too much", rest.join(" "))),
        }
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        number(self.next(what)?)
    }

    fn maybe_number(&mut self) -> Result<Option<u64>, String> {
        match self.0 {
            [] => Ok(None),
            _ => self.number("a number").map(Some),
        }
    }

    /// How many; all of them if nothing is said.
    fn count(&mut self) -> Result<usize, String> {
        Ok(self.maybe_number()?.map_or(usize::MAX, |n| n as usize))
    }

    fn node(&mut self, cluster: &Cluster) -> Result<NodeId, String> {
        known(cluster, self.next("a node")?)
    }

    fn nodes(&mut self, cluster: &Cluster) -> Result<Vec<NodeId>, String> {
        match self.next("a node, or all,")? {
            "all" => Ok(cluster.ids()),
            id => Ok(vec![known(cluster, id)?]),
        }
    }

    fn nodes_or_all(&mut self, cluster: &Cluster) -> Result<Vec<NodeId>, String> {
        match self.0 {
            [] => Ok(cluster.ids()),
            _ => self.nodes(cluster),
        }
    }

    /// `1->2`, `1->`, `->2`, or nothing for every link.
    fn link(&mut self, cluster: &Cluster) -> Result<Link, String> {
        if self.0.is_empty() {
            return Ok(Link::default());
        }
        let word = self.next("a link")?;
        let ends = word.split_once("->");
        let (from, to) = ends.ok_or_else(|| format!("{word:?} is no link such as 1->2"))?;
        let end = |id: &str| match id {
            "" => Ok(None),
            id => known(cluster, id).map(Some),
        };
        let (from, to) = (end(from)?, end(to)?);
        Ok(Link { from, to })
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

/// A node that there is.
fn known(cluster: &Cluster, word: &str) -> Result<NodeId, String> {
    let id = NodeId(number(word)?);
    if cluster.ids().contains(&id) {
        Ok(id)
    } else {
        Err(format!("there is no node {id}"))
    }
}

fn setting(word: &str) -> Result<(&str, &str), String> {
    let parts = word.split_once('=');
    parts.ok_or_else(|| format!("{word:?} is no setting such as name=1"))
}

/// A heartbeat each 2 ticks, an election timeout of 10 to 19, and no margin when the log is compacted.
fn config(id: NodeId, initial: Configuration, settings: &[&str]) -> Result<Config, String> {
    let mut config = Config::new(id, []);
    config.initial = initial;
    config.heartbeat_ticks = 2;
    config.election_timeout_ticks_min = 10;
    config.election_timeout_ticks_max = 20;
    config.compaction_margin_entries = 0;
    config.compaction_hold_entries_max = 0;
    for word in settings {
        let (name, value) = setting(word)?;
        let value = number(value)?;
        match name {
            "append_entries_max" => config.append_entries_max = value as usize,
            "inflight_max" => config.inflight_max = value as usize,
            "tail_bytes_max" => config.tail_bytes_max = value as usize,
            "uncommitted_bytes_max" => config.uncommitted_bytes_max = value as usize,
            "reads_max" => config.reads_max = value as usize,
            "compaction_margin_entries" => config.compaction_margin_entries = value,
            "compaction_hold_entries_max" => config.compaction_hold_entries_max = value,
            "lease_drift_ticks" => config.lease_drift_ticks = Some(value as u32),
            _ => return Err(format!("there is no setting {name:?}")),
        }
    }
    Ok(config)
}

/// `+4 -1 learner=2 join=5 priority=3:7 about=5,e:7005`, all of it at once: by itself in one step or jointly. Before that,
/// `simple`, `joint` (to be left by hand) or `joint-auto`; or `leave` alone.
fn change(words: &[&str]) -> Result<Change, String> {
    let steps = |words: &[&str]| match words {
        [] => Err("what is to change is missing".into()),
        words => words.iter().map(|word| step(word)).collect(),
    };
    Ok(match words {
        ["leave"] => Change::LeaveJoint,
        ["simple", rest @ ..] => Change::Simple(steps(rest)?),
        [how @ ("joint" | "joint-auto"), rest @ ..] => Change::EnterJoint {
            steps: steps(rest)?,
            auto_leave: *how == "joint-auto",
        },
        rest => Change::Auto(steps(rest)?),
    })
}

fn step(word: &str) -> Result<Step, String> {
    let id = |word: &str| number(word).map(NodeId);
    if let Some(word) = word.strip_prefix('+') {
        return Ok(Step::AddVoter(id(word)?));
    }
    if let Some(word) = word.strip_prefix('-') {
        return Ok(Step::Remove(id(word)?));
    }
    match word.split_once('=') {
        Some(("learner", word)) => Ok(Step::AddLearner(id(word)?)),
        Some(("join", word)) => Ok(Step::Join(id(word)?)),
        Some(("priority", both)) => {
            let both = both
                .split_once(':')
                .ok_or("a priority is such as priority=3:7")?;
            Ok(Step::SetPriority(id(both.0)?, number(both.1)? as u32))
        }
        Some(("about", said)) => {
            let mut parts = said.split(',');
            let about = id(parts.next().unwrap_or_default())?;
            let address = parts.next().unwrap_or_default().to_owned();
            let folder = parts.next().filter(|word| !word.is_empty());
            let folder = folder.map(number).transpose()?;
            let incarnation = folder.map(|number| Incarnation(number.into()));
            let tls_name = parts.next().unwrap_or_default().to_owned();
            let member = Member {
                incarnation,
                address,
                tls_name,
            };
            Ok(Step::Describe(about, member))
        }
        _ => Err(format!("{word:?} is no change")),
    }
}

/// `term=3 vote=1 log=1,1,3`
fn disk(cluster: &mut Cluster, mut words: Words<'_>) -> Result<(), String> {
    let id = words.node(cluster)?;
    let mut hard_state = HardState::default();
    let mut log = Vec::new();
    for word in words.rest() {
        let (name, value) = setting(word)?;
        match name {
            "term" => hard_state.term = Term(number(value)?),
            "vote" => hard_state.voted_for = Some(NodeId(number(value)?)),
            "log" => log = value.split(',').map(number).collect::<Result<_, _>>()?,
            _ => return Err(format!("a disk has no {name:?}")),
        }
    }
    cluster.set_disk(id, hard_state, &log)
}
