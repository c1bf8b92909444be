//! How rows are written, the same in both databases.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    Answered, DeadReason, Decision, FileAtTwilio, FileHash, LinkSigningKey, Linked, LinkedFile,
    NewFile, NewLink, OpenWindow, ReplyState, StoreError, StoreErrorKind,
};
use crate::address::Address;
use crate::message::MessageStatus;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::TokenSlot;

/// The tables that hold what came and went, each before those that it refers to.
pub(super) const CONTENT: [&str; 13] = [
    "media_link",
    "media_file",
    "send_key",
    "send_pace",
    "dialogue",
    "handover",
    "news",
    "reply",
    "inbound",
    "consent",
    "consent_ledger",
    "conversation_address",
    "conversation",
];

/// States of `inbound`. Those below [`ANSWERED`](inbound::ANSWERED) are open.
pub(super) mod inbound {
    /// Kept, its turn has not come.
    pub(in crate::store) const RECEIVED: i64 = 0;
    /// A handler runs, the carrier is open.
    pub(in crate::store) const HANDLING: i64 = 1;
    /// The answer goes by REST; a handler runs if it has an owner.
    pub(in crate::store) const DEFERRED: i64 = 2;
    /// TwiML.
    pub(in crate::store) const ANSWERED: i64 = 3;
    /// The answer, if any, is in the outbox.
    pub(in crate::store) const DONE: i64 = 4;
    /// The handler failed; the next request handles it again.
    pub(in crate::store) const FAILED: i64 = 5;
    /// Beyond help, but for the operator's.
    pub(in crate::store) const DEAD: i64 = 6;
}

/// Why a message has no answer of its own.
pub(super) const MERGED: &str = "it was answered with the message before it";

/// Why a message that was entered late is not handled.
pub(super) const ANSWERED_BEFORE: &str = "it was answered before: Twilio has sent its user something since that the journal does not have";

/// Why a message is dead over which processes ended.
pub(super) const CRASHED: &str = "the process ended while it was handled";

/// Why a message is dead whose content was deleted before it was answered.
pub(super) const EXPIRED: &str = "its content has expired";

/// Why a message that was open is dead: its user was purged.
pub(super) const PURGED: &str = "purged";

/// Why a message is dead that could not be taken up.
pub(super) fn dead_reason(reason: &str) -> DeadReason {
    if reason == EXPIRED {
        DeadReason::Expired
    } else {
        DeadReason::Crashed
    }
}

/// Whether a filter for a state leaves out a message that is shown in this one, for this reason.
pub(super) fn is_left_out(wanted: Option<&str>, shown: &str, reason: Option<&str>) -> bool {
    wanted.is_some_and(|wanted| wanted != shown || (shown == "dead" && reason == Some(PURGED)))
}

/// What became of a message of a conversation that is handed over, where its answer went by REST.
pub(super) const NOT_REDIRECTED: &str =
    "it was not redirected to where its conversation is handed over: its answer went by REST";

/// States of `reply`. Those below [`SENT`](reply::SENT) are open.
pub(super) mod reply {
    pub(in crate::store) const PENDING: i64 = 0;
    pub(in crate::store) const SENDING: i64 = 1;
    pub(in crate::store) const UNKNOWN: i64 = 2;
    pub(in crate::store) const HELD: i64 = 3;
    pub(in crate::store) const SENT: i64 = 4;
    pub(in crate::store) const FAILED: i64 = 5;
    pub(in crate::store) const SUPPRESSED: i64 = 6;
}

/// The rank of a final failure.
pub(super) const FAILURE_RANK: i64 = 6;

/// A row that says something that no version of ours writes. It is one row, and not the database, that is damaged.
pub(super) fn unreadable() -> StoreError {
    StoreError::with_source(StoreErrorKind::Internal, "a row cannot be read")
}

pub(super) fn reply_state(state: i64) -> Result<ReplyState, StoreError> {
    Ok(match state {
        reply::PENDING => ReplyState::Pending,
        reply::SENDING => ReplyState::Sending,
        reply::UNKNOWN => ReplyState::Unknown,
        reply::HELD => ReplyState::Held,
        reply::SENT => ReplyState::Sent,
        reply::FAILED => ReplyState::Failed,
        reply::SUPPRESSED => ReplyState::Suppressed,
        _ => return Err(unreadable()),
    })
}

