//! From turns to figures: the ratio of each turn, the median of the rounds, the floor, the target.
//!
//! A ratio is taken within one turn, between two measurements that lie seconds apart, and only then the median of
//! them: what the machine did in another round cannot be in it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::row::{Row, Side, Turn};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Our commits a second over theirs.
    Throughput,
    /// Their median latency over ours.
    Latency,
}

/// What is asked of one ratio.
#[derive(Clone, Copy, Debug)]
struct Asked {
    figure: &'static str,
    peer: &'static str,
    side: Side,
    clients: usize,
    by: By,
    floor: Option<f64>,
    target: f64,
}

const fn asked(
    figure: &'static str,
    peer: &'static str,
    clients: usize,
    floor: f64,
    target: f64,
) -> Asked {
    Asked {
        figure,
        peer,
        side: Side::Ours,
        clients,
        by: By::Throughput,
        floor: Some(floor),
        target,
    }
}

/// All that is asked.
const ASKED: [Asked; 15] = [
    Asked {
        by: By::Latency,
        floor: None,
        ..asked("d_engine_latency_1", "d_engine", 1, 0.0, 1.0)
    },
    asked("etcd_64", "etcd", 64, 10.0, 15.0),
    asked("nats_64", "nats", 64, 5.0, 7.0),
    asked("etcd_256", "etcd", 256, 18.0, 25.0),
    asked("nats_256", "nats", 256, 6.0, 8.0),
    asked("etcd_1024", "etcd", 1_024, 25.0, 33.0),
    asked("nats_1024", "nats", 1_024, 8.0, 11.0),
    Asked {
        floor: None,
        ..asked("redis_pipelined_1024", "redis_pipelined", 1_024, 0.0, 1.0)
    },
    Asked {
        side: Side::Outside,
        ..asked("etcd_outside_1024", "etcd", 1_024, 10.0, 15.0)
    },
    Asked {
        side: Side::Outside,
        ..asked("nats_outside_1024", "nats", 1_024, 4.0, 5.0)
    },
    asked("openraft_memory_1", "openraft_memory", 1, 1.0, 1.5),
    asked("openraft_memory_16", "openraft_memory", 16, 1.0, 1.5),
    asked("openraft_memory_64", "openraft_memory", 64, 1.0, 1.5),
    asked("openraft_memory_256", "openraft_memory", 256, 1.0, 1.5),
    asked("openraft_memory_1024", "openraft_memory", 1_024, 1.0, 1.5),
];

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) peer: String,
    /// Which of our sides it is of.
    pub(crate) side: Side,
    /// The median of the rounds. None where a side was never measured.
    pub(crate) ratio: Option<f64>,
    /// The ratio of each round, from the least to the greatest.
    pub(crate) of_rounds: Vec<f64>,
    pub(crate) floor: Option<f64>,
    pub(crate) target: f64,
}

