//! [`Journal::accept`](crate::store::Journal::accept) in PostgreSQL: one statement for a usual message, a transaction
//! for any other. Also backfilling.

use sqlx::{PgConnection, Row};

use super::conversations;
use super::error::Trouble;
use super::journal::{Standing, lock_conversation};
use super::text::{pack, packed, unpack};
use crate::sid::MessagingServiceSid;
use crate::store::new_inbound::ConsentEffect;
use crate::store::rows::{self, inbound};
use crate::store::{AcceptOutcome, Claim, ConsentScope, NewInbound, SavedResponse};

/// Accepts a usual message, or reads the outcome of a stored one, in one statement.
///
/// A usual message is new, has no consent keyword and one user address, and belongs to a known conversation whose user
/// has not opted out. For a stored message the statement returns its known ID. For any other message it inserts nothing
/// and returns no ID; the caller then runs [`accept`].
// `here` locks the conversation and reads the row as it is after any wait for the lock. `free` reads it as of the
// statement's snapshot. If `claims` differs, another transaction accepted or claimed a message while this one waited.
// The snapshot then misses that message, so `ahead` cannot be trusted, and `free` has no row.
//
// `here` requires a lease for five more seconds. A message claimed under a lease that is about to end could be taken
// over while its handler starts. The transaction of `accept` renews the lease instead.
//
// ON CONFLICT: a webhook for the same message may have been committed after the snapshot. Then `new` has no row, and
// `accept` finds the stored message.
const ACCEPT_AT_ONCE: &str = concat!(
    "WITH known AS (SELECT i.id, i.state, i.response, ",
    held!("$5"),
    " AS held FROM inbound i WHERE i.sid = $1 AND i.account = $2), \
     here AS (SELECT c.id, c.claims, c.newest FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
       WHERE a.sender = $3 AND a.address = $4 AND $10 AND c.merged_into IS NULL AND NOT EXISTS (SELECT 1 FROM known) \
       AND EXISTS (SELECT 1 FROM owner o WHERE o.id = $5 AND o.alive_until > statement_timestamp() + interval '5 s') \
       AND NOT EXISTS (SELECT 1 FROM conversation_address b JOIN consent x ON x.address = b.address \
         WHERE b.conversation = a.conversation AND x.scope = ANY ($11) AND x.opted_out IS NOT NULL) \
       FOR UPDATE OF c), \
     free AS (SELECT c.id, here.newest FROM here JOIN conversation c ON c.id = here.id AND c.claims = here.claims), \
     ahead AS (SELECT count(*) AS n FROM inbound p WHERE p.conversation IN (SELECT id FROM free) AND p.state < 3), \
     new AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, service, \
       params, previous) SELECT $2, $1, free.id, CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, \
       CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, $5, $6, $6, $7, $8, $9, free.newest FROM free, ahead ON CONFLICT (sid, account) DO NOTHING RETURNING id, conversation), \
     touched AS (UPDATE conversation c SET last_inbound = greatest(c.last_inbound, $6), claims = c.claims + 1, newest = new.id \
       FROM new WHERE c.id = new.conversation) \
     SELECT new.id, new.conversation, ahead.n, known.id, known.state, known.response, known.held, \
       EXISTS (SELECT 1 FROM handoff h WHERE h.conversation = new.conversation AND h.until > $6) \
     FROM ahead LEFT JOIN new ON true LEFT JOIN known ON true"
);

/// Runs [`ACCEPT_AT_ONCE`]. Returns `None` if the message needs [`accept`].
pub(super) async fn accept_at_once(
    db: &mut PgConnection,
    me: i64,
    arrival: &NewInbound,
) -> Result<Option<AcceptOutcome>, Trouble> {
    let plain = arrival.consent.is_none() && arrival.user.len() == 1;
    let address = arrival.user.first().map(|user| pack(user.as_str()));
    let service = arrival.service.as_ref().map(MessagingServiceSid::as_str);
    let row = sqlx::query(ACCEPT_AT_ONCE)
        .bind(rows::sid_bytes(arrival.sid.as_str()))
        .bind(rows::sid_bytes(arrival.account.as_str()))
        .bind(pack(arrival.sender.as_str()))
        .bind(address)
        .bind(me)
        .bind(arrival.received_at.as_microsecond())
        .bind(rows::auth_token_number(arrival.auth_token))
        .bind(service)
        .bind(pack(&arrival.params))
        .bind(plain)
        .bind(scopes(arrival))
        .fetch_one(db)
        .await?;
    if let Some(id) = row.try_get::<Option<i64>, _>(0)? {
        let conversation = row.try_get(1)?;
        let ahead: i64 = row.try_get(2)?;
        let handed_over = row.try_get(7)?;
        return Ok(Some(accepted(id, conversation, ahead, handed_over)));
    }
    let Some(id) = row.try_get::<Option<i64>, _>(3)? else {
        return Ok(None);
    };
    let held: bool = row.try_get(6)?;
    Ok(match row.try_get::<i64, _>(4)? {
        inbound::RECEIVED | inbound::PROCESSING if held => Some(AcceptOutcome::InProgress { id }),
        // This redelivery may start another attempt, for which `accept` takes the locks.
        inbound::RECEIVED | inbound::PROCESSING | inbound::FAILED => None,
        inbound::ANSWERED => {
            let twiml: Option<String> = row.try_get(5)?;
            let twiml = twiml.map(unpack);
            Some(AcceptOutcome::AlreadyAnswered(SavedResponse { twiml }))
        }
        // Deferred, done or dead: TwiML carries no reply, so the response is the empty one.
        _ => Some(AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)),
    })
}

