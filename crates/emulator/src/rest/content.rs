//! `Content` resource: templates and their approval.
//!
//! A submitted template is approved immediately, or rejected for what `replyhook templates lint` finds; the fault
//! `template_review_s` delays this, and `template_state` replaces it. Every well-formed `HX…` that no emulator has made exists
//! and is approved.
//!
//! Source: twilio.com/docs/content/content-api-resources.

use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::call::{ApiCall, is_sid};
use super::page_range::page_range;
use super::response::{RestResponse, TwilioError, no_content, not_allowed, ok};
use crate::content::stored_content::{
    ContentDraft, ContentSubmission, ReviewState, StoredContent, is_own_sid, new_content_sid,
};
use crate::engine::Engine;
use crate::faults::Faults;
use crate::state::EmulatorState;

// Twilio's default and maximum.
const PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 1000;
const CATEGORIES: [&str; 3] = ["UTILITY", "MARKETING", "AUTHENTICATION"];

fn invalid(problem: impl Into<String>) -> TwilioError {
    TwilioError::bad_request(20001, problem)
}

/// Handles `Content` and `ContentAndApprovals`.
pub(super) fn collection(engine: &Engine, call: &ApiCall) -> RestResponse {
    match call.method {
        Method::GET => list(engine, call),
        Method::POST if call.path.ends_with("Content") => create(engine, call),
        _ => Err(not_allowed()),
    }
}

fn list(engine: &Engine, call: &ApiCall) -> RestResponse {
    let with_approvals = call.path.ends_with("ContentAndApprovals");
    let account = engine.account.sid.as_str();
    let state = engine.state();
    let review = review(engine, &state);
    let matching: Vec<&StoredContent> = state
        .contents
        .iter()
        .filter(|content| matches_query(content, call, review))
        .collect();
    let size = call.query.get("PageSize");
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(PAGE_SIZE);
    let size = size.clamp(1, MAX_PAGE_SIZE);
    let page: usize = call
        .query
        .get("Page")
        .and_then(|page| page.parse().ok())
        .unwrap_or_default();
    // The oldest template is first.
    let range = page_range(&matching, &call.query, page, size, |content, position| {
        content.position.cmp(&position)
    });
    let contents: Vec<Value> = matching[range.clone()]
        .iter()
        .map(|content| {
            let mut resource = content.resource(account);
            if with_approvals && let Some(fields) = resource.as_object_mut() {
                fields.remove("links");
                fields.remove("url");
                let approval = content.approval_json(review);
                fields.insert("approval_requests".to_owned(), approval);
            }
            resource
        })
        .collect();
    let url = |page: usize, token: String| {
        format!(
            "{}/{}?PageSize={size}&Page={page}{token}",
            engine.origin, call.path
        )
    };
    let token =
        |prefix: &str, content: &StoredContent| format!("&PageToken={prefix}{}", content.position);
    let last = matching[range.clone()]
        .last()
        .filter(|_| range.end < matching.len());
    let first = matching[range.clone()].first().filter(|_| range.start > 0);
    let meta = json!({
        "page": page,
        "page_size": size,
        "first_page_url": url(0, String::new()),
        "previous_page_url": first.map(|content| url(page.saturating_sub(1), token("PB", content))),
        "url": url(page, String::new()),
        "next_page_url": last.map(|content| url(page.saturating_add(1), token("PA", content))),
        "key": "contents",
    });
    ok(200, &json!({"contents": contents, "meta": meta}))
}

/// Returns whether a template matches the search, which only v2 of the API has.
fn matches_query(content: &StoredContent, call: &ApiCall, review: ReviewState) -> bool {
    if !call.path.starts_with("v2/") {
        return true;
    }
    let draft = &content.draft;
    let contains = |text: Option<&String>, part: &str| {
        text.is_some_and(|text| text.to_lowercase().contains(&part.to_lowercase()))
    };
    call.query.iter().all(|(name, value)| match name {
        "ContentName" => contains(draft.friendly_name.as_ref(), value),
        "Content" => contains(Some(&Value::Object(draft.types.clone()).to_string()), value),
        "Language" => draft
            .language
            .as_deref()
            .is_some_and(|language| language.eq_ignore_ascii_case(value)),
        "ContentType" => draft.types.contains_key(value),
        "ChannelEligibility" => {
            let status = content.approval_json(review)["status"].clone();
            value
                .rsplit_once(':')
                .is_none_or(|(_, wanted)| status == wanted)
        }
        _ => true,
    })
}

/// Returns the conditions under which templates are approved now.
pub(super) fn review(engine: &Engine, state: &EmulatorState) -> ReviewState {
    ReviewState {
        forced: state.faults.template_state,
        now: engine.now(),
    }
}

fn create(engine: &Engine, call: &ApiCall) -> RestResponse {
    let draft = parse_draft(call)?;
    if draft.language.is_none() {
        return Err(invalid("language is required"));
    }
    let now = engine.now();
    let content = StoredContent {
        sid: new_content_sid(),
        position: 0,
        draft,
        created: now,
        updated: now,
        submission: None,
    };
    let resource = content.resource(engine.account.sid.as_str());
    engine.state().add_content(content);
    ok(201, &resource)
}

