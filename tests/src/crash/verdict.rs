//! Whether what was found is what must be there.
//!
//! Invariant: every found folder is either whole, or refused by a sentence that says which, why and what to do, or
//! a fault that is counted; nothing falls between.

use std::fmt;
use std::path::Path;

use crate::crash::check::Found;
use crate::crash::held::Held;
use crate::crash::watch::Known;

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An entry that was acknowledged is not there.
    LostAck,
    /// A term or a vote that was acknowledged is not there.
    LostVote,
    /// Anything else is gone, or is there and was never written.
    SilentLoss,
    /// A refusal that does not say which folder, why, or what to do.
    NamelessRefusal,
    /// A refusal where nothing was lost.
    WronglyRefused,
    /// No answer, but a panic, a signal or no end.
    Died,
}

/// What came of a folder.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Everything is there.
    Whole {
        /// How often it was opened.
        starts: u64,
        /// What it holds.
        held: Held,
    },
    /// It was refused, in words that help.
    Refused(String),
    /// It did what must not be.
    Faulty(Fault, String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { held, .. } => write!(f, "whole, with {} entries", held.last()),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Faulty(fault, why) => write!(f, "{fault:?}: {why}"),
        }
    }
}

/// Words that tell people what to do.
const ADVICE: [&str; 8] = [
    "bring",
    "move",
    "restore",
    "use the",
    "name another",
    "stop the",
    "free ",
    "give ",
];

/// Judges what was found in `dir`.
#[must_use]
pub fn judge(found: Found, known: &Known, dir: &Path) -> Verdict {
    match found {
        Found::Died(how) => Verdict::Faulty(Fault::Died, how),
        Found::Wrong(what) => Verdict::Faulty(Fault::SilentLoss, what),
        Found::Refused(why) => refusal(why, dir),
        Found::Opened { starts, held } => match lost(&held, known, starts) {
            None => Verdict::Whole { starts, held },
            Some((fault, why)) => Verdict::Faulty(fault, why),
        },
    }
}

/// A refusal names its folder or a file in it, the reason, and what to do.
fn refusal(why: String, dir: &Path) -> Verdict {
    let named = why.contains(&*dir.to_string_lossy());
    let advised = ADVICE.iter().any(|word| why.contains(word));
    let raw = why.contains("panicked") || why.contains("backtrace") || why.lines().count() > 1;
    if named && advised && !raw {
        return Verdict::Refused(why);
    }
    let lacking = match (named, advised) {
        (false, _) => "names neither folder nor file",
        (_, false) => "does not say what to do",
        _ => "is no sentence",
    };
    Verdict::Faulty(Fault::NamelessRefusal, format!("{lacking}: {why}"))
}

/// What is missing from `held`, or there without having been written.
fn lost(held: &Held, known: &Known, starts: u64) -> Option<(Fault, String)> {
    let Known { acked, pending, .. } = known;
    if starts <= known.starts {
        let why = format!("start {starts}, after {} was counted", known.starts);
        return Some((Fault::SilentLoss, why));
    }
    if held == acked || pending.as_ref() == Some(held) {
        return None;
    }
    let votes = |held: &Held| (held.term, held.vote);
    let voted = pending.as_ref().map(votes);
    if votes(held) != votes(acked) && Some(votes(held)) != voted {
        let why = format!(
            "term and vote {:?}, acknowledged were {:?}, under way {voted:?}",
            votes(held),
            votes(acked)
        );
        return Some((Fault::LostVote, why));
    }
    let under_way = pending.as_ref().map(|held| &held.runs);
    let fault = if held.runs != acked.runs && Some(&held.runs) != under_way {
        Fault::LostAck
    } else {
        Fault::SilentLoss
    };
    let mut why = differences(held, acked);
    if let Some(pending) = pending {
        why = format!(
            "{why}; and from what was under way: {}",
            differences(held, pending)
        );
    }
    Some((fault, why))
}

/// Where `found` differs from `wanted`, one after the other.
fn differences(found: &Held, wanted: &Held) -> String {
    let mut all = Vec::new();
    let mut differ = |name: &str, found: &dyn fmt::Debug, wanted: &dyn fmt::Debug| {
        let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
        if found != wanted {
            all.push(format!("{name} is {found} in place of {wanted}"));
        }
    };
    differ("term", &found.term, &wanted.term);
    differ("vote", &found.vote, &wanted.vote);
    differ("snapshot", &found.snapshot, &wanted.snapshot);
    differ("start", &found.start, &wanted.start);
    differ("last", &found.last(), &wanted.last());
    differ("log", &found.runs, &wanted.runs);
    differ("members", &found.members, &wanted.members);
    differ("cluster", &found.cluster, &wanted.cluster);
    differ("cursors", &found.cursors, &wanted.cursors);
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::held::Step;

    fn known() -> Known {
        let step = |hard_state, append| Step::Write {
            hard_state,
            cut: None,
            append,
        };
        let acked = Held::default().after(&step(Some((2, Some(1))), 9));
        Known {
            pending: Some(acked.after(&step(Some((3, None)), 1))),
            acked,
            starts: 4,
            ..Known::default()
        }
    }

    fn fault(held: Held, starts: u64) -> Option<Fault> {
        match judge(Found::Opened { starts, held }, &known(), Path::new("/d")) {
            Verdict::Faulty(fault, _) => Some(fault),
            Verdict::Whole { .. } | Verdict::Refused(_) => None,
        }
    }

    #[test]
    fn only_before_and_after_the_step_under_way_are_whole() {
        let Known { acked, pending, .. } = known();
        assert_eq!(fault(acked.clone(), 5), None);
        assert_eq!(fault(pending.clone().unwrap_or_default(), 5), None);
        assert_eq!(fault(acked.clone(), 4), Some(Fault::SilentLoss));
        let mut held = acked.clone();
        held.runs[0].last = 8;
        assert_eq!(fault(held, 5), Some(Fault::LostAck));
        let mut held = acked.clone();
        held.vote = None;
        assert_eq!(fault(held, 5), Some(Fault::LostVote));
        let mut held = acked;
        held.cluster = Some(3);
        assert_eq!(fault(held, 5), Some(Fault::SilentLoss));
    }

    #[test]
    fn a_refusal_must_name_and_advise() {
        let verdict = |why: &str| judge(Found::Refused(why.to_owned()), &known(), Path::new("/d"));
        assert!(matches!(
            verdict("/d/mark is damaged: bring it back"),
            Verdict::Refused(_)
        ));
        for bad in ["the mark is damaged: bring it back", "/d/mark is damaged"] {
            assert!(matches!(
                verdict(bad),
                Verdict::Faulty(Fault::NamelessRefusal, _)
            ));
        }
    }
}