/// Outcome of a new message for the handler, with `ahead` open messages before it.
fn accepted(id: i64, conversation: i64, ahead: i64, handed_over: bool) -> AcceptOutcome {
    if ahead > 0 {
        return AcceptOutcome::Queued {
            id,
            conversation,
            ahead: u32::try_from(ahead).unwrap_or(u32::MAX),
        };
    }
    AcceptOutcome::Claimed(Claim {
        id,
        conversation,
        attempt: 1,
        failed_before: false,
        handed_off: handed_over,
    })
}

/// Consent scopes of a message, as stored.
fn scopes(arrival: &NewInbound) -> Vec<String> {
    packed(arrival.scopes().iter().map(ConsentScope::as_str))
}

/// Id of the message, if it is stored.
async fn known(db: &mut PgConnection, arrival: &NewInbound) -> Result<Option<i64>, Trouble> {
    let id = sqlx::query_scalar("SELECT id FROM inbound WHERE sid = $1 AND account = $2")
        .bind(rows::sid_bytes(arrival.sid.as_str()))
        .bind(rows::sid_bytes(arrival.account.as_str()))
        .fetch_optional(db)
        .await?;
    Ok(id)
}

/// Accepts any message, in a transaction that locks its conversation.
pub(super) async fn accept(
    db: &mut PgConnection,
    me: i64,
    arrival: &NewInbound,
) -> Result<AcceptOutcome, Trouble> {
    if let Some(id) = known(db, arrival).await? {
        return repeated(db, me, id, arrival).await;
    }
    let now = arrival.received_at.as_microsecond();
    // `enter` locks the conversation. The statements after it see everything committed before the lock: consent changes
    // by an earlier keyword, and all messages that are ahead.
    let conversation = conversations::enter(db, &arrival.sender, &arrival.user, now).await?;
    let counts = conversations::counts(db, conversation, scopes(arrival), now).await?;
    let heeded = arrival.apply_keyword(counts.opted_out);
    let (answer, change) = match &heeded {
        ConsentEffect::Keyword {
            confirmation: answer,
            change,
            ..
        } => (Some(answer.as_str()), *change),
        ConsentEffect::Ordinary | ConsentEffect::OptedOut => (None, None),
    };
    if let Some(action) = change {
        for record in arrival.ledger_records(&counts.user, action) {
            conversations::record_consent(db, &record).await?;
        }
    }
    let to_be_handled = matches!(heeded, ConsentEffect::Ordinary);
    let state = match (to_be_handled, counts.open) {
        // A consent keyword, or a message of an opted-out user, is complete: no handler runs.
        (false, _) => inbound::ANSWERED,
        (true, 0) => inbound::PROCESSING,
        (true, _) => inbound::RECEIVED,
    };
    let answer = answer.filter(|answer| !answer.is_empty());
    let service = arrival.service.as_ref().map(MessagingServiceSid::as_str);
    // No message is lost from the linked list (`previous`), since `newest` is read and replaced under the
    // conversation's lock. Unlike `ACCEPT_AT_ONCE`, this need not increase `claims`: `enter` has done it, or has
    // created the conversation.
    let id: Option<i64> = sqlx::query_scalar(
        "WITH new AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, \
           service, response, params, previous) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, \
           (SELECT newest FROM conversation WHERE id = $3)) ON CONFLICT (sid, account) DO NOTHING RETURNING id), \
         touched AS (UPDATE conversation SET newest = new.id FROM new WHERE conversation.id = $3) SELECT id FROM new",
    )
    .bind(rows::sid_bytes(arrival.account.as_str()))
    .bind(rows::sid_bytes(arrival.sid.as_str()))
    .bind(conversation)
    .bind(state)
    .bind(i64::from(state == inbound::PROCESSING))
    .bind(to_be_handled.then_some(me))
    .bind(now)
    .bind(rows::auth_token_number(arrival.auth_token))
    .bind(service)
    .bind(answer.map(pack))
    .bind(pack(&arrival.params))
    .fetch_optional(db)
    .await?;
    // A concurrent transaction has stored the message since `known`. Roll back: window and consent change once for each
    // message. The next attempt treats it as a redelivery.
    let id = id.ok_or(Trouble::Again)?;
    Ok(match heeded {
        ConsentEffect::Keyword {
            opted_out,
            confirmation: answer,
            ..
        } => AcceptOutcome::ConsentKeyword {
            opted_out,
            confirmation: answer,
        },
        ConsentEffect::OptedOut => AcceptOutcome::OptedOut,
        ConsentEffect::Ordinary => accepted(id, conversation, counts.open, counts.handed_over),
    })
}

