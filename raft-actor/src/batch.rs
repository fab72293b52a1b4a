//! The answer to a batch of proposals, which comes when the last of them has its outcome.

use std::sync::{Arc, Mutex, PoisonError};

use crate::reply::Answer;
use crate::{Committed, ProposeError, UnknownCause};

type One = Result<Committed, ProposeError>;

struct Gathering {
    outcomes: Vec<Option<One>>,
    left: usize,
    answer: Option<Answer<Vec<One>>>,
}

/// A place in the answer. Dropped without an outcome, it says that the outcome is unknown.
pub(crate) struct BatchPlace {
    batch: Arc<Mutex<Gathering>>,
    at: usize,
    given: bool,
}

/// Makes a place for each of `count` outcomes; `answer` is given with the last one.
pub(crate) fn places(count: usize, answer: Answer<Vec<One>>) -> Vec<BatchPlace> {
    if count == 0 {
        answer.give(Vec::new());
        return Vec::new();
    }
    let batch = Arc::new(Mutex::new(Gathering {
        outcomes: vec![None; count],
        left: count,
        answer: Some(answer),
    }));
    let place = |at| BatchPlace {
        batch: Arc::clone(&batch),
        at,
        given: false,
    };
    (0..count).map(place).collect()
}

impl BatchPlace {
    pub(crate) fn give(mut self, outcome: One) {
        self.put(outcome);
    }

    fn put(&mut self, outcome: One) {
        self.given = true;
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.outcomes[self.at] = Some(outcome);
        batch.left -= 1;
        if batch.left == 0
            && let Some(answer) = batch.answer.take()
        {
            let outcomes = std::mem::take(&mut batch.outcomes);
            answer.give(outcomes.into_iter().flatten().collect());
        }
    }
}

impl Drop for BatchPlace {
    fn drop(&mut self) {
        if !self.given {
            self.put(Err(ProposeError::Unknown {
                cause: UnknownCause::NodeEnded,
                id: None,
            }));
        }
    }
}
