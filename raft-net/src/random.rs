//! Numbers that nobody must be able to foresee by accident. Nothing here keeps a secret.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number, seeded by the system through the standard library's hash keys.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}
