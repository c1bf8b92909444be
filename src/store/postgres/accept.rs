//! [`Journal::accept`](crate::store::journal::Journal::accept) of any message in PostgreSQL, in a transaction.

use sqlx::PgConnection;

use super::claims::{claim, lock_conversation};
use super::conversations;
use super::error::CallError;
use super::reading::lock_and_read_state;
use super::text::{pack, packed};
use crate::sid::MessagingServiceSid;
use crate::store::conversations::ConsentScope;
use crate::store::decisions::{self, Redelivery};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::journal::{AcceptOutcome, SavedResponse};
use crate::store::new_inbound::{ConsentEffect, NewInbound};
use crate::store::packing;
use crate::store::shared::consent::{self, Repeated};
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::identity;
use crate::store::states::inbound;

/// Id of the message, if it is stored.
pub(super) async fn find_id(
    db: &mut PgConnection,
    inbound: &NewInbound,
) -> Result<Option<i64>, CallError> {
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
    records_events: bool,
) -> Result<AcceptOutcome, CallError> {
    if let Some(id) = find_id(db, inbound).await? {
        return accept_redelivery(db, me, id, inbound).await;
    }
    let now = inbound.received_at.as_microsecond();
    let named = inbound.named_addresses();
    let named = named.ok_or_else(|| StoreError::new(StoreErrorKind::Internal))?;
    // `find_conversation` locks the conversation. The statements after it see everything committed before the lock:
    // consent changes by an earlier keyword, and all messages that are ahead.
    let conversation = identity::find_conversation(db, inbound, &named).await?;
    let scopes = consent::scopes_of(db, inbound).await?;
    let key = named.user.consent_key();
    let packed_scopes = packed(scopes.iter().map(ConsentScope::as_str));
    let conversation_row =
        conversations::read_conversation(db, conversation, key.as_str(), packed_scopes, now)
            .await?;
    let effect = inbound.apply_keyword(conversation_row.opted_out);
    let response = decisions::initial_response(&effect);
    if let ConsentEffect::Keyword {
        change: Some(action),
        ..
    } = effect
    {
        let records = inbound.ledger_records(action, &scopes);
        let mut db = RecordingDatabase::new(&mut *db, records_events);
        consent::record_consents(&mut db, &records, Repeated::Recorded).await?;
    } else if let Some(records) = inbound.further_opt_out(&effect, &scopes) {
        let mut db = RecordingDatabase::new(&mut *db, records_events);
        consent::record_consents(&mut db, &records, Repeated::Recorded).await?;
    }
    let ahead = u32::try_from(conversation_row.open).unwrap_or(u32::MAX);
    let state = decisions::initial_state(&effect, ahead);
    let service = inbound.service.as_ref().map(MessagingServiceSid::as_str);
    // No message is lost from the linked list (`previous`), since `newest` is read and replaced under the
    // conversation's lock. Unlike `ACCEPT_USUAL`, this need not increase `claims`: `find_conversation` has done it, or has
    // created the conversation.
    let id: Option<i64> = sqlx::query_scalar(
        "WITH inserted AS (INSERT INTO inbound (account, sid, conversation, state, attempt, owner, claimed_at, received_at, auth_token, \
           service, response, params, reason, previous) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, \
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
    .bind(decisions::initial_reason(&effect))
    .fetch_optional(db)
    .await?;
    // A concurrent transaction has stored the message since `find_id`. Roll back: window and consent change once for
    // each message. The next attempt treats it as a redelivery.
    let id = id.ok_or(CallError::Conflict)?;
    Ok(decisions::outcome_of_new(
        effect,
        id,
        conversation,
        conversation_row.user_id,
        ahead,
        conversation_row.handed_off,
        conversation_row.has_question,
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
