//! A file on its way from Twilio to the reader of a link.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::stream::StreamExt;
use tokio_util::task::AbortOnDropHandle;

use super::limits::FetchPermit;
use crate::handler::{FileType, MediaError, MediaErrorKind, MediaStream};

/// How long a reader may take for a file: as long as Twilio may.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A file that is passed on piece by piece.
///
/// A reader that takes nothing is not asked whether its time is up, so a task ends the call to Twilio for it.
pub(crate) struct FetchedFile {
    file_type: FileType,
    length: Option<u64>,
    call: Arc<Mutex<Call>>,
    _timer: AbortOnDropHandle<()>,
}

struct Call {
    /// `None` once it is over.
    stream: Option<(MediaStream, FetchPermit)>,
    reader: Option<Waker>,
}

impl FetchedFile {
    pub(super) fn new(stream: MediaStream, permit: FetchPermit, timeout: Duration) -> Self {
        let (file_type, length) = (stream.file_type().clone(), stream.length());
        let call = Arc::new(Mutex::new(Call {
            stream: Some((stream, permit)),
            reader: None,
        }));
        let shared = call.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            let ended = {
                let mut call = lock(&shared);
                (call.stream.take(), call.reader.take())
            };
            if let (_, Some(reader)) = ended {
                reader.wake();
            }
        });
        Self {
            file_type,
            length,
            call,
            _timer: AbortOnDropHandle::new(timer),
        }
    }

    pub(crate) fn file_type(&self) -> &FileType {
        &self.file_type
    }

    /// The number of its bytes, where Twilio says so.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the next piece; `None` at the end, after which it is not to be called again.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, MediaError> {
        poll_fn(|cx| {
            let mut call = lock(&self.call);
            let Some((stream, _)) = &mut call.stream else {
                return Poll::Ready(Err(MediaError::new(MediaErrorKind::TooSlow)));
            };
            let next = stream.poll_next_unpin(cx);
            match next {
                Poll::Pending => {
                    call.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(piece))) => Poll::Ready(Ok(Some(piece))),
                Poll::Ready(end) => {
                    call.stream = None;
                    Poll::Ready(end.transpose())
                }
            }
        })
        .await
    }
}

fn lock(call: &Mutex<Call>) -> MutexGuard<'_, Call> {
    call.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::sync::Semaphore;

    use super::*;

    fn file(timeout: Duration, then: Option<&[u8]>) -> (FetchedFile, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(1));
        let permit = permits.clone().try_acquire_owned().unwrap();
        let rest = match then {
            Some(then) => stream::iter([Ok(then.to_vec())]).boxed(),
            None => stream::pending().boxed(),
        };
        let file_type = crate::twilio::media::sniff(None, b"first");
        let stream = MediaStream::new(file_type, None, b"first".to_vec(), rest);
        (FetchedFile::new(stream, permit, timeout), permits)
    }

    /// Fails where something that must happen does not.
    async fn soon<T>(happens: impl Future<Output = T>) -> T {
        let happened = tokio::time::timeout(Duration::from_secs(30), happens).await;
        happened.expect("it does not happen")
    }

    #[tokio::test]
    async fn call_ends_in_time_although_nothing_is_read() {
        let (mut file, permits) = file(Duration::from_millis(20), None);
        assert_eq!(permits.available_permits(), 0);
        drop(soon(permits.acquire()).await.unwrap());
        let error = soon(file.chunk()).await.unwrap_err();
        assert_eq!(error.kind(), MediaErrorKind::TooSlow);
    }

    #[tokio::test]
    async fn reader_that_waits_is_told_of_the_timeout() {
        let (mut file, permits) = file(Duration::from_millis(20), None);
        let first = file.chunk().await.unwrap();
        assert_eq!(first.as_deref(), Some(&b"first"[..]));
        let error = soon(file.chunk()).await.unwrap_err();
        assert_eq!(error.kind(), MediaErrorKind::TooSlow);
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn call_ends_with_the_file_or_with_its_reader() {
        let (mut read, permits) = file(READ_TIMEOUT, Some(b" and last"));
        let mut bytes = Vec::new();
        while let Some(piece) = read.chunk().await.unwrap() {
            bytes.extend(piece);
        }
        assert_eq!(bytes, b"first and last");
        assert_eq!(permits.available_permits(), 1);
        let (unread, permits) = file(READ_TIMEOUT, None);
        drop(unread);
        // The task that holds the call is told to end, and does so when it runs next.
        drop(soon(permits.acquire()).await.unwrap());
    }
}
