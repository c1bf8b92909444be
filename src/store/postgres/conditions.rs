//! Conditions that several statements have in common.

/// SQL condition: the process with this id has a valid lease.
// `statement_timestamp()`, since `now()` is the start of the transaction, which may be before a long wait for a lock.
macro_rules! has_valid_lease {
    ($owner:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM owner o WHERE o.id = ",
            $owner,
            " AND o.alive_until > statement_timestamp())"
        )
    };
}
pub(super) use has_valid_lease;

/// SQL condition: this process or another live one owns the message `i`. `$me` is the parameter with this process's id.
// `coalesce`, since `NOT is_owned!` must be true for a message without an owner, and `NULL = $me` is NULL.
macro_rules! is_owned {
    ($me:literal) => {
        concat!(
            "(coalesce(i.owner = ",
            $me,
            ", false) OR ",
            $crate::store::postgres::conditions::has_valid_lease!("i.owner"),
            ")"
        )
    };
}
pub(super) use is_owned;

/// SQL condition: another open message of the conversation of `i`, older or handled by a live process, comes first.
// Open: below 3, ANSWERED. A newer message can be in PROCESSING or DEFERRED (1, 2): `i` failed, the newer one was
// claimed, then `i` was delivered again or retried.
macro_rules! is_blocked {
    ($me:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 AND p.id <> i.id \
             AND (p.id < i.id OR (p.state IN (1, 2) AND (p.owner = ",
            $me,
            " OR ",
            $crate::store::postgres::conditions::has_valid_lease!("p.owner"),
            "))))"
        )
    };
}
pub(super) use is_blocked;
