//! An invariant that does not hold.

use std::fmt;

/// Which invariant, and how it is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name, as the README lists it.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant={}: {}", self.invariant, self.detail)
    }
}

/// What every check answers.
pub(crate) type Check = Result<(), Broken>;

/// Ends the function with a [`Broken`] unless the condition holds.
macro_rules! hold {
    ($condition:expr, $invariant:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::broken::Broken {
                invariant: $invariant,
                detail: format!($($words)+),
            });
        }
    };
}
pub(crate) use hold;
