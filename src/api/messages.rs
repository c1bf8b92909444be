//! `POST /v1/messages` and `GET /v1/messages/{id}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::json_body::{JsonBody, invalid_field};
use super::new_message::read_content;
use super::problem::{ApiProblem, message_path};
use super::senders::unknown_sender;
use super::state::Api;
use super::user_address::{invalid_address, parse_address, parse_service, parse_user};
use crate::error_code::ErrorCode;
use crate::forward::MESSAGE_KEYS;
use crate::outbound::{OutboundClient, SendError, SendErrorKind, SendReceipt};
use crate::sid::AccountSid;
use crate::signature::AuthTokenKind;
use crate::store::{ConsentScope, OutboundState};
use crate::twilio::NewMessage;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Fields of a request, in addition to those of the content.
const FIELDS: [&str; 5] = [
    "to",
    "from",
    "messaging_service_sid",
    "account_sid",
    "send_at",
];

/// Queues a message.
// The response follows the commit of the transaction that stores message and key: after a 202, a crash loses nothing.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiProblem> {
    let key = idempotency_key(&headers)?;
    let known = [&FIELDS[..], &MESSAGE_KEYS].concat();
    let mut json = JsonBody::read(&api, &headers, body, &known).await?;
    let (message, client) = read_message(&api, &mut json).await?;
    let sent = match &key {
        Some(key) => client.send_once(key, &message).await,
        None => client.send(&message).await,
    };
    let receipt = sent?;
    if receipt.differs {
        return Err(ApiProblem::new(
            StatusCode::CONFLICT,
            "key_in_use",
            "another message has this Idempotency-Key",
            "use a new key for another message; GET the first one by its id",
        )
        .with_message(receipt.id));
    }
    let id = receipt.id;
    let state = shown_state(&receipt).unwrap_or("deleted");
    let body = format!("{}\n", json!({"id": id, "state": state}));
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (LOCATION, message_path(id)),
    ];
    Ok((StatusCode::ACCEPTED, headers, body).into_response())
}

/// Returns the state of a message.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Response, ApiProblem> {
    let unknown = || {
        ApiProblem::new(
            StatusCode::NOT_FOUND,
            "unknown_message",
            "no message has this id",
            "use the id of a response of POST /v1/messages; messages are deleted after store.retention_days",
        )
    };
    let id: i64 = id.parse().map_err(|_| unknown())?;
    let receipt = api.parts.outbound.receipt(id).await?.ok_or_else(unknown)?;
    let meaning = receipt
        .error_code
        .map(|code| ErrorCode(code).meaning_or_link());
    let body = json!({
        "id": id,
        "state": shown_state(&receipt),
        "sid": receipt.sid.map(|sid| sid.to_string()),
        "status": receipt.status,
        "error_code": receipt.error_code,
        "error_meaning": meaning,
    });
    Ok(([(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response())
}

/// Returns the state of a message, as `messages list --outbound` shows it; `None` once it is deleted.
fn shown_state(receipt: &SendReceipt) -> Option<&'static str> {
    match (receipt.state?, receipt.status.as_deref()) {
        // Twilio accepted the message and could not deliver it.
        (OutboundState::Sent, Some("failed" | "undelivered")) => {
            Some(OutboundState::Failed.as_str())
        }
        (state, _) => Some(state.as_str()),
    }
}

/// Reads the idempotency key, which may be missing.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiProblem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(key) if more.is_none() && !key.trim().is_empty() => Ok(Some(key.trim().to_owned())),
        _ => Err(ApiProblem::bad_request(
            "invalid_key",
            "the header Idempotency-Key is empty, doubled or not UTF-8",
            "send one key that names the message, such as order-42-ready, or none",
        )),
    }
}

impl Api {
    /// Returns the account of a sender or service, if messages came to it.
    ///
    /// # Errors
    /// [`ApiProblem`] with the reason `unknown_sender`, if the API may not send from it.
    async fn account_of_sender(
        &self,
        scope: &ConsentScope,
    ) -> Result<Option<AccountSid>, ApiProblem> {
        let senders = &self.parts.senders;
        let account = self.parts.store.account_of_sender(scope).await?;
        if !senders.may_have(scope) || (senders.0.is_empty() && account.is_none()) {
            return Err(unknown_sender(senders.0.is_empty()));
        }
        Ok(account)
    }
}

