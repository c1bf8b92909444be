//! [`Journal::accept`](crate::store::journal::Journal::accept) of a usual message in PostgreSQL, in one statement.

use sqlx::{PgConnection, Row};

use super::conditions::is_owned;
use super::error::CallError;
use super::text::{pack, packed, unpack};
use crate::sid::MessagingServiceSid;
use crate::store::conversations::ConsentScope;
use crate::store::identity::Member;
use crate::store::journal::AcceptOutcome;
use crate::store::new_inbound::{ConsentEffect, NewInbound};
use crate::store::states::inbound;
use crate::store::{decisions, packing};

/// Accepts a usual message, or reads the outcome of a stored one, in one statement.
///
/// A usual message is new, has no consent keyword, says nothing new about its user, and belongs to a known conversation
/// whose user has not opted out. For a stored message the statement returns its known ID. For any other message it inserts nothing
/// and returns no ID; the caller then runs [`accept`](super::accept::accept).
//
// Parameters: 1 and 2 are the key, 3 and 4 sender and key of the user, 5 this process, 6 the time, and 7 to 9 columns of the
// message. 10 is true if the message can be accepted by this statement, and 11 are its consent scopes. 12 and 13 are the
// business-scoped IDs that it names, or NULL.
const ACCEPT_USUAL: &str = concat!(
    // A redelivery: nothing below inserts a message then.
    "WITH known_message AS (SELECT i.id, i.state, i.response, ",
    is_owned!("$5"),
    " AS is_owned FROM inbound i WHERE i.sid = $1 AND i.account = $2), ",
    // The lock makes messages of one conversation wait for each other. The row is read as it is after that wait.
    //
    // The lease must last for five more seconds: a message claimed under a lease that is about to end could be taken over
    // while its handler starts. The transaction of `accept` renews the lease instead.
    //
    // An opt-out in any of the scopes leaves the message to `accept`; `suppressed` covers the user's other addresses. So does
    // an ID that this address has not named before, and a service that the sender was not seen in.
    "conversation_locked AS (SELECT c.id, c.claims, c.newest, a.user_id FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
       WHERE a.sender = $3 AND a.address_key = $4 AND $10 \
       AND ($12::text IS NULL OR a.external_id = $12) AND ($13::text IS NULL OR a.parent_id = $13) AND c.merged_into IS NULL AND NOT EXISTS (SELECT 1 FROM known_message) \
       AND EXISTS (SELECT 1 FROM owner o WHERE o.id = $5 AND o.alive_until > statement_timestamp() + interval '5 s') \
       AND ($8::text IS NULL OR EXISTS (SELECT 1 FROM service_sender v WHERE v.sender = $3 AND v.service = $8)) \
       AND NOT EXISTS (SELECT 1 FROM consent n WHERE n.consent_key = a.consent_key AND (n.scope = ANY ($11) \
         OR n.scope = (SELECT v.service FROM service_sender v WHERE v.sender = $3)) AND n.suppressed IS NOT NULL) \
       FOR UPDATE OF c), ",
    // Reads the row as of the statement's snapshot. If `claims` differs, another transaction has accepted or claimed a
    // message while this one waited for the lock. The snapshot misses that message, so `ahead` could not be trusted.
    "unchanged AS (SELECT c.id, conversation_locked.newest, conversation_locked.user_id FROM conversation_locked JOIN conversation c ON c.id = conversation_locked.id AND c.claims = conversation_locked.claims), ",
    // Open messages (below 3). Always one row, which the result needs.
    "ahead AS (SELECT count(*) AS n FROM inbound p WHERE p.conversation IN (SELECT id FROM unchanged) AND p.state < 3), ",
    // In PROCESSING (1) if no message is ahead, else in RECEIVED (0). `previous` continues the conversation's list.
    //
    // DO NOTHING: a webhook for the same message may have been committed after the snapshot. Then this has no row, and
    // `accept` finds the stored message.
    "inserted AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, service, \
       params, previous) SELECT $2, $1, unchanged.id, CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, \
       CASE WHEN ahead.n = 0 THEN 1 ELSE 0 END, $5, $6, $6, $7, $8, $9, unchanged.newest FROM unchanged, ahead \
       ON CONFLICT (sid, account) DO NOTHING RETURNING id, conversation), ",
    // `greatest`: a clock that was set back must not shorten the window. `claims` tells the statements that wait for the
    // lock that their snapshot is too old.
    "conversation_updated AS (UPDATE conversation c SET last_inbound = greatest(c.last_inbound, $6), claims = c.claims + 1, newest = inserted.id \
       FROM inserted WHERE c.id = inserted.conversation) ",
    "SELECT inserted.id AS new_id, inserted.conversation, ahead.n AS ahead, known_message.id AS known_id, known_message.state, \
       known_message.response, known_message.is_owned, \
       EXISTS (SELECT 1 FROM handoff h WHERE h.conversation = inserted.conversation AND h.until > $6) AS handed_off, \
       EXISTS (SELECT 1 FROM question q WHERE q.conversation = inserted.conversation AND q.expires_at > $6) AS has_question, \
       (SELECT user_id FROM unchanged) AS user_id FROM ahead LEFT JOIN inserted ON true LEFT JOIN known_message ON true"
);

