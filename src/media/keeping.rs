//! Files that are saved without code, in a task beside the handler: a drain waits for it, the message does not, and what goes
//! wrong is logged once.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::attached::Attached;
use super::{Inner, Keep};
use crate::handler::{FileType, Keeping, MediaError};
use crate::message::InboundMessage;
use crate::reply::kinds::is_media;
use crate::signature::TokenSlot;

/// Begins to save a message's files. What is returned is held for as long as the handler may fetch them itself.
pub(super) fn begin(room: &Arc<Inner>, message: &InboundMessage, slot: TokenSlot) -> Keeping {
    if room.keep.is_none() || message.media.is_empty() {
        return None;
    }
    let attached = Attached::of(room.clone(), message, slot);
    let (held, handled) = oneshot::channel::<()>();
    let room_of_task = room.clone();
    room.tasks.spawn(async move {
        let keeping = keep_all(&room_of_task, &attached, handled);
        if AssertUnwindSafe(keeping).catch_unwind().await.is_err() {
            tracing::error!(message_sid = %attached.message, "saving a message's files panicked: this is a bug in replyhook");
        }
    });
    Some(Box::new(held))
}

async fn keep_all(room: &Inner, attached: &Attached, handled: oneshot::Receiver<()>) {
    let Some(keep) = &room.keep else { return };
    let mut saved = Vec::new();
    {
        let Ok(_place) = room.keeping.acquire().await else {
            return;
        };
        for index in 0..attached.count() {
            match keep_one(keep, attached, index).await {
                Ok(()) => saved.push(index),
                Err(error) => failed(attached, index, "saved", &error),
            }
        }
    }
    if !keep.then_delete {
        return;
    }
    // Dropped when the handler is done.
    let _ = handled.await;
    for index in saved {
        if let Err(error) = attached.delete(index).await {
            failed(attached, index, "deleted at Twilio", &error);
        }
    }
}

async fn keep_one(keep: &Keep, attached: &Attached, index: usize) -> Result<(), MediaError> {
    let at = attached.address(index)?;
    // An earlier attempt at the message got so far.
    if keep.folder.find(at).await.is_some() {
        return Ok(());
    }
    let stream = attached.fetch(index).await?;
    let file_type = stream.file_type().clone();
    let saved = keep.folder.save(stream, at).await?;
    told_if_it_lies(attached, index, &file_type);
    tracing::debug!(
        message_sid = %attached.message,
        index,
        bytes = saved.length,
        sniffed = file_type.sniffed,
        "a file was saved"
    );
    Ok(())
}

/// A picture that has no picture's bytes is kept as `.bin`, and somebody will look for it.
fn told_if_it_lies(attached: &Attached, index: usize, file_type: &FileType) {
    // What is said of a file is a stranger's text: only a known type comes into the log. Of texts no bytes tell.
    let declared = file_type.declared.as_deref();
    let declared = declared.filter(|declared| is_media(declared) && !declared.starts_with("text/"));
    if let (Some(declared), "bin") = (declared, file_type.extension) {
        tracing::warn!(
            message_sid = %attached.message,
            index,
            declared,
            sniffed = file_type.sniffed.unwrap_or("unknown"),
            "a file is not what its message says, and is saved as .bin"
        );
    }
}

fn failed(attached: &Attached, index: usize, what: &str, error: &MediaError) {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(message_sid = %attached.message, index, %error, source, "a file was not {what}");
}
