//! Status changes of outbound messages, and signed status callbacks. The initial status causes no callback.
//!
//! Source: twilio.com/docs/messaging/guides/track-outbound-message-status.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::AUTHORIZATION;

use super::account::random_uuid;
use super::engine::Engine;
use super::http_client::HttpResponse;
use super::links::{split_userinfo, without_fragment};
use super::overrides::Overrides;
use super::record::{Author, Exchange, ExchangeKind, Record};
use super::response_check::{MAX_RESPONSE_BYTES, status_error_code};
use super::signed_request::SignedRequest;
use super::webhook_calls::{basic_auth, sign_and_send, webhook_headers};
use super::webhook_client::{MAX_HOPS, UnusableResponse, redirect_target};
use super::webhook_params::external_user_id;
use replyhook_core::address::{Address, Channel};
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;
use replyhook_core::message::MessageStatus;

// Long enough to see each status on the page, short enough for tests.
const STATUS_INTERVAL: Duration = Duration::from_millis(60);

/// Moves a message through its statuses in a background task, with a callback for each.
pub(super) fn advance_status(
    engine: &Arc<Engine>,
    sid: String,
    failure: Option<ErrorCode>,
    generation: u64,
) {
    let engine = engine.clone();
    let Some(message) = engine.state().message(&sid).cloned() else {
        return;
    };
    let steps = status_steps(&message, failure);
    // Set a failure before this returns: the response of `POST messages` must not list a failed reply as shown.
    if failure.is_some() {
        set_status(&engine, &sid, &steps[0], failure, generation);
    }
    tokio::spawn(async move {
        let reorder = engine.state().faults.reorder_status;
        let mut delayed_callbacks = Vec::new();
        for status in steps {
            // Real time, not the emulator's clock, which does not advance by itself in tests.
            tokio::time::sleep(STATUS_INTERVAL).await;
            let Some(message) = set_status(&engine, &sid, &status, failure, generation) else {
                return;
            };
            if reorder {
                delayed_callbacks.push((message, status));
            } else {
                send_status_callback(&engine, &message, &status).await;
            }
        }
        // The `reorder_status` fault: all callbacks at the end, last status first.
        for (message, status) in delayed_callbacks.into_iter().rev() {
            send_status_callback(&engine, &message, &status).await;
        }
    });
}

/// Sets a status. Returns `None` if the message was canceled, deleted or reset.
fn set_status(
    engine: &Engine,
    sid: &str,
    status: &MessageStatus,
    failure: Option<ErrorCode>,
    generation: u64,
) -> Option<Record> {
    let now = engine.now();
    let mut state = engine.state();
    if state.generation != generation {
        return None;
    }
    let message = state.message_mut(sid)?;
    if message.status == MessageStatus::Canceled {
        return None;
    }
    // `advance_status` sets a failure twice, and only the first is an event.
    let is_change = message.status != *status;
    message.status = status.clone();
    message.error_code = failure;
    message.updated_at = now;
    if *status == MessageStatus::Sent {
        message.sent_at = Some(now);
    }
    let message = message.clone();
    drop(state);
    if is_change {
        engine.emit_status(&message);
    }
    Some(message)
}

/// Sends a status callback, if there is a URL, with retries as its fragment specifies.
pub(super) async fn send_status_callback(
    engine: &Engine,
    message: &Record,
    status: &MessageStatus,
) {
    let url = message.status_callback.as_ref();
    let url = url.or(engine.options.status_callback.as_ref());
    // Twilio's own confirmations of STOP, START and HELP have no callbacks.
    let Some(url) = url.filter(|_| message.author != Author::Twilio) else {
        return;
    };
    let (overrides, _) = Overrides::parse(url);
    let form = status_form(engine, message, status);
    let token = random_uuid();
    let mut retry_count = 0;
    while let Err(failure) = call_status_url(engine, message, url, &form, &token).await {
        if failure.may_retry && retry_count < overrides.retries {
            retry_count += 1;
            continue;
        }
        let detail = format!("status callback for {}", status.as_str());
        let sid = Some(message.sid.as_str());
        engine.add_debugger_entry(failure.code, Some(&detail), sid, Some(url));
        return;
    }
}

