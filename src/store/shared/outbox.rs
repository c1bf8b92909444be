//! Reads of the outbox.

use jiff::Timestamp;

use super::conditions::{has_new_owner, opted_out};
use super::database::{Database, StoredRow, params};
use crate::error_code::ErrorCode;
use crate::sid::AccountSid;
use crate::store::error::StoreError;
use crate::store::outbound_message::SendOutcome;
use crate::store::outbound_message::{OutboundRow, ScheduledMessage};
use crate::store::outbox::OutboxStats;
use crate::store::redacted_params::RedactedParams;
use crate::store::{packing, states};

/// Columns of `outbound` that [`read_outbound`] reads, in places 0 to 13.
macro_rules! outbound_columns {
    () => {
        concat!(
            "outbound.id, state, sid, status, error_code, reason, params, rank, earlier_sid, resent_after, text_after, retried_after, ",
            $crate::store::shared::conditions::has_new_owner!("outbound"),
            ", ",
            $crate::store::shared::conditions::must_be_suppressed!("outbound")
        )
    };
}
pub(in crate::store) use outbound_columns;

/// Reads the columns of `outbound_columns!`, which come first, and leaves the rank to the caller.
pub(in crate::store) fn read_outbound(row: &mut StoredRow) -> Result<OutboundRow, StoreError> {
    let sid: Option<Vec<u8>> = row.take(2)?;
    let earlier_sid: Option<Vec<u8>> = row.take(8)?;
    let params: Option<String> = row.take(6)?;
    let (has_new_owner, is_suppressed): (bool, bool) = (row.take(12)?, row.take(13)?);
    let refusal = match (has_new_owner, is_suppressed) {
        (true, _) => Some(states::NEW_OWNER),
        (false, true) => Some(states::USER_OPTED_OUT),
        (false, false) => None,
    };
    Ok(OutboundRow {
        id: row.take(0)?,
        state: states::outbound_state(row.take(1)?)?,
        sid: sid.map(|sid| packing::message_sid(&sid)).transpose()?,
        earlier_sid: earlier_sid
            .map(|sid| packing::message_sid(&sid))
            .transpose()?,
        resent_after: row.take(9)?,
        text_after: row.take(10)?,
        retried_after: row.take(11)?,
        status: row.take(3)?,
        error_code: row.take(4)?,
        reason: row.take(5)?,
        params: params.map(RedactedParams),
        refusal,
    })
}

/// Returns a message of the outbox by its ID.
pub(in crate::store) async fn find_outbound<D: Database>(
    db: &mut D,
    id: i64,
) -> Result<Option<OutboundRow>, D::Error> {
    let found = db
        .row(
            concat!(
                "SELECT ",
                outbound_columns!(),
                " FROM outbound WHERE id = $1"
            ),
            params![id],
        )
        .await?;
    Ok(found.map(|mut row| read_outbound(&mut row)).transpose()?)
}

/// Returns the numbers of open messages.
pub(in crate::store) async fn outbox_stats<D: Database>(
    db: &mut D,
) -> Result<OutboxStats, D::Error> {
    // Open messages (below 4). `due` is the send time from the rate limit. A paced message is not late before that.
    let found = db
        .rows(
            "SELECT state, count(*), min(coalesce(due, created_at)) FROM outbound WHERE state < 4 GROUP BY state",
            params![],
        )
        .await?;
    let mut stats = OutboxStats::default();
    for mut row in found {
        stats.add(row.take(0)?, row.take(1)?, packing::time(row.take(2)?)?);
    }
    Ok(stats)
}

