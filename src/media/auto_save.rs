//! Saving of inbound files to `media.save_dir`, in a task that runs concurrently with the handler.
//!
//! A graceful shutdown waits for the task; the reply does not. Failures are logged and do not fail the message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::attachment::MessageAttachments;
use super::service::AutoSave;
use super::service::Inner;
use crate::handler::{FileType, MediaError, SaveGuard};
use crate::message::InboundMessage;
use crate::reply::kinds::is_media;
use crate::signature::AuthTokenKind;

/// Starts to save a message's files. The caller holds the returned guard while the handler may fetch them itself.
pub(super) fn start_saving(
    inner: &Arc<Inner>,
    message: &InboundMessage,
    auth_token: AuthTokenKind,
) -> SaveGuard {
    if inner.auto_save.is_none() || message.media.is_empty() {
        return None;
    }
    let attachments = MessageAttachments::new(inner.clone(), message, auth_token);
    // Nothing is ever sent: dropping the sender is the signal that the handler is done, also if it panics.
    let (guard, handler_done) = oneshot::channel::<()>();
    let task_inner = inner.clone();
    inner.tasks.spawn(async move {
        let saving = save_all(&task_inner, &attachments, handler_done);
        if AssertUnwindSafe(saving).catch_unwind().await.is_err() {
            tracing::error!(message_sid = %attachments.message, "saving a message's files panicked: this is a bug in replyhook");
        }
    });
    Some(Box::new(guard))
}

async fn save_all(
    inner: &Inner,
    attachments: &MessageAttachments,
    handler_done: oneshot::Receiver<()>,
) {
    let Some(auto_save) = &inner.auto_save else {
        return;
    };
    let mut saved = Vec::new();
    // Release the permit before waiting for the handler: slow handlers must not stop the saving of other messages'
    // files.
    {
        let Ok(_permit) = inner.save_permits.acquire().await else {
            return;
        };
        for index in 0..attachments.count() {
            match save_one(auto_save, attachments, index).await {
                Ok(()) => saved.push(index),
                Err(error) => log_failure(attachments, index, "save", &error),
            }
        }
    }
    if !auto_save.then_delete {
        return;
    }
    // Resolves with an error when the guard is dropped. Before that the handler may still fetch the files from Twilio.
    let _ = handler_done.await;
    // Only files that are on disk: one that could not be saved stays at Twilio.
    for index in saved {
        if let Err(error) = attachments.delete(index).await {
            log_failure(attachments, index, "delete Twilio's copy of", &error);
        }
    }
}

async fn save_one(
    auto_save: &AutoSave,
    attachments: &MessageAttachments,
    index: usize,
) -> Result<(), MediaError> {
    let address = attachments.address(index)?;
    // Each attempt at a message saves its files; an earlier one may have saved this one already.
    if auto_save.folder.find(address).await.is_some() {
        return Ok(());
    }
    let stream = attachments.fetch(index).await?;
    let file_type = stream.file_type().clone();
    let saved = auto_save.folder.save(stream, address).await?;
    warn_on_type_mismatch(attachments, index, &file_type);
    tracing::debug!(
        message_sid = %attachments.message,
        index,
        bytes = saved.length,
        sniffed = file_type.sniffed,
        "saved a file of a message"
    );
    Ok(())
}

/// Logs why a file that was declared as media has the extension `.bin`.
fn warn_on_type_mismatch(attachments: &MessageAttachments, index: usize, file_type: &FileType) {
    // The declared type is untrusted text: log only known types. Leave out texts, which cannot be recognized by their
    // bytes and are always saved as `.bin`.
    let declared = file_type.declared.as_deref();
    let declared = declared.filter(|declared| is_media(declared) && !declared.starts_with("text/"));
    if let (Some(declared), "bin") = (declared, file_type.extension) {
        tracing::warn!(
            message_sid = %attachments.message,
            index,
            declared,
            sniffed = file_type.sniffed.unwrap_or("unknown"),
            "a file does not have the type that its message declares; saved as .bin"
        );
    }
}

fn log_failure(attachments: &MessageAttachments, index: usize, action: &str, error: &MediaError) {
    // Log the source too: the error itself names only the kind of failure.
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(message_sid = %attachments.message, index, %error, source, "could not {action} a file of a message");
}
