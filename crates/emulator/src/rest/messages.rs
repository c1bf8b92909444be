//! `Messages` resource with its `Media` and `Feedback` subresources.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{ApiCall, is_sid};
use super::content_message::content_for;
use super::page_range::page_range;
use super::response::{RestResponse, TwilioError, no_content, not_allowed, ok};
use crate::engine::Engine;
use crate::faults::Faults;
use crate::links::is_http_url;
use crate::media;
use crate::record::{Author, Direction, MediaRecord, Record};
use crate::send::{OutboundDraft, is_valid_recipient, max_files, queue_api_message};
use crate::shared_location::SharedLocation;
use crate::state::block_key;
use crate::status::{masked, send_status_callback};
use replyhook_core::address::{Address, Channel};
use replyhook_core::error_code::ErrorCode;
use replyhook_core::form::FormParams;
use replyhook_core::message::MessageStatus;
use replyhook_core::reply::segments;

// Twilio's default and maximum.
const PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 1000;
/// Length of a date such as `2026-11-22`.
const DATE_LENGTH: usize = 10;

/// Handles `POST Messages.json`.
pub(super) fn create(engine: &Arc<Engine>, call: &ApiCall) -> RestResponse {
    let draft = parse_draft(engine, &call.form)?;
    let message = queue_api_message(engine, draft);
    let mut resource = message_json(engine, &message);
    // The sender is already chosen here, but Twilio's response does not have it yet: a Messaging Service chooses later.
    if message.status == MessageStatus::Accepted && call.form.get("From").is_none() {
        resource["from"] = Value::Null;
    }
    ok(201, &resource)
}

fn parse_draft(engine: &Engine, form: &FormParams) -> Result<OutboundDraft, TwilioError> {
    let param = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let to = param("To")
        .ok_or_else(|| TwilioError::bad_request(21604, "A 'To' phone number is required."))?;
    // A business-scoped user ID as `To` means the phone number that this user wrote from.
    let phone = engine.state().find_user_by_external_id(to);
    let user = Address::parse(phone.as_deref().unwrap_or(to));
    if !is_valid_recipient(&user) {
        return Err(TwilioError::bad_request(
            21211,
            format!("Invalid 'To' Phone Number: {}", masked(to)),
        ));
    }
    let service = param("MessagingServiceSid");
    if service.is_some_and(|service| !is_sid(service, "MG")) {
        return Err(TwilioError::bad_request(
            21705,
            "The Messaging Service Sid is invalid",
        ));
    }
    let from = choose_sender(engine, &user, param("From"), service.is_some())?;
    let text = validate_content(form, &user)?;
    let send_at = parse_send_at(engine, form, service)?;
    if param("StatusCallback").is_some_and(|url| !is_http_url(url) || has_underscore(url)) {
        return Err(TwilioError::bad_request(
            21609,
            "Invalid 'StatusCallback' URL",
        ));
    }
    let validity = param("ValidityPeriod").map(str::parse::<u32>);
    if validity.is_some_and(|seconds| !seconds.is_ok_and(|s| (1..=36_000).contains(&s))) {
        return Err(TwilioError::bad_request(21624, "Invalid ValidityPeriod"));
    }
    let key = block_key(&from, user.as_str());
    if engine.state().blocked.contains(&key) {
        return Err(TwilioError::bad_request(
            21610,
            "Attempt to send to unsubscribed recipient",
        ));
    }
    let variables = param("ContentVariables");
    let content = match param("ContentSid") {
        Some(sid) => Some(content_for(engine, sid, variables, user.channel())?),
        None if variables.is_some() => {
            let message = "ContentSid Required: ContentVariables is given without it";
            return Err(TwilioError::bad_request(21654, message));
        }
        None => None,
    };
    // With content, Twilio ignores `Body` and `MediaUrl`.
    let (body, media, location) = match &content {
        Some((content, _)) => (
            content.text(),
            content.media_urls(),
            content.location.clone(),
        ),
        None => (text, media_urls(form), persistent_location(form)),
    };
    let status = match (send_at, service, param("From")) {
        (Some(_), ..) => MessageStatus::Scheduled,
        (None, Some(_), None) => MessageStatus::Accepted,
        _ => MessageStatus::Queued,
    };
    Ok(OutboundDraft {
        direction: Direction::Api,
        author: Author::Bot,
        sender: from,
        user: user.as_str().to_owned(),
        body,
        media,
        location,
        content,
        service: service.map(str::to_owned),
        status_callback: param("StatusCallback").map(str::to_owned),
        status,
        send_at,
        in_reply_to: None,
    })
}

