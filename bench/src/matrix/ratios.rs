//! The figures of the matrix: what the rows and numbers of each round say, and the median over the rounds.
//!
//! Invariants:
//! - A ratio is of two measurements of one round. Only ratios are put together over rounds, since a disk is another one an
//!   hour later.
//! - What no round has measured has no figure.

use super::plan::{
    Cell, FIVE, LENGTH, LOG, MEMORY, ONE, OUTSIDE, SUBSCRIBERS, THREADS, THREE, TLS,
};
use super::visits::{Visit, Visits};
use crate::cluster::Place;
use crate::figures::Figures;
use crate::report::Row;

/// The numbers of a visit that are no rows.
pub(super) const BOUND_US: &str = "disk_and_wire_us";
pub(super) const REPLAY_PER_S: &str = "replay_per_s";
pub(super) const RESTART_S: &str = "restart_s";
pub(super) const LENGTH_RATIO: &str = "long_over_short";

/// All figures of `rounds` rounds.
pub(super) fn figures(visits: &Visits, rounds: usize) -> Figures {
    let mut all = Ratios {
        visits,
        rounds,
        figures: Figures::of("bench"),
    };
    all.latency();
    all.throughput();
    all.logs();
    all.what_nothing_is_asked_of();
    all.health();
    all.figures
}

struct Ratios<'a> {
    visits: &'a Visits,
    rounds: usize,
    figures: Figures,
}

/// Commits a second at the leader.
const LEADER: fn(usize) -> Cell = |clients| Cell::propose(Place::Leader, clients);

