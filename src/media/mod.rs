//! Media: the files of inbound messages, and the files of replies.
//!
//! A message's files are stored at Twilio. They are fetched when a handler asks for them ([`attachment`]), and saved
//! concurrently with the handler if `media.save_dir` is set ([`auto_save`], [`storage`]). The `MediaUrl` of a message
//! is never called.
//!
//! A reply's files are put into the store ([`publish`]) and served under links that cannot be guessed ([`token`]).
//! Every server on the store can serve a link ([`links`]), within limits ([`limits`]). A link can also lead to a
//! message's file, which is fetched from Twilio for each request ([`fetched`]).

mod attachment;
mod auto_save;
mod fetched;
mod limits;
mod links;
mod publish;
mod service;
mod storage;
mod token;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub(crate) use fetched::FetchedFile;
pub(crate) use limits::{LinkLimits, LinkPermit};
pub(crate) use links::{LinkContent, LinkError, StoredFile};
pub(crate) use service::{AutoSave, MediaAccounts, MediaService};
pub(crate) use storage::Folder;
pub use storage::saved_files;

use crate::address::Channel;
use crate::handler::{Attachments, Files, HandlerError, SaveGuard};
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::sid::{AccountSid, MessageSid};
use crate::signature::AuthTokenKind;

use attachment::MessageAttachments;

impl Files for MediaService {
    fn attachments(
        &self,
        message: &InboundMessage,
        auth_token: AuthTokenKind,
    ) -> Arc<dyn Attachments> {
        Arc::new(MessageAttachments::new(self.0.clone(), message, auth_token))
    }

    fn auto_save(&self, message: &InboundMessage, auth_token: AuthTokenKind) -> SaveGuard {
        auto_save::start_saving(&self.0, message, auth_token)
    }

    fn publish<'a>(
        &'a self,
        reply: Reply,
        channel: &'a Channel,
        to: (AccountSid, MessageSid),
    ) -> BoxFuture<'a, Result<Reply, HandlerError>> {
        Box::pin(self.0.publish(reply, channel, to))
    }
}