/// Returns the location of a `PersistentAction`.
fn persistent_location(form: &FormParams) -> Option<SharedLocation> {
    form.iter()
        .filter(|(name, _)| *name == "PersistentAction")
        .find_map(|(_, action)| parse_location(action))
}

fn media_urls(form: &FormParams) -> Vec<String> {
    form.iter()
        .filter(|(name, value)| *name == "MediaUrl" && !value.is_empty())
        .map(|(_, url)| url.to_owned())
        .collect()
}

/// Returns the sender: `From`, or a sender of the Messaging Service on the user's channel.
fn choose_sender(
    engine: &Engine,
    user: &Address,
    from: Option<&str>,
    has_service: bool,
) -> Result<String, TwilioError> {
    let senders = engine.senders();
    let Some(from) = from else {
        if !has_service {
            let message = "A 'From' phone number or MessagingServiceSid is required.";
            return Err(TwilioError::bad_request(21603, message));
        }
        // Prefer the sender of the latest message of this user, like a service's sticky sender.
        let latest = engine
            .state()
            .latest_sender(user.as_str())
            .map(str::to_owned);
        let on_channel =
            |sender: &String| Address::parse(sender.as_str()).channel() == user.channel();
        let chosen = latest.filter(&on_channel);
        let chosen = chosen.or_else(|| senders.into_iter().find(on_channel));
        return chosen.ok_or_else(|| {
            TwilioError::bad_request(
                21703,
                "The Messaging Service has no sender for this channel",
            )
        });
    };
    if Address::parse(from).channel() != user.channel() {
        let message = "'From' and 'To' are not on the same channel";
        return Err(TwilioError::bad_request(21910, message));
    }
    if from == user.as_str() {
        return Err(TwilioError::bad_request(
            63031,
            "'From' and 'To' are the same",
        ));
    }
    if senders.iter().any(|sender| sender == from) {
        return Ok(from.to_owned());
    }
    Err(if *user.channel() == Channel::Sms {
        let message = "The 'From' phone number is not one of this account";
        TwilioError::bad_request(21606, message)
    } else {
        let message = "Twilio could not find a Channel with the specified From address";
        TwilioError::bad_request(63007, message)
    })
}

/// Validates `Body`, `MediaUrl` and `ContentSid`, and returns the text.
fn validate_content(form: &FormParams, user: &Address) -> Result<String, TwilioError> {
    let param = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let media = media_urls(form);
    if param("Body").is_none() && media.is_empty() && param("ContentSid").is_none() {
        let message = "Message body, media URL or content SID must be specified.";
        return Err(TwilioError::bad_request(21619, message));
    }
    if param("ContentSid").is_some_and(|sid| !is_sid(sid, "HX")) {
        return Err(TwilioError::bad_request(21655, "The ContentSid is Invalid"));
    }
    let body = param("Body").unwrap_or_default();
    if body.encode_utf16().count() > 1600 {
        let message = "The concatenated message body exceeds the 1600 character limit";
        return Err(TwilioError::bad_request(21617, message));
    }
    if media.len() > max_files(user) {
        return Err(TwilioError::bad_request(
            21623,
            "Number of media files exceeds allowed limit",
        ));
    }
    if media.iter().any(|url| !is_http_url(url)) {
        return Err(TwilioError::bad_request(21620, "Invalid media URL(s)"));
    }
    Ok(body.to_owned())
}

