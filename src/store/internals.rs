//! Names for the rest of the crate, and for its commands, tests and benchmarks by the hidden feature `internals`.
//!
//! The traits have two implementations and no others, so they can change with them.

pub use super::conversations::{
    ConsentEntry, ConsentState, ConsentStatement, Conversation, Conversations, Dialogue,
    EarlierMessage, StatedFacts, StatedTime, StatementOutcome,
};
pub use super::event_data::EventType;
pub use super::events::{
    ClaimedEvent, ClaimedEvents, EventContent, EventMessage, EventStats, Events, ExpiredEvents,
};
pub use super::future::StoreFuture;
pub use super::handoff::{ActiveHandoff, HandoffChange, HandoffRow, Handoffs};
pub use super::identity_kind::LinkKind;
pub use super::journal::{
    AcceptOutcome, BacklogMessage, Claim, ClaimedBacklog, Completion, CrashPolicy, DeadMessage,
    DeadReason, DialogueChange, FailOutcome, HANDLER_FAILED, HANDLER_PANICKED, Journal,
    QuestionChange, QueuedMessage, ReplyDecision, ReplyPath, SavedResponse, TurnStatus,
};
pub use super::media::{
    CHUNK_BYTES, FileHash, LINK_SECRET_BYTES, LINK_TAG_BYTES, LinkSigningKey, LinkSource,
    LinkTarget, LinkTokenHash, MediaLinks, NewLink, ResolvedLink, TwilioMedia,
};
pub use super::new_inbound::{ConsentKeyword, NewInbound};
pub use super::operator::{
    BacklogStats, ExpiryReport, MessageFilter, MessageRow, Operator, OutboundDetails, PurgeReport,
    Retention,
};
pub use super::outbound_message::{
    NewOutbound, OutboundMessage, OutboundRow, PASSING_FAILURES, REJECTED, ScheduledMessage,
    SendOutcome, TEMPLATE_LANGUAGE, TEMPLATE_NAME, TEMPLATE_SID,
};
pub use super::outbox::{ClaimedOutbox, Outbox, OutboxStats, StatusEffect, StatusEvent};
pub use super::redacted_params::RedactedParams;
pub use super::store_trait::Store;
pub use super::submission::{
    IdempotencyKey, Ineligible, KeyedMessage, MessageFingerprint, SendEligibility, Submission,
    SubmitOutcome,
};
pub use super::users::{
    AddressConsent, AddressLink, AppliedOptOut, UserChange, UserConversation, UserDetails, Users,
};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use super::versions::SCHEMA;
