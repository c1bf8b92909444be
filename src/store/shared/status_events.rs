//! Status callbacks.

use jiff::Timestamp;

use super::consent::{self, Repeated};
use super::database::{Database, params};
use super::events;
use super::evidence::{Evidence, EvidenceTime};
use super::identity;
use crate::clock::after;
use crate::sid::MessageSid;
use crate::store::conversations::ConsentRecord;
use crate::store::identity::NamedAddresses;
use crate::store::identity_kind::LinkKind;
use crate::store::outbox::{StatusEffect, StatusEvent};
use crate::store::{decisions, outbound_message, packing, states};

/// Records the opt-out of a user to whom Twilio does not deliver.
pub(in crate::store) async fn record_rejection<D: Database>(
    db: &mut D,
    record: &ConsentRecord,
) -> Result<(), D::Error> {
    // Twilio reports the error for every message to the user. The ledger gets one record.
    consent::record_consents(db, std::slice::from_ref(record), Repeated::Skipped).await
}

/// Learns the business-scoped IDs of a status callback's user.
async fn learn_ids<D: Database>(
    db: &mut D,
    event: &StatusEvent,
    sid: &Vec<u8>,
    account: &Vec<u8>,
) -> Result<(), D::Error> {
    let (Some(sender), Some(named)) = (&event.sender, NamedAddresses::of(&event.user)) else {
        return Ok(());
    };
    // The evidence is as old as the message: a late callback says nothing about the present owner of a number.
    let mut found = db
        .row(
            "SELECT id, created_at FROM outbound WHERE sid = $1 AND account = $2 \
             UNION ALL SELECT id, created_at FROM outbound WHERE earlier_sid = $1 AND account = $2",
            params![sid, account],
        )
        .await?;
    if found.is_none()
        && let Some((id, created_at)) = event
            .outbound
            .as_deref()
            .and_then(outbound_message::parse_name)
    {
        // The REST call has not returned yet, so the SID is not stored.
        found = db
            .row(
                "SELECT id, created_at FROM outbound WHERE id = $1 AND created_at = $2 AND account = $3",
                params![id, created_at, account],
            )
            .await?;
    }
    let (at, time) = match found {
        Some(mut row) => (row.take(1)?, EvidenceTime::Outbound(row.take(0)?)),
        // Another program has sent the message, or a purge has deleted it. A stranger who never writes here leaves no trace, and
        // a purged user comes back by no late callback. An opt-out, which a purge keeps, is known and holds for the other address.
        None if !identity::is_known(db, &named).await? => return Ok(()),
        None => (event.at.as_microsecond(), EvidenceTime::Unknown),
    };
    let evidence = Evidence {
        account,
        sender: sender.as_str(),
        kind: LinkKind::StatusCallback,
        message: Some(event.sid),
        note: None,
        at,
        time,
    };
    identity::learn(db, &evidence, &named).await?;
    Ok(())
}

/// Raises the status of a message. Returns false if the message already has this rank or a higher one.
pub(in crate::store) async fn raise_status<D: Database>(
    db: &mut D,
    id: i64,
    status: &str,
    rank: i64,
    code: Option<i64>,
) -> Result<bool, D::Error> {
    // Callbacks arrive in any order and more than once. With `rank < $3` every order ends in the same state.
    let changed = db
        .execute(
            "UPDATE outbound SET status = $2, rank = $3, error_code = coalesce($4, error_code) WHERE id = $1 AND rank < $3",
            params![id, status, rank, code],
        )
        .await?;
    Ok(changed > 0)
}

/// Queues a message for its second send after a failure that passes by itself. Returns false if that does not apply.
// From SENT (4) to PENDING (0), once: `resent_after` is NULL. A second call after 20404 was the one second send. Not after
// `delivered` or a final failure (ranks from 4). The SID moves to `earlier_sid`, so that later callbacks of the failed
// send do not match. `unordered` and `attempt = 0`: the message is late already, so later ones do not wait for it.
async fn queue_again<D: Database>(
    db: &mut D,
    id: i64,
    status: &str,
    code: Option<u32>,
    now: Timestamp,
) -> Result<bool, D::Error> {
    if let Some(code) = decisions::content_failure(status, code) {
        return queue_as_text(db, id, code, now).await;
    }
    let Some(code) = decisions::passing_failure(status, code) else {
        return Ok(false);
    };
    let changed = db
        .execute(
            "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $3, resent_after = $2, earlier_sid = sid, \
             sid = NULL, status = NULL, rank = -1, unordered = true \
             WHERE id = $1 AND state = 4 AND rank < 4 AND params IS NOT NULL AND resent_after IS NULL",
            params![id, code, after(now, decisions::RESEND_DELAY)],
        )
        .await?;
    Ok(changed > 0)
}

