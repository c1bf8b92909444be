//! [`Journal::accept`](crate::store::Journal::accept) in PostgreSQL: at once where that can be, with care where it must.

use sqlx::{PgConnection, Row};

use super::conversations;
use super::error::Trouble;
use super::journal::{Standing, lock_conversation};
use super::text::{pack, packed, unpack};
use crate::sid::MessagingServiceSid;
use crate::store::journal::Heeded;
use crate::store::rows::{self, inbound};
use crate::store::{Acceptance, Answered, Arrival, Claim, ConsentScope};

/// Accepts the usual message in one statement: one that is new, no word about consent, from one address in a conversation
/// that is known, whose author has not opted out; or says what became of one that is kept. What it finds otherwise it
/// leaves as it is, and says nothing.
///
/// `here` locks the conversation and has its newest `turns`; `free` has the `turns` of what this statement sees. Where they
/// differ it has waited for somebody, and what it sees is too old to count on.
const ACCEPT_AT_ONCE: &str = concat!(
    "WITH known AS (SELECT i.id, i.state, i.answer, ",
    held!("$5"),
    " AS held FROM inbound i WHERE i.sid = $1 AND i.account = $2), \
     here AS (SELECT c.id, c.turns, c.newest FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
       WHERE a.us = $3 AND a.address = $4 AND $10 AND c.joined IS NULL AND NOT EXISTS (SELECT 1 FROM known) \
       AND EXISTS (SELECT 1 FROM owner o WHERE o.id = $5 AND o.alive_until > statement_timestamp() + interval '5 s') \
       AND NOT EXISTS (SELECT 1 FROM conversation_address b JOIN consent x ON x.address = b.address \
         WHERE b.conversation = a.conversation AND x.scope = ANY ($11) AND x.opted_out IS NOT NULL) \
       FOR UPDATE OF c), \
     free AS (SELECT c.id, here.newest FROM here JOIN conversation c ON c.id = here.id AND c.turns = here.turns), \
     ahead AS (SELECT count(*) AS n FROM inbound p WHERE p.conversation IN (SELECT id FROM free) AND p.state < 3), \
     new AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, slot, service, \
       params, previous) SELECT $2, $1, free.id, CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, \
       CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, $5, $6, $6, $7, $8, $9, free.newest FROM free, ahead ON CONFLICT (sid, account) DO NOTHING RETURNING id, conversation), \
     touched AS (UPDATE conversation c SET last_inbound = greatest(c.last_inbound, $6), turns = c.turns + 1, newest = new.id \
       FROM new WHERE c.id = new.conversation) \
     SELECT new.id, new.conversation, ahead.n, known.id, known.state, known.answer, known.held, \
       EXISTS (SELECT 1 FROM handover h WHERE h.conversation = new.conversation AND h.until > $6) \
     FROM ahead LEFT JOIN new ON true LEFT JOIN known ON true"
);

pub(super) async fn accept_at_once(
    db: &mut PgConnection,
    me: i64,
    arrival: &Arrival,
) -> Result<Option<Acceptance>, Trouble> {
    let plain = arrival.consent.is_none() && arrival.user.len() == 1;
    let address = arrival.user.first().map(|user| pack(user.as_str()));
    let service = arrival.service.as_ref().map(MessagingServiceSid::as_str);
    let row = sqlx::query(ACCEPT_AT_ONCE)
        .bind(rows::sid_bytes(arrival.sid.as_str()))
        .bind(rows::sid_bytes(arrival.account.as_str()))
        .bind(pack(arrival.us.as_str()))
        .bind(address)
        .bind(me)
        .bind(arrival.at.as_microsecond())
        .bind(rows::slot_number(arrival.slot))
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
        inbound::RECEIVED | inbound::HANDLING if held => Some(Acceptance::InProgress { id }),
        inbound::RECEIVED | inbound::HANDLING | inbound::FAILED => None,
        inbound::ANSWERED => {
            let twiml: Option<String> = row.try_get(5)?;
            let twiml = twiml.map(unpack);
            Some(Acceptance::Answered(Answered { twiml }))
        }
        _ => Some(Acceptance::Answered(Answered::EMPTY)),
    })
}

/// What became of a new message that is to be handled.
fn accepted(id: i64, conversation: i64, ahead: i64, handed_over: bool) -> Acceptance {
    if ahead > 0 {
        return Acceptance::Waiting {
            id,
            conversation,
            ahead: u32::try_from(ahead).unwrap_or(u32::MAX),
        };
    }
    Acceptance::New(Claim {
        id,
        conversation,
        attempt: 1,
        failed_before: false,
        handed_over,
    })
}

/// The scopes in which an arrival's consent counts, as they are stored.
fn scopes(arrival: &Arrival) -> Vec<String> {
    packed(arrival.scopes().iter().map(ConsentScope::as_str))
}

async fn known(db: &mut PgConnection, arrival: &Arrival) -> Result<Option<i64>, Trouble> {
    let id = sqlx::query_scalar("SELECT id FROM inbound WHERE sid = $1 AND account = $2")
        .bind(rows::sid_bytes(arrival.sid.as_str()))
        .bind(rows::sid_bytes(arrival.account.as_str()))
        .fetch_optional(db)
        .await?;
    Ok(id)
}

