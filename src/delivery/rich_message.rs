//! Parameters of a message with buttons, a list, chips or a link, and of the text that replaces it after a failure.

use std::sync::Arc;

use super::content_resources::ContentResources;
use super::route::ApiRoute;
use crate::clock::Clock;
use crate::error_code::ErrorCode;
use crate::form::FormParams;
use crate::reply::ContentShape;
use crate::store::OutboundMessage;
use crate::telemetry::Throttle;
use crate::twilio::{Credentials, RestError};

/// Twilio's codes for a content that it or the channel refuses; the text may still be sent.
const CONTENT_REFUSED: [u32; 7] = [21654, 21655, 21656, 63005, 63013, 63021, 63028];
/// Twilio's codes for a content resource that does not exist.
const CONTENT_GONE: [u32; 2] = [21655, 20404];

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

/// Rich messages, with the content resources that carry them.
pub(super) struct RichMessages {
    clock: Arc<dyn Clock>,
    resources: ContentResources,
    warnings: Throttle,
}

/// A rich message, and the account's API.
pub(super) struct RichCall<'a> {
    pub(super) shape: ContentShape,
    pub(super) message: &'a OutboundMessage,
    pub(super) route: &'a ApiRoute,
    pub(super) credentials: &'a Credentials,
}

impl RichMessages {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            resources: ContentResources::default(),
            warnings: Throttle::new(10),
        }
    }

    /// Returns the parameters of the call: with the content resource, or with the text that says the same if the content
    /// was refused before or the Content API fails.
    pub(super) async fn params(&self, call: &RichCall<'_>, params: &FormParams) -> FormParams {
        let id = call.message.id;
        if let Some(code) = call.message.text_after {
            tracing::warn!(
                outbound_id = id,
                error_code = code.0,
                "Twilio refused a message with choices or a link; its text is sent in its place"
            );
            return as_text(params);
        }
        let now = self.clock.monotonic();
        let contents = call.route.content.contents(call.credentials);
        let account = call.message.account;
        match self
            .resources
            .sid_of(call.shape, account, &contents, now)
            .await
        {
            Ok(sid) => with_content(params, &sid),
            Err(error) => {
                if let Some(suppressed) = self.warnings.try_log() {
                    tracing::warn!(outbound_id = id, name = call.shape.name(), suppressed, %error, "a message with choices or a link is sent as a text");
                }
                as_text(params)
            }
        }
    }

    /// Forgets the resource, which Twilio does not have any more.
    pub(super) async fn forget(&self, call: &RichCall<'_>) {
        self.resources
            .forget(call.shape, call.message.account)
            .await;
    }
}
