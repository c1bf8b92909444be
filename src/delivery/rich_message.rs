//! Parameters of a message with buttons, a list, chips or a link, and of the text that replaces it after a failure.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::content_resources::{ContentResources, KnownResource};
use super::parts::DeliveryParts;
use super::route::ApiRoute;
use crate::choice::{QuestionId, TapPayload};
use crate::clock::Clock;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::lock::IgnorePoison;
use crate::reply::ContentShape;
use crate::store::{OutboundMessage, Store};
use crate::telemetry::{StoreReport, Throttle};
use crate::twilio::{Credentials, RestError};

/// Twilio's codes for a content that it or the channel refuses; the text may still be sent.
const CONTENT_REFUSED: [u32; 7] = [21654, 21655, 21656, 63005, 63013, 63021, 63028];
/// Twilio's codes for a content resource that does not exist.
const CONTENT_GONE: [u32; 2] = [21655, 20404];
/// Maximum number of messages that wait for another resource.
const MAX_RENEWED: usize = 1000;

/// Returns the shape of a rich message; `None` for a text.
pub(super) fn shape_of(message: &OutboundMessage) -> Option<ContentShape> {
    ContentShape::parse(message.params.get(ContentShape::PARAM)?)
}

/// Returns whether the text of a message may be sent because Twilio refused its content with this code.
pub(super) fn is_content_refusal(code: ErrorCode) -> bool {
    CONTENT_REFUSED.contains(&code.0) || CONTENT_GONE.contains(&code.0)
}

/// Returns whether Twilio does not have the resource.
pub(super) fn is_content_gone(error: &RestError) -> bool {
    error
        .code()
        .is_some_and(|code| CONTENT_GONE.contains(&code.0))
}

/// Returns the parameters with the resource in place of the text.
fn with_content(params: &FormParams, sid: &str) -> FormParams {
    let others = params
        .iter()
        .filter(|(name, _)| !["Body", ContentShape::PARAM].contains(name));
    std::iter::once(("ContentSid", sid)).chain(others).collect()
}

/// Returns the parameters with the text alone.
fn as_text(params: &FormParams) -> FormParams {
    let is_content = |name: &str| [ContentShape::PARAM, "ContentVariables"].contains(&name);
    params
        .iter()
        .filter(|(name, _)| !is_content(name))
        .collect()
}

/// Returns the identity of the question that a rich message asks, from the payload of its first choice.
fn question_of(params: &FormParams) -> Option<QuestionId> {
    let variables: serde_json::Value =
        serde_json::from_str(params.get("ContentVariables")?).ok()?;
    let payload = TapPayload::parse(variables.get("i1")?.as_str()?)?;
    Some(payload.question)
}

/// Rich messages, with the content resources that carry them.
pub(super) struct RichMessages {
    store: Arc<dyn Store>,
    store_report: Arc<StoreReport>,
    clock: Arc<dyn Clock>,
    resources: ContentResources,
    /// IDs of messages whose resource was gone, and is looked up again. Once for each message.
    renewed: Mutex<HashSet<i64>>,
    warnings: Throttle,
}

/// A rich message, and the account's API.
pub(super) struct RichCall<'a> {
    pub(super) shape: ContentShape,
    pub(super) message: &'a OutboundMessage,
    pub(super) route: &'a ApiRoute,
    pub(super) credentials: &'a Credentials,
}

/// Parameters of the call that sends a rich message.
pub(super) struct RichParams {
    pub(super) params: FormParams,
    /// True if the message is sent as its text.
    is_text: bool,
}

impl RichMessages {
    pub(super) fn new(parts: &DeliveryParts) -> Self {
        Self {
            store: parts.store.clone(),
            store_report: parts.store_report.clone(),
            clock: parts.clock.clone(),
            resources: ContentResources::default(),
            renewed: Mutex::default(),
            warnings: Throttle::new(10),
        }
    }

    /// Returns the parameters of the call: with the content resource, or with the text that says the same if the content
    /// was refused before or the Content API fails. `None` if the resource must be [looked up](Self::look_up) first.
    pub(super) fn params(&self, call: &RichCall<'_>, params: &FormParams) -> Option<RichParams> {
        let id = call.message.id;
        let text = || RichParams {
            params: as_text(params),
            is_text: true,
        };
        if let Some(code) = call.message.text_after {
            tracing::warn!(
                outbound_id = id,
                error_code = code.0,
                "Twilio refused a message with choices or a link; its text is sent in its place"
            );
            return Some(text());
        }
        let (account, now) = (call.message.account, self.clock.monotonic());
        Some(match self.resources.known(call.shape, account, now)? {
            KnownResource::Found(sid) => RichParams {
                params: with_content(params, &sid),
                is_text: false,
            },
            KnownResource::Failed(error) => {
                if let Some(suppressed) = self.warnings.try_log() {
                    tracing::warn!(
                        outbound_id = id,
                        name = call.shape.name(),
                        suppressed,
                        error,
                        "a message with choices or a link is sent as a text, because the Content API has failed less than a minute ago"
                    );
                }
                text()
            }
        })
    }

    /// Forgets all resources and failures of the Content API.
    #[cfg(all(feature = "server", feature = "emulator"))]
    pub(super) fn clear(&self) {
        self.resources.clear();
    }

    /// Looks up the resource of a message, and makes it if the account has none.
    pub(super) async fn look_up(&self, call: &RichCall<'_>) {
        let contents = call.route.content.contents(call.credentials);
        let (account, now) = (call.message.account, self.clock.monotonic());
        let look_up = self.resources.look_up(call.shape, account, &contents, now);
        look_up.await;
    }

    /// Forgets the resource of a message, which Twilio does not have any more. Returns false if it was forgotten for this
    /// message before: then its text is sent.
    pub(super) async fn forget(&self, call: &RichCall<'_>) -> bool {
        {
            let mut renewed = self.renewed.lock().ignore_poison();
            if renewed.remove(&call.message.id) {
                return false;
            }
            // Bounds the set. A message that is left out is looked up once more.
            if renewed.len() >= MAX_RENEWED {
                renewed.clear();
            }
            renewed.insert(call.message.id);
        }
        self.resources
            .forget(call.shape, call.message.account)
            .await;
        true
    }

    /// Forgets that the resource of a message was renewed, once the message has reached Twilio.
    pub(super) fn end_renewal(&self, id: i64) {
        self.renewed.lock().ignore_poison().remove(&id);
    }

    /// Records the form in which a question is shown, so that a typed number counts as the position of a choice where the
    /// user sees numbers.
    // Before the call: the user may answer before its result is known. A first call with a content has nothing to record.
    pub(super) async fn record_form(&self, message: &OutboundMessage, sent: &RichParams) {
        if !sent.is_text && message.attempt <= 1 && message.resent_after.is_none() {
            return;
        }
        let Some(question) = question_of(&message.params) else {
            return;
        };
        let recorded = self.store.set_question_numbered(
            &message.sender,
            &message.user,
            question,
            sent.is_text,
        );
        // Without the record the question is sent all the same, and fewer numbers are certain.
        let _ = self
            .store_report
            .record_error("set_question_numbered", recorded.await);
    }
}