/// Returns the time of a scheduled message.
fn parse_send_at(
    engine: &Engine,
    form: &FormParams,
    service: Option<&str>,
) -> Result<Option<Timestamp>, TwilioError> {
    let Some(at) = form.get("SendAt").filter(|at| !at.is_empty()) else {
        return Ok(None);
    };
    if service.is_none() || form.get("ScheduleType") != Some("fixed") {
        let message = "SendAt needs ScheduleType=fixed and a MessagingServiceSid";
        return Err(TwilioError::bad_request(35118, message));
    }
    let at: Timestamp = at
        .parse()
        .map_err(|_| TwilioError::bad_request(35111, "SendAt is not an ISO 8601 time"))?;
    let ahead = at.duration_since(engine.now()).as_secs();
    if !(5 * 60..=35 * 24 * 3600).contains(&ahead) {
        let message = "SendAt must be 5 minutes to 35 days ahead";
        return Err(TwilioError::bad_request(35114, message));
    }
    Ok(Some(at))
}

/// Parses a location in a `PersistentAction`, such as `geo:37.78,-122.39|Label`.
fn parse_location(action: &str) -> Option<SharedLocation> {
    let rest = action.strip_prefix("geo:")?;
    let (point, label) = rest.split_once('|').unwrap_or((rest, ""));
    let (latitude, longitude) = point.split_once(',')?;
    Some(SharedLocation {
        latitude: latitude.trim().parse().ok()?,
        longitude: longitude.trim().parse().ok()?,
        address: None,
        label: Some(label.to_owned()).filter(|label| !label.is_empty()),
    })
}

// Twilio rejects host names with underscores (21609).
fn has_underscore(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    url.is_some_and(|url| url.host_str().is_some_and(|host| host.contains('_')))
}

/// Handles `GET Messages.json`: newest first.
pub(super) fn list(engine: &Engine, call: &ApiCall) -> RestResponse {
    let query = &call.query;
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
    let size = number("PageSize")
        .unwrap_or(PAGE_SIZE)
        .clamp(1, MAX_PAGE_SIZE);
    let page = number("Page").unwrap_or_default();
    let state = engine.state();
    let matching: Vec<&Record> = state
        .messages
        .iter()
        .rev()
        .filter(|message| matches_query(message, query))
        .collect();
    // The newest message is first.
    let range = page_range(&matching, query, page, size, |message, position| {
        position.cmp(&message.position)
    });
    let is_last_page = range.end == matching.len();
    let records = &matching[range];
    let page_messages: Vec<Value> = records
        .iter()
        .map(|message| message_json(engine, message))
        .collect();
    let account = engine.account.sid;
    let page_params: FormParams = query
        .iter()
        .filter(|(name, _)| !["PageSize", "Page", "PageToken"].contains(name))
        .chain([("PageSize", size.to_string().as_str())])
        .collect();
    let uri = format!(
        "/2010-04-01/Accounts/{account}/Messages.json?{}",
        page_params.encode()
    );
    let next_page_uri = records.last().filter(|_| !is_last_page).map(|last| {
        format!(
            "{uri}&Page={}&PageToken=PA{}",
            page.saturating_add(1),
            last.position
        )
    });
    let previous_page_uri = page.checked_sub(1).map(|page| match records.first() {
        Some(first) => format!("{uri}&Page={page}&PageToken=PB{}", first.position),
        None => format!("{uri}&Page={page}"),
    });
    let start = page.saturating_mul(size);
    ok(
        200,
        &json!({
            "end": start.saturating_add(page_messages.len()).saturating_sub(1),
            "first_page_uri": format!("{uri}&Page=0"),
            "messages": page_messages,
            "next_page_uri": next_page_uri,
            "page": page,
            "page_size": size,
            "previous_page_uri": previous_page_uri,
            "start": start,
            "uri": format!("{uri}&Page={page}"),
        }),
    )
}

