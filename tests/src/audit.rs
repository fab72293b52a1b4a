//! What was sent and answered against what was delivered: the verdict.
//!
//! - One order: every life of every node delivered a beginning of the same history, compared as whole lines
//!   (index, sender, text). So a replay after a restart equals what was delivered live before it.
//! - An `ack` stands in the history at its index. An `err` does not stand in it. An `unknown`, and a message whose
//!   process was killed before it answered, may.
//! - Nothing stands in it twice, and nothing that nobody sent.

use std::collections::HashMap;
use std::fmt;

use crate::figures::Figures;
use crate::node::Life;
use crate::output::{Delivery, Outcome};

/// Collects lives, then judges them.
#[derive(Debug, Default)]
pub struct Audit {
    /// The longest history of any life so far.
    history: Vec<Delivery>,
    sent: Vec<Sent>,
    findings: Findings,
}

#[derive(Debug)]
struct Sent {
    by: String,
    text: String,
    outcome: Option<Outcome>,
    killed: bool,
}

/// How many breaches of one kind there are, the first of them in words.
#[derive(Debug, Default)]
pub struct Breach {
    /// How many.
    pub count: u64,
    examples: Vec<String>,
}

impl Breach {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < 5 {
            self.examples.push(example());
        }
    }
}

/// The verdict.
#[derive(Debug, Default)]
pub struct Findings {
    /// Acknowledged, and not in the history, or not where the acknowledgement said.
    pub lost_acks: Breach,
    /// In the history more than once.
    pub duplicates: Breach,
    /// Lives whose history is not a beginning of the same one.
    pub differences: Breach,
    /// Said to be certainly not in the log, and there it is.
    pub errs_in_log: Breach,
    /// Delivered, and sent by nobody.
    pub never_sent: Breach,
    /// Not answered, though the process was not killed.
    pub unanswered: Breach,
    /// Lines that may not be.
    pub faults: Breach,
    /// How many messages were sent, acknowledged, refused, of unknown outcome, and without an answer by a kill.
    pub sent: u64,
    /// Of these, acknowledged.
    pub acks: u64,
    /// Of these, refused.
    pub errs: u64,
    /// Of these, unknown.
    pub unknowns: u64,
    /// Of these, killed with their process.
    pub cut: u64,
    /// How long the history is.
    pub delivered: u64,
}

impl Audit {
    /// Takes in a life that has ended; `killed` if by a kill -9.
    pub fn take(&mut self, life: Life, killed: bool) {
        for fault in life.faults {
            self.findings.faults.add(|| fault);
        }
        self.compare(&life.name, life.deliveries);
        let by = life.name;
        let sent = life.sent.into_iter();
        self.sent.extend(sent.map(|(text, outcome)| Sent {
            by: by.clone(),
            text,
            outcome,
            killed,
        }));
    }

    /// The longest history so far.
    #[must_use]
    pub fn history(&self) -> &[Delivery] {
        &self.history
    }

    fn compare(&mut self, name: &str, deliveries: Vec<Delivery>) {
        if let Some(at) = (0..deliveries.len().min(self.history.len()))
            .find(|i| deliveries[*i] != self.history[*i])
        {
            let (here, there) = (&deliveries[at], &self.history[at]);
            self.findings
                .differences
                .add(|| format!("{name} delivered {here:?} where others delivered {there:?}"));
        } else if deliveries.len() > self.history.len() {
            self.history = deliveries;
        }
    }

    /// Says that the node's whole history, at its end, must be as long as the others'.
    pub fn demand_whole(&mut self, name: &str, delivered: usize) {
        let whole = self.history.len();
        if delivered != whole {
            self.findings
                .differences
                .add(|| format!("{name} delivered {delivered} messages of {whole}"));
        }
    }

    /// Judges all that was taken in.
    #[must_use]
    pub fn judge(mut self) -> Findings {
        let mut found = std::mem::take(&mut self.findings);
        found.delivered = self.history.len() as u64;
        for pair in self.history.windows(2) {
            if pair[0].index >= pair[1].index {
                found
                    .differences
                    .add(|| format!("{:?} is delivered before {:?}", pair[0], pair[1]));
            }
        }
        let mut places: HashMap<(&str, &str), Vec<u64>> = HashMap::new();
        for delivery in &self.history {
            places
                .entry((&delivery.from, &delivery.text))
                .or_default()
                .push(delivery.index);
        }
        for sent in &self.sent {
            let Sent {
                by,
                text,
                outcome,
                killed,
            } = sent;
            found.sent += 1;
            let at = places
                .remove(&(by.as_str(), text.as_str()))
                .unwrap_or_default();
            if at.len() > 1 {
                found
                    .duplicates
                    .add(|| format!("{text:?} of {by} stands at {at:?}"));
            }
            match outcome {
                Some(Outcome::Ack(index)) => {
                    found.acks += 1;
                    if !at.contains(index) {
                        found.lost_acks.add(|| {
                            format!(
                                "{text:?} of {by} was acknowledged at {index} and stands at {at:?}"
                            )
                        });
                    }
                }
                Some(Outcome::Err(reason)) => {
                    found.errs += 1;
                    if !at.is_empty() {
                        let answer = format!("err ({reason})");
                        found.errs_in_log.add(|| {
                            format!("{text:?} of {by} was answered {answer} and stands at {at:?}")
                        });
                    }
                }
                Some(Outcome::Unknown(_)) => found.unknowns += 1,
                None if *killed => found.cut += 1,
                None => found
                    .unanswered
                    .add(|| format!("{text:?} of {by} was never answered")),
            }
        }
        for ((from, text), at) in places {
            found
                .never_sent
                .add(|| format!("{text:?} of {from} stands at {at:?}, and nobody sent it"));
        }
        found
    }
}

