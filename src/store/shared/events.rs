//! The recording of events, each in the transaction of its change.

use std::time::Duration;

use jiff::Timestamp;
use replyhook_core::address_key::AddressKey;

use super::database::{Database, StoredRow, params};
use crate::address::Address;
use crate::clock::after;
use crate::form::FormParams;
use crate::store::conversations::{ConsentRecord, ConsentScope};
use crate::store::error::StoreError;
use crate::store::event_data::{
    EventType, HandoffEventData, MessageEventData, consent_data, error_meaning, to_json,
};
use crate::store::handoff::HandoffChange;
use crate::store::outbox::StatusEvent;
use crate::store::states::{inbound, outbound};
use crate::store::{packing, states};

/// Time between a failed attempt and its event, in which Twilio's next request may start another attempt.
const FAILURE_GRACE: Duration = Duration::from_secs(20);

/// Event to record.
struct NewEvent<'a> {
    kind: EventType,
    sender: &'a str,
    user: &'a str,
    inbound: Option<i64>,
    data: Option<&'a str>,
    at: Timestamp,
    not_before: Timestamp,
}

impl<'a> NewEvent<'a> {
    /// Creates an event that has its data now, and may be delivered at once.
    fn due(
        kind: EventType,
        (sender, user): (&'a str, &'a str),
        data: &'a str,
        at: Timestamp,
    ) -> Self {
        Self {
            kind,
            sender,
            user,
            inbound: None,
            data: Some(data),
            at,
            not_before: at,
        }
    }
}

async fn insert<D: Database>(db: &mut D, event: &NewEvent<'_>) -> Result<(), D::Error> {
    let key = AddressKey::of(&Address::parse(event.user));
    // All addresses of a user with several of them have the same `user_id`, so their events are one queue.
    db.execute(
        "INSERT INTO event (kind, user_key, address_key, sender, address, inbound, data, at, not_before) \
         SELECT $1, coalesce((SELECT 'user:' || min(a.user_id) FROM conversation_address a \
           WHERE a.address_key = $2 AND a.user_id IS NOT NULL), $2), $2, $3, $4, $5, $6, $7, $8",
        params![
            event.kind.as_str(),
            key.as_str(),
            event.sender,
            event.user,
            event.inbound,
            event.data,
            event.at,
            event.not_before,
        ],
    )
    .await?;
    Ok(())
}

/// State of an outbound message before a change.
pub(in crate::store) struct WatchedOutbound {
    id: i64,
    state: i64,
    shown: Option<ShownOutbound>,
}

/// State of an outbound message, as events report it.
#[derive(PartialEq, Eq)]
struct ShownOutbound {
    state: String,
    sid: Option<String>,
    error_code: Option<u32>,
}

impl ShownOutbound {
    fn is_failure(&self) -> bool {
        matches!(self.state.as_str(), "failed" | "undelivered")
    }
}

struct OutboundFacts {
    number: i64,
    shown: ShownOutbound,
    reason: Option<String>,
    sender: String,
    user: String,
}

async fn read_outbound<D: Database>(
    db: &mut D,
    id: i64,
) -> Result<Option<OutboundFacts>, D::Error> {
    let found = db
        .row(
            "SELECT state, status, sid, error_code, reason, sender, address FROM outbound WHERE id = $1",
            params![id],
        )
        .await?;
    Ok(found.map(outbound_facts).transpose()?)
}

fn outbound_facts(mut row: StoredRow) -> Result<OutboundFacts, StoreError> {
    let number: i64 = row.take(0)?;
    let (status, sid): (Option<String>, Option<Vec<u8>>) = (row.take(1)?, row.take(2)?);
    let sid = sid.map(|sid| packing::message_sid(&sid)).transpose()?;
    let state = match status {
        Some(status) if number == outbound::SENT => status,
        _ => states::outbound_state(number)?.as_str().to_owned(),
    };
    Ok(OutboundFacts {
        number,
        shown: ShownOutbound {
            state,
            sid: sid.map(|sid| sid.as_str().to_owned()),
            error_code: row.take(3)?,
        },
        reason: row.take(4)?,
        sender: row.take(5)?,
        user: row.take(6)?,
    })
}

/// Reads the state of an outbound message before a change; `None` if no events are recorded.
pub(in crate::store) async fn watch_outbound<D: Database>(
    db: &mut D,
    id: i64,
) -> Result<Option<WatchedOutbound>, D::Error> {
    if !db.records_events() {
        return Ok(None);
    }
    let found = read_outbound(db, id).await?;
    Ok(found.map(|facts| WatchedOutbound {
        id,
        state: facts.number,
        shown: Some(facts.shown),
    }))
}

