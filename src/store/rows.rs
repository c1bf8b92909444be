//! Stored values that both databases share: states, reasons, SIDs, links and the schema's version.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    DeadReason, FailOutcome, FileHash, LinkSigningKey, LinkSource, LinkTarget, NewLink, OpenWindow,
    OutboundState, ReplyDecision, ResolvedLink, SavedResponse, StoreError, StoreErrorKind,
    TwilioMedia,
};
use crate::address::Address;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;

/// Tables with messages and consents, each before the tables that it refers to.
pub(super) const CONTENT: [&str; 13] = [
    "media_link",
    "media_file",
    "idempotency_key",
    "send_rate",
    "dialogue",
    "handoff",
    "unmatched_status",
    "outbound",
    "inbound",
    "consent",
    "consent_ledger",
    "conversation_address",
    "conversation",
];

/// States of `inbound`. Those below [`ANSWERED`](inbound::ANSWERED) are open.
// The SQL of both databases, including the conditions of partial indexes, contains these numbers as literals.
pub(super) mod inbound {
    /// Stored; an older message of the conversation is still open.
    pub(in crate::store) const RECEIVED: i64 = 0;
    /// A handler runs, and the reply path is undecided.
    pub(in crate::store) const PROCESSING: i64 = 1;
    /// The reply takes the REST API. A handler runs if the message has an owner.
    pub(in crate::store) const DEFERRED: i64 = 2;
    /// The response is saved: TwiML, or the empty response.
    pub(in crate::store) const ANSWERED: i64 = 3;
    /// The replies, if any, are in the outbox.
    pub(in crate::store) const DONE: i64 = 4;
    /// The handler failed. A redelivery starts another attempt.
    pub(in crate::store) const FAILED: i64 = 5;
    /// Neither a redelivery nor a process retries the message. An operator can.
    pub(in crate::store) const DEAD: i64 = 6;
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

/// Returns the public reason for a message that [`claim_backlog`](super::Journal::claim_backlog) made dead.
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

/// Reason of a message of a handed-off conversation whose reply took the REST API, which cannot redirect.
pub(super) const NOT_REDIRECTED: &str =
    "it was not redirected to the handoff URL: its reply went via the REST API";

/// States of `outbound`. Those below [`SENT`](reply::SENT) are open.
// The SQL of both databases contains these numbers as literals too.
pub(super) mod reply {
    pub(in crate::store) const PENDING: i64 = 0;
    pub(in crate::store) const SENDING: i64 = 1;
    pub(in crate::store) const UNKNOWN: i64 = 2;
    pub(in crate::store) const HELD: i64 = 3;
    pub(in crate::store) const SENT: i64 = 4;
    pub(in crate::store) const FAILED: i64 = 5;
    pub(in crate::store) const SUPPRESSED: i64 = 6;
}

/// [Rank](MessageStatus::rank) of a final failure, above that of `read`.
pub(super) const FAILURE_RANK: i64 = 6;

/// Creates the error for a row with a value that no version of replyhook writes.
pub(super) fn unreadable() -> StoreError {
    // Not `Corrupt`: that makes the server not ready until a restart, and here one row is damaged, not the database.
    StoreError::with_source(StoreErrorKind::Internal, "a row cannot be read")
}

pub(super) fn reply_state(state: i64) -> Result<OutboundState, StoreError> {
    Ok(match state {
        reply::PENDING => OutboundState::Pending,
        reply::SENDING => OutboundState::Sending,
        reply::UNKNOWN => OutboundState::Unknown,
        reply::HELD => OutboundState::Held,
        reply::SENT => OutboundState::Sent,
        reply::FAILED => OutboundState::Failed,
        reply::SUPPRESSED => OutboundState::Suppressed,
        _ => return Err(unreadable()),
    })
}

/// Returns the state of an outbound message that is not a reply, as shown to operators.
pub(super) fn shown_outgoing(state: OutboundState, rank: i64) -> &'static str {
    match state {
        // Twilio accepted the message and then reported in a status callback that it was not delivered.
        OutboundState::Sent if rank == FAILURE_RANK => OutboundState::Failed.as_str(),
        state => state.as_str(),
    }
}