/// Accepts any message, step by step, with its conversation locked.
pub(super) async fn accept(
    db: &mut PgConnection,
    me: i64,
    arrival: &Arrival,
) -> Result<Acceptance, Trouble> {
    if let Some(id) = known(db, arrival).await? {
        return repeated(db, me, id, arrival).await;
    }
    let now = arrival.at.as_microsecond();
    let conversation = conversations::enter(db, &arrival.us, &arrival.user, now).await?;
    let counts = conversations::counts(db, conversation, scopes(arrival), now).await?;
    let heeded = arrival.heed(counts.opted_out);
    let (answer, change) = match &heeded {
        Heeded::Word { answer, change, .. } => (Some(answer.as_str()), *change),
        Heeded::Ordinary | Heeded::OptedOut => (None, None),
    };
    if let Some(action) = change {
        for record in arrival.records(&counts.user, action) {
            conversations::record_consent(db, &record).await?;
        }
    }
    let to_be_handled = matches!(heeded, Heeded::Ordinary);
    let state = match (to_be_handled, counts.open) {
        (false, _) => inbound::ANSWERED,
        (true, 0) => inbound::HANDLING,
        (true, _) => inbound::RECEIVED,
    };
    let answer = answer.filter(|answer| !answer.is_empty());
    let service = arrival.service.as_ref().map(MessagingServiceSid::as_str);
    let id: Option<i64> = sqlx::query_scalar(
        "WITH new AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, slot, \
           service, answer, params, previous) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, \
           (SELECT newest FROM conversation WHERE id = $3)) ON CONFLICT (sid, account) DO NOTHING RETURNING id), \
         touched AS (UPDATE conversation SET newest = new.id FROM new WHERE conversation.id = $3) SELECT id FROM new",
    )
    .bind(rows::sid_bytes(arrival.account.as_str()))
    .bind(rows::sid_bytes(arrival.sid.as_str()))
    .bind(conversation)
    .bind(state)
    .bind(i64::from(state == inbound::HANDLING))
    .bind(to_be_handled.then_some(me))
    .bind(now)
    .bind(rows::slot_number(arrival.slot))
    .bind(service)
    .bind(answer.map(pack))
    .bind(pack(&arrival.params))
    .fetch_optional(db)
    .await?;
    // Somebody else kept it meanwhile: nothing of this may stay.
    let id = id.ok_or(Trouble::Again)?;
    Ok(match heeded {
        Heeded::Word {
            opted_out, answer, ..
        } => Acceptance::Consent { opted_out, answer },
        Heeded::OptedOut => Acceptance::OptedOut,
        Heeded::Ordinary => accepted(id, conversation, counts.open, counts.handed_over),
    })
}

/// A message that is kept already. The window and consent are not touched.
async fn repeated(
    db: &mut PgConnection,
    me: i64,
    id: i64,
    arrival: &Arrival,
) -> Result<Acceptance, Trouble> {
    lock_conversation(db, id).await?;
    let row = Standing::locked(db, me, id).await?;
    let exhausted = row.attempt >= arrival.attempts;
    match row.state {
        inbound::ANSWERED => {
            return Ok(Acceptance::Answered(Answered { twiml: row.answer }));
        }
        inbound::RECEIVED | inbound::HANDLING if row.held => {
            return Ok(Acceptance::InProgress { id: row.id });
        }
        inbound::FAILED if !exhausted => {}
        // A process died over it, unless it had only waited.
        inbound::HANDLING if arrival.retry_crashed && !exhausted => {}
        inbound::RECEIVED => {}
        inbound::FAILED | inbound::HANDLING => {
            // Nothing to say is the empty response, and no empty body.
            let twiml = Some(arrival.last_answer.clone()).filter(|twiml| !twiml.is_empty());
            sqlx::query("UPDATE inbound SET state = 3, answer = $2 WHERE id = $1")
                .bind(id)
                .bind(twiml.as_deref().map(pack))
                .execute(db)
                .await?;
            return Ok(Acceptance::Answered(Answered { twiml }));
        }
        _ => return Ok(Acceptance::Answered(Answered::EMPTY)),
    }
    if row.blocked {
        sqlx::query("UPDATE inbound SET state = 0, owner = $2, claimed_at = $3 WHERE id = $1")
            .bind(id)
            .bind(me)
            .bind(arrival.at.as_microsecond())
            .execute(db)
            .await?;
        return Ok(Acceptance::Waiting {
            id,
            conversation: row.conversation,
            ahead: 1,
        });
    }
    Ok(Acceptance::New(row.claim(db, me, arrival.at).await?))
}

pub(super) async fn enter(
    db: &mut PgConnection,
    me: i64,
    arrival: &Arrival,
    twiml: Option<&str>,
) -> Result<(), Trouble> {
    let is_new = known(db, arrival).await?.is_none();
    if is_new {
        accept(db, me, arrival).await?;
    }
    let Some(id) = known(db, arrival).await? else {
        return Ok(());
    };
    if let Some(twiml) = twiml {
        // What was said is the answer, also where REST was to carry one that is not in the outbox yet.
        sqlx::query(
            "UPDATE inbound SET state = 3, owner = NULL, answer = $2 WHERE id = $1 AND state IN (0, 1, 2, 5)",
        )
        .bind(id)
        .bind(pack(twiml))
        .execute(db)
        .await?;
    } else if is_new {
        // Nothing was said: it is left to be handled.
        sqlx::query(
            "UPDATE inbound SET state = 2, owner = NULL, attempt = 0 WHERE id = $1 AND state IN (0, 1)",
        )
        .bind(id)
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Keeps a message as answered, so that nobody handles it, unless it is kept already.
pub(super) async fn enter_answered(
    db: &mut PgConnection,
    me: i64,
    arrival: &Arrival,
) -> Result<(), Trouble> {
    if known(db, arrival).await?.is_some() {
        return Ok(());
    }
    accept(db, me, arrival).await?;
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
