//! [`Journal::accept`](crate::store::Journal::accept) in PostgreSQL: one statement for a usual message, a transaction
//! for any other. Also backfilling.

use sqlx::{PgConnection, Row};

use super::conversations;
use super::error::CallError;
use super::journal::{claim, lock_and_read_state, lock_conversation};
use super::text::{pack, packed, unpack};
use crate::sid::MessagingServiceSid;
use crate::store::decisions::{self, Redelivery};
use crate::store::new_inbound::ConsentEffect;
use crate::store::states::{self, inbound};
use crate::store::{AcceptOutcome, ConsentScope, NewInbound, SavedResponse, packing};

/// Accepts a usual message, or reads the outcome of a stored one, in one statement.
///
/// A usual message is new, has no consent keyword and one user address, and belongs to a known conversation whose user
/// has not opted out. For a stored message the statement returns its known ID. For any other message it inserts nothing
/// and returns no ID; the caller then runs [`accept`].
// `conversation_locked` reads the row as it is after any wait for its lock. `unchanged` reads it as of the statement's
// snapshot. If `claims` differs, another transaction accepted or claimed a message while this one waited.
// The snapshot then misses that message, so `ahead` cannot be trusted, and `unchanged` has no row.
//
// `conversation_locked` requires a lease for five more seconds. A message claimed under a lease that is about to end
// could be taken over while its handler starts. The transaction of `accept` renews the lease instead.
//
// The new message is in PROCESSING (1) if no open message (below 3) is ahead, else in RECEIVED (0).
//
// ON CONFLICT: a webhook for the same message may have been committed after the snapshot. Then `inserted` has no row,
// and `accept` finds the stored message.
const ACCEPT_USUAL: &str = concat!(
    "WITH known_message AS (SELECT i.id, i.state, i.response, ",
    is_owned!("$5"),
    " AS is_owned FROM inbound i WHERE i.sid = $1 AND i.account = $2), \
     conversation_locked AS (SELECT c.id, c.claims, c.newest FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
       WHERE a.sender = $3 AND a.address = $4 AND $10 AND c.merged_into IS NULL AND NOT EXISTS (SELECT 1 FROM known_message) \
       AND EXISTS (SELECT 1 FROM owner o WHERE o.id = $5 AND o.alive_until > statement_timestamp() + interval '5 s') \
       AND NOT EXISTS (SELECT 1 FROM conversation_address b JOIN consent n ON n.address = b.address \
         WHERE b.conversation = a.conversation AND n.scope = ANY ($11) AND n.opted_out IS NOT NULL) \
       FOR UPDATE OF c), \
     unchanged AS (SELECT c.id, conversation_locked.newest FROM conversation_locked JOIN conversation c ON c.id = conversation_locked.id AND c.claims = conversation_locked.claims), \
     ahead AS (SELECT count(*) AS n FROM inbound p WHERE p.conversation IN (SELECT id FROM unchanged) AND p.state < 3), \
     inserted AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, service, \
       params, previous) SELECT $2, $1, unchanged.id, CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, \
       CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, $5, $6, $6, $7, $8, $9, unchanged.newest FROM unchanged, ahead \
       ON CONFLICT (sid, account) DO NOTHING RETURNING id, conversation), \
     conversation_updated AS (UPDATE conversation c SET last_inbound = greatest(c.last_inbound, $6), claims = c.claims + 1, newest = inserted.id \
       FROM inserted WHERE c.id = inserted.conversation) \
     SELECT inserted.id, inserted.conversation, ahead.n, known_message.id, known_message.state, known_message.response, known_message.is_owned, \
       EXISTS (SELECT 1 FROM handoff h WHERE h.conversation = inserted.conversation AND h.until > $6) \
     FROM ahead LEFT JOIN inserted ON true LEFT JOIN known_message ON true"
);