fn matches_query(message: &Record, query: &FormParams) -> bool {
    let (from, to) = from_and_to(message);
    let matches_param =
        |name: &str, value: &str| query.get(name).is_none_or(|expected| expected == value);
    let sent = message.sent_at.unwrap_or(message.at);
    let sent = sent.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    // Texts in this fixed format compare like the times.
    let matches_date = |name: &str, compare: fn(&str, &str) -> bool| {
        query.get(name).is_none_or(|limit| {
            // A date compares with the day only. So does `DateSent` without `<` or `>`, even with a time: Twilio's SDKs
            // send a day as its midnight.
            let length = if limit.len() <= DATE_LENGTH || name == "DateSent" {
                DATE_LENGTH
            } else {
                sent.len()
            };
            compare(&sent[..length], limit.get(..length).unwrap_or(limit))
        })
    };
    matches_param("From", from)
        && matches_param("To", to)
        && matches_date("DateSent", |sent, limit| sent == limit)
        && matches_date("DateSent>", |sent, limit| sent >= limit)
        && matches_date("DateSent<", |sent, limit| sent <= limit)
}

/// Returns `From` and `To`.
fn from_and_to(message: &Record) -> (&str, &str) {
    if message.direction.is_in() {
        (&message.user, &message.sender)
    } else {
        (&message.sender, &message.user)
    }
}

/// Handles `Messages/{sid}.json`: fetch, cancel, redact, delete.
pub(super) fn item(engine: &Arc<Engine>, call: &ApiCall, sid: &str) -> RestResponse {
    let found = engine.state().message(sid).cloned();
    let message = found.ok_or_else(|| TwilioError::not_found(&call.path))?;
    match call.method {
        Method::GET => ok(200, &message_json(engine, &message)),
        Method::DELETE => {
            engine.state().messages.retain(|message| message.sid != sid);
            no_content()
        }
        Method::POST => update(engine, call, sid),
        _ => Err(not_allowed()),
    }
}

fn update(engine: &Arc<Engine>, call: &ApiCall, sid: &str) -> RestResponse {
    let now = engine.now();
    match (call.form.get("Status"), call.form.get("Body")) {
        (Some("canceled"), _) => {
            let canceled = engine.state().cancel_message(sid, now);
            let Some(message) = canceled else {
                let message = "Cannot cancel this message because it is not cancelable.";
                return Err(TwilioError::bad_request(30409, message));
            };
            let engine = engine.clone();
            engine.emit_status(&message);
            // In the background: the response does not wait for the status callback.
            tokio::spawn(async move {
                send_status_callback(&engine, &message, &MessageStatus::Canceled).await;
            });
        }
        // Twilio redacts a message when its body is set to an empty text.
        (_, Some("")) => {
            if let Some(message) = engine.state().message_mut(sid) {
                message.body.clear();
                message.content = None;
                message.updated_at = now;
            }
        }
        _ => {
            let message = "Only Status=canceled and an empty Body can be set.";
            return Err(TwilioError::bad_request(20001, message));
        }
    }
    // Read again, so that the response shows the change.
    let message = engine.state().message(sid).cloned();
    let message = message.ok_or_else(|| TwilioError::not_found(&call.path))?;
    ok(200, &message_json(engine, &message))
}

/// Handles `Feedback.json`. The outcome is acknowledged, but not stored.
pub(super) fn feedback(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    if call.method != Method::POST {
        return Err(not_allowed());
    }
    let exists = engine.state().message(sid).is_some();
    let not_found = TwilioError::not_found(&call.path);
    let outcome = call.form.get("Outcome").unwrap_or("confirmed");
    let now = rfc2822(engine.now());
    if !exists {
        return Err(not_found);
    }
    ok(
        201,
        &json!({
            "account_sid": engine.account.sid.as_str(), "message_sid": sid, "outcome": outcome,
            "date_created": now, "date_updated": now, "uri": format!("/{}", call.path),
        }),
    )
}

