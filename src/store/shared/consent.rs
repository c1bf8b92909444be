//! Consents of users.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::database::{Database, StoredRow, params};
use super::events;
use super::identity_graph::{IdentityGraph, lock_graph};
use crate::address::Address;
use crate::sid::{AccountSid, MessagingServiceSid};
use crate::store::conversations::{
    ConsentAction, ConsentEntry, ConsentRecord, ConsentScope, ConsentSource, ConsentState,
    ConsentStatement, StatedFacts, StatedTime, StatementOutcome,
};
use crate::store::error::StoreError;
use crate::store::identity::{ConsentRow, Consents, LastChanges, LinkRow, Reach};
use crate::store::new_inbound::NewInbound;
use crate::store::packing;

/// Returns the current consent of a user. An opt-out in one of the scopes suffices.
pub(in crate::store) async fn consent<D: Database>(
    db: &mut D,
    scopes: &[ConsentScope],
    user: &Address,
) -> Result<ConsentState, D::Error> {
    let key = ConsentKey::of(user);
    let mut state = ConsentState::default();
    for scope in scopes {
        let found = db
            .row(
                "SELECT l.at, c.opted_in FROM consent c LEFT JOIN consent_ledger l ON l.id = c.suppressed \
                 WHERE c.consent_key = $1 AND c.scope = $2",
                params![key.as_str(), scope.as_str()],
            )
            .await?;
        let Some(mut row) = found else { continue };
        let (opted_out, opted_in): (Option<i64>, Option<i64>) = (row.take(0)?, row.take(1)?);
        state.opted_out = state
            .opted_out
            .or(opted_out.map(packing::time).transpose()?);
        state.opted_in = state.opted_in.or(opted_in.map(packing::time).transpose()?);
    }
    Ok(state)
}

/// Records the account of a sender or Messaging Service.
pub(in crate::store) async fn record_account<D: Database>(
    db: &mut D,
    scope: &str,
    account: &[u8],
) -> Result<(), D::Error> {
    // Read first: an upsert would lock the row of the sender, for which all messages of new users would wait.
    if account_of(db, scope).await?.as_deref() == Some(account) {
        return Ok(());
    }
    db.execute(
        "INSERT INTO scope_account (scope, account) VALUES ($1, $2) \
         ON CONFLICT (scope) DO UPDATE SET account = excluded.account",
        params![scope, account],
    )
    .await?;
    Ok(())
}

/// Records the Messaging Service that a sender is in.
pub(in crate::store) async fn record_service<D: Database>(
    db: &mut D,
    sender: &Address,
    service: MessagingServiceSid,
) -> Result<(), D::Error> {
    // Read first, as in `record_account`.
    if service_of(db, sender).await?.as_deref() == Some(service.as_str()) {
        return Ok(());
    }
    db.execute(
        "INSERT INTO service_sender (sender, service) VALUES ($1, $2) \
         ON CONFLICT (sender) DO UPDATE SET service = excluded.service",
        params![sender.as_str(), service.as_str()],
    )
    .await?;
    Ok(())
}

/// Returns the Messaging Service that a sender was last seen in.
pub(in crate::store) async fn service_of<D: Database>(
    db: &mut D,
    sender: &Address,
) -> Result<Option<String>, D::Error> {
    let found = db
        .row(
            "SELECT service FROM service_sender WHERE sender = $1",
            params![sender.as_str()],
        )
        .await?;
    Ok(found.map(|mut row| row.take(0)).transpose()?)
}

/// Returns the scopes of a message: those that it names, and the service that its sender was last seen in.
pub(in crate::store) async fn scopes_of<D: Database>(
    db: &mut D,
    inbound: &NewInbound,
) -> Result<Vec<ConsentScope>, D::Error> {
    let mut scopes = inbound.scopes();
    if inbound.service.is_none()
        && let Some(service) = service_of(db, &inbound.sender).await?
    {
        scopes.insert(0, ConsentScope::parse(&service));
    }
    Ok(scopes)
}

