//! Decisions that follow from the row of a message, the same for both databases.
//!
//! Both databases read a [`MessageState`] under their lock, decide here, and then write.

use std::time::Duration;

use jiff::Timestamp;

use super::conversations::{ConsentAction, ConsentRecord, OpenWindow};
use super::error::StoreError;
use super::journal::{AcceptOutcome, Claim, FailOutcome, ReplyDecision, SavedResponse, TurnStatus};
use super::new_inbound::{ConsentEffect, NewInbound};
use super::outbound_message::PASSING_FAILURES;
use super::outbox::StatusEvent;
use super::packing::time;
use super::states::{self, inbound};
use crate::address::Address;
use crate::message::MessageStatus;
use crate::sid::MessagingServiceSid;

/// Columns of an inbound message that decide who may handle it, and its response.
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub(super) struct MessageState {
    pub(super) id: i64,
    pub(super) conversation: i64,
    /// Number of the state, from [`inbound`].
    pub(super) state: i64,
    pub(super) attempt: u32,
    pub(super) owner: Option<i64>,
    /// True if this process or another live one owns the message.
    pub(super) is_owned: bool,
    /// True if the attempt before this one ended with a failure.
    pub(super) failed_before: bool,
    /// Saved TwiML.
    pub(super) response: Option<String>,
    /// True if another open message of the conversation comes first.
    pub(super) is_blocked: bool,
    /// End of the conversation's handoff, which may have passed.
    pub(super) handed_off_until: Option<i64>,
    /// True if the conversation has a question, which may have expired.
    pub(super) has_question: bool,
    /// `user_id` of the conversation's addresses.
    pub(super) user_id: Option<i64>,
}

/// Decision about a redelivery of a stored message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redelivery {
    /// The message has this response.
    Answered(SavedResponse),
    /// A live process handles the message, or has it queued.
    InProgress,
    /// No attempt is left. [`NewInbound::final_response`] becomes the response.
    Exhausted,
    /// Another attempt may start, once no other open message of the conversation comes first.
    Retry,
}

impl MessageState {
    /// Returns the reply decision for a caller without a claim.
    pub(super) fn reply_decision(&self) -> ReplyDecision {
        match self.state {
            inbound::ANSWERED => ReplyDecision::Inline(SavedResponse {
                twiml: self.response.clone(),
            }),
            // A dead message gets the empty response, as if its reply took the REST API.
            inbound::DEFERRED | inbound::DONE | inbound::DEAD => ReplyDecision::ViaRest,
            _ => ReplyDecision::ClaimLost,
        }
    }

    /// Returns the reply decision for a caller that got this claim, which may be lost.
    pub(super) fn reply_decision_for(&self, me: i64, claim: Claim) -> ReplyDecision {
        // The attempt as well: this process may have claimed the message again, for a later attempt.
        let has_claim = self.owner == Some(me) && self.attempt == claim.attempt;
        match self.reply_decision() {
            // `ViaRest` asks the caller to queue its reply. Without the claim another handler does that, so the caller
            // must not.
            ReplyDecision::ViaRest if !has_claim => ReplyDecision::ClaimLost,
            decision => decision,
        }
    }

    /// Returns the status for the request that waits for the message's turn; `None` if the message can be claimed.
    pub(super) fn turn(&self, me: i64) -> Option<TurnStatus> {
        // The message is not queued for this process any more: it was decided, merged, deferred or released.
        if self.state != inbound::RECEIVED || self.owner != Some(me) {
            return Some(TurnStatus::Resolved(self.reply_decision()));
        }
        self.is_blocked.then_some(TurnStatus::Waiting)
    }

    /// Returns the decision about a redelivery. It changes neither the customer service window nor consent.
    pub(super) fn redelivery(&self, message: &NewInbound) -> Redelivery {
        if let Some(response) = settled_response(self.state, self.response.clone()) {
            return Redelivery::Answered(response);
        }
        let has_attempts = self.attempt < message.max_attempts;
        match self.state {
            inbound::RECEIVED | inbound::PROCESSING if self.is_owned => Redelivery::InProgress,
            // A queued message had no attempt yet, and a released one was not interrupted, so the crash policy does not
            // apply to either.
            inbound::RECEIVED => Redelivery::Retry,
            // The process that handled it has died: it is not known whether the handler ran to its end.
            inbound::PROCESSING if message.retry_after_crash && has_attempts => Redelivery::Retry,
            // The handler failed, and Twilio delivers the message again.
            inbound::FAILED if has_attempts => Redelivery::Retry,
            _ => Redelivery::Exhausted,
        }
    }