/// Records the events of an outbound message whose state has changed since it was [watched](watch_outbound).
pub(in crate::store) async fn record_outbound_change<D: Database>(
    db: &mut D,
    watched: Option<WatchedOutbound>,
    now: Timestamp,
) -> Result<(), D::Error> {
    let Some(before) = watched else {
        return Ok(());
    };
    let Some(facts) = read_outbound(db, before.id).await? else {
        return Ok(());
    };
    // Not an event: the call is repeated, from SENDING or UNKNOWN (1, 2) back to PENDING (0).
    let is_repeated_call = facts.number == outbound::PENDING
        && matches!(before.state, outbound::SENDING | outbound::UNKNOWN);
    if is_repeated_call || before.shown.as_ref() == Some(&facts.shown) {
        return Ok(());
    }
    let had_failed = before.shown.is_some_and(|shown| shown.is_failure());
    let shown = &facts.shown;
    let data = to_json(&MessageEventData {
        id: Some(before.id),
        sid: shown.sid.as_deref(),
        direction: MessageEventData::OUTBOUND,
        from: &facts.sender,
        to: &facts.user,
        state: &shown.state,
        error_code: shown.error_code,
        error_meaning: error_meaning(shown.error_code, facts.reason.as_deref()),
    });
    let mut kinds = vec![EventType::MessageStatus];
    if shown.is_failure() && !had_failed {
        kinds.push(EventType::MessageFailed);
    }
    for kind in kinds {
        let event = NewEvent::due(kind, (&facts.sender, &facts.user), &data, now);
        insert(db, &event).await?;
    }
    Ok(())
}

/// Records the events of messages that were not sent because their users have opted out.
pub(in crate::store) async fn record_suppressed<D: Database>(
    db: &mut D,
    ids: impl Iterator<Item = i64>,
    now: Timestamp,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    for id in ids {
        let watched = WatchedOutbound {
            id,
            state: outbound::PENDING,
            shown: None,
        };
        record_outbound_change(db, Some(watched), now).await?;
    }
    Ok(())
}

/// Records the event of a status callback for a message that is not in the outbox.
pub(in crate::store) async fn record_foreign_status<D: Database>(
    db: &mut D,
    status: &StatusEvent,
) -> Result<(), D::Error> {
    // A callback whose URL names a message of the outbox has arrived before the response to its REST call, which will
    // apply it.
    if !db.records_events() || status.outbound.is_some() {
        return Ok(());
    }
    let (Some(sender), Some(user)) = (&status.sender, status.user.first()) else {
        return Ok(());
    };
    let code = status.error_code.map(|code| code.0);
    let data = to_json(&MessageEventData {
        id: None,
        sid: Some(status.sid.as_str()),
        direction: MessageEventData::OUTBOUND,
        from: sender.as_str(),
        to: user.as_str(),
        state: status.status.as_str(),
        error_code: code,
        error_meaning: error_meaning(code, None),
    });
    let failed = status.status.is_failure();
    let kinds = [EventType::MessageStatus, EventType::MessageFailed];
    for kind in kinds.into_iter().take(1 + usize::from(failed)) {
        let event = NewEvent::due(kind, (sender.as_str(), user.as_str()), &data, status.at);
        insert(db, &event).await?;
    }
    Ok(())
}

/// Records the event of a consent.
pub(in crate::store) async fn record_consent_event<D: Database>(
    db: &mut D,
    record: &ConsentRecord,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    let Some(data) = consent_data(record) else {
        return Ok(());
    };
    let sender = match &record.scope {
        ConsentScope::Sender(sender) => sender.as_str(),
        ConsentScope::Service(_) | ConsentScope::Account(_) => "",
    };
    let event = NewEvent::due(
        EventType::ConsentChanged,
        (sender, record.user.as_str()),
        &data,
        record.at,
    );
    insert(db, &event).await
}

/// Records the event of a handoff that is committed with the reply to a message, or of a message that was received while
/// its conversation is handed off.
pub(in crate::store) async fn record_completion<D: Database>(
    db: &mut D,
    message: i64,
    conversation: i64,
    change: Option<&HandoffChange>,
    now: Timestamp,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    match change {
        Some(HandoffChange::Begin { .. }) => record_started(db, conversation, "reply", now).await,
        Some(HandoffChange::Continue { .. }) => record_received(db, message, now).await,
        None => Ok(()),
    }
}

async fn record_received<D: Database>(
    db: &mut D,
    message: i64,
    now: Timestamp,
) -> Result<(), D::Error> {
    let Some((sender, user)) = parties(db, message).await? else {
        return Ok(());
    };
    let event = NewEvent {
        kind: EventType::MessageReceived,
        sender: &sender,
        user: &user,
        inbound: Some(message),
        data: None,
        at: now,
        not_before: now,
    };
    insert(db, &event).await
}

