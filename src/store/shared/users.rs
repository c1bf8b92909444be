//! Users with several addresses, for operators.

use std::collections::BTreeMap;

use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::account_users::{AccountUser, address_texts, users_of};
use super::conditions::{entry_in_account, in_account};
use super::consent::{self, read_entry};
use super::database::{Database, StoredRow, params};
use super::evidence::{Evidence, EvidenceTime};
use super::identity::{merge_users, split_user};
use super::identity_graph::read_links;
use crate::address::Address;
use crate::sid::{AccountSid, MessagingServiceSid};
use crate::store::conversations::{ConsentEntry, ConsentScope, ConsentSource};
use crate::store::error::StoreError;
use crate::store::identity::{LinkRow, Member};
use crate::store::identity_kind::LinkKind;
use crate::store::packing;
use crate::store::users::{
    AddressConsent, AddressLink, AppliedOptOut, UserChange, UserConversation, UserDetails,
};

/// Returns what the store has about a user in one account, or in each, under any of their addresses.
pub(in crate::store) async fn user<D: Database>(
    db: &mut D,
    user: &Address,
    account: Option<AccountSid>,
) -> Result<UserDetails, D::Error> {
    let mut details = UserDetails {
        addresses: vec![user.clone()],
        ..UserDetails::default()
    };
    for user in users_of(db, user, account, true).await? {
        add_details(db, &user, &mut details).await?;
    }
    Ok(details)
}

/// Adds what the store has about a user in one account.
async fn add_details<D: Database>(
    db: &mut D,
    user: &AccountUser,
    details: &mut UserDetails,
) -> Result<(), D::Error> {
    let mut links = read_links(db, &user.keys).await?;
    links.retain(|link| Some(&link.account) == user.account.as_ref());
    let conversations = conversations(db, user).await?;
    let changes = changes(db, user).await?;
    let seen = conversations
        .iter()
        .flat_map(|conversation| &conversation.addresses);
    let linked = links
        .iter()
        .flat_map(|link| [&link.a.address, &link.b.address]);
    let recorded = changes.iter().map(|entry| &entry.record.user);
    for address in seen.chain(linked).chain(recorded) {
        if !details.addresses.contains(address) {
            details.addresses.push(address.clone());
        }
    }
    add_spellings(details);
    for link in &links {
        details.links.push(read_link(link)?);
    }
    for alias in known_aliases(db, &user.keys).await? {
        if !details.possible_aliases.contains(&alias) {
            details.possible_aliases.push(alias);
        }
    }
    // One line for each number: SMS and RCS have one consent.
    let mut shown: BTreeMap<ConsentKey, Address> = BTreeMap::new();
    for address in &details.addresses {
        shown
            .entry(ConsentKey::of(address))
            .or_insert_with(|| address.clone());
    }
    for address in &details.addresses {
        if shown.get(&ConsentKey::of(address)) != Some(address) {
            continue;
        }
        for consent in consents_in(db, address, user.account.as_ref()).await? {
            let is_shown = |other: &AddressConsent| {
                other.address == consent.address && other.scope == consent.scope
            };
            if !details.consents.iter().any(is_shown) {
                details.consents.push(consent);
            }
        }
    }
    details.conversations.extend(conversations);
    for entry in changes {
        if !details.changes.iter().any(|other| other.id == entry.id) {
            details.changes.push(entry);
        }
    }
    Ok(())
}

/// Adds the other spelling of each number that has two, whichever is stored.
fn add_spellings(details: &mut UserDetails) {
    for address in details.addresses.clone() {
        for spelling in AddressKey::of(&address).spellings() {
            let spelling = Address::from(spelling);
            if spelling == address {
                continue;
            }
            if !details.addresses.contains(&spelling) {
                details.addresses.push(spelling.clone());
            }
            let pair = (address.clone(), spelling);
            let is_known = |known: &(Address, Address)| {
                *known == pair || (known.0 == pair.1 && known.1 == pair.0)
            };
            if !details.spellings.iter().any(is_known) {
                details.spellings.push(pair);
            }
        }
    }
}

fn read_link(link: &LinkRow) -> Result<AddressLink, StoreError> {
    let evidence = link.evidence.as_deref().map(packing::message_sid);
    Ok(AddressLink {
        account: packing::account_sid(&link.account)?,
        addresses: (link.a.address.clone(), link.b.address.clone()),
        kind: link.kind,
        sender: (!link.sender.is_empty() && link.kind != LinkKind::SplitRemainder)
            .then(|| link.sender.as_str().into()),
        evidence: evidence.transpose()?,
        note: link.note.clone(),
        at: packing::time(link.at)?,
    })
}

/// Returns the possible aliases of a user that have a conversation.
async fn known_aliases<D: Database>(
    db: &mut D,
    keys: &[AddressKey],
) -> Result<Vec<Address>, D::Error> {
    let aliases = keys.iter().filter_map(AddressKey::possible_alias);
    let aliases: Vec<AddressKey> = aliases.filter(|alias| !keys.contains(alias)).collect();
    let rows = db
        .rows(
            "SELECT DISTINCT address FROM conversation_address WHERE address_key = ANY ($1) ORDER BY address",
            params![&address_texts(&aliases)[..]],
        )
        .await?;
    let addresses: Result<Vec<Address>, StoreError> = rows
        .into_iter()
        .map(|mut row| Ok(row.take::<String>(0)?.into()))
        .collect();
    Ok(addresses?)
}

