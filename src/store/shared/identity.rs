//! Users with several addresses: linking, merging and splitting.
//!
//! Every operation here that writes first locks all addresses of the users that it concerns, in the order of their keys, in
//! [`lock_graph`]. So two servers that link the same pair, or of which one links a pair and the other records a STOP,
//! run one after the other, and the second sees the writes of the first. Addresses are locked before conversations.

use replyhook_core::address_key::AddressKey;

use super::account_users::{address_texts, connected_keys};
use super::database::{Database, params};
use super::evidence::{Evidence, EvidenceTime};
use super::identity_graph::{IdentityGraph, lock_graph, read_links};
use super::splits::{record_split, splits_of};
use super::{consent, conversation_members};
use crate::store::conversations::{
    ConsentAction, ConsentRecord, ConsentScope, ConsentSource, StatedFacts,
};
use crate::store::error::StoreError;
use crate::store::identity::{LinkRow, Member, NamedAddresses, class_of, contradicted_by, user_of};
use crate::store::identity_kind::LinkKind;
use crate::store::new_inbound::{ConsentKeyword, NewInbound};
use crate::store::packing;

/// Links the addresses that a new message names, and finds or creates the conversation. In PostgreSQL it is locked from
/// then on.
pub(in crate::store) async fn find_conversation<D: Database>(
    db: &mut D,
    inbound: &NewInbound,
    named: &NamedAddresses,
) -> Result<i64, D::Error> {
    let account = &packing::sid_bytes(inbound.account.as_str())[..];
    let sender = inbound.sender.as_str();
    for scope in inbound.scopes() {
        consent::record_account(db, scope.as_str(), account).await?;
    }
    if let Some(service) = inbound.service {
        consent::record_service(db, &inbound.sender, service).await?;
    }
    if matches!(
        inbound.consent,
        Some(ConsentKeyword::Stop { .. } | ConsentKeyword::Start { .. })
    ) {
        // Before the lock on the conversation, as everywhere: the consent is recorded after that.
        lock_graph(db, &keys_of(named)).await?;
    }
    let at = inbound.received_at.as_microsecond();
    let evidence = Evidence {
        account,
        sender,
        kind: LinkKind::SameForm,
        message: Some(inbound.sid),
        note: None,
        at,
        time: EvidenceTime::Message,
    };
    let links = match learn(db, &evidence, named).await? {
        Some(links) => links,
        // Also those of the number on other channels: the user's limits count for the new conversation too.
        None => read_links(db, &named.user.key.on_all_channels()).await?,
    };
    let mut members = class_of(&links, account, &named.user);
    // Use the spelling of the message, which may differ from that of the link.
    members[0] = named.user.clone();
    let conversation = conversation_members::find_or_create(db, sender, &members, at).await?;
    // Leave out the ID of an old message that contradicts newer evidence.
    let is_member = |id: &Member| members.iter().any(|member| member.key == id.key);
    if named.members().count() > 1 && named.members().all(is_member) {
        conversation_members::record_ids(db, sender, named).await?;
    }
    if !links.is_empty() {
        assign_user(db, account, &named.user.key).await?;
    }
    Ok(conversation)
}