/// The state of a message that answers nothing, as the operator sees it.
pub(super) fn shown_outgoing(state: ReplyState, rank: i64) -> &'static str {
    match state {
        ReplyState::Sent if rank == FAILURE_RANK => ReplyState::Failed.as_str(),
        state => state.as_str(),
    }
}

/// The number of a state by its word.
pub(super) fn reply_number_of(word: &str) -> Option<i64> {
    (reply::PENDING..=reply::SUPPRESSED)
        .find(|number| reply_state(*number).is_ok_and(|state| state.as_str() == word))
}

/// A state as it is stored.
pub(super) fn reply_number(state: ReplyState) -> i64 {
    match state {
        ReplyState::Pending => reply::PENDING,
        ReplyState::Sending => reply::SENDING,
        ReplyState::Unknown => reply::UNKNOWN,
        ReplyState::Held => reply::HELD,
        ReplyState::Sent => reply::SENT,
        ReplyState::Failed => reply::FAILED,
        ReplyState::Suppressed => reply::SUPPRESSED,
    }
}

/// A message's state as the operator sees it: once its answer goes by REST, that of its replies.
pub(super) fn shown_state(state: i64, replies: &[(ReplyState, bool)]) -> &'static str {
    let any = |wanted: ReplyState| replies.iter().any(|(state, _)| *state == wanted);
    match state {
        inbound::RECEIVED => "received",
        inbound::HANDLING => "processing",
        inbound::DEFERRED => "deferred",
        inbound::FAILED => "failed",
        inbound::DEAD => "dead",
        inbound::DONE if any(ReplyState::Held) => "held",
        inbound::DONE if any(ReplyState::Unknown) => "unknown",
        inbound::DONE if any(ReplyState::Failed) || replies.iter().any(|(_, failed)| *failed) => {
            "failed"
        }
        inbound::DONE if any(ReplyState::Pending) || any(ReplyState::Sending) => "deferred",
        inbound::DONE if any(ReplyState::Sent) => "sent",
        _ => "answered",
    }
}

/// The window of a user who wrote last at that time, or never, if it is open.
pub(super) fn window(
    user: &Address,
    last_inbound: Option<i64>,
    now: Timestamp,
) -> Result<Option<OpenWindow>, StoreError> {
    let last_inbound = last_inbound.map(time).transpose()?;
    Ok(OpenWindow::of(user, last_inbound, now))
}

/// What the answer of a message in this state is, for somebody without a claim.
pub(super) fn decision(state: i64, twiml: Option<&String>) -> Decision {
    match state {
        inbound::ANSWERED => Decision::Answered(Answered {
            twiml: twiml.cloned(),
        }),
        inbound::DEFERRED | inbound::DONE | inbound::DEAD => Decision::Deferred,
        _ => Decision::Lost,
    }
}

/// The same for somebody who had a claim on it, which is still theirs or is not.
pub(super) fn fenced(decision: Decision, mine: bool) -> Decision {
    match decision {
        Decision::Deferred if !mine => Decision::Lost,
        decision => decision,
    }
}