async fn conversations<D: Database>(
    db: &mut D,
    user: &AccountUser,
) -> Result<Vec<UserConversation>, D::Error> {
    let rows = db
        .rows(
            concat!(
                "SELECT c.id, a.sender, a.address, c.last_inbound, h.until, h.url, coalesce((SELECT v.service FROM service_sender v WHERE v.sender = a.sender), \
                   (SELECT i.service FROM inbound i WHERE i.id = c.newest)) FROM conversation_address a \
                 JOIN conversation c ON c.id = a.conversation LEFT JOIN handoff h ON h.conversation = c.id \
                 WHERE a.address_key = ANY ($1) AND ",
                in_account!("a.sender", "$2"),
                " ORDER BY c.last_inbound DESC, c.id, a.address"
            ),
            params![&address_texts(&user.keys)[..], user.account.as_ref()],
        )
        .await?;
    let mut found: Vec<UserConversation> = Vec::new();
    for mut row in rows {
        let (id, address): (i64, String) = (row.take(0)?, row.take(2)?);
        if let Some(known) = found.last_mut().filter(|known| known.id == id) {
            known.addresses.push(address.into());
            continue;
        }
        let (sender, until): (String, Option<i64>) = (row.take(1)?, row.take(4)?);
        let (url, service): (Option<String>, Option<String>) = (row.take(5)?, row.take(6)?);
        found.push(UserConversation {
            id,
            sender: sender.into(),
            addresses: vec![address.into()],
            service: service.and_then(|service| service.parse().ok()),
            last_inbound: packing::time(row.take(3)?)?,
            handed_off_until: until.map(packing::time).transpose()?,
            // Empty for a handoff in which the bot is silent.
            handed_off_to: url.filter(|url| !url.is_empty()),
        });
    }
    Ok(found)
}

/// Returns the ledger's entries of a user.
async fn changes<D: Database>(
    db: &mut D,
    user: &AccountUser,
) -> Result<Vec<ConsentEntry>, D::Error> {
    let sid = user.account_sid()?;
    let spellings: Vec<String> = user.keys.iter().flat_map(AddressKey::spellings).collect();
    let rows = db
        .rows(
            concat!(
                "SELECT id, scope, address, action, source, evidence, note, at, origin, proof FROM consent_ledger WHERE address = ANY ($1) AND ",
                entry_in_account!("$2", "$3"),
                " ORDER BY id"
            ),
            params![
                &spellings[..],
                user.account.as_ref(),
                sid.as_ref().map(AccountSid::as_str)
            ],
        )
        .await?;
    Ok(rows.into_iter().map(read_entry).collect::<Result<_, _>>()?)
}

/// Returns the consents of an address in every scope.
pub(in crate::store) async fn consents<D: Database>(
    db: &mut D,
    user: &Address,
) -> Result<Vec<AddressConsent>, D::Error> {
    consents_in(db, user, None).await
}

/// Returns the consents of an address in the scopes of one account, or in all.
async fn consents_in<D: Database>(
    db: &mut D,
    user: &Address,
    account: Option<&Vec<u8>>,
) -> Result<Vec<AddressConsent>, D::Error> {
    let rows = db
        .rows(
            concat!(
                "SELECT c.scope, c.opted_in, l.address, l.source, l.evidence, l.note, l.at FROM consent c \
                 LEFT JOIN consent_ledger l ON l.id = c.suppressed WHERE c.consent_key = $1 AND ",
                in_account!("c.scope", "$2"),
                " ORDER BY c.scope"
            ),
            params![ConsentKey::of(user).as_str(), account],
        )
        .await?;
    let consents = rows.into_iter().map(|row| read_consent(row, user));
    Ok(consents.collect::<Result<_, _>>()?)
}

fn read_consent(mut row: StoredRow, user: &Address) -> Result<AddressConsent, StoreError> {
    let (scope, opted_in): (String, Option<i64>) = (row.take(0)?, row.take(1)?);
    let address: Option<String> = row.take(2)?;
    let opt_out = match address {
        None => None,
        Some(address) => {
            let (source, evidence): (String, Option<Vec<u8>>) = (row.take(3)?, row.take(4)?);
            Some(AppliedOptOut {
                address: address.into(),
                source: ConsentSource::parse(&source).ok_or_else(packing::unreadable)?,
                evidence: evidence.map(|sid| packing::message_sid(&sid)).transpose()?,
                note: row.take(5)?,
                at: packing::time(row.take(6)?)?,
            })
        }
    };
    Ok(AddressConsent {
        address: user.clone(),
        scope: ConsentScope::parse(&scope),
        opt_out,
        opted_in: opted_in.map(packing::time).transpose()?,
    })
}

/// Returns the Messaging Service that a sender was last seen in.
pub(in crate::store) async fn service_of_sender<D: Database>(
    db: &mut D,
    sender: &Address,
) -> Result<Option<MessagingServiceSid>, D::Error> {
    let service = consent::service_of(db, sender).await?;
    Ok(service.and_then(|service| service.parse().ok()))
}

/// Ties two addresses to one user, or with no `other` splits the address off its user.
pub(in crate::store) async fn change_user<D: Database>(
    db: &mut D,
    change: &UserChange,
    other: Option<&Address>,
) -> Result<bool, D::Error> {
    let evidence = Evidence {
        account: &packing::sid_bytes(change.account.as_str()),
        sender: "",
        kind: LinkKind::Operator,
        message: None,
        note: Some(&change.reason),
        at: change.at.as_microsecond(),
        time: EvidenceTime::Message,
    };
    let user = Member::of(&change.user);
    match other {
        Some(other) => merge_users(db, &evidence, &user, &Member::of(other)).await,
        None => split_user(db, &evidence, &user).await,
    }
}
