//! Rows of messages, as several topics read them.

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::store::decisions::{self, MessageState};
use crate::store::error::StoreError;
use crate::store::outbound_message::OutboundMessage;
use crate::store::packing;

/// Condition: another open message of the conversation comes before the message `i`. `?1` is this process.
// Open: below 3, ANSWERED. Older messages come first, and so does a newer one in PROCESSING (1) or DEFERRED (2) that
// this process handles, since a conversation has one handler at a time. A newer message that a dead process has claimed
// must not block: it waits for the older one, so that neither would ever be handled.
pub(super) const BLOCKED: &str = "EXISTS (SELECT 1 FROM inbound p WHERE p.conversation = i.conversation AND p.state < 3 \
     AND p.id <> i.id AND (p.id < i.id OR (p.state IN (1, 2) AND p.owner = ?1)))";

/// End of the handoff of the message's conversation, which may have passed.
pub(super) const HANDOFF_END: &str =
    "(SELECT until FROM handoff h WHERE h.conversation = i.conversation)";

/// Condition: the message's conversation has a question, which may have expired.
pub(super) const HAS_QUESTION: &str =
    "EXISTS (SELECT 1 FROM question q WHERE q.conversation = i.conversation)";

/// ID that the conversations of the message's user have in common.
pub(super) const USER_ID: &str =
    "(SELECT min(user_id) FROM conversation_address a WHERE a.conversation = i.conversation)";

/// Columns that [`read_state`] expects first. [`BLOCKED`], [`HANDOFF_END`], [`HAS_QUESTION`] and [`USER_ID`] must follow them.
pub(super) const STATE_COLUMNS: &str =
    "i.id, i.conversation, i.state, i.attempt, i.owner, i.reason IS NOT NULL, i.response";

/// Reads [`STATE_COLUMNS`] and the four columns after them.
pub(super) fn read_state(row: &Row<'_>, me: i64) -> rusqlite::Result<MessageState> {
    let owner = row.get(4)?;
    Ok(MessageState {
        id: row.get(0)?,
        conversation: row.get(1)?,
        state: row.get(2)?,
        attempt: row.get(3)?,
        owner,
        // Another owner is dead, because one server owns the file.
        is_owned: owner == Some(me),
        failed_before: row.get(5)?,
        response: row.get(6)?,
        is_blocked: row.get(7)?,
        handed_off_until: row.get(8)?,
        has_question: row.get(9)?,
        user_id: row.get(10)?,
    })
}

pub(super) fn message_state(db: &Connection, me: i64, id: i64) -> Result<MessageState, StoreError> {
    let sql = format!(
        "SELECT {STATE_COLUMNS}, {BLOCKED}, {HANDOFF_END}, {HAS_QUESTION}, {USER_ID} FROM inbound i WHERE i.id = ?2"
    );
    Ok(db
        .prepare_cached(&sql)?
        .query_row([me, id], |row| read_state(row, me))?)
}

/// Reads a message with the window and the opt-in of its user.
pub(super) fn message(
    db: &Connection,
    id: i64,
    now: Timestamp,
) -> Result<OutboundMessage, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT r.id, r.created_at, r.account, r.auth_token, r.sender, r.address, r.service, r.template, r.attempt, r.lookups, r.sent_at, \
         r.params, (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.sender = r.sender AND a.address_key = r.address_key), \
         EXISTS (SELECT 1 FROM consent c WHERE c.consent_key = r.consent_key AND c.opted_in IS NOT NULL AND c.scope IN (r.sender, r.service)), \
         r.resent_after, r.text_after FROM outbound r WHERE r.id = ?1",
    )?;
    let mut found = statement.query([id])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    read_message(row, now)
}

fn read_message(row: &Row<'_>, now: Timestamp) -> Result<OutboundMessage, StoreError> {
    let sender: Address = row.get::<_, String>(4)?.into();
    let user: Address = row.get::<_, String>(5)?.into();
    let last_inbound: Option<i64> = row.get(12)?;
    let params: Option<String> = row.get(11)?;
    Ok(OutboundMessage {
        id: row.get(0)?,
        created_at: packing::time(row.get(1)?)?,
        account: packing::account_sid(&row.get::<_, Vec<u8>>(2)?)?,
        auth_token: packing::auth_token(row.get(3)?),
        template: row.get(7)?,
        window: decisions::window(&user, last_inbound, now)?,
        sender,
        user,
        service: row
            .get::<_, Option<String>>(6)?
            .and_then(|service| service.parse().ok()),
        attempt: row.get(8)?,
        resent_after: row.get::<_, Option<u32>>(14)?.map(ErrorCode),
        text_after: row.get::<_, Option<u32>>(15)?.map(ErrorCode),
        lookups: row.get(9)?,
        sent_at: row
            .get::<_, Option<i64>>(10)?
            .map(packing::time)
            .transpose()?,
        // Retention deletes the parameters of closed messages only.
        params: FormParams::parse(params.unwrap_or_default().as_bytes(), usize::MAX)
            .unwrap_or_default(),
        opted_in: row.get(13)?,
    })
}