    /// Returns the claim of the message's next attempt.
    pub(super) fn next_claim(&self, now: Timestamp) -> Claim {
        Claim {
            id: self.id,
            conversation: self.conversation,
            user: self.user_id,
            // A higher attempt invalidates earlier claims of this process too.
            attempt: self.attempt + 1,
            failed_before: self.failed_before,
            handed_off: is_handoff_active(self.handed_off_until, now),
            has_question: self.has_question,
        }
    }
}

/// Returns the response that every redelivery of a message gets; `None` if its reply is not decided yet.
pub(super) fn settled_response(state: i64, response: Option<String>) -> Option<SavedResponse> {
    match state {
        inbound::RECEIVED | inbound::PROCESSING | inbound::FAILED => None,
        inbound::ANSWERED => Some(SavedResponse { twiml: response }),
        // Deferred, done or dead: no later request gets the reply.
        _ => Some(SavedResponse::EMPTY),
    }
}

/// Returns the state of a new message, given its effect on consent and the number of open messages before it.
pub(super) fn initial_state(effect: &ConsentEffect, ahead: u32) -> i64 {
    match effect {
        ConsentEffect::Ordinary if ahead == 0 => inbound::PROCESSING,
        ConsentEffect::Ordinary => inbound::RECEIVED,
        // A consent keyword, or a message of an opted-out user, is complete: no handler runs.
        ConsentEffect::Keyword { .. } | ConsentEffect::OptedOut => inbound::ANSWERED,
    }
}

/// Returns the outcome of accepting a new message, which is stored in its [`initial_state`].
pub(super) fn outcome_of_new(
    effect: ConsentEffect,
    id: i64,
    conversation: i64,
    user_id: Option<i64>,
    ahead: u32,
    handed_off: bool,
    has_question: bool,
) -> AcceptOutcome {
    match effect {
        ConsentEffect::Keyword {
            opted_out,
            confirmation,
            ..
        } => AcceptOutcome::ConsentKeyword {
            opted_out,
            confirmation,
        },
        ConsentEffect::OptedOut => AcceptOutcome::OptedOut,
        ConsentEffect::Ordinary if ahead > 0 => AcceptOutcome::Queued {
            id,
            conversation,
            ahead,
        },
        ConsentEffect::Ordinary => AcceptOutcome::Claimed(Claim {
            id,
            conversation,
            user: user_id,
            attempt: 1,
            failed_before: false,
            handed_off,
            has_question,
        }),
    }
}

/// Returns a response text as it is stored. An empty one is stored as NULL, which is the empty response.
pub(super) fn stored_response(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Returns the reason that a new message is stored with.
pub(super) fn initial_reason(effect: &ConsentEffect) -> Option<&'static str> {
    match effect {
        ConsentEffect::Ordinary => None,
        ConsentEffect::OptedOut => Some(states::OPTED_OUT),
        ConsentEffect::Keyword { change, .. } => Some(match change {
            Some(ConsentAction::OptOut) => states::STOP_KEYWORD,
            Some(_) => states::START_KEYWORD,
            None => states::OTHER_KEYWORD,
        }),
    }
}

/// Returns the response that a new message is stored with; `None` if its reply is not decided yet, or is the empty
/// response.
pub(super) fn initial_response(effect: &ConsentEffect) -> Option<String> {
    match effect {
        ConsentEffect::Keyword { confirmation, .. } => stored_response(confirmation.clone()),
        ConsentEffect::Ordinary | ConsentEffect::OptedOut => None,
    }
}

/// Returns why a failure was not recorded: the message has a response, or the claim is not the caller's.
pub(super) fn failure_not_recorded(decision: ReplyDecision) -> FailOutcome {
    match decision {
        ReplyDecision::Inline(response) => FailOutcome::AlreadyAnswered(response),
        ReplyDecision::ViaRest | ReplyDecision::ClaimLost => FailOutcome::ClaimLost,
    }
}