/// Returns the stored number of a state by its name.
pub(super) fn reply_number_of(word: &str) -> Option<i64> {
    (reply::PENDING..=reply::SUPPRESSED)
        .find(|number| reply_state(*number).is_ok_and(|state| state.as_str() == word))
}

/// Returns the stored number of a state.
pub(super) fn reply_number(state: OutboundState) -> i64 {
    match state {
        OutboundState::Pending => reply::PENDING,
        OutboundState::Sending => reply::SENDING,
        OutboundState::Unknown => reply::UNKNOWN,
        OutboundState::Held => reply::HELD,
        OutboundState::Sent => reply::SENT,
        OutboundState::Failed => reply::FAILED,
        OutboundState::Suppressed => reply::SUPPRESSED,
    }
}

/// Returns the state of an inbound message as shown to operators.
///
/// For a message that is done, the state follows from its replies: each state and whether its delivery failed.
pub(super) fn shown_state(state: i64, replies: &[(OutboundState, bool)]) -> &'static str {
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

/// Returns the customer service window of a user whose last message came at `last_inbound`, if it is open.
pub(super) fn window(
    user: &Address,
    last_inbound: Option<i64>,
    now: Timestamp,
) -> Result<Option<OpenWindow>, StoreError> {
    let last_inbound = last_inbound.map(time).transpose()?;
    Ok(OpenWindow::of(user, last_inbound, now))
}

/// Returns the reply decision of a message in a state, for a caller without a claim.
pub(super) fn decision(state: i64, twiml: Option<&String>) -> ReplyDecision {
    match state {
        inbound::ANSWERED => ReplyDecision::Inline(SavedResponse {
            twiml: twiml.cloned(),
        }),
        // A dead message gets the empty response, as if its reply took the REST API.
        inbound::DEFERRED | inbound::DONE | inbound::DEAD => ReplyDecision::ViaRest,
        _ => ReplyDecision::ClaimLost,
    }
}

/// Returns why a failure was not recorded: the message has a response, or the claim is not the caller's.
pub(super) fn failure_not_recorded(decision: ReplyDecision) -> FailOutcome {
    match decision {
        ReplyDecision::Inline(response) => FailOutcome::AlreadyAnswered(response),
        ReplyDecision::ViaRest | ReplyDecision::ClaimLost => FailOutcome::ClaimLost,
    }
}

/// Returns the reply decision for a caller with a claim, given whether the claim is still valid.
pub(super) fn fenced(decision: ReplyDecision, mine: bool) -> ReplyDecision {
    match decision {
        // `ViaRest` asks the caller to queue its reply. Without the claim another handler does that, so the caller must
        // not.
        ReplyDecision::ViaRest if !mine => ReplyDecision::ClaimLost,
        decision => decision,
    }
}

/// Packs a SID into 17 bytes: its first letter and 16 bytes. A SID with uppercase digits, which Twilio does not make,
/// stays text.
pub(super) fn sid_bytes(sid: &str) -> Vec<u8> {
    let bytes = sid.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut packed = Vec::with_capacity(17);
    // The first letter suffices: the SIDs in the store begin with SM, MM or AC.
    packed.push(bytes[0]);
    for two in bytes[2..].chunks_exact(2) {
        let (Some(high), Some(low)) = (digit(two[0]), digit(two[1])) else {
            return bytes.to_vec();
        };
        packed.push(high << 4 | low);
    }
    packed
}

fn sid_text(bytes: &[u8]) -> Result<String, StoreError> {
    // A SID as text has 34 bytes.
    if bytes.len() != 17 {
        return String::from_utf8(bytes.to_vec()).map_err(|_| unreadable());
    }
    let prefix = match bytes[0] {
        b'S' => "SM",
        b'M' => "MM",
        b'A' => "AC",
        _ => return Err(unreadable()),
    };
    let digits = bytes[1..].iter().map(|byte| format!("{byte:02x}"));
    Ok(std::iter::once(prefix.to_owned()).chain(digits).collect())
}

