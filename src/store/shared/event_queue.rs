//! The queue of events: the claims of their delivery, and their end.

use std::time::Duration;

use jiff::Timestamp;

use super::database::{Database, StoredRow, ids, params};
use super::events::record_handoffs;
use crate::clock::after;
use crate::store::error::StoreError;
use crate::store::event_data::EventType;
use crate::store::events::{
    ClaimedEvent, ClaimedEvents, EventContent, EventMessage, EventStats, ExpiredEvents,
};
use crate::store::journal::{HANDLER_FAILED, HANDLER_PANICKED};
use crate::store::packing;
use crate::store::redacted_params::RedactedParams;
use crate::store::states::inbound;

/// Time after which a process may claim its own event again: it could not record the end of its delivery. Longer than a
/// delivery takes.
const CLAIM_TIME: Duration = Duration::from_mins(1);
/// Number of users that one claim passes.
const USERS_PER_CLAIM: usize = 256;
/// Number of rows that one step of expiry deletes.
const ROWS_PER_STEP: u64 = 200;

/// Finds the oldest event of each user after a position, for up to $2 users.
// Steps from user to user by the index, so the time does not grow with the number of events of one user.
const HEADS: &str = "WITH RECURSIVE head (user_key, number) AS (\
       SELECT (SELECT min(e.user_key) FROM event e WHERE e.user_key > $1), 1 \
       UNION ALL SELECT (SELECT min(e.user_key) FROM event e WHERE e.user_key > head.user_key), head.number + 1 \
       FROM head WHERE head.user_key IS NOT NULL AND head.number < $2) \
     SELECT head.user_key, (SELECT min(e.id) FROM event e WHERE e.user_key = head.user_key) FROM head \
     WHERE head.user_key IS NOT NULL ORDER BY head.number";

/// Claims those of the events $1 that are due at $3, unless they run here ($5). $2 is this process.
// `attempt` counts deliveries that were begun. A claim of a dead process is void: on SQLite one process owns the file.
// SKIP LOCKED: another process is claiming the event.
const CLAIM_SQLITE: &str = "UPDATE event SET owner = $2, attempt = attempt + 1, not_before = $4 \
     WHERE id = ANY ($1) AND NOT id = ANY ($5) AND (not_before <= $3 OR (owner IS NOT NULL AND owner <> $2)) RETURNING id";
// The claim of another live process never ends by `not_before`, which comes from that process's clock: with clocks that
// differ, two servers would deliver two events of a user at the same time.
const CLAIM_POSTGRES: &str = "UPDATE event SET owner = $2, attempt = attempt + 1, not_before = $4 WHERE id IN (\
       SELECT e.id FROM event e WHERE e.id = ANY ($1) AND NOT e.id = ANY ($5) AND (\
         CASE WHEN e.owner IS NULL OR e.owner = $2 THEN e.not_before <= $3 ELSE NOT EXISTS (\
           SELECT 1 FROM owner o WHERE o.id = e.owner AND o.alive_until > statement_timestamp()) END) \
       FOR UPDATE SKIP LOCKED) RETURNING id";

/// Claims due events, each the oldest of its user.
pub(in crate::store) async fn claim_events<D: Database>(
    db: &mut D,
    me: i64,
    after_user: &str,
    limit: usize,
    running: &[i64],
    now: Timestamp,
) -> Result<ClaimedEvents, D::Error> {
    let users = i64::try_from(USERS_PER_CLAIM).unwrap_or(i64::MAX);
    let heads = db.rows(HEADS, params![after_user, users]).await?;
    let is_full = heads.len() == USERS_PER_CLAIM;
    let mut claimed = ClaimedEvents::default();
    let mut last = None;
    for mut row in heads {
        if claimed.events.len() == limit {
            claimed.next = last;
            return Ok(claimed);
        }
        let (user, id): (String, Option<i64>) = (row.take(0)?, row.take(1)?);
        last = Some(user);
        // NULL in PostgreSQL if another transaction has deleted the user's events since.
        let Some(id) = id else { continue };
        let ids: &[i64] = &[id];
        let found = db
            .rows(
                D::choose(CLAIM_SQLITE, CLAIM_POSTGRES),
                params![ids, me, now, after(now, CLAIM_TIME), running],
            )
            .await?;
        if !found.is_empty()
            && let Some(event) = read_or_discard(db, id).await?
        {
            claimed.events.push(event);
        }
    }
    claimed.next = last.filter(|_| is_full);
    Ok(claimed)
}

