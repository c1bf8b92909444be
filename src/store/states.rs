//! Stored states of inbound and outbound messages: their numbers, their names, and the reasons for them.
//!
//! The SQL of both databases contains the numbers as literals, so that the conditions of partial indexes match. The
//! comment at each statement has the names. `state < 3` is an open inbound message, and `state < 4` an open outbound
//! message.

use super::error::StoreError;
use super::journal::DeadReason;
use super::outbound_message::OutboundState;
use super::packing::unreadable;
use crate::message::MessageStatus;

/// States of `inbound`. Those below [`ANSWERED`](inbound::ANSWERED) are open.
pub(super) mod inbound {
    /// Stored; an older message of the conversation is still open.
    pub(crate) const RECEIVED: i64 = 0;
    /// A handler runs, and the reply path is undecided.
    pub(crate) const PROCESSING: i64 = 1;
    /// The reply takes the REST API. A handler runs if the message has an owner.
    pub(crate) const DEFERRED: i64 = 2;
    /// The response is saved: TwiML, or the empty response.
    pub(crate) const ANSWERED: i64 = 3;
    /// The replies, if any, are in the outbox.
    pub(crate) const DONE: i64 = 4;
    /// The handler failed. A redelivery starts another attempt.
    pub(crate) const FAILED: i64 = 5;
    /// Neither a redelivery nor a process retries the message. An operator can.
    pub(crate) const DEAD: i64 = 6;
}

// The store records these texts, and stored reasons are compared with `MERGED`, `EXPIRED` and `PURGED`. After a change
// of such a text, rows with the old one would not match.

/// Reason of a message whose reply was merged into the reply to the message before it.
pub(super) const MERGED: &str = "it was merged into the message before it";

/// Reason of a backfilled message that the handler does not get.
pub(super) const ANSWERED_BEFORE: &str =
    "it was answered before: Twilio has since sent the user a message that is not in the journal";

/// Reason of a message that is dead because processes ended during its attempts.
pub(super) const CRASHED: &str = "the process ended while it was handled";

/// Reason of a message that is dead because its content was deleted before the reply.
pub(super) const EXPIRED: &str = "its content has expired";

/// Reason of an open message that is dead because its user was purged.
pub(super) const PURGED: &str = "purged";

/// Reason of a message of a handed-off conversation whose reply took the REST API, which cannot redirect.
pub(super) const NOT_REDIRECTED: &str =
    "it was not redirected to the handoff URL: its reply went via the REST API";

/// Reason of a message whose user had opted out when it came.
pub(super) const OPTED_OUT: &str = "the bot did not get it: its user has opted out";
/// Reason of a message that opts its user out.
pub(super) const STOP_KEYWORD: &str = "the bot did not get it: an opt-out keyword";
/// Reason of a message that ends an opt-out.
pub(super) const START_KEYWORD: &str = "the bot did not get it: an opt-in keyword";
/// Reason of a keyword that changes nothing, such as HELP.
pub(super) const OTHER_KEYWORD: &str = "the bot did not get it: a keyword that Twilio has answered";

/// Reason of a message whose reply was ready after its user had opted out.
pub(super) const REPLY_SUPPRESSED: &str = "its reply was not sent: its user has opted out";

/// Reason of an outbound message whose address has been split off the user that it was addressed to.
pub(super) const NEW_OWNER: &str = "it must not be sent: its address is of another user now";

/// Reason of an outbound message that is not sent because its user has opted out, as a literal for SQL.
macro_rules! user_opted_out {
    () => {
        "the user has opted out"
    };
}
pub(in crate::store) use user_opted_out;

/// Reason of an outbound message that is not sent because its user has opted out.
pub(super) const USER_OPTED_OUT: &str = user_opted_out!();

/// Returns the public reason for a message that [`claim_backlog`](super::journal::Journal::claim_backlog) made dead.
pub(super) fn dead_reason(reason: &str) -> DeadReason {
    if reason == EXPIRED {
        DeadReason::Expired
    } else {
        DeadReason::Crashed
    }
}

/// Returns true if a filter for the state `wanted` excludes a message that is shown as `shown`.
pub(super) fn is_left_out(wanted: Option<&str>, shown: &str, reason: Option<&str>) -> bool {
    // The filter for dead messages lists those that an operator may retry. A purged message has lost its content.
    wanted.is_some_and(|wanted| wanted != shown || (shown == "dead" && reason == Some(PURGED)))
}

/// States of `outbound`. Those below [`SENT`](outbound::SENT) are open.
pub(super) mod outbound {
    pub(crate) const PENDING: i64 = 0;
    pub(crate) const SENDING: i64 = 1;
    pub(crate) const UNKNOWN: i64 = 2;
    pub(crate) const HELD: i64 = 3;
    pub(crate) const SENT: i64 = 4;
    pub(crate) const FAILED: i64 = 5;
    pub(crate) const SUPPRESSED: i64 = 6;
}