impl Ratios<'_> {
    fn latency(&mut self) {
        let one = self.over_rounds(|visits| {
            let three = visits(THREE)?;
            let median = three.row(&LEADER(1))?.measured.median_us as f64;
            Some(median / three.numbers.get(BOUND_US)?)
        });
        self.aimed("one_client_over_disk_and_wire", one, "ratio", 1.35, 1.1);
        for clients in [64, 256, 1024] {
            let tail = self.over_rounds(|visits| {
                let m = &visits(THREE)?.row(&LEADER(clients))?.measured;
                Some(m.p99_us as f64 / m.median_us as f64)
            });
            self.aimed(
                &format!("p99_over_median_{clients}"),
                tail,
                "ratio",
                8.0,
                4.0,
            );
        }
        let cpu =
            self.over_rounds(|visits| Some(visits(THREE)?.row(&LEADER(1024))?.cpu_us_per_commit));
        self.aimed("cpu_us_per_commit_1024", cpu, "us", 8.0, 5.0);
    }

    fn throughput(&mut self) {
        let here = |group, cell| (group, cell);
        let base = here(THREE, LEADER(1024));
        let crowd = self.rates(here(THREE, LEADER(4096)), base);
        self.aimed("clients_4096_over_1024", crowd, "ratio", 0.9, 1.0);
        let follower = self.rates(here(THREE, Cell::propose(Place::Follower, 1024)), base);
        self.aimed("follower_over_leader_1024", follower, "ratio", 0.6, 0.8);
        for at in [Place::Leader, Place::Follower] {
            let reads = self.rates(here(THREE, Cell::read(at, 256)), here(THREE, LEADER(256)));
            let name = format!("reads_at_{}_over_writes_256", at.name());
            self.aimed(&name, reads, "ratio", 2.0, 4.0);
        }
        let subscribers = self.rates(here(SUBSCRIBERS, LEADER(1024)), base);
        let cost = subscribers.map(|ratio| (1.0 - ratio) * 100.0);
        self.aimed("ten_subscribers_cost", cost, "percent", 15.0, 5.0);
        let five = self.rates(here(FIVE, LEADER(1024)), base);
        self.aimed("five_nodes_over_three_1024", five, "ratio", 0.4, 0.55);
        let length = self.number(LENGTH, LENGTH_RATIO);
        self.aimed("long_log_over_short_1024", length, "ratio", 0.9, 0.95);
    }

    fn logs(&mut self) {
        let replay = self.number(LOG, REPLAY_PER_S);
        self.aimed("replay_deliveries_per_s", replay, "1/s", 5e5, 1e6);
        let restart = self.number(LOG, RESTART_S);
        self.aimed("restart_behind_a_million", restart, "s", 3.0, 1.0);
    }

    fn what_nothing_is_asked_of(&mut self) {
        let base = (THREE, LEADER(1024));
        for (name, group, cell) in [
            (
                "outside_over_leader_1024",
                OUTSIDE,
                Cell::propose(Place::Outside, 1024),
            ),
            ("tls_over_plain_1024", TLS, LEADER(1024)),
            ("one_node_over_three_1024", ONE, LEADER(1024)),
        ] {
            let ratio = self.rates((group, cell), base);
            self.seen(name, ratio, "ratio");
        }
        for clients in [1, 1024] {
            let cell = LEADER(clients);
            let ratio = self.rates((THREADS, cell), (THREE, cell));
            self.seen(&format!("own_threads_over_one_{clients}"), ratio, "ratio");
        }
        let lines = [
            ("commits_per_s", THREE, Place::Leader),
            ("follower_commits_per_s", THREE, Place::Follower),
            ("outside_commits_per_s", OUTSIDE, Place::Outside),
            ("memory_commits_per_s", MEMORY, Place::Leader),
        ];
        for (name, group, at) in lines {
            for clients in [1, 16, 64, 256, 1024, 4096] {
                let cell = Cell::propose(at, clients);
                let rate = self
                    .over_rounds(|visits| Some(visits(group)?.row(&cell)?.commits_per_s as f64));
                self.seen(&format!("{name}_{clients}"), rate, "1/s");
            }
        }
    }

    /// Whether all went well, and how quiet the machine was.
    fn health(&mut self) {
        let rows = || self.visits.done.iter().flat_map(|visit| &visit.rows);
        let foreign = median(rows().map(|row| row.foreign_cores).collect());
        let errors: u64 = rows().map(|row| row.measured.errors).sum();
        let undelivered = self.visits.done.iter().filter(|visit| !visit.delivered);
        let undelivered = undelivered.count();
        self.seen("foreign_cores", foreign, "cores");
        self.figures.at_most("errors", errors as f64, "count", 0.0);
        self.figures
            .at_most("undelivered", undelivered as f64, "groups", 0.0);
    }

    /// How often the first was done for each time that the second was.
    fn rates(&self, of: (&str, Cell), to: (&str, Cell)) -> Option<f64> {
        let rate = |row: &Row| row.commits_per_s as f64;
        self.over_rounds(|visits| {
            let of = rate(visits(of.0)?.row(&of.1)?);
            let to = rate(visits(to.0)?.row(&to.1)?);
            Some(of / to)
        })
    }

    fn number(&self, group: &str, name: &str) -> Option<f64> {
        self.over_rounds(|visits| visits(group)?.numbers.get(name).copied())
    }

    /// The median of what `value` is in each round that has it. It is handed the groups of the round by name.
    fn over_rounds<'v>(
        &'v self,
        value: impl Fn(&dyn Fn(&str) -> Option<&'v Visit>) -> Option<f64>,
    ) -> Option<f64> {
        let of_round = |round| value(&|group: &str| self.visits.find(round, group));
        median((0..self.rounds).filter_map(of_round).collect())
    }

    fn aimed(&mut self, name: &str, value: Option<f64>, unit: &str, floor: f64, target: f64) {
        if let Some(value) = value {
            self.figures.aimed(name, value, unit, floor, target);
        }
    }

    fn seen(&mut self, name: &str, value: Option<f64>, unit: &str) {
        if let Some(value) = value {
            self.figures.seen(name, value, unit);
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::report::tests::report;

    /// Three rounds, in the second of which the machine was three times as slow, and a follower no worse than else.
    fn visits(folder: &Path) -> Visits {
        let mut visits = Visits::open(folder, "a test").unwrap();
        for (round, (slower, follower)) in [(1, 0.5), (3, 0.7), (1, 0.9)].into_iter().enumerate() {
            let mut rows = report(&[1, 64, 256, 1024, 4096]).rows;
            for row in &mut rows {
                row.commits_per_s = 120_000 / slower;
            }
            let mut at_follower = rows[3].clone();
            at_follower.at = Place::Follower;
            at_follower.commits_per_s = (120_000.0 * follower) as u64 / slower;
            rows.push(at_follower);
            visits
                .add(Visit {
                    round,
                    group: THREE.into(),
                    rows,
                    numbers: BTreeMap::from([(BOUND_US.to_owned(), 200.0 * slower as f64)]),
                    delivered: true,
                })
                .unwrap();
        }
        visits
    }

    fn line(figures: &Figures, name: &str) -> Option<String> {
        let start = format!("FIGURE bench.{name} ");
        let mut lines = figures.text().lines();
        let line = lines.find_map(|line| line.strip_prefix(&start))?;
        Some(line.to_owned())
    }

    #[test]
    fn a_ratio_is_of_one_round_and_the_figure_is_the_median_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let figures = figures(&visits(folder.path()), 3);
        // Of medians over all rounds it would be 0.5: 60,000 of 120,000.
        let follower = line(&figures, "follower_over_leader_1024").unwrap();
        assert_eq!(follower, "0.700 ratio 0.6 ok target 0.8");
        let one = line(&figures, "one_client_over_disk_and_wire").unwrap();
        assert_eq!(one, "2 ratio 1.35 missed target 1.1");
        let crowd = line(&figures, "clients_4096_over_1024").unwrap();
        assert_eq!(crowd, "1 ratio 0.9 ok target 1");
        let tail = line(&figures, "p99_over_median_64").unwrap();
        assert_eq!(tail, "2 ratio 8 ok target 4");
        // Nobody has measured these.
        assert_eq!(line(&figures, "five_nodes_over_three_1024"), None);
        assert_eq!(line(&figures, "restart_behind_a_million"), None);
    }

    #[test]
    fn an_error_or_a_lost_delivery_misses() {
        let folder = tempfile::tempdir().unwrap();
        let mut visits = visits(folder.path());
        let errors = |visits: &Visits| line(&figures(visits, 3), "errors").unwrap();
        let undelivered = |visits: &Visits| line(&figures(visits, 3), "undelivered").unwrap();
        assert_eq!(errors(&visits), "0 count 0 ok");
        assert_eq!(undelivered(&visits), "0 groups 0 ok");
        visits.done[1].rows[2].measured.errors = 3;
        visits.done[2].delivered = false;
        assert_eq!(errors(&visits), "3 count 0 missed");
        assert_eq!(undelivered(&visits), "1 groups 0 missed");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