/// Returns true if a handoff with this end is active.
pub(super) fn is_handoff_active(until: Option<i64>, now: Timestamp) -> bool {
    until.is_some_and(|until| until > now.as_microsecond())
}

/// Returns the customer service window of a user whose last message was received at `last_inbound`, if it is open.
pub(super) fn window(
    user: &Address,
    last_inbound: Option<i64>,
    now: Timestamp,
) -> Result<Option<OpenWindow>, StoreError> {
    let last_inbound = last_inbound.map(time).transpose()?;
    Ok(OpenWindow::of(user, last_inbound, now))
}

/// Returns the scope of the opt-out that an error code of Twilio reveals.
///
/// 21610: the user is on Twilio's own opt-out list, which belongs to the Messaging Service if the message used one.
/// 63014: the user has blocked the sender.
pub(super) fn opt_out_scope<'a>(
    code: Option<u32>,
    sender: &'a str,
    service: Option<&'a str>,
) -> Option<&'a str> {
    match code {
        Some(21610) => Some(service.unwrap_or(sender)),
        Some(63014) => Some(sender),
        _ => None,
    }
}

/// Time between the callback about a failed send and the second send.
pub(super) const RESEND_DELAY: Duration = Duration::from_mins(1);

/// Returns the error code of a failed send after which a second one may succeed.
pub(super) fn passing_failure(status: &str, code: Option<u32>) -> Option<u32> {
    // Only `failed`: an `undelivered` message has left Twilio, so the user may have it.
    let failed = status == MessageStatus::Failed.as_str();
    code.filter(|code| failed && PASSING_FAILURES.contains(code))
}

/// Returns the error code of a failed send whose rich content was refused, so that its text may still be sent.
///
/// 63005 and 63021: the channel does not take the content. 63013: a policy. 63028: the variables.
pub(super) fn content_failure(status: &str, code: Option<u32>) -> Option<u32> {
    let failed = [MessageStatus::Failed, MessageStatus::Undelivered];
    let failed = failed.iter().any(|failed| failed.as_str() == status);
    code.filter(|code| failed && matches!(code, 63005 | 63013 | 63021 | 63028))
}