/// Reads a claimed event. Deletes it instead if its message is handled again, or was answered after all.
async fn read_or_discard<D: Database>(
    db: &mut D,
    id: i64,
) -> Result<Option<ClaimedEvent>, D::Error> {
    let found = db
        .row(
            "SELECT e.kind, e.at, e.attempt, e.data, e.sender, e.address, i.account, i.sid, i.auth_token, i.attempt, i.params, \
             i.received_at, i.state, i.reason FROM event e LEFT JOIN inbound i ON i.id = e.inbound WHERE e.id = $1",
            params![id],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let event = read_event(id, row)?;
    if event.is_none() {
        delete_event(db, id).await?;
    }
    Ok(event)
}

/// Reads an event; `None` if it has become untrue.
fn read_event(id: i64, mut row: StoredRow) -> Result<Option<ClaimedEvent>, StoreError> {
    let kind: String = row.take(0)?;
    let kind = EventType::parse(&kind).ok_or_else(packing::unreadable)?;
    let (state, reason): (Option<i64>, Option<String>) = (row.take(12)?, row.take(13)?);
    if kind == EventType::MessageFailed
        && let Some(state) = state
    {
        let has_failed = match state {
            inbound::FAILED | inbound::DEAD => true,
            // A reply replaces the reason. A fallback text leaves it.
            inbound::ANSWERED | inbound::DONE => {
                matches!(reason.as_deref(), Some(HANDLER_FAILED | HANDLER_PANICKED))
            }
            // Another attempt is on its way, and records its own failure.
            _ => false,
        };
        if !has_failed {
            return Ok(None);
        }
    }
    let data: Option<String> = row.take(3)?;
    let data = match data {
        Some(data) => EventContent::Json(data),
        None => match read_message(&mut row)? {
            Some(message) => EventContent::Message(Box::new(message)),
            // Retention has deleted the message.
            None => return Ok(None),
        },
    };
    Ok(Some(ClaimedEvent {
        id,
        kind,
        at: packing::time(row.take(1)?)?,
        attempt: row.take(2)?,
        data,
    }))
}

fn read_message(row: &mut StoredRow) -> Result<Option<EventMessage>, StoreError> {
    let account: Option<Vec<u8>> = row.take(6)?;
    let Some(account) = account else {
        return Ok(None);
    };
    let sid: Vec<u8> = row.take(7)?;
    let (sender, user): (String, String) = (row.take(4)?, row.take(5)?);
    let params: Option<String> = row.take(10)?;
    Ok(Some(EventMessage {
        account: packing::account_sid(&account)?,
        sid: packing::message_sid(&sid)?,
        sender: sender.into(),
        user: user.into(),
        auth_token: packing::auth_token(row.take(8)?),
        attempt: row.take(9)?,
        params: params.map(RedactedParams),
        received_at: packing::time(row.take(11)?)?,
    }))
}

/// Deletes an event.
pub(in crate::store) async fn delete_event<D: Database>(
    db: &mut D,
    id: i64,
) -> Result<(), D::Error> {
    db.execute("DELETE FROM event WHERE id = $1", params![id])
        .await?;
    Ok(())
}

/// Releases an event for another attempt.
pub(in crate::store) async fn retry_event<D: Database>(
    db: &mut D,
    me: i64,
    id: i64,
    not_before: Timestamp,
) -> Result<(), D::Error> {
    // Fenced: another process may have claimed the event after this one's lease expired.
    db.execute(
        "UPDATE event SET owner = NULL, not_before = $3 WHERE id = $1 AND owner = $2",
        params![id, me, not_before],
    )
    .await?;
    Ok(())
}

/// Deletes some of the events that are too old, and ends handoffs whose time is over.
pub(in crate::store) async fn expire_events<D: Database>(
    db: &mut D,
    created_before: Timestamp,
    now: Timestamp,
) -> Result<ExpiredEvents, D::Error> {
    let rows = i64::try_from(ROWS_PER_STEP).unwrap_or(i64::MAX);
    let dropped = db
        .execute(
            "DELETE FROM event WHERE id IN (SELECT e.id FROM event e WHERE e.at <= $1 ORDER BY e.at LIMIT $2)",
            params![created_before, rows],
        )
        .await?;
    // Few rows: a conversation has at most one handoff. FOR UPDATE, so that two servers do not report the same one.
    let ended = db
        .rows(
            D::choose(
                "SELECT conversation FROM handoff WHERE until <= $1 ORDER BY conversation LIMIT $2",
                "SELECT conversation FROM handoff WHERE until <= $1 ORDER BY conversation LIMIT $2 FOR UPDATE SKIP LOCKED",
            ),
            params![now, rows],
        )
        .await?;
    let ended = ids(ended)?;
    if !ended.is_empty() {
        record_handoffs(db, &ended, EventType::HandoffEnded, "expired", now).await?;
        db.execute(
            "DELETE FROM handoff WHERE conversation = ANY ($1)",
            params![&ended[..]],
        )
        .await?;
    }
    Ok(ExpiredEvents {
        dropped,
        has_more: dropped == ROWS_PER_STEP || ended.len() as u64 == ROWS_PER_STEP,
    })
}

/// Counts the events that wait for delivery.
pub(in crate::store) async fn event_stats<D: Database>(db: &mut D) -> Result<EventStats, D::Error> {
    let found = db
        .row("SELECT count(*), min(at) FROM event", params![])
        .await?;
    let mut row = found.unwrap_or_default();
    let (pending, oldest): (i64, Option<i64>) = (row.take(0)?, row.take(1)?);
    Ok(EventStats {
        pending: pending.unsigned_abs(),
        oldest: oldest.map(packing::time).transpose()?,
    })
}
