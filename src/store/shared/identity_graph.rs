//! Addresses that are connected, as rows, and their locks.

use std::collections::BTreeSet;

use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::database::{Database, StoredRow, params};
use crate::store::error::StoreError;
use crate::store::identity::{LinkRow, Member};
use crate::store::identity_kind::LinkKind;
use crate::store::packing;

/// Addresses that are connected with some others, and the links between them.
#[derive(Default)]
pub(in crate::store) struct IdentityGraph {
    pub(in crate::store) keys: BTreeSet<AddressKey>,
    pub(in crate::store) links: Vec<LinkRow>,
}

impl IdentityGraph {
    /// Returns the consent keys of all addresses.
    pub(in crate::store) fn consent_keys(&self) -> BTreeSet<ConsentKey> {
        self.keys.iter().map(ConsentKey::from).collect()
    }
}

const LINKS: &str = "SELECT account, a, b, sender, a_address, b_address, kind, evidence, note, at FROM identity_link WHERE a = $1 \
     UNION ALL SELECT account, a, b, sender, a_address, b_address, kind, evidence, note, at FROM identity_link WHERE b = $1";

/// Reads the links of an address, in all accounts.
pub(in crate::store) async fn links_of<D: Database>(
    db: &mut D,
    key: &AddressKey,
) -> Result<Vec<LinkRow>, D::Error> {
    let rows = db.rows(LINKS, params![key.as_str()]).await?;
    let links: Result<Vec<_>, StoreError> = rows.into_iter().map(read_link).collect();
    Ok(links?)
}

fn read_link(mut row: StoredRow) -> Result<LinkRow, StoreError> {
    let (a, b): (String, String) = (row.take(1)?, row.take(2)?);
    let (a_address, b_address): (String, String) = (row.take(4)?, row.take(5)?);
    let kind: String = row.take(6)?;
    let member = |key: String, address: String| Member {
        key: key.into(),
        address: address.into(),
    };
    Ok(LinkRow {
        account: row.take(0)?,
        a: member(a, a_address),
        b: member(b, b_address),
        kind: LinkKind::parse(&kind).ok_or_else(packing::unreadable)?,
        sender: row.take(3)?,
        evidence: row.take(7)?,
        note: row.take(8)?,
        at: row.take(9)?,
    })
}

/// Reads all addresses that links connect with `seeds`, in all accounts.
pub(in crate::store) async fn read_links<D: Database>(
    db: &mut D,
    seeds: &[AddressKey],
) -> Result<Vec<LinkRow>, D::Error> {
    Ok(read_graph(db, seeds, false).await?.links)
}

/// Reads all addresses that are connected with `seeds`, and their links. With `shares_consent` also by the rules that make
/// addresses share opt-outs without a link.
async fn read_graph<D: Database>(
    db: &mut D,
    seeds: &[AddressKey],
    shares_consent: bool,
) -> Result<IdentityGraph, D::Error> {
    let mut graph = IdentityGraph::default();
    let mut open: Vec<AddressKey> = seeds.to_vec();
    while let Some(key) = open.pop() {
        if !graph.keys.insert(key.clone()) {
            continue;
        }
        if shares_consent {
            open.extend(ConsentKey::from(&key).address_keys());
            open.extend(key.possible_alias());
        }
        for link in links_of(db, &key).await? {
            let Some(other) = link.other(&key) else {
                continue;
            };
            // If the other end was read before, it has added the link.
            if !graph.keys.contains(&other.key) {
                open.push(other.key.clone());
                graph.links.push(link);
            }
        }
    }
    Ok(graph)
}

/// Locks all addresses that are connected with `seeds`, and returns them with their links. Until this transaction
/// ends, no other transaction changes these links or consents.
pub(in crate::store) async fn lock_graph<D: Database>(
    db: &mut D,
    seeds: &[AddressKey],
) -> Result<IdentityGraph, D::Error> {
    let known = read_graph(db, seeds, true).await?;
    // In the order of keys, once in a transaction: two transactions that need the same locks do not deadlock.
    for key in &known.keys {
        db.lock_address(key.as_str()).await?;
    }
    // Read again: while this waited for a lock, another transaction may have linked one of the addresses with one
    // that is not locked. The next attempt locks that too.
    let now = read_graph(db, seeds, true).await?;
    if now.keys.is_subset(&known.keys) {
        Ok(now)
    } else {
        Err(D::conflict())
    }
}