/// Returns sender and author of an inbound message.
async fn parties<D: Database>(
    db: &mut D,
    message: i64,
) -> Result<Option<(String, String)>, D::Error> {
    let found = db
        .row("SELECT params FROM inbound WHERE id = $1", params![message])
        .await?;
    let params: Option<String> = match found {
        Some(mut row) => row.take(0)?,
        None => None,
    };
    if let Some(params) = params
        && let Ok(params) = FormParams::parse(params.as_bytes(), usize::MAX)
        && let (Some(to), Some(from)) = (params.get("To"), params.get("From"))
    {
        let normalized = |text: &str| Address::parse(text).normalized().as_str().to_owned();
        return Ok(Some((normalized(to), normalized(from))));
    }
    let found = db
        .row(
            "SELECT a.sender, a.address FROM inbound i JOIN conversation_address a ON a.conversation = i.conversation \
             WHERE i.id = $1 ORDER BY a.address LIMIT 1",
            params![message],
        )
        .await?;
    Ok(found
        .map(|mut row| Ok::<_, StoreError>((row.take(0)?, row.take(1)?)))
        .transpose()?)
}

/// Records the event of a handoff that has started, whose row is written.
pub(in crate::store) async fn record_started<D: Database>(
    db: &mut D,
    conversation: i64,
    reason: &'static str,
    now: Timestamp,
) -> Result<(), D::Error> {
    record_all_started(db, &[conversation], reason, now).await
}

/// Records the events of handoffs that have started.
pub(in crate::store) async fn record_all_started<D: Database>(
    db: &mut D,
    conversations: &[i64],
    reason: &'static str,
    now: Timestamp,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    record_handoffs(db, conversations, EventType::HandoffStarted, reason, now).await
}

/// Records the events of handoffs that end, before their rows are deleted.
pub(in crate::store) async fn record_ended<D: Database>(
    db: &mut D,
    conversations: &[i64],
    reason: &'static str,
    now: Timestamp,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    record_handoffs(db, conversations, EventType::HandoffEnded, reason, now).await
}

/// Records the events of handoffs whose rows exist.
pub(super) async fn record_handoffs<D: Database>(
    db: &mut D,
    conversations: &[i64],
    kind: EventType,
    reason: &'static str,
    now: Timestamp,
) -> Result<(), D::Error> {
    // Phone numbers before business-scoped IDs, of which a user may have several.
    let rows = db
        .rows(
            "SELECT h.conversation, a.sender, a.address, h.url, h.until FROM handoff h \
             JOIN conversation_address a ON a.conversation = h.conversation WHERE h.conversation = ANY ($1) \
             ORDER BY h.conversation, a.address",
            params![conversations],
        )
        .await?;
    let mut last = None;
    for mut row in rows {
        let conversation: i64 = row.take(0)?;
        if last.replace(conversation) == Some(conversation) {
            continue;
        }
        let (sender, user): (String, String) = (row.take(1)?, row.take(2)?);
        let url: Option<String> = row.take(3)?;
        let data = to_json(&HandoffEventData {
            address: &user,
            sender: &sender,
            url: url.as_deref().filter(|url| !url.is_empty()),
            until: packing::time(row.take(4)?)?.to_string(),
            reason,
        });
        let event = NewEvent::due(kind, (&sender, &user), &data, now);
        insert(db, &event).await?;
    }
    Ok(())
}

/// Records the event of an inbound message whose attempt has failed, or that has become dead.
pub(in crate::store) async fn record_inbound_failure<D: Database>(
    db: &mut D,
    message: i64,
    now: Timestamp,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    let Some((sender, user)) = parties(db, message).await? else {
        return Ok(());
    };
    let found = db
        .row(
            "SELECT sid, state, reason FROM inbound WHERE id = $1",
            params![message],
        )
        .await?;
    let Some(mut row) = found else {
        return Ok(());
    };
    let sid: Vec<u8> = row.take(0)?;
    let (sid, state): (_, i64) = (packing::message_sid(&sid)?, row.take(1)?);
    let reason: Option<String> = row.take(2)?;
    let is_final = state == inbound::DEAD;
    let data = to_json(&MessageEventData {
        id: None,
        sid: Some(sid.as_str()),
        direction: MessageEventData::INBOUND,
        from: &user,
        to: &sender,
        state: states::shown_inbound_state(state, &[]),
        error_code: None,
        error_meaning: reason.as_deref(),
    });
    // One event for the message, however many of its attempts fail.
    db.execute(
        "DELETE FROM event WHERE inbound = $1 AND kind = $2",
        params![message, EventType::MessageFailed.as_str()],
    )
    .await?;
    let event = NewEvent {
        kind: EventType::MessageFailed,
        sender: &sender,
        user: &user,
        inbound: Some(message),
        data: Some(&data),
        at: now,
        not_before: if is_final {
            now
        } else {
            after(now, FAILURE_GRACE)
        },
    };
    insert(db, &event).await
}

/// Makes the event of a failed message due: it has got its last response.
pub(in crate::store) async fn end_failure_grace<D: Database>(
    db: &mut D,
    message: i64,
    now: Timestamp,
) -> Result<(), D::Error> {
    if !db.records_events() {
        return Ok(());
    }
    db.execute(
        "UPDATE event SET not_before = $2 WHERE inbound = $1 AND not_before > $2 AND attempt = 0",
        params![message, now],
    )
    .await?;
    Ok(())
}
