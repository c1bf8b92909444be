//! ID of a process, which marks its claims.

/// Returns a random ID for this process, which marks its claims.
pub(super) fn new_owner() -> i64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    // `RandomState` is seeded from the operating system. The ID need not be secret, only unlikely to repeat. It is
    // positive, so that it is easy to read in the database.
    i64::try_from(random >> 1).unwrap_or(1).max(1)
}