/// Handles a redelivery of a stored message. Window and consent do not change.
async fn repeated(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    arrival: &NewInbound,
) -> Result<AcceptOutcome, Trouble> {
    // The conversation first, then the message, in separate statements: `blocked` must see what was
    // committed before the lock.
    lock_conversation(db, id).await?;
    let row = Standing::locked(db, me, id).await?;
    let exhausted = row.attempt >= arrival.max_attempts;
    match row.state {
        inbound::ANSWERED => {
            return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse {
                twiml: row.answer,
            }));
        }
        inbound::RECEIVED | inbound::PROCESSING if row.held => {
            return Ok(AcceptOutcome::InProgress { id: row.id });
        }
        // The handler failed, and Twilio delivers the message again: the next attempt.
        inbound::FAILED if !exhausted => {}
        // The process that handled it has died: whether the handler ran to its end is not known.
        inbound::PROCESSING if arrival.retry_after_crash && !exhausted => {}
        // It was only queued, or released: no handler was interrupted, so the policy for crashes does not apply.
        inbound::RECEIVED => {}
        inbound::FAILED | inbound::PROCESSING => {
            // An empty text is stored as NULL, which is the empty response; an empty body is not TwiML.
            let twiml = Some(arrival.final_response.clone()).filter(|twiml| !twiml.is_empty());
            sqlx::query("UPDATE inbound SET state = 3, response = $2 WHERE id = $1")
                .bind(id)
                .bind(twiml.as_deref().map(pack))
                .execute(db)
                .await?;
            return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse { twiml }));
        }
        // Deferred, done or dead.
        _ => return Ok(AcceptOutcome::AlreadyAnswered(SavedResponse::EMPTY)),
    }
    // Another open message comes first. This process owns the message while its request waits; `ahead` is at least one,
    // and the exact number matters only for a new message.
    if row.blocked {
        sqlx::query("UPDATE inbound SET state = 0, owner = $2, claimed_at = $3 WHERE id = $1")
            .bind(id)
            .bind(me)
            .bind(arrival.received_at.as_microsecond())
            .execute(db)
            .await?;
        return Ok(AcceptOutcome::Queued {
            id,
            conversation: row.conversation,
            ahead: 1,
        });
    }
    Ok(AcceptOutcome::Claimed(
        row.claim(db, me, arrival.received_at).await?,
    ))
}

/// Records a message received during an outage, with the fallback reply that was sent, if any.
pub(super) async fn backfill(
    db: &mut PgConnection,
    me: i64,
    arrival: &NewInbound,
    twiml: Option<&str>,
) -> Result<(), Trouble> {
    // The primary webhook may have been stored although its request got 503, so the message is not always new.
    let is_new = known(db, arrival).await?.is_none();
    if is_new {
        accept(db, me, arrival).await?;
    }
    let Some(id) = known(db, arrival).await? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // The text was sent, so it is the reply, also of a deferred message (2) whose reply is not in the outbox yet.
        // A handler that still runs loses its claim: the row has no owner and is not open. Done (4) and dead (6) stay.
        sqlx::query(
            "UPDATE inbound SET state = 3, owner = NULL, response = $2 WHERE id = $1 AND state IN (0, 1, 2, 5)",
        )
        .bind(id)
        .bind(pack(twiml))
        .execute(db)
        .await?;
    } else if is_new {
        // No text was sent: the message becomes deferred without an owner, so that the backlog handles it. The claim by
        // `accept` does not count as an attempt. A stored message stays as it is.
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
    arrival: &NewInbound,
) -> Result<(), Trouble> {
    if known(db, arrival).await?.is_some() {
        return Ok(());
    }
    accept(db, me, arrival).await?;
    // Only a message that `accept` queued or claimed. A consent keyword or an opted-out user's
    // message is answered already.
    sqlx::query(
        "UPDATE inbound SET state = 3, owner = NULL, attempt = 0, reason = $3 \
         WHERE sid = $1 AND account = $2 AND state IN (0, 1)",
    )
    .bind(rows::sid_bytes(arrival.sid.as_str()))
    .bind(rows::sid_bytes(arrival.account.as_str()))
    .bind(rows::ANSWERED_BEFORE)
    .execute(db)
    .await?;
    Ok(())
}