/// Returns the account of a sender or Messaging Service, if a message has ever come to it.
pub(in crate::store) async fn account_of_sender<D: Database>(
    db: &mut D,
    scope: &ConsentScope,
) -> Result<Option<AccountSid>, D::Error> {
    let account = account_of(db, scope.as_str()).await?;
    let account = account.map(|account| packing::account_sid(&account));
    Ok(account.transpose()?)
}

async fn account_of<D: Database>(db: &mut D, scope: &str) -> Result<Option<Vec<u8>>, D::Error> {
    let found = db
        .row(
            "SELECT account FROM scope_account WHERE scope = $1",
            params![scope],
        )
        .await?;
    Ok(found.map(|mut row| row.take(0)).transpose()?)
}

/// Changes a consent and adds its evidence to the ledger.
// The caller has begun a transaction, so neither is stored without the other.
pub(in crate::store) async fn record_consent<D: Database>(
    db: &mut D,
    record: &ConsentRecord,
) -> Result<(), D::Error> {
    record_consents(db, std::slice::from_ref(record), Repeated::Recorded).await
}

/// Changes a consent as stated, unless the ledger has the same change, or a newer one replaces it.
pub(in crate::store) async fn state_consent<D: Database>(
    db: &mut D,
    statement: &ConsentStatement,
) -> Result<StatementOutcome, D::Error> {
    let record = &statement.record;
    // Before the reads: a concurrent STOP must come before the check or after the change.
    let graph = lock_graph(db, &[AddressKey::of(&record.user)]).await?;
    let last = last_changes(db, &graph, record).await?;
    let known = entries_of(db, &record.scope, &record.user).await?;
    let mut equal = known.iter().filter(|entry| statement.is_of(entry));
    let is_repeated = match statement.time {
        StatedTime::Given => equal.any(|entry| entry.record.at == record.at),
        StatedTime::Unknown => equal.next().is_some(),
        // A user may agree at the same form again after an opt-out, so only the latest change counts. It is not the latest
        // one if the user has changed it since under another address.
        StatedTime::Now => {
            let is_in_force = match record.action {
                ConsentAction::OptOut => last.opt_out.is_some(),
                // A new owner of the number has neither.
                _ => last.opt_out.is_none() && last.start.is_some(),
            };
            is_in_force && known.last().is_some_and(|entry| statement.is_of(entry))
        }
    };
    if is_repeated {
        return Ok(StatementOutcome::Unchanged);
    }
    // The last change of the other kind, and not the one that the consent began with: a user who has sent STOP again has
    // decided again.
    let opposite = match record.action {
        ConsentAction::OptIn => last.opt_out,
        // Nothing to replace if the opt-in has been ended already.
        ConsentAction::OptOut if last.opt_out.is_none() => last.start,
        _ => None,
    };
    let opposite = match opposite {
        Some(entry) => time_of_entry(db, entry).await?,
        None => None,
    };
    let is_newer = |at: &Timestamp| match statement.time {
        StatedTime::Given => *at > record.at,
        StatedTime::Unknown => record.action == ConsentAction::OptIn,
        StatedTime::Now => false,
    };
    if let Some(at) = opposite.filter(is_newer) {
        return Ok(StatementOutcome::Superseded(at));
    }
    if !statement.dry_run {
        let records = std::slice::from_ref(record);
        change_consents(db, records, &statement.stated, Repeated::Recorded).await?;
    }
    Ok(StatementOutcome::Recorded)
}

/// Returns the last changes that count for the user of a record, in its scope.
async fn last_changes<D: Database>(
    db: &mut D,
    graph: &IdentityGraph,
    record: &ConsentRecord,
) -> Result<LastChanges, D::Error> {
    let (keys, scope) = (graph.consent_keys(), record.scope.as_str());
    let consents = read_consents(db, &keys).await?;
    let account = account_of(db, scope).await?;
    let reach = Reach::of(&keys, &graph.links, account.as_deref());
    Ok(reach.last_changes(&keys, &ConsentKey::of(&record.user), scope, &consents))
}

async fn time_of_entry<D: Database>(db: &mut D, id: i64) -> Result<Option<Timestamp>, D::Error> {
    let found = db
        .row("SELECT at FROM consent_ledger WHERE id = $1", params![id])
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    Ok(Some(packing::time(row.take(0)?)?))
}

