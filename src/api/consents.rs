//! `PUT` and `GET /v1/consents/{address}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::json_body::{JsonBody, invalid_field};
use super::problem::ApiProblem;
use super::senders::unknown_sender;
use super::state::Api;
use super::user_address::{AddressInPath, parse_scope, scope_in_query, user_in_path};
use crate::address::Address;
use crate::sid::MessageSid;
use crate::store::{
    AddressConsent, ConsentAction, ConsentEntry, ConsentRecord, ConsentScope, ConsentSource,
    ConsentStatement, StatedFacts, StatedTime, StatementOutcome,
};

const FIELDS: [&str; 7] = [
    "sender", "service", "status", "source", "note", "evidence", "at",
];
const MAX_SOURCE_CHARS: usize = 200;
const MAX_NOTE_CHARS: usize = 2000;

/// Records an opt-in or opt-out, and returns the consent.
pub(super) async fn record(
    State(api): State<Arc<Api>>,
    path: AddressInPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiProblem> {
    let user = user_in_path(path)?;
    let mut json = JsonBody::read(&api, &headers, body, &FIELDS).await?;
    let (sender, service) = (json.take_text("sender")?, json.take_text("service")?);
    let scope = parse_scope(&user, sender.as_deref(), service.as_deref())?;
    let Some(scope) = scope else {
        return Err(ApiProblem::rejected(
            "missing_sender",
            "the request names neither sender nor service",
            "set sender to one of your senders, or service to a Messaging Service",
        ));
    };
    if !api.parts.senders.may_have(&scope) {
        return Err(unknown_sender(false));
    }
    let statement = read_statement(&mut json, &user, scope.clone(), api.now())?;
    let outcome = api.parts.store.state_consent(statement).await?;
    if let StatementOutcome::Superseded(at) = outcome {
        return Err(ApiProblem::rejected(
            "newer_consent",
            format!("the user decided otherwise later, at {at:.0}"),
            "leave `at` out if the user has changed their mind since",
        ));
    }
    Ok(json_response(&consent_of(&api, &user, Some(&scope)).await?))
}

/// Returns the consent of a user: in one scope, or the latest of all with a list of all.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    path: AddressInPath,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    let user = user_in_path(path)?;
    let (sender, service) = scope_in_query(&uri)?;
    let scope = parse_scope(&user, sender.as_deref(), service.as_deref())?;
    Ok(json_response(
        &consent_of(&api, &user, scope.as_ref()).await?,
    ))
}

fn read_statement(
    json: &mut JsonBody,
    user: &Address,
    scope: ConsentScope,
    now: Timestamp,
) -> Result<ConsentStatement, ApiProblem> {
    let action = match json.take_text("status")?.as_deref() {
        Some("opted_in") => ConsentAction::OptIn,
        Some("opted_out") => ConsentAction::OptOut,
        _ => return Err(invalid_field("status", "opted_in or opted_out")),
    };
    let origin = json.take_note("source", MAX_SOURCE_CHARS)?;
    let note = json.take_note("note", MAX_NOTE_CHARS)?;
    let proof = json.take_note("evidence", MAX_NOTE_CHARS)?;
    let given = match json.take_text("at")? {
        None => None,
        Some(text) => {
            let at: Timestamp = text.trim().parse().map_err(|_| {
                invalid_field("at", "a time in RFC 3339, such as 2026-12-24T18:00:00Z")
            })?;
            if at > now {
                return Err(ApiProblem::rejected(
                    "time_in_future",
                    "the time in `at` has not come yet",
                    "leave `at` out for now, or set the time when the user agreed or refused",
                ));
            }
            Some(at)
        }
    };
    let message: Option<MessageSid> = proof.as_deref().and_then(|text| text.trim().parse().ok());
    Ok(ConsentStatement {
        record: ConsentRecord {
            scope,
            user: user.clone(),
            action,
            source: ConsentSource::Api,
            evidence: message,
            note,
            at: given.unwrap_or(now),
        },
        stated: StatedFacts {
            origin,
            proof: proof.filter(|_| message.is_none()),
        },
        time: match given {
            Some(_) => StatedTime::Given,
            None => StatedTime::Now,
        },
        dry_run: false,
    })
}

/// Returns the consent of a user as JSON.
///
/// # Errors
/// [`ApiProblem`] (404) if none is recorded.
async fn consent_of(
    api: &Api,
    user: &Address,
    scope: Option<&ConsentScope>,
) -> Result<Value, ApiProblem> {
    let store = &api.parts.store;
    let consents = store.consents(user).await?;
    let changes = store.user(user, None).await?.changes;
    let wanted = consents
        .iter()
        .filter(|consent| scope.is_none_or(|scope| consent.scope == *scope));
    let mut found: Vec<_> = wanted
        .map(|consent| {
            let entry = entry_of(consent, &changes);
            (entry.map(|entry| entry.id), describe(user, consent, entry))
        })
        .collect();
    // The latest change first.
    found.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
    let all: Vec<Value> = found.into_iter().map(|(_, consent)| consent).collect();
    let Some(mut latest) = all.first().cloned() else {
        return Err(ApiProblem::new(
            StatusCode::NOT_FOUND,
            "no_consent",
            "no opt-in or opt-out of this user is recorded",
            "record one with PUT",
        ));
    };
    if scope.is_none() {
        latest["consents"] = Value::Array(all);
    }
    Ok(latest)
}

/// Returns the entry of the ledger that a consent follows from.
fn entry_of<'a>(consent: &AddressConsent, changes: &'a [ConsentEntry]) -> Option<&'a ConsentEntry> {
    let action = match (&consent.opt_out, consent.opted_in) {
        (Some(_), _) => ConsentAction::OptOut,
        (None, Some(_)) => ConsentAction::OptIn,
        (None, None) => ConsentAction::Resume,
    };
    changes
        .iter()
        .rev()
        .find(|entry| entry.record.scope == consent.scope && entry.record.action == action)
}

fn describe(user: &Address, consent: &AddressConsent, entry: Option<&ConsentEntry>) -> Value {
    let (status, at) = match (&consent.opt_out, consent.opted_in) {
        (Some(opt_out), _) => (Some("opted_out"), Some(opt_out.at)),
        (None, Some(at)) => (Some("opted_in"), Some(at)),
        // The user has taken an opt-out back, and has never opted in.
        (None, None) => (None, None),
    };
    let at = entry.map(|entry| entry.record.at).or(at);
    let record = entry.map(|entry| &entry.record);
    let stated = entry.map(|entry| &entry.stated);
    let source = stated
        .and_then(|stated| stated.origin.clone())
        .or_else(|| record.map(|record| record.source.as_str().to_owned()));
    let evidence = record
        .and_then(|record| record.evidence.map(|sid| sid.to_string()))
        .or_else(|| stated.and_then(|stated| stated.proof.clone()));
    let mut json = json!({
        "address": user.as_str(),
        "status": status,
        "source": source,
        "note": record.and_then(|record| record.note.clone()),
        "evidence": evidence,
        "at": at.map(|at| at.to_string()),
    });
    let name = match consent.scope {
        ConsentScope::Service(_) => "service",
        _ => "sender",
    };
    json[name] = json!(consent.scope.as_str());
    json
}

fn json_response(json: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{json}\n")).into_response()
}
