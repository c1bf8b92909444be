//! A message's file that is passed on from Twilio to the client of a link.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::stream::StreamExt;
use tokio_util::task::AbortOnDropHandle;

use super::limits::FetchPermit;
use crate::handler::{FileType, MediaError, MediaErrorKind, MediaStream};
use crate::lock::IgnorePoison;

/// Time that a client has to read a whole file.
// The same as for fetching a file from Twilio, since the file is passed on while it arrives.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A file that is passed on chunk by chunk.
// hyper does not poll the body of a client that reads nothing, so a timeout inside of `chunk` would never fire. A task
// of its own ends the call to Twilio instead, and frees the permit.
pub(crate) struct FetchedFile {
    file_type: FileType,
    length: Option<u64>,
    call: Arc<Mutex<Call>>,
    // Aborted on drop: a file that was read, or whose client has gone, needs no timer.
    _timer: AbortOnDropHandle<()>,
}

struct Call {
    /// `None` after the end, an error or the timeout.
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
            // Take both under the lock, so that `chunk` cannot store a waker in between that nothing would wake. Drop
            // and wake after it: the woken reader may take the lock immediately.
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

    /// Returns the size in bytes, if Twilio's response has it.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the next chunk; `None` at the end. Must not be called again after the end or an error.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, MediaError> {
        // Poll under the lock and never hold it across an await, so that the timer can take the stream between two
        // polls.
        poll_fn(|cx| {
            let mut call = lock(&self.call);
            let Some((stream, _)) = &mut call.stream else {
                // The timer has taken it: `chunk` itself is not called after the end.
                return Poll::Ready(Err(MediaError::new(MediaErrorKind::TooSlow)));
            };
            let next = stream.poll_next_unpin(cx);
            match next {
                Poll::Pending => {
                    call.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(chunk))) => Poll::Ready(Ok(Some(chunk))),
                Poll::Ready(end) => {
                    // Free the permit now, and not when the client has taken the last bytes.
                    call.stream = None;
                    Poll::Ready(end.transpose())
                }
            }
        })
        .await
    }
}

fn lock(call: &Mutex<Call>) -> MutexGuard<'_, Call> {
    call.lock().ignore_poison()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::sync::Semaphore;

    use super::*;

    fn file(timeout: Duration, next_chunk: Option<&[u8]>) -> (FetchedFile, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(1));
        let permit = permits.clone().try_acquire_owned().unwrap();
        let rest = match next_chunk {
            Some(next_chunk) => stream::iter([Ok(next_chunk.to_vec())]).boxed(),
            None => stream::pending().boxed(),
        };
        let file_type = crate::twilio::media::sniff(None, b"first");
        let stream = MediaStream::new(file_type, None, b"first".to_vec(), rest);
        (FetchedFile::new(stream, permit, timeout), permits)
    }

    /// Fails the test if the future does not complete.
    async fn within_30_s<T>(future: impl Future<Output = T>) -> T {
        let result = tokio::time::timeout(Duration::from_secs(30), future).await;
        result.expect("the future did not complete within 30 s")
    }

    // A client of a link that reads nothing must not hold the permit for fetches.
    #[tokio::test]
    async fn unread_download_ends_at_timeout() {
        let (mut file, permits) = file(Duration::from_millis(20), None);
        assert_eq!(permits.available_permits(), 0);
        drop(within_30_s(permits.acquire()).await.unwrap());
        let error = within_30_s(file.chunk()).await.unwrap_err();
        assert_eq!(error.kind(), MediaErrorKind::TooSlow);
    }

    #[tokio::test]
    async fn waiting_reader_gets_timeout_error() {
        let (mut file, permits) = file(Duration::from_millis(20), None);
        let first = file.chunk().await.unwrap();
        assert_eq!(first.as_deref(), Some(&b"first"[..]));
        let error = within_30_s(file.chunk()).await.unwrap_err();
        assert_eq!(error.kind(), MediaErrorKind::TooSlow);
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn download_permit_is_released_at_end_or_drop() {
        let (mut read, permits) = file(READ_TIMEOUT, Some(b" and last"));
        let mut bytes = Vec::new();
        while let Some(chunk) = read.chunk().await.unwrap() {
            bytes.extend(chunk);
        }
        assert_eq!(bytes, b"first and last");
        assert_eq!(permits.available_permits(), 1);
        let (unread, permits) = file(READ_TIMEOUT, None);
        drop(unread);
        // Not immediately: the aborted timer task also holds the call, and drops it when it runs next.
        drop(within_30_s(permits.acquire()).await.unwrap());
    }
}