pub(super) fn message_sid(bytes: &[u8]) -> Result<MessageSid, StoreError> {
    sid_text(bytes)?.parse().map_err(|_| unreadable())
}

pub(super) fn account_sid(bytes: &[u8]) -> Result<AccountSid, StoreError> {
    sid_text(bytes)?.parse().map_err(|_| unreadable())
}

/// Columns of `media_link` that identify the file behind a link.
#[derive(Default)]
pub(super) struct LinkColumns {
    pub(super) message: Option<Vec<u8>>,
    pub(super) file: Option<Vec<u8>>,
    pub(super) account: Option<Vec<u8>>,
    pub(super) auth_token: Option<i64>,
    pub(super) media_message: Option<Vec<u8>>,
    pub(super) media: Option<String>,
}

impl LinkColumns {
    pub(super) fn of(link: &NewLink) -> Self {
        let message = link.message.map(|sid| sid_bytes(sid.as_str()));
        match &link.file {
            LinkSource::Stored(bytes) => Self {
                message,
                file: Some(Sha256::digest(bytes).to_vec()),
                ..Self::default()
            },
            LinkSource::Twilio(TwilioMedia {
                account,
                auth_token: slot,
                message: of,
                media,
            }) => Self {
                message,
                file: None,
                account: Some(sid_bytes(account.as_str())),
                auth_token: Some(auth_token_number(*slot)),
                media_message: Some(sid_bytes(of.as_str())),
                media: Some(media.to_string()),
            },
        }
    }
}

/// Builds a resolved link from its columns and from the length of its stored file, if it has one.
pub(super) fn linked(
    content_type: Option<String>,
    columns: &LinkColumns,
    length: Option<i64>,
) -> Result<ResolvedLink, StoreError> {
    let file = if let (Some(hash), Some(length)) = (&columns.file, length) {
        LinkTarget::Stored {
            hash: FileHash(hash.as_slice().try_into().map_err(|_| unreadable())?),
            length: length.try_into().map_err(|_| unreadable())?,
        }
    } else {
        let media = columns.media.as_deref().ok_or_else(unreadable)?;
        LinkTarget::Twilio(TwilioMedia {
            account: account_sid(columns.account.as_deref().ok_or_else(unreadable)?)?,
            auth_token: auth_token(columns.auth_token.ok_or_else(unreadable)?),
            message: message_sid(columns.media_message.as_deref().ok_or_else(unreadable)?)?,
            media: media.parse().map_err(|_| unreadable())?,
        })
    };
    Ok(ResolvedLink { file, content_type })
}

pub(super) fn auth_token_number(slot: AuthTokenKind) -> i64 {
    match slot {
        AuthTokenKind::Primary => 0,
        AuthTokenKind::Secondary => 1,
        AuthTokenKind::Subaccount => 2,
    }
}

pub(super) fn auth_token(number: i64) -> AuthTokenKind {
    match number {
        1 => AuthTokenKind::Secondary,
        2 => AuthTokenKind::Subaccount,
        _ => AuthTokenKind::Primary,
    }
}

/// Returns the rank of a status. A status without a rank gets -1, which is the rank of a new row and so changes
/// nothing.
pub(super) fn rank(status: &MessageStatus) -> i64 {
    status.rank().map_or(-1, i64::from)
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| unreadable())
}

/// Returns the scope of the opt-out that an error code of Twilio reveals.
///
/// 21610: the user is on Twilio's own opt-out list, which belongs to the Messaging Service if the message used one.
/// 63014: the user has blocked the sender.
pub(super) fn rejected_scope<'a>(
    code: Option<u32>,
    us: &'a str,
    service: Option<&'a str>,
) -> Option<&'a str> {
    match code {
        Some(21610) => Some(service.unwrap_or(us)),
        Some(63014) => Some(us),
        _ => None,
    }
}

/// Name in `meta` of the [`MIN_READER`](super::MIN_READER) of the newest program that migrated the schema.
pub(super) const MIN_READER: &str = "min_reader";

