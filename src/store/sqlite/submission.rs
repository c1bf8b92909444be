//! What is sent first, in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::outbox;
use crate::address::Address;
use crate::sid::MessagingServiceSid;
use crate::store::rows;
use crate::store::{SendKey, Standing, StoreError, Submission, Submitted};

pub(super) fn submit(
    db: &Connection,
    submission: &Submission,
    now: Timestamp,
) -> Result<Submitted, StoreError> {
    if let Some(key) = &submission.key
        && let Some(id) = keyed(db, key)?
    {
        return Ok(Submitted::Known(id));
    }
    let message = &submission.message;
    let standing = standing(
        db,
        &message.us,
        message.service,
        &message.user,
        submission.due,
    )?;
    if let Some(refusal) = submission.refusal(standing) {
        return Ok(Submitted::Refused(refusal));
    }
    let ids = outbox::insert(db, None, std::slice::from_ref(message), now)?;
    let id = ids[0];
    if !submission.pace.is_zero() {
        let slot: i64 = db
            .prepare_cached(
                "INSERT INTO send_pace (us, free_at) VALUES (?1, ?2 + ?3) \
                 ON CONFLICT (us) DO UPDATE SET free_at = max(free_at, ?2) + ?3 RETURNING free_at - ?3",
            )?
            .query_row(
                params![
                    message.us.as_str(),
                    now.as_microsecond(),
                    submission.pace_micros()
                ],
                |row| row.get(0),
            )?;
        db.prepare_cached("UPDATE reply SET not_before = ?2, due = ?2 WHERE id = ?1")?
            .execute([id, slot])?;
    }
    if let Some(key) = &submission.key {
        db.prepare_cached("INSERT INTO send_key (key, reply, at) VALUES (?1, ?2, ?3)")?
            .execute(params![key.as_bytes(), id, now.as_microsecond()])?;
    }
    Ok(Submitted::New(id))
}

pub(super) fn keyed(db: &Connection, key: &SendKey) -> Result<Option<i64>, StoreError> {
    let found = db
        .prepare_cached("SELECT reply FROM send_key WHERE key = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(found)
}

pub(super) fn standing(
    db: &Connection,
    us: &Address,
    service: Option<MessagingServiceSid>,
    user: &Address,
    at: Timestamp,
) -> Result<Standing, StoreError> {
    let service = service.as_ref().map(MessagingServiceSid::as_str);
    let mut statement = db.prepare_cached(
        "WITH person (address) AS (SELECT ?2 UNION SELECT b.address FROM conversation_address a \
           JOIN conversation_address b ON b.conversation = a.conversation WHERE a.us = ?1 AND a.address = ?2) \
         SELECT (SELECT c.last_inbound FROM conversation_address a JOIN conversation c ON c.id = a.conversation \
           WHERE a.us = ?1 AND a.address = ?2), \
         EXISTS (SELECT 1 FROM consent c JOIN person p ON p.address = c.address \
           WHERE c.opted_out IS NOT NULL AND (c.scope = ?1 OR c.scope = ?3 OR ?1 = ?3)), \
         EXISTS (SELECT 1 FROM consent c JOIN person p ON p.address = c.address \
           WHERE c.opted_in IS NOT NULL AND (c.scope = ?1 OR c.scope = ?3))",
    )?;
    let (last_inbound, opted_out, opted_in) = statement
        .query_row(params![us.as_str(), user.as_str(), service], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok(Standing {
        opted_out,
        opted_in,
        window_open: rows::window(user, last_inbound, at)?.is_some(),
    })
}