/// Reads the message, and the client of the account that sends it.
async fn read_message(
    api: &Api,
    json: &mut JsonBody,
) -> Result<(NewMessage, OutboundClient), ApiProblem> {
    let Some(to) = json.take_text("to")? else {
        return Err(invalid_address("the recipient (to) is missing"));
    };
    let to = parse_user(&to)?;
    let from = json.take_text("from")?.map(|from| parse_address(&from));
    let from = from.transpose()?;
    let service = json.take_text("messaging_service_sid")?;
    let service = service.map(|sid| parse_service(&sid)).transpose()?;
    let account = json.take_text("account_sid")?;
    let send_at = json.take_text("send_at")?;
    let mut message = read_content(api, &to, json)?;
    // A service that may be used covers its senders: Twilio rejects a sender that is not in it.
    let scope = match (&service, &from) {
        (Some(service), _) => ConsentScope::Service(*service),
        (None, Some(from)) => ConsentScope::Sender(from.clone()),
        (None, None) => {
            return Err(ApiProblem::rejected(
                "missing_sender",
                "the request names no sender",
                "set from, messaging_service_sid, or both",
            ));
        }
    };
    let known_account = api.account_of_sender(&scope).await?;
    if let Some(from) = from {
        message = message.from(from);
    }
    if let Some(service) = service {
        message = message.service(service);
    }
    if let Some(text) = send_at {
        let at: jiff::Timestamp = text.trim().parse().map_err(|_| {
            invalid_field(
                "send_at",
                "a time in RFC 3339, such as 2026-12-24T18:00:00Z",
            )
        })?;
        if at <= api.now() {
            return Err(ApiProblem::rejected(
                "time_in_past",
                "the time in send_at has passed",
                "leave send_at out to send now, or set a time 5 minutes to 35 days ahead",
            ));
        }
        message = message.send_at(at);
    }
    let client = client_of(api, account.as_deref(), known_account)?;
    Ok((message, client))
}

/// Returns the client of the account that the request names, or else of the main account, or else of the account for which
/// messages came to the sender.
fn client_of(
    api: &Api,
    named: Option<&str>,
    known: Option<AccountSid>,
) -> Result<OutboundClient, ApiProblem> {
    let (main, keyring) = (api.parts.outbound.account(), api.parts.keyring.load());
    let account = match named {
        Some(text) => {
            let account: Option<AccountSid> = text.trim().parse().ok();
            let is_configured = |account: &AccountSid| {
                main == Some(*account) || keyring.accounts().contains(account)
            };
            Some(account.filter(is_configured).ok_or_else(|| {
                ApiProblem::rejected(
                    "unknown_account",
                    "account_sid is not an account of this server",
                    "leave account_sid out, or add the account to twilio.accounts in the settings",
                )
            })?)
        }
        None => main.or(known),
    };
    Ok(match account {
        Some(account) if main != Some(account) => {
            let credentials = keyring.credentials(account, AuthTokenKind::Primary);
            api.parts.outbound.for_account(account, credentials)
        }
        _ => api.parts.outbound.clone(),
    })
}

impl From<SendError> for ApiProblem {
    fn from(error: SendError) -> Self {
        let (reason, remedy) = match error.kind() {
            SendErrorKind::OptedOut => (
                "opted_out",
                "do not send to this user; an opt-in recorded later ends the opt-out",
            ),
            SendErrorKind::WindowClosed => (
                "window_closed",
                "send an approved template (content), or wait until the user writes",
            ),
            SendErrorKind::NoOptIn => (
                "no_opt_in",
                "record where the user agreed with PUT /v1/consents/{address}",
            ),
            SendErrorKind::NotApproved => (
                "template_not_approved",
                "use an approved template, or wait for WhatsApp's approval",
            ),
            SendErrorKind::NoSuchTemplate => (
                "no_such_template",
                "check the SID and the account; replyhook templates list shows the templates",
            ),
            SendErrorKind::WrongVariables => (
                "wrong_variables",
                "give each variable of the template a value, and no others",
            ),
            SendErrorKind::NoAccount => (
                "no_account",
                "set TWILIO_ACCOUNT_SID for the server, or account_sid in the request",
            ),
            SendErrorKind::Store => {
                tracing::warn!(%error, "a message of the API was not queued, because the store is unavailable");
                return Self::unavailable("store_unavailable", "the store is unavailable");
            }
            SendErrorKind::Invalid => ("invalid_message", "correct the message"),
        };
        Self::rejected(reason, error.to_string(), remedy)
    }
}
