//! Addresses that were split off their user, so that nothing of the former user counts for them.

use super::database::{Database, params};
use super::evidence::{Evidence, EvidenceTime};
use crate::store::identity::Member;

/// Row of `identity_split`.
pub(in crate::store) struct SplitRow {
    at: i64,
    last_outbound: i64,
}

impl SplitRow {
    /// Returns true if the evidence is from before the split, or may be.
    pub(in crate::store) fn outdates(&self, evidence: &Evidence<'_>) -> bool {
        match evidence.time {
            EvidenceTime::Message => evidence.at < self.at,
            EvidenceTime::Outbound(id) => id <= self.last_outbound,
            EvidenceTime::Unknown => true,
        }
    }
}

/// Records that an address is of another user from now on.
pub(in crate::store) async fn record_split<D: Database>(
    db: &mut D,
    account: &[u8],
    split: &Member,
    at: i64,
) -> Result<(), D::Error> {
    // The claim compares these IDs. Messages of the outbox are not changed here: this transaction has locked addresses, and
    // waiting for a row that a claim has locked could deadlock.
    db.execute(
        "INSERT INTO identity_split (address_key, account, at, last_inbound, last_outbound) VALUES ($1, $2, $3, \
           (SELECT coalesce(max(id), 0) FROM inbound), (SELECT coalesce(max(id), 0) FROM outbound)) \
         ON CONFLICT (address_key, account) DO UPDATE SET at = excluded.at, last_inbound = excluded.last_inbound, \
         last_outbound = excluded.last_outbound",
        params![split.key.as_str(), account, at],
    )
    .await?;
    Ok(())
}

/// Returns the splits of these two addresses.
pub(in crate::store) async fn splits_of<D: Database>(
    db: &mut D,
    account: &[u8],
    one: &Member,
    other: &Member,
) -> Result<Vec<SplitRow>, D::Error> {
    let rows = db
        .rows(
            "SELECT at, last_outbound FROM identity_split WHERE account = $1 AND address_key IN ($2, $3)",
            params![account, one.key.as_str(), other.key.as_str()],
        )
        .await?;
    let mut splits = Vec::new();
    for mut row in rows {
        splits.push(SplitRow {
            at: row.take(0)?,
            last_outbound: row.take(1)?,
        });
    }
    Ok(splits)
}