/// A SID in 17 bytes: its first letter and 16 bytes. One with capital digits, which Twilio does not make, stays text.
pub(super) fn sid_bytes(sid: &str) -> Vec<u8> {
    let bytes = sid.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut packed = Vec::with_capacity(17);
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

/// What a row of `media_link` says of what it leads to.
#[derive(Default)]
pub(super) struct LinkColumns {
    pub(super) message: Option<Vec<u8>>,
    pub(super) file: Option<Vec<u8>>,
    pub(super) account: Option<Vec<u8>>,
    pub(super) slot: Option<i64>,
    pub(super) media_message: Option<Vec<u8>>,
    pub(super) media: Option<String>,
}

impl LinkColumns {
    pub(super) fn of(link: &NewLink) -> Self {
        let message = link.message.map(|sid| sid_bytes(sid.as_str()));
        match &link.file {
            NewFile::Ours(bytes) => Self {
                message,
                file: Some(Sha256::digest(bytes).to_vec()),
                ..Self::default()
            },
            NewFile::AtTwilio(FileAtTwilio {
                account,
                slot,
                message: of,
                media,
            }) => Self {
                message,
                file: None,
                account: Some(sid_bytes(account.as_str())),
                slot: Some(slot_number(*slot)),
                media_message: Some(sid_bytes(of.as_str())),
                media: Some(media.to_string()),
            },
        }
    }
}

/// What a link leads to; `length` is that of its file, where it has one.
pub(super) fn linked(
    content_type: Option<String>,
    columns: &LinkColumns,
    length: Option<i64>,
) -> Result<Linked, StoreError> {
    let file = if let (Some(hash), Some(length)) = (&columns.file, length) {
        LinkedFile::Ours {
            hash: FileHash(hash.as_slice().try_into().map_err(|_| unreadable())?),
            length: length.try_into().map_err(|_| unreadable())?,
        }
    } else {
        let media = columns.media.as_deref().ok_or_else(unreadable)?;
        LinkedFile::AtTwilio(FileAtTwilio {
            account: account_sid(columns.account.as_deref().ok_or_else(unreadable)?)?,
            slot: slot(columns.slot.ok_or_else(unreadable)?),
            message: message_sid(columns.media_message.as_deref().ok_or_else(unreadable)?)?,
            media: media.parse().map_err(|_| unreadable())?,
        })
    };
    Ok(Linked { file, content_type })
}

pub(super) fn slot_number(slot: TokenSlot) -> i64 {
    match slot {
        TokenSlot::Primary => 0,
        TokenSlot::Secondary => 1,
        TokenSlot::Account => 2,
    }
}

pub(super) fn slot(number: i64) -> TokenSlot {
    match number {
        1 => TokenSlot::Secondary,
        2 => TokenSlot::Account,
        _ => TokenSlot::Primary,
    }
}

/// The rank of a status; one without a rank moves nothing.
pub(super) fn rank(status: &MessageStatus) -> i64 {
    status.rank().map_or(-1, i64::from)
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| unreadable())
}

/// What a user wants nothing from, by Twilio's code for what was not delivered: Twilio's own list (21610) is the service's
/// where the message went through one, and whom a user blocks (63014) is the sender.
pub(super) fn refused_scope<'a>(
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

/// Where `meta` has [`MIN_READER`](super::MIN_READER) of the newest program that wrote the schema.
pub(super) const MIN_READER: &str = "min_reader";

/// Whether this program may work on a schema of that number, whose makers let in those that know `min_reader`.
pub(super) fn readable(
    version: usize,
    known: usize,
    min_reader: Option<i64>,
) -> Result<(), StoreError> {
    let let_in = min_reader
        .and_then(|least| usize::try_from(least).ok())
        .is_some_and(|least| least <= known);
    if version <= known || let_in {
        Ok(())
    } else {
        Err(newer_schema(version, known))
    }
}

/// A schema that this version does not know.
fn newer_schema(version: usize, known: usize) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is number {version} and this version knows {known}: run the newer replyhook, or restore the backup \
             from before it"
        ),
    )
}

/// A schema that somebody else has to bring up to date.
pub(super) fn older_schema(version: usize, needed: usize) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is number {version} and this version needs {needed}: stop the server and run `replyhook migrate`"
        ),
    )
}

/// Bytes for a new key of a store's links, from the operating system.
pub(super) fn new_link_signing_key() -> Result<[u8; 32], StoreError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| StoreError::with_source(StoreErrorKind::Internal, error.to_string()))?;
    Ok(key)
}

/// The key of a store's links as its table has it.
pub(super) fn link_signing_key(stored: &[u8]) -> Result<LinkSigningKey, StoreError> {
    let key = stored.try_into().map_err(|_| {
        StoreError::with_source(
            StoreErrorKind::Corrupt,
            "the key in the table media_link_key is not 32 bytes long; delete its row, and a new one is made",
        )
    })?;
    Ok(LinkSigningKey::new(key))
}

/// Which process this is, among those that claim. A new one each time.
pub(super) fn new_owner() -> i64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    // Never zero or negative, so that it reads well.
    i64::try_from(random >> 1).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_packed_and_comes_back_as_it_was() {
        for sid in [
            "SM00112233445566778899aabbccddeeff",
            "MMffeeddccbbaa99887766554433221100",
            "SM00112233445566778899AABBCCDDEEFF",
        ] {
            let packed = sid_bytes(sid);
            assert_eq!(message_sid(&packed).unwrap().as_str(), sid);
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