/// Runs [`ACCEPT_USUAL`]. Returns `None` if the message needs [`accept`](super::accept::accept).
pub(super) async fn accept_usual(
    db: &mut PgConnection,
    me: i64,
    inbound: &NewInbound,
) -> Result<Option<AcceptOutcome>, CallError> {
    let Some(named) = inbound.named_addresses() else {
        return Ok(None);
    };
    let id = |member: &Option<Member>| {
        let member = member.as_ref()?;
        Some(pack(member.key.as_str()).into_owned())
    };
    let is_usual = inbound.consent.is_none();
    let service = inbound.service.as_ref().map(MessagingServiceSid::as_str);
    let row = sqlx::query(ACCEPT_USUAL)
        .bind(packing::sid_bytes(inbound.sid.as_str()))
        .bind(packing::sid_bytes(inbound.account.as_str()))
        .bind(pack(inbound.sender.as_str()))
        .bind(pack(named.user.key.as_str()))
        .bind(me)
        .bind(inbound.received_at.as_microsecond())
        .bind(packing::auth_token_number(inbound.auth_token))
        .bind(service)
        .bind(pack(&inbound.params))
        .bind(is_usual)
        .bind(packed(inbound.scopes().iter().map(ConsentScope::as_str)))
        .bind(id(&named.external))
        .bind(id(&named.parent))
        .fetch_one(db)
        .await?;
    if let Some(id) = row.try_get::<Option<i64>, _>("new_id")? {
        let conversation = row.try_get("conversation")?;
        let ahead: i64 = row.try_get("ahead")?;
        let (handed_off, user_id) = (row.try_get("handed_off")?, row.try_get("user_id")?);
        let has_question = row.try_get("has_question")?;
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        return Ok(Some(decisions::outcome_of_new(
            ConsentEffect::Ordinary,
            id,
            conversation,
            user_id,
            ahead,
            handed_off,
            has_question,
        )));
    }
    let Some(id) = row.try_get::<Option<i64>, _>("known_id")? else {
        return Ok(None);
    };
    let (state, is_owned): (i64, bool) = (row.try_get("state")?, row.try_get("is_owned")?);
    let response = row.try_get::<Option<String>, _>("response")?.map(unpack);
    if let Some(response) = decisions::settled_response(state, response) {
        return Ok(Some(AcceptOutcome::AlreadyAnswered(response)));
    }
    // Any other redelivery may start another attempt, for which `accept` takes the locks.
    let is_in_progress = is_owned && state != inbound::FAILED;
    Ok(is_in_progress.then_some(AcceptOutcome::InProgress { id }))
}