/// Handles `Media.json`: the list of a message's media.
pub(super) fn media_list(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    let found = engine.state().message(sid).cloned();
    let message = found.ok_or_else(|| TwilioError::not_found(&call.path))?;
    let files: Vec<Value> = message
        .media
        .iter()
        .map(|file| media_json(engine, &message.sid, file))
        .collect();
    let uri = format!("/{}?PageSize=50&Page=0", call.path);
    ok(
        200,
        &json!({
            "end": files.len().saturating_sub(1),
            "first_page_uri": uri,
            "media_list": files,
            "next_page_uri": null,
            "page": 0,
            "page_size": PAGE_SIZE,
            "previous_page_uri": null,
            "start": 0,
            "uri": uri,
        }),
    )
}

/// Handles `Media/{sid}` (a redirect to the content) and `Media/{sid}.json` (the resource).
pub(super) fn media_file(engine: &Engine, call: &ApiCall, sid: &str, file: &str) -> RestResponse {
    let not_found = || TwilioError::not_found(&call.path);
    let message = engine.state().message(sid).cloned().ok_or_else(not_found)?;
    let name = file.strip_suffix(".json");
    let (name, is_description) = (name.unwrap_or(file), name.is_some());
    let found = message.media.iter().find(|media| media.sid == name);
    let media = found.ok_or_else(not_found)?;
    match (call.method.clone(), is_description) {
        (Method::GET | Method::HEAD, true) => ok(200, &media_json(engine, sid, media)),
        (Method::GET | Method::HEAD, false) if media.has_content => media_redirect(engine, name),
        (Method::GET | Method::HEAD, false) => Err(not_found()),
        (Method::DELETE, _) => {
            let mut state = engine.state();
            state.delete_media(name);
            if let Some(message) = state.message_mut(sid) {
                message.media.retain(|media| media.sid != name);
            }
            no_content()
        }
        _ => Err(not_allowed()),
    }
}

/// Redirects to a media file, or applies the `media_404` fault.
fn media_redirect(engine: &Engine, file: &str) -> RestResponse {
    if engine.change_faults(Faults::take_media_fault) {
        return Err(TwilioError::not_found(file));
    }
    Ok(media::redirect(engine, file))
}

fn media_json(engine: &Engine, message: &str, file: &MediaRecord) -> Value {
    let account = engine.account.sid;
    json!({
        "account_sid": account.as_str(),
        "content_type": file.content_type,
        "date_created": rfc2822(file.at),
        "date_updated": rfc2822(file.at),
        "parent_sid": message,
        "sid": file.sid,
        "uri": format!("/2010-04-01/Accounts/{account}/Messages/{message}/Media/{}.json", file.sid),
    })
}

/// Returns a Message resource with exactly the fields of Twilio's schema.
pub(super) fn message_json(engine: &Engine, message: &Record) -> Value {
    let account = engine.account.sid;
    let (from, to) = from_and_to(message);
    let uri = format!("/2010-04-01/Accounts/{account}/Messages/{}", message.sid);
    let is_sms = *Address::parse(message.user.as_str()).channel() == Channel::Sms;
    let count = match (is_sms, &message.status) {
        // Not yet split into segments.
        (_, MessageStatus::Accepted | MessageStatus::Scheduled) => 0,
        (true, _) => segments(&message.body).count,
        (false, _) => 1,
    };
    json!({
        "account_sid": account.as_str(),
        "api_version": "2010-04-01",
        "body": message.body,
        "date_created": rfc2822(message.at),
        "date_sent": message.sent_at.map(rfc2822),
        "date_updated": rfc2822(message.updated_at),
        "direction": message.direction.rest_name(),
        "error_code": message.error_code.map(|code| code.0),
        "error_message": message.error_code.and_then(ErrorCode::meaning),
        "from": from,
        "messaging_service_sid": message.service,
        "num_media": message.media.len().to_string(),
        "num_segments": count.to_string(),
        "price": null,
        "price_unit": "USD",
        "sid": message.sid,
        "status": message.status.as_str(),
        "subresource_uris": {
            "media": format!("{uri}/Media.json"), "feedback": format!("{uri}/Feedback.json"),
        },
        "to": to,
        "uri": format!("{uri}.json"),
    })
}

/// Formats a time as RFC 2822, like the 2010-04-01 API.
fn rfc2822(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}