/// Runs [`ACCEPT_USUAL`]. Returns `None` if the message needs [`accept`].
pub(super) async fn accept_usual(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
) -> Result<Option<AcceptOutcome>, CallError> {
    let is_usual = inbound.consent.is_none() && inbound.user.len() == 1;
    let address = inbound.user.first().map(|user| pack(user.as_str()));
    let service = inbound.service.as_ref().map(MessagingServiceSid::as_str);
    let row = sqlx::query(ACCEPT_USUAL)
        .bind(packing::sid_bytes(inbound.sid.as_str()))
        .bind(packing::sid_bytes(inbound.account.as_str()))
        .bind(pack(inbound.sender.as_str()))
        .bind(address)
        .bind(me)
        .bind(inbound.received_at.as_microsecond())
        .bind(packing::auth_token_number(inbound.auth_token))
        .bind(service)
        .bind(pack(&inbound.params))
        .bind(is_usual)
        .bind(scopes(inbound))
        .fetch_one(db)
        .await?;
    if let Some(id) = row.try_get::<Option<i64>, _>(0)? {
        let conversation = row.try_get(1)?;
        let ahead: i64 = row.try_get(2)?;
        let handed_off = row.try_get(7)?;
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        return Ok(Some(decisions::outcome_of_new(
            ConsentEffect::Ordinary,
            id,
            conversation,
            ahead,
            handed_off,
        )));
    }
    let Some(id) = row.try_get::<Option<i64>, _>(3)? else {
        return Ok(None);
    };
    let (state, is_owned): (i64, bool) = (row.try_get(4)?, row.try_get(6)?);
    let response = row.try_get::<Option<String>, _>(5)?.map(unpack);
    if let Some(response) = decisions::settled_response(state, response) {
        return Ok(Some(AcceptOutcome::AlreadyAnswered(response)));
    }
    // Any other redelivery may start another attempt, for which `accept` takes the locks.
    let is_in_progress = is_owned && state != inbound::FAILED;
    Ok(is_in_progress.then_some(AcceptOutcome::InProgress { id }))
}

/// Consent scopes of a message, as stored.
fn scopes(inbound: &NewInbound) -> Vec<String> {
    packed(inbound.scopes().iter().map(ConsentScope::as_str))
}

/// Id of the message, if it is stored.
async fn find_id(db: &mut PgConnection, inbound: &NewInbound) -> Result<Option<i64>, CallError> {
    let id = sqlx::query_scalar("SELECT id FROM inbound WHERE sid = $1 AND account = $2")
        .bind(packing::sid_bytes(inbound.sid.as_str()))
        .bind(packing::sid_bytes(inbound.account.as_str()))
        .fetch_optional(db)
        .await?;
    Ok(id)
}

/// Accepts any message, in a transaction that locks its conversation.
pub(super) async fn accept(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
) -> Result<AcceptOutcome, CallError> {
    if let Some(id) = find_id(db, inbound).await? {
        return accept_redelivery(db, me, id, inbound).await;
    }
    let now = inbound.received_at.as_microsecond();
    // `find_or_create` locks the conversation. The statements after it see everything committed before the lock:
    // consent changes by an earlier keyword, and all messages that are ahead.
    let conversation =
        conversations::find_or_create(db, &inbound.sender, &inbound.user, now).await?;
    let conversation_row =
        conversations::read_conversation(db, conversation, scopes(inbound), now).await?;
    let effect = inbound.apply_keyword(conversation_row.opted_out);
    let response = decisions::initial_response(&effect);
    if let ConsentEffect::Keyword {
        change: Some(action),
        ..
    } = effect
    {
        for record in inbound.ledger_records(&conversation_row.user, action) {
            conversations::record_consent(db, &record).await?;
        }
    }
    let ahead = u32::try_from(conversation_row.open).unwrap_or(u32::MAX);
    let state = decisions::initial_state(&effect, ahead);
    let service = inbound.service.as_ref().map(MessagingServiceSid::as_str);
    // No message is lost from the linked list (`previous`), since `newest` is read and replaced under the
    // conversation's lock. Unlike `ACCEPT_USUAL`, this need not increase `claims`: `find_or_create` has done it, or has
    // created the conversation.
    let id: Option<i64> = sqlx::query_scalar(
        "WITH inserted AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, \
           service, response, params, previous) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, \
           (SELECT newest FROM conversation WHERE id = $3)) ON CONFLICT (sid, account) DO NOTHING RETURNING id), \
         conversation_updated AS (UPDATE conversation SET newest = inserted.id FROM inserted WHERE conversation.id = $3) \
         SELECT id FROM inserted",
    )
    .bind(packing::sid_bytes(inbound.account.as_str()))
    .bind(packing::sid_bytes(inbound.sid.as_str()))
    .bind(conversation)
    .bind(state)
    .bind(i64::from(state == inbound::PROCESSING))
    .bind((state != inbound::ANSWERED).then_some(me))
    .bind(now)
    .bind(packing::auth_token_number(inbound.auth_token))
    .bind(service)
    .bind(response.as_deref().map(pack))
    .bind(pack(&inbound.params))
    .fetch_optional(db)
    .await?;
    // A concurrent transaction has stored the message since `find_id`. Roll back: window and consent change once for
    // each message. The next attempt treats it as a redelivery.
    let id = id.ok_or(CallError::Conflict)?;
    Ok(decisions::outcome_of_new(
        effect,
        id,
        conversation,
        ahead,
        conversation_row.handed_off,
    ))
}