impl Figure {
    /// Whether nothing is missed.
    pub(crate) fn ok(&self) -> bool {
        match (self.ratio, self.floor) {
            (Some(ratio), Some(floor)) => ratio >= floor,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Its line.
    pub(crate) fn line(&self) -> String {
        let ratio = self
            .ratio
            .map_or_else(|| "none".to_owned(), |ratio| format!("{ratio:.2}"));
        let floor = self
            .floor
            .map_or_else(|| "-".to_owned(), |floor| floor.to_string());
        let verdict = if self.ok() { "ok" } else { "missed" };
        format!(
            "FIGURE peers.{} {ratio} ratio {floor} {verdict} target {}",
            self.name, self.target
        )
    }
}

/// The figures for which the measured peers and numbers of clients suffice. A peer that was skipped has none; one that
/// failed has one that is missed.
pub(crate) fn figures(turns: &[Turn], clients: &[usize]) -> Vec<Figure> {
    ASKED
        .iter()
        .filter(|asked| turns.iter().any(|turn| turn.peer == asked.peer))
        .filter(|asked| clients.contains(&asked.clients))
        .map(|asked| {
            let mut of_rounds = ratios(turns, asked);
            of_rounds.sort_by(f64::total_cmp);
            Figure {
                name: asked.figure.to_owned(),
                peer: asked.peer.to_owned(),
                side: asked.side,
                ratio: median(&of_rounds),
                of_rounds,
                floor: asked.floor,
                target: asked.target,
            }
        })
        .collect()
}

/// The ratio of each round in which both sides were measured.
fn ratios(turns: &[Turn], asked: &Asked) -> Vec<f64> {
    let row = |round, side| {
        turns
            .iter()
            .filter(|turn| turn.round == round && turn.peer == asked.peer && turn.side == side)
            .flat_map(|turn| &turn.rows)
            .find(|row| row.clients == asked.clients)
    };
    let rounds = turns.iter().map(|turn| turn.round + 1).max().unwrap_or(0);
    (0..rounds)
        .filter_map(|round| ratio(row(round, asked.side)?, row(round, Side::Peer)?, asked.by))
        .collect()
}

/// None where one of the two did nothing: that is no ratio.
fn ratio(ours: &Row, theirs: &Row, by: By) -> Option<f64> {
    if ours.commits_per_s <= 0.0 || theirs.commits_per_s <= 0.0 {
        return None;
    }
    Some(match by {
        By::Throughput => ours.commits_per_s / theirs.commits_per_s,
        By::Latency => theirs.median_us as f64 / ours.median_us.max(1) as f64,
    })
}

/// The middle one; of an even number the mean of the two in the middle. `sorted` is what it says.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Requests of ours that failed, in all turns.
pub(crate) fn our_errors(turns: &[Turn]) -> u64 {
    turns
        .iter()
        .filter(|turn| turn.side != Side::Peer)
        .flat_map(|turn| &turn.rows)
        .map(|row| row.errors)
        .sum()
}

/// All figures as lines, and whether none is missed.
pub(crate) fn lines(figures: &[Figure], turns: &[Turn]) -> (String, bool) {
    let mut text = String::new();
    for figure in figures {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", figure.line());
    }
    let errors = our_errors(turns);
    let verdict = if errors == 0 { "ok" } else { "missed" };
    let _ = writeln!(text, "FIGURE peers.our_errors {errors} count 0 {verdict}");
    (text, errors == 0 && figures.iter().all(Figure::ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(clients: usize, commits_per_s: f64, median_us: u64) -> Row {
        Row {
            clients,
            commits_per_s,
            median_us,
            p99_us: median_us,
            cpu_us: 1.0,
            servers_cpu_us: None,
            foreign: 0.0,
            errors: 0,
            first_error: None,
        }
    }

    fn turn(round: usize, peer: &str, side: Side, rows: Vec<Row>) -> Turn {
        Turn {
            round,
            peer: peer.to_owned(),
            side,
            rows,
            failed: None,
        }
    }

    fn figure(figures: &[Figure], name: &str) -> Figure {
        figures
            .iter()
            .find(|figure| figure.name == name)
            .unwrap()
            .clone()
    }

    #[test]
    fn a_ratio_is_within_its_round_and_the_median_comes_after() {
        let mut turns = Vec::new();
        // A machine that is ten times slower in the second round, and an outlier in the third.
        for (round, ours, theirs) in [
            (0, 12_000.0, 1_000.0),
            (1, 1_300.0, 100.0),
            (2, 90_000.0, 1_000.0),
        ] {
            turns.push(turn(round, "etcd", Side::Ours, vec![row(64, ours, 1)]));
            turns.push(turn(round, "etcd", Side::Peer, vec![row(64, theirs, 1)]));
        }
        let etcd = figure(&figures(&turns, &[64]), "etcd_64");
        assert_eq!(etcd.of_rounds, [12.0, 13.0, 90.0]);
        assert_eq!(
            etcd.line(),
            "FIGURE peers.etcd_64 13.00 ratio 10 ok target 15"
        );
    }

    #[test]
    fn below_the_floor_is_missed() {
        let turns = [
            turn(0, "nats", Side::Ours, vec![row(64, 499.0, 1)]),
            turn(0, "nats", Side::Peer, vec![row(64, 100.0, 1)]),
        ];
        let all = figures(&turns, &[64]);
        assert!(!figure(&all, "nats_64").ok());
        assert!(!lines(&all, &turns).1);
    }

    #[test]
    fn outside_is_not_taken_for_inside() {
        let turns = [
            turn(0, "nats", Side::Ours, vec![row(1_024, 900.0, 1)]),
            turn(0, "nats", Side::Outside, vec![row(1_024, 450.0, 1)]),
            turn(0, "nats", Side::Peer, vec![row(1_024, 100.0, 1)]),
        ];
        let all = figures(&turns, &[1_024]);
        assert_eq!(figure(&all, "nats_1024").ratio, Some(9.0));
        assert_eq!(figure(&all, "nats_outside_1024").ratio, Some(4.5));
    }

    #[test]
    fn latencies_are_better_when_they_are_less() {
        let turns = [
            turn(0, "d_engine", Side::Ours, vec![row(1, 1.0, 300)]),
            turn(0, "d_engine", Side::Peer, vec![row(1, 1.0, 330)]),
        ];
        assert_eq!(
            figure(&figures(&turns, &[1]), "d_engine_latency_1").ratio,
            Some(1.1)
        );
    }

    #[test]
    fn who_was_skipped_has_no_figure_and_who_failed_a_missed_one() {
        let turns = [
            turn(0, "etcd", Side::Ours, vec![row(64, 900.0, 1)]),
            turn(0, "etcd", Side::Peer, Vec::new()),
        ];
        let all = figures(&turns, &[64]);
        assert_eq!(all.len(), 1);
        assert_eq!(
            all[0].line(),
            "FIGURE peers.etcd_64 none ratio 10 missed target 15"
        );
        // A peer that did nothing is not infinitely slower.
        let still = [
            turns[0].clone(),
            turn(0, "etcd", Side::Peer, vec![row(64, 0.0, 0)]),
        ];
        assert_eq!(figures(&still, &[64])[0].ratio, None);
    }

    #[test]
    fn our_errors_are_missed_and_theirs_are_not() {
        let failing = || Row {
            errors: 2,
            ..row(64, 1_000.0, 1)
        };
        let theirs = [turn(0, "redis", Side::Peer, vec![failing()])];
        assert!(lines(&[], &theirs).1);
        let ours = [turn(0, "redis", Side::Ours, vec![failing()])];
        let (text, ok) = lines(&[], &ours);
        assert!(!ok);
        assert_eq!(text, "FIGURE peers.our_errors 2 count 0 missed\n");
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
    }

    #[test]
    fn every_peer_that_is_asked_for_exists() {
        for asked in ASKED {
            assert!(crate::peer::NAMES.contains(&asked.peer), "{}", asked.figure);
            assert!(asked.floor.is_none_or(|floor| floor <= asked.target));
        }
    }
}
