//! [`Journal::accept`](crate::store::journal::Journal::accept) in SQLite.

use rusqlite::{Connection, OptionalExtension, params};

use super::claims::claim;
use super::conversations;
use super::database::ready;
use super::reading::message_state;
use crate::sid::MessagingServiceSid;
use crate::store::decisions::{self, MessageState, Redelivery};
use crate::store::error::StoreError;
use crate::store::journal::{AcceptOutcome, SavedResponse};
use crate::store::new_inbound::{ConsentEffect, NewInbound};
use crate::store::packing;
use crate::store::shared::consent::{self, Repeated};
use crate::store::shared::database::RecordingDatabase;
use crate::store::states::inbound;

/// Stores a new message, or returns the outcome of a stored one.
pub(super) fn accept(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
    records_events: bool,
) -> Result<AcceptOutcome, StoreError> {
    let key = MessageKey::of(inbound);
    if let Some(outcome) = accept_usual(db, me, inbound, &key)? {
        return Ok(outcome);
    }
    if let Some(id) = key.find_id(db)? {
        // Move the message to the conversation that its own was merged into, before `message_state` checks the order
        // there.
        conversations::move_to_merged(db, id)?;
        return accept_redelivery(db, me, &message_state(db, me, id)?, inbound);
    }
    let now = inbound.received_at.as_microsecond();
    let found = conversations::find_or_create(db, inbound)?;
    let conversation = found.id;
    let effect = inbound.apply_keyword(found.opted_out);
    let scopes = match &inbound.consent {
        Some(_) => ready(consent::scopes_of(&mut &*db, inbound))?,
        None => Vec::new(),
    };
    // In the transaction that accepts the message, so that an acknowledged STOP is always in force.
    if let ConsentEffect::Keyword {
        change: Some(action),
        ..
    } = effect
    {
        let records = inbound.ledger_records(action, &scopes);
        ready(consent::record_consents(
            &mut RecordingDatabase::new(&mut &*db, records_events),
            &records,
            Repeated::Recorded,
        ))?;
    } else if let Some(records) = inbound.further_opt_out(&effect, &scopes) {
        ready(consent::record_consents(
            &mut RecordingDatabase::new(&mut &*db, records_events),
            &records,
            Repeated::Recorded,
        ))?;
    }
    let response = decisions::initial_response(&effect);
    let (ahead, handed_off_until, has_question) = match effect {
        ConsentEffect::Ordinary => conversation_state(db, conversation, now)?,
        // No handler runs, so neither the order nor the handoff applies.
        ConsentEffect::Keyword { .. } | ConsentEffect::OptedOut => (0, None, false),
    };
    let state = decisions::initial_state(&effect, ahead);
    let columns = InsertedColumns {
        conversation,
        state,
        response,
        reason: decisions::initial_reason(&effect),
    };
    insert(db, me, inbound, &key, &columns)?;
    let id = db.last_insert_rowid();
    conversations::record_newest(db, conversation, id, now)?;
    let handed_off = decisions::is_handoff_active(handed_off_until, inbound.received_at);
    Ok(decisions::outcome_of_new(
        effect,
        id,
        conversation,
        found.user_id,
        ahead,
        handed_off,
        has_question,
    ))
}

/// Accepts a usual message: a new one, without a consent keyword, in a known conversation whose user has not opted out. Returns
/// `None`, and has changed nothing, for any other.
// One statement finds the conversation with its state, and the next one finds out whether the message is new.
fn accept_usual(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
    key: &MessageKey,
) -> Result<Option<AcceptOutcome>, StoreError> {
    let Some(named) = inbound.named_addresses() else {
        return Ok(None);
    };
    if inbound.consent.is_some() {
        return Ok(None);
    }
    let Some(known) = conversations::find_known(db, inbound, &named)? else {
        return Ok(None);
    };
    let conversation = known.found;
    if conversation.opted_out {
        return Ok(None);
    }
    let effect = ConsentEffect::Ordinary;
    let columns = InsertedColumns {
        conversation: conversation.id,
        state: decisions::initial_state(&effect, known.ahead),
        response: None,
        reason: None,
    };
    // A redelivery: the row of its message is there.
    if !insert(db, me, inbound, key, &columns)? {
        return Ok(None);
    }
    let id = db.last_insert_rowid();
    let now = inbound.received_at;
    conversations::record_newest(db, conversation.id, id, now.as_microsecond())?;
    Ok(Some(decisions::outcome_of_new(
        effect,
        id,
        conversation.id,
        conversation.user_id,
        known.ahead,
        decisions::is_handoff_active(known.handed_off_until, now),
        known.has_question,
    )))
}

