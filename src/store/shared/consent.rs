//! Consents of users.

use super::database::{Database, params};
use crate::address::Address;
use crate::store::conversations::{
    ConsentAction, ConsentEntry, ConsentRecord, ConsentScope, ConsentSource,
};
use crate::store::packing;

/// Returns true if this address has opted out in this scope.
pub(in crate::store) async fn has_opted_out<D: Database>(
    db: &mut D,
    user: &Address,
    scope: &ConsentScope,
) -> Result<bool, D::Error> {
    let found = db
        .row(
            "SELECT address FROM consent WHERE address = $1 AND scope = $2 AND opted_out IS NOT NULL",
            params![user.as_str(), scope.as_str()],
        )
        .await?;
    Ok(found.is_some())
}

/// Changes a consent and adds its evidence to the ledger.
// The caller has begun a transaction, so neither is stored without the other.
pub(in crate::store) async fn record_consent<D: Database>(
    db: &mut D,
    record: &ConsentRecord,
) -> Result<(), D::Error> {
    let (user, scope) = (record.user.as_str(), record.scope.as_str());
    let sql = match record.action {
        // The first time stays: a repeated opt-out is not a later one. The ledger has both.
        ConsentAction::OptOut => {
            "INSERT INTO consent AS c (address, scope, opted_out) VALUES ($1, $2, $3) \
             ON CONFLICT (address, scope) DO UPDATE SET opted_out = coalesce(c.opted_out, $3)"
        }
        // Only the opt-out ends. `nullif($3, $3)` is a NULL that uses the third parameter, which the other statements
        // need.
        ConsentAction::Resume => {
            "INSERT INTO consent AS c (address, scope, opted_out) VALUES ($1, $2, nullif($3, $3)) \
             ON CONFLICT (address, scope) DO UPDATE SET opted_out = NULL"
        }
        // An opt-in also ends an opt-out.
        ConsentAction::OptIn => {
            "INSERT INTO consent AS c (address, scope, opted_in) VALUES ($1, $2, $3) \
             ON CONFLICT (address, scope) DO UPDATE SET opted_in = coalesce(c.opted_in, $3), opted_out = NULL"
        }
    };
    db.execute(sql, params![user, scope, record.at]).await?;
    let evidence = record.evidence.map(|sid| packing::sid_bytes(sid.as_str()));
    db.execute(
        "INSERT INTO consent_ledger (scope, address, action, source, evidence, note, at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            scope,
            user,
            record.action.as_str(),
            record.source.as_str(),
            evidence.as_ref(),
            record.note.as_deref(),
            record.at,
        ],
    )
    .await?;
    Ok(())
}

/// Lists entries of the consent ledger, oldest first.
pub(in crate::store) async fn consent_ledger<D: Database>(
    db: &mut D,
    after: i64,
    limit: u32,
) -> Result<Vec<ConsentEntry>, D::Error> {
    // By ID, so that a caller can read the ledger in pages while entries are added.
    let found = db
        .rows(
            "SELECT id, scope, address, action, source, evidence, note, at FROM consent_ledger WHERE id > $1 ORDER BY id LIMIT $2",
            params![after, limit],
        )
        .await?;
    let entries = found.into_iter().map(|mut row| {
        let (scope, user): (String, String) = (row.take(1)?, row.take(2)?);
        let (action, source): (String, String) = (row.take(3)?, row.take(4)?);
        let evidence: Option<Vec<u8>> = row.take(5)?;
        Ok(ConsentEntry {
            id: row.take(0)?,
            record: ConsentRecord {
                scope: ConsentScope::parse(&scope),
                user: user.into(),
                action: ConsentAction::parse(&action).ok_or_else(packing::unreadable)?,
                source: ConsentSource::parse(&source).ok_or_else(packing::unreadable)?,
                evidence: evidence.map(|sid| packing::message_sid(&sid)).transpose()?,
                note: row.take(6)?,
                at: packing::time(row.take(7)?)?,
            },
        })
    });
    entries.collect()
}