fn parse_draft(call: &ApiCall) -> Result<ContentDraft, TwilioError> {
    let json = call.json.as_ref();
    let json = json.ok_or_else(|| invalid("The request body is not JSON"))?;
    ContentDraft::parse(json).map_err(invalid)
}

/// Handles `Content/{sid}`.
pub(super) fn item(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    let not_found = || TwilioError::not_found(&call.path);
    let account = engine.account.sid.as_str();
    match call.method {
        Method::GET => {
            let found = find_content(engine, sid).ok_or_else(not_found)?;
            ok(200, &found.resource(account))
        }
        Method::PUT => {
            let draft = parse_draft(call)?;
            let now = engine.now();
            let mut state = engine.state();
            let found = stored_mut(&mut state, sid).ok_or_else(not_found)?;
            if found.submission.is_some() {
                return Err(invalid(
                    "Content that was submitted for approval cannot be changed",
                ));
            }
            if draft.language.is_some() && draft.language != found.draft.language {
                return Err(invalid("language: cannot be changed"));
            }
            let before = found.draft.clone();
            found.draft = ContentDraft {
                friendly_name: draft.friendly_name.or(before.friendly_name),
                language: before.language,
                ..draft
            };
            found.updated = now;
            ok(200, &found.resource(account))
        }
        Method::DELETE => {
            let mut state = engine.state();
            let before = state.contents.len();
            state.contents.retain(|content| content.sid != sid);
            if state.contents.len() == before {
                return Err(not_found());
            }
            no_content()
        }
        _ => Err(not_allowed()),
    }
}

fn stored_mut<'a>(state: &'a mut EmulatorState, sid: &str) -> Option<&'a mut StoredContent> {
    let mut contents = state.contents.iter_mut();
    contents.find(|content| content.sid == sid)
}

/// Handles `Content/{sid}/ApprovalRequests`: fetches the approval.
pub(super) fn approval(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    if call.method != Method::GET {
        return Err(not_allowed());
    }
    let found = find_content(engine, sid);
    let found = found.ok_or_else(|| TwilioError::not_found(&call.path))?;
    let review = review(engine, &engine.state());
    let url = format!("https://content.twilio.com/v1/Content/{sid}/ApprovalRequests");
    ok(
        200,
        &json!({
            "sid": sid, "account_sid": engine.account.sid.as_str(),
            "whatsapp": found.approval_json(review), "url": url,
        }),
    )
}

/// Handles `Content/{sid}/ApprovalRequests/whatsapp`: submits a template for approval.
pub(super) fn submit(engine: &Engine, call: &ApiCall, sid: &str) -> RestResponse {
    if call.method != Method::POST {
        return Err(not_allowed());
    }
    let json = call.json.as_ref();
    let text = |name: &str| json.and_then(|json| json[name].as_str()).map(str::to_owned);
    let (Some(name), Some(category)) = (text("name"), text("category")) else {
        return Err(invalid("name and category are required"));
    };
    let is_name_character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(is_name_character) {
        return Err(invalid(
            "name: only lower case letters, digits and underscores are allowed",
        ));
    }
    if !CATEGORIES.contains(&category.as_str()) {
        let known = CATEGORIES.join(", ");
        return Err(invalid(format!("category: one of {known}")));
    }
    let mut state = engine.state();
    let review = review(engine, &state);
    let delay = SignedDuration::from_secs(i64::from(state.faults.template_review_s));
    let found = stored_mut(&mut state, sid);
    let found = found.ok_or_else(|| TwilioError::not_found(&call.path))?;
    if found.submission.is_some() {
        let message = "This template was already submitted for approval";
        return Err(TwilioError::bad_request(92009, message));
    }
    found.submission = Some(ContentSubmission {
        decided_at: review.now.checked_add(delay).unwrap_or(review.now),
        rejection: found.rejection(&name, &category),
        name,
        category,
    });
    let mut approval = found.approval_json(review);
    // The state at submission; a later fetch has the result.
    approval["status"] = "received".into();
    approval["rejection_reason"] = "".into();
    ok(201, &approval)
}

/// Returns a template: one made here, or one of another account, which has no text.
///
/// The fault `content_lost` deletes one that was made here.
pub(super) fn find_content(engine: &Engine, sid: &str) -> Option<StoredContent> {
    let stored = |state: &EmulatorState| {
        let mut contents = state.contents.iter();
        contents.find(|content| content.sid == sid).cloned()
    };
    let found = stored(&engine.state());
    if found.is_some() && engine.change_faults(Faults::take_content_loss) {
        engine.state().contents.retain(|content| content.sid != sid);
        return None;
    }
    let is_foreign = is_sid(sid, "HX") && !is_own_sid(sid);
    found.or_else(|| is_foreign.then(|| StoredContent::unknown(sid, engine.now())))
}