/// Columns of a new row of `inbound` that do not follow from its message.
struct InsertedColumns {
    conversation: i64,
    state: i64,
    response: Option<String>,
    reason: Option<&'static str>,
}

/// Inserts the row of a message. Returns false, and has inserted nothing, if its message is stored already.
fn insert(
    db: &Connection,
    me: i64,
    inbound: &NewInbound,
    key: &MessageKey,
    columns: &InsertedColumns,
) -> Result<bool, StoreError> {
    let attempt = u32::from(columns.state == inbound::PROCESSING);
    // `previous` links the message to the last one of its conversation. A queued message has an owner too: its request
    // waits for it in this process, so the backlog must not claim it.
    let inserted = db
        .prepare_cached(
            "INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, service, \
             response, params, reason, previous) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, ?12, \
             (SELECT newest FROM conversation WHERE id = ?3)) ON CONFLICT (sid, account) DO NOTHING",
        )?
        .execute(params![
            key.account,
            key.sid,
            columns.conversation,
            columns.state,
            attempt,
            (columns.state != inbound::ANSWERED).then_some(me),
            inbound.received_at.as_microsecond(),
            packing::auth_token_number(inbound.auth_token),
            inbound.service.as_ref().map(MessagingServiceSid::as_str),
            columns.response,
            inbound.params,
            columns.reason,
        ])?;
    Ok(inserted > 0)
}

/// Returns the number of open messages of a conversation, the end of its handoff, which may have passed, and whether it has
/// a question.
fn conversation_state(
    db: &Connection,
    conversation: i64,
    now: i64,
) -> Result<(u32, Option<i64>, bool), StoreError> {
    let found = db
        .prepare_cached(
            // Open messages are below 3, ANSWERED.
            "SELECT (SELECT count(*) FROM inbound WHERE conversation = ?1 AND state < 3), \
             (SELECT until FROM handoff WHERE conversation = ?1), \
             EXISTS (SELECT 1 FROM question WHERE conversation = ?1 AND expires_at > ?2)",
        )?
        .query_row([conversation, now], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok(found)
}

/// Key for deduplication, as stored.
pub(super) struct MessageKey {
    pub(super) account: Vec<u8>,
    pub(super) sid: Vec<u8>,
}

impl MessageKey {
    pub(super) fn of(inbound: &NewInbound) -> Self {
        Self {
            account: packing::sid_bytes(inbound.account.as_str()),
            sid: packing::sid_bytes(inbound.sid.as_str()),
        }
    }

    /// Returns the ID of the stored message with this key.
    pub(super) fn find_id(&self, db: &Connection) -> Result<Option<i64>, StoreError> {
        let id = db
            .prepare_cached("SELECT id FROM inbound WHERE sid = ?1 AND account = ?2")?
            .query_row(params![self.sid, self.account], |row| row.get(0))
            .optional()?;
        Ok(id)
    }
}

/// Returns the outcome of a redelivery, which changes neither the customer service window nor consent.
fn accept_redelivery(
    db: &Connection,
    me: i64,
    message: &MessageState,
    inbound: &NewInbound,
) -> Result<AcceptOutcome, StoreError> {
    let id = message.id;
    match message.redelivery(inbound) {
        Redelivery::Answered(response) => return Ok(AcceptOutcome::AlreadyAnswered(response)),
        Redelivery::InProgress => return Ok(AcceptOutcome::InProgress { id }),
        Redelivery::Exhausted => {
            let twiml = decisions::stored_response(inbound.final_response.clone());
            // To ANSWERED (3), so that further redeliveries get the same response.
            db.prepare_cached("UPDATE inbound SET state = 3, response = ?2 WHERE id = ?1")?
                .execute(params![id, twiml])?;
            return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse { twiml }));
        }
        Redelivery::Retry => {}
    }
    if message.is_blocked {
        // Queued again, in RECEIVED (0), now for the request of this redelivery.
        db.prepare_cached(
            "UPDATE inbound SET state = 0, owner = ?2, claimed_at = ?3 WHERE id = ?1",
        )?
        .execute(params![id, me, inbound.received_at.as_microsecond()])?;
        return Ok(AcceptOutcome::Queued {
            id,
            conversation: message.conversation,
            ahead: 1,
        });
    }
    Ok(AcceptOutcome::Claimed(claim(
        db,
        me,
        message,
        inbound::PROCESSING,
        inbound.received_at,
    )?))
}