/// Returns true if the store has a conversation, a consent or a link of one of the addresses.
pub(in crate::store) async fn is_known<D: Database>(
    db: &mut D,
    named: &NamedAddresses,
) -> Result<bool, D::Error> {
    for member in named.members() {
        let found = db
            .row(
                "SELECT EXISTS (SELECT 1 FROM conversation_address WHERE address_key = $1) \
                   OR EXISTS (SELECT 1 FROM consent WHERE consent_key = $2) \
                   OR EXISTS (SELECT 1 FROM identity_link WHERE a = $1) OR EXISTS (SELECT 1 FROM identity_link WHERE b = $1)",
                params![member.key.as_str(), member.consent_key().as_str()],
            )
            .await?;
        if found.unwrap_or_default().take(0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Links the addresses that a webhook names, which are of one user. Returns the links of the user, or `None` if nothing
/// is new.
pub(in crate::store) async fn learn<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    named: &NamedAddresses,
) -> Result<Option<Vec<LinkRow>>, D::Error> {
    let pairs = named.pairs(evidence.kind);
    let mut is_new = false;
    for (one, other, _) in &pairs {
        is_new |= !has_link(db, evidence, one, other).await?;
    }
    if !is_new {
        return Ok(None);
    }
    let graph = lock_graph(db, &keys_of(named)).await?;
    let mut links = graph.links.clone();
    for (one, other, kind) in pairs {
        // Read before this evidence splits anything: it is newer than that split.
        let splits = splits_of(db, evidence.account, one, other).await?;
        if splits.iter().any(|split| split.outdates(evidence)) {
            continue;
        }
        let contradicting = contradicted_by(&links, evidence.account, one, other, evidence.sender);
        if contradicting.iter().any(|link| link.at > evidence.at) {
            // The message is older than the evidence that the number has a new owner.
            continue;
        }
        if !contradicting.is_empty() {
            let note =
                "the number has another ExternalUserId on the same sender, so it has a new owner";
            links = split_off(db, evidence, one, &links, note, true).await?;
        }
        links.extend(insert_link(db, evidence, one, other, kind, &links).await?);
    }
    // The named addresses are of several users if the evidence is older than a split: an ID and its parent ID are one user,
    // although the number in the same callback is not theirs any more.
    let mut applied: Vec<Member> = Vec::new();
    for member in named.members() {
        if applied.iter().any(|known| known.key == member.key) {
            continue;
        }
        applied.extend(user_of(&links, evidence.account, member));
        apply_links(db, evidence.account, &graph, &links, member).await?;
    }
    Ok(Some(links))
}

fn keys_of(named: &NamedAddresses) -> Vec<AddressKey> {
    named.members().map(|member| member.key.clone()).collect()
}

async fn has_link<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    one: &Member,
    other: &Member,
) -> Result<bool, D::Error> {
    let (a, b) = in_order(one, other);
    let found = db
        .row(
            "SELECT at FROM identity_link WHERE a = $1 AND b = $2 AND account = $3 AND sender = $4",
            params![
                a.key.as_str(),
                b.key.as_str(),
                evidence.account,
                evidence.sender
            ],
        )
        .await?;
    Ok(found.is_some())
}

fn in_order<'a>(one: &'a Member, other: &'a Member) -> (&'a Member, &'a Member) {
    if one.key < other.key {
        (one, other)
    } else {
        (other, one)
    }
}

/// Returns true if the links have one of these two from the same sender, or from an operator if the evidence is one's.
fn is_stored(links: &[LinkRow], evidence: &Evidence<'_>, one: &Member, other: &Member) -> bool {
    links.iter().any(|link| {
        link.account == evidence.account
            && link.sender == evidence.sender
            && link.connects(&one.key, &other.key)
    })
}

/// Stores a link, and returns it; `None` if it is stored already.
async fn insert_link<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    one: &Member,
    other: &Member,
    kind: LinkKind,
    links: &[LinkRow],
) -> Result<Option<LinkRow>, D::Error> {
    if is_stored(links, evidence, one, other) {
        return Ok(None);
    }
    let (a, b) = in_order(one, other);
    let message = evidence.message.map(|sid| packing::sid_bytes(sid.as_str()));
    db.execute(
        "INSERT INTO identity_link (account, a, b, sender, a_address, b_address, kind, evidence, note, at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            evidence.account,
            a.key.as_str(),
            b.key.as_str(),
            evidence.sender,
            a.address.as_str(),
            b.address.as_str(),
            kind.as_str(),
            message.as_ref(),
            evidence.note,
            evidence.at,
        ],
    )
    .await?;
    Ok(Some(LinkRow {
        account: evidence.account.to_vec(),
        a: a.clone(),
        b: b.clone(),
        kind,
        sender: evidence.sender.to_owned(),
        evidence: message,
        note: evidence.note.map(str::to_owned),
        at: evidence.at,
    }))
}

/// Joins the conversations of a user, on every sender of the account, and derives the consents again.
async fn apply_links<D: Database>(
    db: &mut D,
    account: &[u8],
    graph: &IdentityGraph,
    links: &[LinkRow],
    of: &Member,
) -> Result<(), D::Error> {
    for class in classes(links, account, of) {
        for sender in senders_of(db, account, &class).await? {
            conversation_members::join(db, &sender, &class).await?;
        }
    }
    assign_user(db, account, &of.key).await?;
    consent::derive(db, &graph.keys, links).await
}