/// Returns the opt-out that the error code of a status callback reveals.
pub(super) fn opt_out_of_event(event: &StatusEvent) -> Option<ConsentRecord> {
    let (sender, user) = (event.sender.as_ref()?, event.user.first()?);
    let code = event.error_code.map(|code| code.0);
    let service = event.service.as_ref().map(MessagingServiceSid::as_str);
    let scope = opt_out_scope(code, sender.as_str(), service)?;
    Some(ConsentRecord::refusal(
        scope,
        user.clone(),
        Some(event.sid),
        event.at,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: i64 = 1;
    const OTHER: i64 = 2;

    fn message(state: i64, attempt: u32, owner: Option<i64>) -> MessageState {
        MessageState {
            id: 7,
            conversation: 3,
            state,
            attempt,
            owner,
            is_owned: owner == Some(ME),
            failed_before: false,
            response: Some("<Response/>".to_owned()),
            is_blocked: false,
            handed_off_until: None,
            has_question: false,
            user_id: None,
        }
    }

    fn redelivery(state: i64, attempt: u32, owner: Option<i64>, retries: bool) -> Redelivery {
        let mut delivered = crate::store::check::new_inbound(1).unwrap();
        delivered.max_attempts = 2;
        delivered.retry_after_crash = retries;
        message(state, attempt, owner).redelivery(&delivered)
    }

    #[test]
    fn redelivery_of_settled_message_gets_its_response() {
        let saved = SavedResponse {
            twiml: Some("<Response/>".to_owned()),
        };
        assert_eq!(
            redelivery(inbound::ANSWERED, 1, None, true),
            Redelivery::Answered(saved)
        );
        // The reply of a message in these states is not in a response, so neither is the saved text.
        for state in [inbound::DEFERRED, inbound::DONE, inbound::DEAD] {
            assert_eq!(
                redelivery(state, 1, Some(ME), true),
                Redelivery::Answered(SavedResponse::EMPTY)
            );
        }
    }

    #[test]
    fn redelivery_of_open_message_follows_crash_policy() {
        use Redelivery::{Exhausted, InProgress, Retry};
        for (state, attempt, owner, retries, expected) in [
            (inbound::RECEIVED, 0, Some(ME), false, InProgress),
            (inbound::PROCESSING, 1, Some(ME), false, InProgress),
            // Queued by a process that died: no handler was interrupted.
            (inbound::RECEIVED, 0, Some(OTHER), false, Retry),
            (inbound::RECEIVED, 2, None, false, Retry),
            (inbound::PROCESSING, 1, Some(OTHER), true, Retry),
            (inbound::PROCESSING, 1, Some(OTHER), false, Exhausted),
            (inbound::PROCESSING, 2, Some(OTHER), true, Exhausted),
            // A failure is not a crash.
            (inbound::FAILED, 1, Some(ME), false, Retry),
            (inbound::FAILED, 2, Some(ME), true, Exhausted),
        ] {
            assert_eq!(
                redelivery(state, attempt, owner, retries),
                expected,
                "state {state}, attempt {attempt}, owner {owner:?}"
            );
        }
    }

    #[test]
    fn turn_needs_queued_message_of_this_process() {
        let mut queued = message(inbound::RECEIVED, 0, Some(ME));
        assert_eq!(queued.turn(ME), None);
        queued.is_blocked = true;
        assert_eq!(queued.turn(ME), Some(TurnStatus::Waiting));
        // Released, and claimed by another process.
        for owner in [None, Some(OTHER)] {
            let lost = TurnStatus::Resolved(ReplyDecision::ClaimLost);
            assert_eq!(message(inbound::RECEIVED, 0, owner).turn(ME), Some(lost));
        }
        let deferred = TurnStatus::Resolved(ReplyDecision::ViaRest);
        assert_eq!(message(inbound::DEFERRED, 0, None).turn(ME), Some(deferred));
    }

    #[test]
    fn deferred_reply_needs_owner_and_attempt() {
        let claim = message(inbound::PROCESSING, 0, None).next_claim(Timestamp::UNIX_EPOCH);
        assert_eq!(claim.attempt, 1);
        for (attempt, owner, expected) in [
            (1, Some(ME), ReplyDecision::ViaRest),
            // Claimed again, by this process or another one.
            (2, Some(ME), ReplyDecision::ClaimLost),
            (1, Some(OTHER), ReplyDecision::ClaimLost),
            (1, None, ReplyDecision::ClaimLost),
        ] {
            let row = message(inbound::DEFERRED, attempt, owner);
            assert_eq!(row.reply_decision_for(ME, claim), expected);
        }
        // A saved response stays visible to a caller whose claim is lost.
        assert!(matches!(
            message(inbound::ANSWERED, 2, None).reply_decision_for(ME, claim),
            ReplyDecision::Inline(_)
        ));
    }

    #[test]
    fn window_closes_two_minutes_before_24_hours() {
        let user = Address::from("whatsapp:+15551234567");
        let last = 1_700_000_000_000_000;
        let at = |micros: i64| Timestamp::from_microsecond(micros).unwrap();
        let length = (24 * 60 - 2) * 60 * 1_000_000;
        assert!(window(&user, None, at(last)).unwrap().is_none());
        assert!(
            window(&user, Some(last), at(last + length - 1))
                .unwrap()
                .is_some()
        );
        assert!(
            window(&user, Some(last), at(last + length))
                .unwrap()
                .is_none()
        );
        assert!(window(&user, Some(i64::MAX), at(last)).is_err());
    }

    #[test]
    fn opt_out_scope_follows_error_code() {
        assert_eq!(opt_out_scope(Some(21610), "sender", None), Some("sender"));
        assert_eq!(
            opt_out_scope(Some(21610), "sender", Some("service")),
            Some("service")
        );
        // A block concerns the one sender, whatever service chose it.
        assert_eq!(
            opt_out_scope(Some(63014), "sender", Some("service")),
            Some("sender")
        );
        assert_eq!(opt_out_scope(Some(30003), "sender", None), None);
        assert_eq!(opt_out_scope(None, "sender", None), None);
    }

    #[test]
    fn only_failed_status_with_passing_code_allows_second_send() {
        for code in PASSING_FAILURES {
            assert_eq!(passing_failure("failed", Some(code)), Some(code));
            assert_eq!(passing_failure("undelivered", Some(code)), None);
        }
        assert_eq!(passing_failure("failed", Some(30003)), None);
        assert_eq!(passing_failure("failed", None), None);
    }
}
