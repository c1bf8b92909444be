//! Deletion of the links, consents and outbound messages of a user's addresses.

use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::consent;
use super::database::{Database, params};
use super::identity_graph::{lock_graph, read_links};
use super::operator::address_texts;

/// Deletes the links, consents and outbound messages of a user's addresses. Opt-outs stay unless `forget_opt_out`. Returns
/// the numbers of deleted outbound messages and consents.
// The caller has locked the addresses.
pub(in crate::store) async fn purge_addresses<D: Database>(
    db: &mut D,
    addresses: &[AddressKey],
    forget_opt_out: bool,
) -> Result<(u64, u64), D::Error> {
    let keys = address_texts(addresses);
    let mut consent_keys: Vec<String> = addresses
        .iter()
        .map(|key| ConsentKey::from(key).as_str().to_owned())
        .collect();
    consent_keys.dedup();
    if !forget_opt_out {
        copy_evidence(db, addresses).await?;
    }
    let outbound = db
        .execute(
            "DELETE FROM outbound WHERE address_key = ANY ($1)",
            params![&keys[..]],
        )
        .await?;
    db.execute(
        "DELETE FROM identity_link WHERE a = ANY ($1) OR b = ANY ($1)",
        params![&keys[..]],
    )
    .await?;
    db.execute(
        "DELETE FROM identity_split WHERE address_key = ANY ($1)",
        params![&keys[..]],
    )
    .await?;
    let consents = if forget_opt_out {
        "DELETE FROM consent WHERE consent_key = ANY ($1)"
    } else {
        "DELETE FROM consent WHERE consent_key = ANY ($1) AND suppressed IS NULL"
    };
    let consents = db.execute(consents, params![&consent_keys[..]]).await?;
    // The remaining rows are opt-outs. Their links are deleted, so each row must now state its own opt-out.
    db.execute(
        "UPDATE consent SET opt_out = suppressed, since = suppressed, start = NULL, own_opt_in = NULL, \
         opted_in = NULL WHERE consent_key = ANY ($1)",
        params![&consent_keys[..]],
    )
    .await?;
    let spellings: Vec<String> = addresses.iter().flat_map(AddressKey::spellings).collect();
    // Keep only the evidence of active opt-outs in the ledger, the only reason to keep a number.
    db.execute(
        "DELETE FROM consent_ledger WHERE address = ANY ($1) AND NOT EXISTS (\
           SELECT 1 FROM consent c WHERE c.consent_key = ANY ($2) AND consent_ledger.id IN (c.suppressed, c.opt_out))",
        params![&spellings[..], &consent_keys[..]],
    )
    .await?;
    // Addresses that are possibly of the same user share its opt-outs, and may have lost one.
    let graph = lock_graph(db, addresses).await?;
    consent::derive(db, &graph.keys, &graph.links).await?;
    Ok((outbound, consents))
}

/// Copies the evidence of an opt-out to each address that another address opted out, since their link is deleted next.
async fn copy_evidence<D: Database>(db: &mut D, addresses: &[AddressKey]) -> Result<(), D::Error> {
    let links = read_links(db, addresses).await?;
    let linked = links.iter().flat_map(|link| [&link.a, &link.b]);
    for key in addresses {
        // Use the spelling of the link. Without a link, the opt-out was made under the address itself.
        let Some(member) = linked.clone().find(|member| member.key == *key) else {
            continue;
        };
        db.execute(
            "INSERT INTO consent_ledger (scope, address, action, source, evidence, note, at) \
             SELECT l.scope, $2, l.action, l.source, l.evidence, l.note, l.at FROM consent c JOIN consent_ledger l ON l.id = c.suppressed \
             WHERE c.consent_key = $1 AND l.address <> $2",
            params![member.consent_key().as_str(), member.address.as_str()],
        )
        .await?;
        db.execute(
            "UPDATE consent SET suppressed = (SELECT max(own.id) FROM consent_ledger l JOIN consent_ledger own ON own.scope = l.scope \
               AND own.at = l.at AND own.action = l.action AND own.address = $2 WHERE l.id = consent.suppressed) \
             WHERE consent_key = $1 AND suppressed IS NOT NULL",
            params![member.consent_key().as_str(), member.address.as_str()],
        )
        .await?;
    }
    Ok(())
}
