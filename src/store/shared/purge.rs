//! Deletion of the links, consents and outbound messages of a user's addresses in one account.

use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::account_users::{AccountUser, address_texts};
use super::conditions::{entry_in_account, in_account};
use super::consent;
use super::database::{Database, params};
use super::identity_graph::{lock_graph, read_links};
use crate::sid::AccountSid;

/// Deletes the links, consents and outbound messages of a user's addresses. Opt-outs stay unless `forget_opt_out`. Returns
/// the numbers of deleted outbound messages and consents.
// The caller has locked the addresses.
pub(in crate::store) async fn purge_addresses<D: Database>(
    db: &mut D,
    user: &AccountUser,
    forget_opt_out: bool,
) -> Result<(u64, u64), D::Error> {
    let addresses = &user.keys[..];
    let account = user.account.as_ref();
    let sid = user.account_sid()?;
    let sid = sid.as_ref().map(AccountSid::as_str);
    let keys = address_texts(addresses);
    let mut consent_keys: Vec<String> = addresses
        .iter()
        .map(|key| ConsentKey::from(key).as_str().to_owned())
        .collect();
    consent_keys.dedup();
    if !forget_opt_out {
        copy_evidence(db, user).await?;
    }
    let outbound = db
        .execute(
            "DELETE FROM outbound WHERE address_key = ANY ($1) AND ($2 IS NULL OR account = $2)",
            params![&keys[..], account],
        )
        .await?;
    // An address that has no conversation any more, such as one of an earlier purge, has its events too.
    db.execute(
        "DELETE FROM event WHERE address_key = ANY ($1)",
        params![&keys[..]],
    )
    .await?;
    db.execute(
        "DELETE FROM identity_link WHERE (a = ANY ($1) OR b = ANY ($1)) AND ($2 IS NULL OR account = $2)",
        params![&keys[..], account],
    )
    .await?;
    db.execute(
        "DELETE FROM identity_split WHERE address_key = ANY ($1) AND ($2 IS NULL OR account = $2)",
        params![&keys[..], account],
    )
    .await?;
    let consents = if forget_opt_out {
        concat!(
            "DELETE FROM consent WHERE consent_key = ANY ($1) AND ",
            in_account!("consent.scope", "$2")
        )
    } else {
        concat!(
            "DELETE FROM consent WHERE consent_key = ANY ($1) AND suppressed IS NULL AND ",
            in_account!("consent.scope", "$2")
        )
    };
    let consents = db
        .execute(consents, params![&consent_keys[..], account])
        .await?;
    // The remaining rows are opt-outs. Their links are deleted, so each row must now state its own opt-out. A repeated opt-out
    // under the address keeps its place in the ledger, after the START of an address that may be tied to this one later.
    db.execute(
        concat!(
            "UPDATE consent SET opt_out = CASE WHEN opt_out > suppressed AND (start IS NULL OR opt_out > start) THEN opt_out \
               ELSE suppressed END, since = suppressed, start = NULL, own_opt_in = NULL, opted_in = NULL WHERE consent_key = ANY ($1) AND ",
            in_account!("consent.scope", "$2")
        ),
        params![&consent_keys[..], account],
    )
    .await?;
    let spellings: Vec<String> = addresses.iter().flat_map(AddressKey::spellings).collect();
    // Keep only the evidence of active opt-outs in the ledger, the only reason to keep a number.
    db.execute(
        concat!(
            "DELETE FROM consent_ledger WHERE address = ANY ($1) AND NOT EXISTS (\
               SELECT 1 FROM consent c WHERE c.consent_key = ANY ($2) AND consent_ledger.id IN (c.suppressed, c.opt_out)) AND ",
            entry_in_account!("$3", "$4")
        ),
        params![&spellings[..], &consent_keys[..], account, sid],
    )
    .await?;
    // Addresses that are possibly of the same user share its opt-outs, and may have lost one.
    let graph = lock_graph(db, addresses).await?;
    consent::derive(db, &graph.keys, &graph.links).await?;
    Ok((outbound, consents))
}

/// Copies the evidence of an opt-out to each address that another address opted out, since their link is deleted next.
async fn copy_evidence<D: Database>(db: &mut D, user: &AccountUser) -> Result<(), D::Error> {
    let account = user.account.as_ref();
    let addresses = &user.keys[..];
    let mut links = read_links(db, addresses).await?;
    links.retain(|link| account.is_none_or(|account| link.account == *account));
    let linked = links.iter().flat_map(|link| [&link.a, &link.b]);
    for key in addresses {
        // Use the spelling of the link. Without a link, the opt-out was made under the address itself.
        let Some(member) = linked.clone().find(|member| member.key == *key) else {
            continue;
        };
        db.execute(
            concat!(
                "INSERT INTO consent_ledger (scope, address, action, source, evidence, note, at, origin, proof) \
                 SELECT l.scope, $2, l.action, l.source, l.evidence, l.note, l.at, l.origin, l.proof FROM consent c JOIN consent_ledger l ON l.id = c.suppressed \
                 WHERE c.consent_key = $1 AND l.address <> $2 AND ",
                in_account!("c.scope", "$3")
            ),
            params![
                member.consent_key().as_str(),
                member.address.as_str(),
                account
            ],
        )
        .await?;
        db.execute(
            concat!(
                "UPDATE consent SET suppressed = (SELECT max(own.id) FROM consent_ledger l JOIN consent_ledger own ON own.scope = l.scope \
                   AND own.at = l.at AND own.action = l.action AND own.address = $2 WHERE l.id = consent.suppressed) \
                 WHERE consent_key = $1 AND suppressed IS NOT NULL AND ",
                in_account!("consent.scope", "$3")
            ),
            params![
                member.consent_key().as_str(),
                member.address.as_str(),
                account
            ],
        )
        .await?;
    }
    Ok(())
}