/// Sends one status callback, and follows its redirects.
async fn call_status_url(
    engine: &Engine,
    message: &Record,
    url: &str,
    form: &FormParams,
    token: &str,
) -> Result<(), UnusableResponse> {
    let (overrides, _) = Overrides::parse(url);
    let mut url = without_fragment(url);
    let (mut method, mut form) = (Method::POST, form.clone());
    let mut authorization = None;
    let mut redirect_count = 0;
    loop {
        let (plain_url, login) = split_userinfo(&url);
        let mut headers = webhook_headers(&plain_url, token);
        let is_authorized = authorization.is_some();
        headers.extend(authorization.take().map(|login| (AUTHORIZATION, login)));
        let request = SignedRequest {
            url: plain_url,
            signed_url: None,
            method: method.clone(),
            form: form.clone(),
            headers,
        };
        let (exchange, result) = sign_and_send(
            engine,
            ExchangeKind::Status,
            &request,
            overrides.timeouts,
            Duration::ZERO,
        )
        .await;
        let response = result.as_ref().ok();
        let target = response.and_then(|response| redirect_target(&request.url, response));
        let failure = match &result {
            Ok(_) if target.is_some() => {
                (redirect_count + 1 == MAX_HOPS).then_some((ErrorCode(11215), false))
            }
            Ok(response) => status_error_code(response.status)
                .or((response.body.len() > MAX_RESPONSE_BYTES).then_some(ErrorCode(11750)))
                .map(|code| (code, overrides.retries_status(response.status))),
            Err(error) => Some((error.code, overrides.retries_failure(error))),
        };
        engine.record_exchange(Exchange {
            message_sid: Some(message.sid.clone()),
            user: Some(message.user.clone()),
            error_code: failure.map(|(code, _)| code.0),
            ..exchange
        });
        // Send the password once, when the server asks for it. This repetition is not a retry.
        if !is_authorized && response.is_some_and(HttpResponse::is_login_challenge) {
            authorization = login.and_then(|login| basic_auth(&login));
            if authorization.is_some() {
                continue;
            }
        }
        if let Some((code, may_retry)) = failure {
            return Err(UnusableResponse { code, may_retry });
        }
        let Some(target) = target else { return Ok(()) };
        url = without_fragment(&target);
        redirect_count += 1;
        // 307 keeps method and parameters.
        if response.is_some_and(|response| response.status != 307) {
            method = Method::GET;
            form = FormParams::default();
        }
    }
}

fn status_form(engine: &Engine, message: &Record, status: &MessageStatus) -> FormParams {
    let status_text = status.as_str();
    let mut pairs = vec![
        ("SmsSid", message.sid.clone()),
        ("SmsStatus", status_text.to_owned()),
        ("MessageStatus", status_text.to_owned()),
        ("MessageSid", message.sid.clone()),
        ("To", message.user.clone()),
        ("From", message.sender.clone()),
        ("AccountSid", engine.account.sid.to_string()),
        ("ApiVersion", "2010-04-01".to_owned()),
    ];
    if let Some(service) = &message.service {
        pairs.push(("MessagingServiceSid", service.clone()));
    }
    if status.is_failure()
        && let Some(code) = message.error_code
    {
        pairs.push(("ErrorCode", code.to_string()));
        if let Some(meaning) = code.meaning() {
            pairs.push(("ErrorMessage", meaning.to_owned()));
        }
    }
    let user = Address::parse(message.user.as_str());
    if *user.channel() == Channel::Sms {
        if matches!(
            status,
            MessageStatus::Delivered | MessageStatus::Undelivered
        ) {
            let done = message.updated_at.strftime("%y%m%d%H%M").to_string();
            pairs.push(("RawDlrDoneDate", done));
        }
    } else {
        pairs.push(("ChannelPrefix", user.channel().as_str().to_owned()));
        pairs.push(("ChannelInstallSid", format!("XE{}", "0".repeat(31) + "1")));
        pairs.push(("ChannelToAddress", masked(user.id())));
        match status {
            MessageStatus::Sent => {
                pairs.push(("StructuredMessage", "false".to_owned()));
            }
            MessageStatus::Delivered | MessageStatus::Read | MessageStatus::Undelivered => {
                pairs.push(("EventType", status_text.to_ascii_uppercase()));
                if *user.channel() == Channel::WhatsApp {
                    pairs.push(("ExternalUserId", external_user_id(&user)));
                }
            }
            _ => {}
        }
    }
    pairs.into_iter().collect()
}

/// Returns the statuses that follow the initial one.
fn status_steps(message: &Record, failure: Option<ErrorCode>) -> Vec<MessageStatus> {
    if failure.is_some() {
        return vec![MessageStatus::Failed];
    }
    let mut steps = Vec::new();
    // With a Messaging Service, `accepted` comes before `queued`.
    if message.status == MessageStatus::Accepted {
        steps.push(MessageStatus::Queued);
    }
    steps.extend([MessageStatus::Sent, MessageStatus::Delivered]);
    let user = Address::parse(message.user.as_str());
    if matches!(user.channel(), Channel::WhatsApp | Channel::Rcs) {
        steps.push(MessageStatus::Read);
    }
    steps
}

/// Masks the last four characters, as in `+1555000XXXX`. Real status callbacks contain this form.
pub(super) fn masked(id: &str) -> String {
    let visible = id.chars().count().saturating_sub(4);
    let start: String = id.chars().take(visible).collect();
    format!("{start}XXXX")
}