/// Returns the classes of a user.
fn classes(links: &[LinkRow], account: &[u8], of: &Member) -> Vec<Vec<Member>> {
    let mut classes: Vec<Vec<Member>> = Vec::new();
    for member in user_of(links, account, of) {
        if !classes
            .iter()
            .flatten()
            .any(|known| known.key == member.key)
        {
            classes.push(class_of(links, account, &member));
        }
    }
    classes
}

fn texts(members: &[Member]) -> Vec<String> {
    members
        .iter()
        .map(|member| member.key.as_str().to_owned())
        .collect()
}

/// Returns the senders of the account that have a conversation with one of these addresses.
async fn senders_of<D: Database>(
    db: &mut D,
    account: &[u8],
    members: &[Member],
) -> Result<Vec<String>, D::Error> {
    let rows = db
        .rows(
            "SELECT DISTINCT n.sender FROM conversation_address n LEFT JOIN scope_account s ON s.scope = n.sender \
             WHERE n.address_key = ANY ($1) AND (s.account IS NULL OR s.account = $2) ORDER BY n.sender",
            params![&texts(members)[..], account],
        )
        .await?;
    let senders: Result<Vec<String>, StoreError> =
        rows.into_iter().map(|mut row| row.take(0)).collect();
    Ok(senders?)
}

/// Gives the conversations of a user one `user_id`, by which limits per user count. The user has the addresses that links
/// connect, and the same numbers on other channels.
///
/// Without links the conversations have none: the number tells the user.
async fn assign_user<D: Database>(
    db: &mut D,
    account: &[u8],
    of: &AddressKey,
) -> Result<(), D::Error> {
    let own = of.on_all_channels();
    let keys = connected_keys(db, &own, account, true).await?;
    let is_several = keys.len() > own.len();
    let keys = address_texts(&keys);
    // The lowest ID, so that every order of events gives the same one.
    db.execute(
        "UPDATE conversation_address SET user_id = CASE WHEN $2 THEN (\
           SELECT min(n.conversation) FROM conversation_address n LEFT JOIN scope_account s ON s.scope = n.sender \
           WHERE n.address_key = ANY ($1) AND (s.account IS NULL OR s.account = $3)) END \
         WHERE address_key = ANY ($1) AND NOT EXISTS (\
           SELECT 1 FROM scope_account o WHERE o.scope = conversation_address.sender AND o.account <> $3)",
        params![&keys[..], is_several, account],
    )
    .await?;
    Ok(())
}

/// Value of `sender` in a link that a split has left, which can exist together with an operator's link.
const REMAINDER: &str = "split";