/// Queues a message again after a call that may be repeated: back to PENDING (0). Without effect for other outcomes.
// While this process is SENDING (1) it, or its result is UNKNOWN (2): nothing takes back that it was sent, and a message that
// another process has claimed is left to that process. Each error code that is recorded stays.
pub(in crate::store) async fn queue_again<D: Database>(
    db: &mut D,
    me: i64,
    id: i64,
    outcome: &SendOutcome,
) -> Result<(), D::Error> {
    let (not_before, [retried_after, resent_after, text_after]) = match outcome {
        SendOutcome::Retry { not_before, code } => (*not_before, [*code, None, None]),
        SendOutcome::RetryOnce { not_before, code } => (*not_before, [None, Some(*code), None]),
        SendOutcome::RetryAsText { not_before, code } => (*not_before, [None, None, Some(*code)]),
        _ => return Ok(()),
    };
    let number = |code: Option<ErrorCode>| code.map(|code| i64::from(code.0));
    db.execute(
        "UPDATE outbound SET state = 0, owner = NULL, not_before = $3, retried_after = coalesce($4, retried_after), \
         resent_after = coalesce($5, resent_after), text_after = coalesce($6, text_after) \
         WHERE id = $1 AND (state = 2 OR (state = 1 AND owner = $2))",
        params![
            id,
            me,
            not_before,
            number(retried_after),
            number(resent_after),
            number(text_after)
        ],
    )
    .await?;
    Ok(())
}

/// Marks a message that this process is sending as one whose content is prepared. Returns false if it is not.
pub(in crate::store) async fn begin_preparation<D: Database>(
    db: &mut D,
    me: i64,
    id: i64,
) -> Result<bool, D::Error> {
    // SENDING (1) only, and of this process: one that was given to another process must not be sent by this one.
    let marked = db
        .execute(
            "UPDATE outbound SET preparing = $3 WHERE id = $1 AND state = 1 AND owner = $2",
            params![id, me, true],
        )
        .await?;
    Ok(marked > 0)
}

/// Ends the preparation of a message without a call: back to PENDING (0), as it was before the claim.
// The attempt is taken back too: an attempt is a call. `preparing`: without the mark, a call may have been made. The owner:
// a process that was taken for dead must not release the claim of another.
pub(in crate::store) async fn end_preparation<D: Database>(
    db: &mut D,
    me: i64,
    id: i64,
) -> Result<(), D::Error> {
    db.execute(
        "UPDATE outbound SET state = 0, owner = NULL, attempt = attempt - 1, preparing = NULL \
         WHERE id = $1 AND state = 1 AND owner = $2 AND preparing",
        params![id, me],
    )
    .await?;
    Ok(())
}

/// Makes the messages of an account that wait for a retry due now.
pub(in crate::store) async fn end_retry_delays<D: Database>(
    db: &mut D,
    account: AccountSid,
    now: Timestamp,
) -> Result<(), D::Error> {
    // PENDING (0) only. `attempt > 0`: tried, or behind a message that was tried. `due` is the send time from the rate
    // limit.
    db.execute(
        "UPDATE outbound SET not_before = CASE WHEN due > $2 THEN due ELSE $2 END \
         WHERE state = 0 AND state < 4 AND account = $1 AND attempt > 0 AND not_before > $2",
        params![&packing::sid_bytes(account.as_str()), now],
    )
    .await?;
    Ok(())
}

/// Finds messages that Twilio holds until their send time although the user has opted out, or the address is of another user now.
pub(in crate::store) const SCHEDULED_TO_CANCEL: &str = concat!(
    "SELECT r.id, r.account, r.auth_token, r.sid FROM outbound r \
     WHERE r.status = 'scheduled' AND r.sid IS NOT NULL AND r.id > $1 AND (",
    opted_out!("r"),
    " OR ",
    has_new_owner!("r"),
    ") ORDER BY r.id LIMIT $2",
);

/// Lists messages that Twilio holds and that must not be sent.
pub(in crate::store) async fn scheduled_to_cancel<D: Database>(
    db: &mut D,
    after: i64,
    limit: usize,
) -> Result<Vec<ScheduledMessage>, D::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found = db.rows(SCHEDULED_TO_CANCEL, params![after, limit]).await?;
    let scheduled = found.into_iter().map(|mut row| {
        let (account, sid): (Vec<u8>, Vec<u8>) = (row.take(1)?, row.take(3)?);
        Ok(ScheduledMessage {
            id: row.take(0)?,
            account: packing::account_sid(&account)?,
            auth_token: packing::auth_token(row.take(2)?),
            sid: packing::message_sid(&sid)?,
        })
    });
    scheduled.collect()
}