/// Name in `meta` of the [`fingerprint`] of the initial schema that the store was made with.
pub(super) const INITIAL_SCHEMA: &str = "initial_schema";

/// Returns the first 8 bytes of the SHA-256 of a schema's SQL, without comments and indentation.
///
/// The initial schema is edited in place until the first release. The fingerprint identifies a store that was made with
/// another version of it, which has the same number.
pub(super) fn fingerprint(sql: &str) -> i64 {
    let mut hash = Sha256::new();
    // `--` in a string literal would be cut as well, which does no harm to a hash as long as it is always the same.
    let lines = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        hash.update(line);
        hash.update("\n");
    }
    let hash: [u8; 32] = hash.finalize().into();
    i64::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has 32 bytes"))
}

/// Rejects a store whose initial schema was not `sql`. `remedy` is the way to an empty store.
pub(super) fn same_initial_schema(
    sql: &str,
    stored: Option<i64>,
    remedy: &str,
) -> Result<(), StoreError> {
    if stored == Some(fingerprint(sql)) {
        return Ok(());
    }
    Err(StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is from before the first release and has changed since; use the version that made it, or {remedy} \
             and start with an empty store, which loses messages, replies and opt-outs (export opt-outs with the version that \
             made it: `replyhook consent export`)"
        ),
    ))
}

/// Checks that a program whose newest schema is `known` may work on a schema of number `version`.
pub(super) fn readable(
    version: usize,
    known: usize,
    min_reader: Option<i64>,
) -> Result<(), StoreError> {
    // A newer program has recorded the lowest schema number whose programs may work on its schema.
    let let_in = min_reader
        .and_then(|least| usize::try_from(least).ok())
        .is_some_and(|least| least <= known);
    if version <= known || let_in {
        Ok(())
    } else {
        Err(newer_schema(version, known))
    }
}

/// Creates the error for a schema that this version does not know.
fn newer_schema(version: usize, known: usize) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is number {version} and this version knows {known}; run the newer replyhook, or restore a backup from \
             before the upgrade"
        ),
    )
}

/// Creates the error for a schema that the server or `replyhook migrate` must update first.
pub(super) fn older_schema(version: usize, needed: usize) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is number {version} and this version needs {needed}; stop the server and run `replyhook migrate`"
        ),
    )
}

/// Returns a new link signing key from the operating system's random numbers.
pub(super) fn new_link_signing_key() -> Result<[u8; 32], StoreError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error.to_string()))?;
    Ok(key)
}

/// Builds the link signing key from its stored bytes.
pub(super) fn link_signing_key(stored: &[u8]) -> Result<LinkSigningKey, StoreError> {
    let key = stored.try_into().map_err(|_| {
        StoreError::with_source(
            StoreErrorKind::Corrupt,
            "the key in the table media_link_key is not 32 bytes long; delete its row, and a new one is made",
        )
    })?;
    Ok(LinkSigningKey::new(key))
}

/// Returns a random ID for this process, which marks its claims.
pub(super) fn new_owner() -> i64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    // `RandomState` is seeded from the operating system. The ID need not be secret, only unlikely to repeat. It is
    // positive, so that it is easy to read in the database.
    i64::try_from(random >> 1).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_sid_round_trips() {
        for sid in [
            "SM00112233445566778899aabbccddeeff",
            "MMffeeddccbbaa99887766554433221100",
            "SM00112233445566778899AABBCCDDEEFF",
        ] {
            let packed = sid_bytes(sid);
            assert_eq!(message_sid(&packed).unwrap().as_str(), sid);
            // Only a SID with uppercase digits stays text.
            assert_eq!(
                packed.len() == 17,
                sid.bytes()
                    .all(|b| !b"ABCDEF".contains(&b) || b == sid.as_bytes()[0])
            );
        }
        let account = "AC00000000000000000000000000000001";
        assert_eq!(account_sid(&sid_bytes(account)).unwrap().as_str(), account);
        assert!(message_sid(&[0; 17]).is_err());
    }
}