/// Splits an address off its user, and returns the links that remain. The others stay one user.
// The caller has locked the graph, and derives the consents again.
async fn split_off<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    split: &Member,
    links: &[LinkRow],
    note: &str,
    has_new_owner: bool,
) -> Result<Vec<LinkRow>, D::Error> {
    let account = evidence.account;
    let class = class_of(links, account, split);
    let (removed, mut kept): (Vec<_>, Vec<_>) = links
        .iter()
        .cloned()
        .partition(|link| link.account == account && link.other(&split.key).is_some());
    db.execute(
        "DELETE FROM identity_link WHERE account = $1 AND (a = $2 OR b = $2)",
        params![account, split.key.as_str()],
    )
    .await?;
    let ends = removed
        .iter()
        .filter_map(|link| Some((link, link.other(&split.key)?)));
    let mut ends: Vec<(&LinkRow, &Member)> = ends.collect();
    // Start with the addresses on the channel of `split`: they stay one class, and the others are tied to one of them.
    ends.sort_by_key(|(_, end)| end.address.channel() != split.address.channel());
    if let Some(((_, first), others)) = ends.split_first() {
        for (link, other) in others {
            // Addresses that only `split` connected stay one user.
            let is_class = [first, other]
                .iter()
                .all(|end| end.address.channel() == split.address.channel());
            let (kind, sender, connected) = if is_class {
                (link.kind, "", class_of(&kept, account, first))
            } else {
                let connected = user_of(&kept, account, first);
                (LinkKind::SplitRemainder, REMAINDER, connected)
            };
            if !connected.iter().any(|member| member.key == other.key) {
                // Store no sender: no webhook has named these two together.
                let evidence = Evidence {
                    sender,
                    message: link
                        .evidence
                        .as_deref()
                        .and_then(|sid| packing::message_sid(sid).ok()),
                    note: link.note.as_deref(),
                    at: link.at,
                    ..*evidence
                };
                kept.extend(insert_link(db, &evidence, first, other, kind, &kept).await?);
            }
        }
        // The remaining user counts alone from now on.
        assign_user(db, account, &first.key).await?;
    }
    record_split(db, account, split, evidence.at).await?;
    // The conversations stay with the other addresses. The address keeps a conversation that it has alone.
    for sender in senders_of(db, account, std::slice::from_ref(split)).await? {
        db.execute(
            "DELETE FROM conversation_address WHERE sender = $1 AND address_key = $2 AND EXISTS (\
               SELECT 1 FROM conversation_address o WHERE o.conversation = conversation_address.conversation \
               AND o.address_key <> $2)",
            params![&*sender, split.key.as_str()],
        )
        .await?;
    }
    // Clear the recorded IDs: a later message that names the address with one of the others is new evidence.
    db.execute(
        "UPDATE conversation_address SET external_id = NULL, parent_id = NULL WHERE address_key = ANY ($1)",
        params![&texts(&class)[..]],
    )
    .await?;
    if has_new_owner {
        consent::forget_old_owner(db, account, &split.key).await?;
    }
    for member in &class {
        record_change(db, evidence, member, split, ConsentAction::Split, note).await?;
    }
    if !class.iter().any(|member| member.key != split.key) {
        // Links to other channels only.
        for (_, other) in removed
            .iter()
            .filter_map(|link| Some((link, link.other(&split.key)?)))
        {
            record_change(db, evidence, other, split, ConsentAction::Split, note).await?;
        }
    }
    Ok(kept)
}

/// Adds a merge or a split to the ledger, under the address `of`.
async fn record_change<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    of: &Member,
    other: &Member,
    action: ConsentAction,
    note: &str,
) -> Result<(), D::Error> {
    let note = if of.key == other.key {
        note.to_owned()
    } else {
        format!("{}: {note}", other.address.as_str())
    };
    let record = ConsentRecord {
        scope: ConsentScope::Account(packing::account_sid(evidence.account)?),
        user: of.address.clone(),
        action,
        source: if evidence.kind == LinkKind::Operator {
            ConsentSource::Operator
        } else {
            ConsentSource::Webhook
        },
        evidence: evidence.message,
        note: Some(note),
        at: packing::time(evidence.at)?,
    };
    consent::insert_entry(db, &record, &StatedFacts::default()).await?;
    Ok(())
}

/// Records an operator's decision that two addresses are of one user. Returns false if they are already.
pub(in crate::store) async fn merge_users<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    one: &Member,
    other: &Member,
) -> Result<bool, D::Error> {
    let graph = lock_graph(db, &[one.key.clone(), other.key.clone()]).await?;
    if one.key == other.key || is_stored(&graph.links, evidence, one, other) {
        return Ok(false);
    }
    let mut links = graph.links.clone();
    links.extend(insert_link(db, evidence, one, other, evidence.kind, &links).await?);
    let note = evidence.note.unwrap_or_default();
    record_change(db, evidence, one, other, ConsentAction::Merge, note).await?;
    record_change(db, evidence, other, one, ConsentAction::Merge, note).await?;
    apply_links(db, evidence.account, &graph, &links, one).await?;
    Ok(true)
}

/// Records an operator's decision that an address is not of the user that it is tied to. Returns false if it is tied to
/// no other address.
pub(in crate::store) async fn split_user<D: Database>(
    db: &mut D,
    evidence: &Evidence<'_>,
    split: &Member,
) -> Result<bool, D::Error> {
    let graph = lock_graph(db, std::slice::from_ref(&split.key)).await?;
    let links = &graph.links;
    if !links
        .iter()
        .any(|link| link.account == evidence.account && link.other(&split.key).is_some())
    {
        return Ok(false);
    }
    let note = evidence.note.unwrap_or_default();
    let links = split_off(db, evidence, split, links, note, false).await?;
    assign_user(db, evidence.account, &split.key).await?;
    consent::derive(db, &graph.keys, &links).await?;
    Ok(true)
}