/// Queues a message whose rich content was refused, so that its text is sent. Returns false if it is a text.
// As `queue_again`, but immediately: the text does not depend on what was refused. The worker sends it because of the
// code in `text_after`, which is apart from `resent_after`: after a second send of the content for another reason, the user
// would get nothing. The parameter `ContentShape` marks a rich message.
async fn queue_as_text<D: Database>(
    db: &mut D,
    id: i64,
    code: u32,
    now: Timestamp,
) -> Result<bool, D::Error> {
    let changed = db
        .execute(
            "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $3, text_after = $2, earlier_sid = sid, \
             sid = NULL, status = NULL, rank = -1, unordered = true \
             WHERE id = $1 AND state = 4 AND rank < 4 AND params LIKE '%ContentShape=%' AND text_after IS NULL",
            params![id, code, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Cancels the second send of a message that Twilio reports as delivered after all. Returns false if none waits.
// From PENDING (0) back to SENT (4). A second send that has begun, SENDING (1) or later, goes on.
async fn cancel_second_send<D: Database>(
    db: &mut D,
    event: &StatusEvent,
    sid: &Vec<u8>,
    account: &Vec<u8>,
    rank: i64,
) -> Result<bool, D::Error> {
    if !matches!(event.status.as_str(), "delivered" | "read") {
        return Ok(false);
    }
    let waiting = db
        .row(
            "SELECT id FROM outbound WHERE earlier_sid = $1 AND account = $2 AND state = 0 AND sid IS NULL",
            params![sid, account],
        )
        .await?;
    let Some(mut row) = waiting else {
        return Ok(false);
    };
    let id: i64 = row.take(0)?;
    let watched = events::watch_outbound(db, id).await?;
    // `state = 0` again: in PostgreSQL the worker may have claimed the message since.
    let changed = db
        .execute(
            "UPDATE outbound SET state = 4, sid = earlier_sid, earlier_sid = NULL, resent_after = NULL, text_after = NULL, error_code = NULL, \
             status = $2, rank = $3 WHERE id = $1 AND state = 0",
            params![id, event.status.as_str(), rank],
        )
        .await?;
    events::record_outbound_change(db, watched, event.at).await?;
    Ok(changed > 0)
}

/// Applies a status event.
// In PostgreSQL the caller's transaction has the advisory lock on the SID.
pub(in crate::store) async fn apply_status<D: Database>(
    db: &mut D,
    event: &StatusEvent,
) -> Result<StatusEffect, D::Error> {
    let (account, sid) = (
        packing::sid_bytes(event.account.as_str()),
        packing::sid_bytes(event.sid.as_str()),
    );
    if event.user.len() > 1 {
        learn_ids(db, event, &sid, &account).await?;
    }
    // Independent of the message: the opt-out counts even if the outbox does not know the SID.
    if let Some(record) = decisions::opt_out_of_event(event) {
        record_rejection(db, &record).await?;
    }
    let by_sid = db
        .row(
            "SELECT id FROM outbound WHERE sid = $1 AND account = $2",
            params![&sid, &account],
        )
        .await?;
    let mut found: Option<i64> = by_sid.map(|mut row| row.take(0)).transpose()?;
    let mut watched = None;
    if let Some(id) = found {
        watched = events::watch_outbound(db, id).await?;
    } else if let Some((id, created_at)) = event
        .outbound
        .as_deref()
        .and_then(outbound_message::parse_name)
    {
        watched = events::watch_outbound(db, id).await?;
        // The callback's URL names the message, which proves that Twilio has accepted it, even if the REST call has not
        // returned or broke off, or its result was unknown: it becomes SENT (4). The time and the account keep a
        // callback from matching a message of another database or account, and a SID that is known already stays. A late
        // callback of an earlier send proves nothing about the current one.
        let by_name = db
            .row(
                "UPDATE outbound SET sid = $4, state = 4, owner = NULL, reason = NULL \
                 WHERE id = $1 AND created_at = $2 AND account = $3 AND sid IS NULL \
                 AND (earlier_sid IS NULL OR earlier_sid <> $4) RETURNING id",
                params![id, created_at, &account, &sid],
            )
            .await?;
        found = by_name.map(|mut row| row.take(0)).transpose()?;
    }
    let rank = states::status_rank(&event.status);
    let status = event.status.as_str();
    let code = event.error_code.map(|code| code.0);
    if let Some(id) = found {
        if queue_again(db, id, status, code, event.at).await? {
            events::record_outbound_change(db, watched, event.at).await?;
            return Ok(match decisions::content_failure(status, code) {
                Some(_) => StatusEffect::QueuedAsText,
                None => StatusEffect::QueuedAgain,
            });
        }
        let changed = raise_status(db, id, status, rank, code.map(i64::from)).await?;
        events::record_outbound_change(db, watched, event.at).await?;
        return Ok(if changed {
            StatusEffect::Applied
        } else {
            StatusEffect::Stale
        });
    }
    if cancel_second_send(db, event, &sid, &account, rank).await? {
        return Ok(StatusEffect::Applied);
    }
    // The REST call may end after its first callback: `apply_unmatched` applies the event then. ON CONFLICT: of several
    // events the one with the highest rank stays.
    let changed = db.execute(
        "INSERT INTO unmatched_status AS n (sid, account, status, rank, error_code, at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (sid, account) DO UPDATE SET status = excluded.status, rank = excluded.rank, \
         error_code = coalesce(excluded.error_code, n.error_code) WHERE excluded.rank > n.rank",
        params![&sid, &account, status, rank, code.map(i64::from), event.at],
    )
    .await?;
    if changed > 0 {
        events::record_foreign_status(db, event).await?;
    }
    Ok(StatusEffect::Unmatched)
}

/// Applies the status event that has arrived before the response to the message's REST call, which has this SID.
pub(in crate::store) async fn apply_unmatched<D: Database>(
    db: &mut D,
    id: i64,
    sid: MessageSid,
    now: Timestamp,
) -> Result<(), D::Error> {
    let early = db
        .row(
            "DELETE FROM unmatched_status WHERE sid = $2 AND account = (SELECT account FROM outbound WHERE id = $1) \
             RETURNING status, rank, error_code",
            params![id, &packing::sid_bytes(sid.as_str())],
        )
        .await?;
    if let Some(mut row) = early {
        let (status, code): (String, Option<u32>) = (row.take(0)?, row.take(2)?);
        if !queue_again(db, id, &status, code, now).await? {
            raise_status(db, id, &status, row.take(1)?, code.map(i64::from)).await?;
        }
    }
    Ok(())
}