/// Handles a redelivery of a stored message. Window and consent do not change.
async fn accept_redelivery(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    inbound: &NewInbound,
) -> Result<AcceptOutcome, CallError> {
    // The conversation first, then the message, in separate statements: `is_blocked` must see what was
    // committed before the lock.
    lock_conversation(db, id).await?;
    let message = lock_and_read_state(db, me, id).await?;
    match message.redelivery(inbound) {
        Redelivery::Answered(response) => return Ok(AcceptOutcome::AlreadyAnswered(response)),
        Redelivery::InProgress => return Ok(AcceptOutcome::InProgress { id }),
        Redelivery::Exhausted => {
            let twiml = decisions::stored_response(inbound.final_response.clone());
            // To ANSWERED (3), so that further redeliveries get the same response.
            sqlx::query("UPDATE inbound SET state = 3, response = $2 WHERE id = $1")
                .bind(id)
                .bind(twiml.as_deref().map(pack))
                .execute(db)
                .await?;
            return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse { twiml }));
        }
        Redelivery::Retry => {}
    }
    // Another open message comes first. This process owns the message while its request waits, in RECEIVED (0). `ahead`
    // is at least one, and the exact number matters only for a new message.
    if message.is_blocked {
        sqlx::query("UPDATE inbound SET state = 0, owner = $2, claimed_at = $3 WHERE id = $1")
            .bind(id)
            .bind(me)
            .bind(inbound.received_at.as_microsecond())
            .execute(db)
            .await?;
        return Ok(AcceptOutcome::Queued {
            id,
            conversation: message.conversation,
            ahead: 1,
        });
    }
    Ok(AcceptOutcome::Claimed(
        claim(db, me, &message, inbound.received_at).await?,
    ))
}

/// Records a message received during an outage, with the fallback reply that was sent, if any.
pub(super) async fn backfill(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
    twiml: Option<&str>,
) -> Result<(), CallError> {
    // The primary webhook may have been stored although its request got 503, so the message is not always new.
    let is_new = find_id(db, inbound).await?.is_none();
    if is_new {
        accept(db, me, inbound).await?;
    }
    let Some(id) = find_id(db, inbound).await? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // The text was sent, so it is the reply: open (0, 1, 2) and FAILED (5) become ANSWERED (3), also a deferred
        // message whose reply is not in the outbox yet. A handler that still runs loses its claim: the row has no owner
        // and is not open. DONE (4) and DEAD (6) stay.
        sqlx::query(
            "UPDATE inbound SET state = 3, owner = NULL, response = $2 WHERE id = $1 AND state IN (0, 1, 2, 5)",
        )
        .bind(id)
        .bind(pack(twiml))
        .execute(db)
        .await?;
    } else if is_new {
        // No text was sent: RECEIVED or PROCESSING (0, 1) becomes DEFERRED (2) without an owner, so that the backlog
        // handles it. The claim by `accept` does not count as an attempt. A stored message stays as it is.
        sqlx::query(
            "UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = $1 AND state IN (0, 1)",
        )
        .bind(id)
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Stores a message as answered, so that no handler runs for it, unless it is already stored.
pub(super) async fn backfill_answered(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
) -> Result<(), CallError> {
    if find_id(db, inbound).await?.is_some() {
        return Ok(());
    }
    accept(db, me, inbound).await?;
    // To ANSWERED (3), only from RECEIVED or PROCESSING (0, 1): a message that `accept` queued or claimed. A consent
    // keyword or an opted-out user's message is answered already.
    sqlx::query(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = $3 \
         WHERE sid = $1 AND account = $2 AND state IN (0, 1)",
    )
    .bind(packing::sid_bytes(inbound.sid.as_str()))
    .bind(packing::sid_bytes(inbound.account.as_str()))
    .bind(states::ANSWERED_BEFORE)
    .execute(db)
    .await?;
    Ok(())
}