pub(super) fn outbound_state(state: i64) -> Result<OutboundState, StoreError> {
    Ok(match state {
        outbound::PENDING => OutboundState::Pending,
        outbound::SENDING => OutboundState::Sending,
        outbound::UNKNOWN => OutboundState::Unknown,
        outbound::HELD => OutboundState::Held,
        outbound::SENT => OutboundState::Sent,
        outbound::FAILED => OutboundState::Failed,
        outbound::SUPPRESSED => OutboundState::Suppressed,
        _ => return Err(unreadable()),
    })
}

/// Returns the stored number of a state.
pub(super) fn outbound_state_number(state: OutboundState) -> i64 {
    match state {
        OutboundState::Pending => outbound::PENDING,
        OutboundState::Sending => outbound::SENDING,
        OutboundState::Unknown => outbound::UNKNOWN,
        OutboundState::Held => outbound::HELD,
        OutboundState::Sent => outbound::SENT,
        OutboundState::Failed => outbound::FAILED,
        OutboundState::Suppressed => outbound::SUPPRESSED,
    }
}

/// Returns the stored number of a state by its name.
pub(super) fn outbound_number_by_name(word: &str) -> Option<i64> {
    (outbound::PENDING..=outbound::SUPPRESSED)
        .find(|number| outbound_state(*number).is_ok_and(|state| state.as_str() == word))
}

/// [Rank](MessageStatus::rank) of a final failure, above that of `read`.
pub(super) const FAILURE_RANK: i64 = 6;

/// Returns the rank of a status. A status without a rank gets -1, which is the rank of a new row and so changes
/// nothing.
pub(super) fn status_rank(status: &MessageStatus) -> i64 {
    status.rank().map_or(-1, i64::from)
}

/// Returns the state of an inbound message as shown to operators.
///
/// For a message that is done, the state follows from its replies: each state and whether its delivery failed.
pub(super) fn shown_inbound_state(state: i64, replies: &[(OutboundState, bool)]) -> &'static str {
    let any = |wanted: OutboundState| replies.iter().any(|(state, _)| *state == wanted);
    match state {
        inbound::RECEIVED => "received",
        inbound::PROCESSING => "processing",
        inbound::DEFERRED => "deferred",
        inbound::FAILED => "failed",
        inbound::DEAD => "dead",
        // With several replies, states that need an operator come before open ones, and open ones before "sent".
        // Without replies, or if all are suppressed, the message counts as answered.
        inbound::DONE if any(OutboundState::Held) => "held",
        inbound::DONE if any(OutboundState::Unknown) => "unknown",
        inbound::DONE
            if any(OutboundState::Failed) || replies.iter().any(|(_, failed)| *failed) =>
        {
            "failed"
        }
        inbound::DONE if any(OutboundState::Pending) || any(OutboundState::Sending) => "deferred",
        inbound::DONE if any(OutboundState::Sent) => "sent",
        _ => "answered",
    }
}

/// Returns the state of an outbound message that is not a reply, as shown to operators.
pub(super) fn shown_outbound_state(state: OutboundState, rank: i64) -> &'static str {
    match state {
        // Twilio accepted the message and then reported in a status callback that it was not delivered.
        OutboundState::Sent if rank == FAILURE_RANK => OutboundState::Failed.as_str(),
        state => state.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SQL, partial indexes and stored rows have the numbers as literals, so a number must not change.
    #[test]
    fn state_numbers_match_literals_in_sql() {
        assert_eq!(
            [
                inbound::RECEIVED,
                inbound::PROCESSING,
                inbound::DEFERRED,
                inbound::ANSWERED,
                inbound::DONE,
                inbound::FAILED,
                inbound::DEAD,
            ],
            [0, 1, 2, 3, 4, 5, 6]
        );
        assert_eq!(
            [
                outbound::PENDING,
                outbound::SENDING,
                outbound::UNKNOWN,
                outbound::HELD,
                outbound::SENT,
                outbound::FAILED,
                outbound::SUPPRESSED,
            ],
            [0, 1, 2, 3, 4, 5, 6]
        );
        assert_eq!(FAILURE_RANK, 6);
    }

    #[test]
    fn outbound_state_number_round_trips() {
        for number in outbound::PENDING..=outbound::SUPPRESSED {
            let state = outbound_state(number).unwrap();
            assert_eq!(outbound_state_number(state), number);
            assert_eq!(outbound_number_by_name(state.as_str()), Some(number));
        }
        assert!(outbound_state(outbound::SUPPRESSED + 1).is_err());
        assert_eq!(outbound_number_by_name("answered"), None);
    }
}
