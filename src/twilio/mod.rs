//! Client of Twilio's REST API: messages, templates, accounts, and the webhooks of numbers and senders.
//!
//! The HTTP client is built on the first call, so a server that replies only with TwiML never builds it. An error
//! states whether the call may be repeated: `POST Messages` has no idempotency key, so a call with an unknown result
//! must not be repeated.
//!
//! ```no_run
//! use replyhook::store::OpenWindow;
//! use replyhook::twilio::{ApiUrl, Client, Credentials, NewMessage};
//! use replyhook::{InboundMessage, Secret, Timestamp};
//!
//! # async fn send(inbound: InboundMessage, now: Timestamp) -> Result<(), Box<dyn std::error::Error>> {
//! let account = "AC00000000000000000000000000000001".parse()?;
//! let client = Client::new(ApiUrl::default());
//! let credentials = Credentials::auth_token(account, Secret::new("…"));
//! let message = NewMessage::text(inbound.from.clone(), "Your order is ready.").from(inbound.to.clone());
//! let window = OpenWindow::of(&inbound.from, Some(inbound.received_at), now).ok_or("only a template may be sent")?;
//! let sent = client.messages(account, &credentials).create(&message, &window).await?;
//! println!("{} is {}", sent.sid, sent.status.as_str());
//! # Ok(()) }
//! ```

mod account_keys;
mod accounts;
mod api_url;
#[cfg(feature = "app")]
mod channel_support;
mod channels_senders;
mod client;
mod contents;
mod credentials;
mod error;
mod http_client;
mod incoming_phone_numbers;
mod keyring;
#[cfg(feature = "app")]
pub(crate) mod media;
mod messages;
mod new_message;
mod prepared_content;
mod response;
mod services;
mod session_content;
mod typing_indicator;
mod webhooks;
#[cfg(feature = "app")]
mod wire_params;

pub use account_keys::{AccountKeys, ApiKey, ApiKeySidError, AuthTokens};
pub use accounts::{Account, Accounts};
pub use api_url::{ApiUrl, ApiUrlError};
#[cfg(feature = "app")]
pub(crate) use channel_support::ChannelSupport;
pub use channels_senders::{ChannelsSenders, OfflineReason, WhatsAppSender};
pub use client::Client;
pub use contents::{
    Approval, ApprovalStatus, Contents, StoredTemplate, Template, TemplateVariables,
};
pub use credentials::Credentials;
pub use error::{RestError, RestErrorKind, RetryAdvice};
pub use incoming_phone_numbers::{IncomingPhoneNumbers, PhoneNumber};
pub use keyring::Keyring;
#[cfg_attr(
    not(feature = "app"),
    expect(unused_imports, reason = "used by modules of the feature app")
)]
pub(crate) use messages::CLOCK_SKEW;
pub use messages::{ListMessages, Message, Messages, Page, RedactedText};
pub use new_message::NewMessage;
#[cfg_attr(
    not(feature = "app"),
    expect(unused_imports, reason = "used by modules of the feature app")
)]
pub(crate) use new_message::{NewMessageContent, PinnedLocation};
pub use prepared_content::PreparedContent;
pub use services::{MessagingService, Services};
pub use typing_indicator::TypingIndicator;
pub use webhooks::{ConfiguredWebhooks, WebhookMethods};
#[cfg(feature = "app")]
pub(crate) use wire_params::{WireAddresses, wire_params};