impl ConsentStatement {
    /// Returns whether an entry has all that is stated, except for the time.
    fn is_of(&self, entry: &ConsentEntry) -> bool {
        let (own, known) = (&self.record, &entry.record);
        own.action == known.action
            && own.source == known.source
            && own.evidence == known.evidence
            && own.note == known.note
            && self.stated == entry.stated
    }
}

/// Returns the entries of an address in a scope, oldest first.
async fn entries_of<D: Database>(
    db: &mut D,
    scope: &ConsentScope,
    user: &Address,
) -> Result<Vec<ConsentEntry>, D::Error> {
    let found = db
        .rows(
            "SELECT id, scope, address, action, source, evidence, note, at, origin, proof FROM consent_ledger \
             WHERE address = $1 AND scope = $2 ORDER BY id",
            params![user.as_str(), scope.as_str()],
        )
        .await?;
    let entries = found.into_iter().map(read_entry);
    Ok(entries.collect::<Result<_, _>>()?)
}

/// Treatment of an opt-out that changes nothing, since the user has opted out already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Repeated {
    /// It is added to the ledger as the user's latest decision. An address that is not tied to the user yet can have sent START since
    /// the first opt-out. Once both are tied, the later of the two counts.
    // One entry for each message: the order of the ledger decides, so an entry cannot move to a later time. A user who
    // alternates STOP and START adds as many.
    Recorded,
    /// It is left out: Twilio reports the error for every message, and reports it again after a START.
    Skipped,
}

/// Changes the consents of one user, and adds their evidence to the ledger.
pub(in crate::store) async fn record_consents<D: Database>(
    db: &mut D,
    records: &[ConsentRecord],
    repeated: Repeated,
) -> Result<(), D::Error> {
    change_consents(db, records, &StatedFacts::default(), repeated).await
}

async fn change_consents<D: Database>(
    db: &mut D,
    records: &[ConsentRecord],
    stated: &StatedFacts,
    repeated: Repeated,
) -> Result<(), D::Error> {
    let seeds: Vec<AddressKey> = records
        .iter()
        .map(|record| AddressKey::of(&record.user))
        .collect();
    let graph = lock_graph(db, &seeds).await?;
    let keys = graph.consent_keys();
    let stored = read_consents(db, &keys).await?;
    let mut consents = stored.clone();
    let mut scopes = BTreeMap::new();
    for record in records {
        let (key, scope) = (ConsentKey::of(&record.user), record.scope.as_str());
        if !scopes.contains_key(scope) {
            let account = account_of(db, scope).await?;
            scopes.insert(scope, Reach::of(&keys, &graph.links, account.as_deref()));
        }
        let is_repeated = record.action == ConsentAction::OptOut
            && scopes
                .get(scope)
                .is_some_and(|reach| reach.is_repeated(&keys, &key, scope, &stored));
        if is_repeated && repeated == Repeated::Skipped {
            continue;
        }
        let entry = insert_entry(db, record, stated).await?;
        if !is_repeated {
            events::record_consent_event(db, record).await?;
        }
        let row = consents.entry((key, scope.to_owned())).or_default();
        row.apply(record.action, entry, record.at.as_microsecond());
    }
    for (scope, reach) in scopes {
        reach.derive(&keys, scope, &mut consents);
    }
    write_consents(db, &stored, &consents).await
}

/// Adds a record to the ledger, and returns its ID.
pub(in crate::store) async fn insert_entry<D: Database>(
    db: &mut D,
    record: &ConsentRecord,
    stated: &StatedFacts,
) -> Result<i64, D::Error> {
    let evidence = record.evidence.map(|sid| packing::sid_bytes(sid.as_str()));
    let inserted = db
        .row(
            "INSERT INTO consent_ledger (scope, address, action, source, evidence, note, at, origin, proof) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
            params![
                record.scope.as_str(),
                record.user.as_str(),
                record.action.as_str(),
                record.source.as_str(),
                evidence.as_ref(),
                record.note.as_deref(),
                record.at,
                stated.origin.as_deref(),
                stated.proof.as_deref(),
            ],
        )
        .await?;
    Ok(inserted.unwrap_or_default().take(0)?)
}

