//! Rows of messages, as several topics read them.

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::conditions::{is_blocked, is_owned};
use super::error::CallError;
use super::text::unpack;
use crate::address::Address;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::store::decisions::{self, MessageState};
use crate::store::outbound_message::OutboundMessage;
use crate::store::packing;

/// SQL that reads a [`MessageState`]. `$more` follows the condition on the id.
macro_rules! message_state {
    ($more:literal) => {
        concat!(
            "SELECT i.id, i.conversation, i.state, i.attempt, i.owner, ",
            is_owned!("$1"),
            ", i.reason IS NOT NULL, i.response, ",
            is_blocked!("$1"),
            ", (SELECT until FROM handoff h WHERE h.conversation = i.conversation), \
             EXISTS (SELECT 1 FROM question q WHERE q.conversation = i.conversation), \
             (SELECT min(user_id) FROM conversation_address a WHERE a.conversation = i.conversation) FROM inbound i WHERE i.id = $2",
            $more
        )
    };
}

/// Reads the state of a message without a lock.
pub(super) async fn read_state(
    db: &mut PgConnection,
    me: i64,
    id: i64,
) -> Result<MessageState, CallError> {
    query_state(db, message_state!(""), me, id).await
}

/// Reads the state of a message, and locks its row until the end of the transaction.
pub(super) async fn lock_and_read_state(
    db: &mut PgConnection,
    me: i64,
    id: i64,
) -> Result<MessageState, CallError> {
    query_state(db, message_state!(" FOR UPDATE OF i"), me, id).await
}

async fn query_state(
    db: &mut PgConnection,
    sql: &'static str,
    me: i64,
    id: i64,
) -> Result<MessageState, CallError> {
    let row = sqlx::query(sql).bind(me).bind(id).fetch_one(db).await?;
    Ok(MessageState {
        id: row.try_get(0)?,
        conversation: row.try_get(1)?,
        state: row.try_get(2)?,
        attempt: number(row.try_get(3)?),
        owner: row.try_get(4)?,
        is_owned: row.try_get(5)?,
        failed_before: row.try_get(6)?,
        response: row.try_get::<Option<String>, _>(7)?.map(unpack),
        is_blocked: row.try_get(8)?,
        handed_off_until: row.try_get(9)?,
        has_question: row.try_get(10)?,
        user_id: row.try_get(11)?,
    })
}

/// Converts a stored number of attempts or lookups.
pub(super) fn number(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// SQL columns of the message `m`, in the order that `read_message` expects.
// Window and consent are read with each claim, since both may have changed after the message was queued.
macro_rules! message {
    () => {
        "m.id, m.created_at, m.account, m.auth_token, m.sender, m.address, m.service, m.template, m.attempt, m.lookups, m.sent_at, m.params, \
         (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.sender = m.sender AND a.address_key = m.address_key), \
         EXISTS (SELECT 1 FROM consent c WHERE c.consent_key = m.consent_key AND c.opted_in IS NOT NULL AND c.scope IN (m.sender, m.service)), \
         m.resent_after, m.text_after"
    };
}
pub(super) use message;

/// Reads the columns of `message!`.
pub(super) fn read_message(row: &PgRow, now: Timestamp) -> Result<OutboundMessage, CallError> {
    let sender: Address = unpack(row.try_get(4)?).into();
    let user: Address = unpack(row.try_get(5)?).into();
    let service: Option<String> = row.try_get(6)?;
    let sent_at: Option<i64> = row.try_get(10)?;
    let params: Option<String> = row.try_get(11)?;
    let params = params.map(unpack).unwrap_or_default();
    let last_inbound: Option<i64> = row.try_get(12)?;
    let resent_after: Option<i64> = row.try_get(14)?;
    let text_after: Option<i64> = row.try_get(15)?;
    Ok(OutboundMessage {
        id: row.try_get(0)?,
        created_at: packing::time(row.try_get(1)?)?,
        account: packing::account_sid(row.try_get(2)?)?,
        auth_token: packing::auth_token(row.try_get(3)?),
        template: row.try_get(7)?,
        window: decisions::window(&user, last_inbound, now)?,
        sender,
        user,
        service: service.and_then(|service| service.parse().ok()),
        attempt: number(row.try_get(8)?),
        resent_after: resent_after.map(|code| ErrorCode(number(code))),
        text_after: text_after.map(|code| ErrorCode(number(code))),
        lookups: number(row.try_get(9)?),
        sent_at: sent_at.map(packing::time).transpose()?,
        params: FormParams::parse(params.as_bytes(), usize::MAX).unwrap_or_default(),
        opted_in: row.try_get(13)?,
    })
}