impl Findings {
    /// Adds what must be zero to the figures.
    pub fn report(&self, figures: &mut Figures) {
        for (name, breach) in self.breaches() {
            figures.exactly(name, breach.count, "count", 0);
        }
    }

    /// Adds another part's findings to these.
    pub fn merge(&mut self, other: Self) {
        let pairs = [
            (&mut self.lost_acks, other.lost_acks),
            (&mut self.duplicates, other.duplicates),
            (&mut self.differences, other.differences),
            (&mut self.errs_in_log, other.errs_in_log),
            (&mut self.never_sent, other.never_sent),
            (&mut self.unanswered, other.unanswered),
            (&mut self.faults, other.faults),
        ];
        for (into, from) in pairs {
            into.count += from.count;
            into.examples.extend(from.examples);
        }
        self.sent += other.sent;
        self.acks += other.acks;
        self.errs += other.errs;
        self.unknowns += other.unknowns;
        self.cut += other.cut;
        self.delivered += other.delivered;
    }

    /// Whether anything is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.breaches().iter().all(|(_, breach)| breach.count == 0)
    }

    fn breaches(&self) -> [(&'static str, &Breach); 7] {
        [
            ("lost_acks", &self.lost_acks),
            ("duplicates", &self.duplicates),
            ("differences", &self.differences),
            ("errs_in_log", &self.errs_in_log),
            ("never_sent", &self.never_sent),
            ("unanswered", &self.unanswered),
            ("faults", &self.faults),
        ]
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            acks,
            errs,
            unknowns,
            cut,
            delivered,
            ..
        } = self;
        write!(
            f,
            "{sent} sent: {acks} acknowledged, {errs} refused, {unknowns} unknown, {cut} without an answer by a kill; {delivered} delivered"
        )?;
        for (name, breach) in self.breaches() {
            if breach.count > 0 {
                write!(f, "\n  {name}: {}", breach.count)?;
            }
            for example in &breach.examples {
                write!(f, "\n    {example}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(index: u64, text: &str) -> Delivery {
        Delivery {
            index,
            from: "n1".into(),
            text: text.into(),
        }
    }

    fn life(sent: &[(&str, Option<Outcome>)], deliveries: &[Delivery]) -> Life {
        Life {
            name: "n1".into(),
            sent: sent
                .iter()
                .map(|(text, outcome)| ((*text).to_owned(), outcome.clone()))
                .collect(),
            deliveries: deliveries.to_vec(),
            faults: Vec::new(),
        }
    }

    fn judge(lives: Vec<Life>) -> Findings {
        let mut audit = Audit::default();
        for life in lives {
            audit.take(life, false);
        }
        audit.judge()
    }

    #[test]
    fn a_clean_run_is_clean() {
        let history = [delivery(2, "a"), delivery(3, "c")];
        let unknown = || Some(Outcome::Unknown(String::new()));
        let sent = [
            ("a", Some(Outcome::Ack(2))),
            ("b", Some(Outcome::Err("busy".into()))),
            ("c", unknown()),
            ("d", unknown()),
        ];
        let found = judge(vec![life(&sent, &history), life(&[], &history[..1])]);
        assert!(found.is_clean(), "{found}");
        assert_eq!(
            (
                found.sent,
                found.acks,
                found.errs,
                found.unknowns,
                found.delivered
            ),
            (4, 1, 1, 2, 2)
        );
    }

    #[test]
    fn each_breach_is_seen() {
        let ack = |index| Some(Outcome::Ack(index));
        let lost = judge(vec![life(&[("a", ack(2))], &[])]);
        assert_eq!(lost.lost_acks.count, 1);
        let misplaced = judge(vec![life(&[("a", ack(3))], &[delivery(2, "a")])]);
        assert_eq!(misplaced.lost_acks.count, 1);
        let twice = judge(vec![life(
            &[("a", ack(2))],
            &[delivery(2, "a"), delivery(3, "a")],
        )]);
        assert_eq!(twice.duplicates.count, 1);
        let refused = Some(Outcome::Err("busy".into()));
        assert_eq!(
            judge(vec![life(&[("a", refused)], &[delivery(2, "a")])])
                .errs_in_log
                .count,
            1
        );
        assert_eq!(
            judge(vec![life(&[], &[delivery(2, "a")])]).never_sent.count,
            1
        );
        assert_eq!(judge(vec![life(&[("a", None)], &[])]).unanswered.count, 1);
        let sent = [("a", ack(2)), ("b", ack(3))];
        let other_order = judge(vec![
            life(&sent, &[delivery(2, "a"), delivery(3, "b")]),
            life(&[], &[delivery(2, "b"), delivery(3, "a")]),
        ]);
        assert_eq!(other_order.differences.count, 1);
        let other_index = judge(vec![
            life(&sent, &[delivery(2, "a"), delivery(3, "b")]),
            life(&[], &[delivery(2, "a"), delivery(4, "b")]),
        ]);
        assert_eq!(other_index.differences.count, 1);
    }
}