/// Derives the consents of these addresses again, after a change of their links.
// The caller has locked the addresses.
pub(in crate::store) async fn derive<D: Database>(
    db: &mut D,
    addresses: &BTreeSet<AddressKey>,
    links: &[LinkRow],
) -> Result<(), D::Error> {
    let mut keys: BTreeSet<ConsentKey> = addresses.iter().map(ConsentKey::from).collect();
    // A new link may end at an address that was not connected before.
    for link in links {
        keys.extend([&link.a.key, &link.b.key].map(ConsentKey::from));
    }
    let stored = read_consents(db, &keys).await?;
    let mut consents = stored.clone();
    let scopes: BTreeSet<String> = stored.keys().map(|(_, scope)| scope.clone()).collect();
    for scope in scopes {
        let account = account_of(db, &scope).await?;
        Reach::of(&keys, links, account.as_deref()).derive(&keys, &scope, &mut consents);
    }
    write_consents(db, &stored, &consents).await
}

/// Clears the consents of a number's old owner, in the scopes of one account. An opt-out of the number stays.
// The caller derives the consents again.
pub(in crate::store) async fn forget_old_owner<D: Database>(
    db: &mut D,
    account: &[u8],
    number: &AddressKey,
) -> Result<(), D::Error> {
    let keys = BTreeSet::from([ConsentKey::from(number)]);
    let stored = read_consents(db, &keys).await?;
    let mut consents = stored.clone();
    for ((_, scope), row) in &mut consents {
        let of_scope = account_of(db, scope).await?;
        if of_scope.is_none_or(|of_scope| of_scope == account) {
            *row = row.after_new_owner();
        }
    }
    write_consents(db, &stored, &consents).await
}

async fn read_consents<D: Database>(
    db: &mut D,
    keys: &BTreeSet<ConsentKey>,
) -> Result<Consents, D::Error> {
    let mut consents = Consents::new();
    for key in keys {
        let rows = db
            .rows(
                "SELECT scope, opt_out, since, start, own_opt_in, suppressed, opted_in FROM consent WHERE consent_key = $1",
                params![key.as_str()],
            )
            .await?;
        for mut row in rows {
            let consent = ConsentRow {
                opt_out: row.take(1)?,
                since: row.take(2)?,
                start: row.take(3)?,
                own_opt_in: row.take(4)?,
                suppressed: row.take(5)?,
                opted_in: row.take(6)?,
            };
            consents.insert((key.clone(), row.take(0)?), consent);
        }
    }
    Ok(consents)
}

/// Writes the rows that have changed, in the order of keys.
async fn write_consents<D: Database>(
    db: &mut D,
    stored: &Consents,
    consents: &Consents,
) -> Result<(), D::Error> {
    for ((key, scope), row) in consents {
        if stored.get(&(key.clone(), scope.clone())) == Some(row) {
            continue;
        }
        db.execute(
            "INSERT INTO consent (consent_key, scope, opt_out, since, start, own_opt_in, suppressed, opted_in) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (consent_key, scope) DO UPDATE SET opt_out = excluded.opt_out, \
             since = excluded.since, start = excluded.start, own_opt_in = excluded.own_opt_in, suppressed = excluded.suppressed, \
             opted_in = excluded.opted_in",
            params![
                key.as_str(),
                &**scope,
                row.opt_out,
                row.since,
                row.start,
                row.own_opt_in,
                row.suppressed,
                row.opted_in,
            ],
        )
        .await?;
    }
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
            "SELECT id, scope, address, action, source, evidence, note, at, origin, proof FROM consent_ledger WHERE id > $1 ORDER BY id LIMIT $2",
            params![after, limit],
        )
        .await?;
    Ok(found
        .into_iter()
        .map(read_entry)
        .collect::<Result<_, _>>()?)
}

/// Reads the columns `id, scope, address, action, source, evidence, note, at, origin, proof` of the ledger.
pub(in crate::store) fn read_entry(mut row: StoredRow) -> Result<ConsentEntry, StoreError> {
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
        stated: StatedFacts {
            origin: row.take(8)?,
            proof: row.take(9)?,
        },
    })
}
