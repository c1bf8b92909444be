//! The body of a response that is a file.
//!
//! It has one chunk of the file in memory at a time, and holds the request's permit until its last byte has been
//! written to the connection.

use axum::body::{Body, Bytes};
use futures_util::stream::{self, Stream, TryStreamExt};

use crate::media::LinkPermit;
use replyhook_core::BoxError;

/// Maximum size of a frame of the body.
// Smaller than a chunk of the store (256 KiB): hyper buffers up to two frames for a slow client.
const FRAME_BYTES: usize = 32 * 1024;

/// The bytes of a frame, with the permit of its request.
// hyper keeps a frame until it is written to the socket, so the permit lives as long as any frame is buffered.
struct Frame {
    bytes: Vec<u8>,
    _permit: LinkPermit,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Creates a body from the chunks of a file.
pub(super) fn file_body<S>(chunks: S, permit: LinkPermit) -> Body
where
    S: Stream<Item = Result<Vec<u8>, BoxError>> + Send + 'static,
{
    Body::from_stream(frames(chunks, permit))
}

fn frames<S>(
    chunks: S,
    permit: LinkPermit,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static
where
    S: Stream<Item = Result<Vec<u8>, BoxError>> + Send + 'static,
{
    let initial = (Box::pin(chunks), Vec::new(), 0, permit);
    stream::try_unfold(
        initial,
        |(mut chunks, mut chunk, mut position, permit)| async move {
            while position == chunk.len() {
                // Free the chunk before reading the next one, so that only one is in memory.
                drop(std::mem::take(&mut chunk));
                let Some(next) = chunks.try_next().await? else {
                    return Ok(None);
                };
                (chunk, position) = (next, 0);
            }
            let end = chunk.len().min(position + FRAME_BYTES);
            // Copy the frame: a slice that shares the chunk would keep all of it in memory until the frame is written.
            let frame = Bytes::from_owner(Frame {
                bytes: chunk[position..end].to_vec(),
                _permit: permit.clone(),
            });
            Ok(Some((frame, (chunks, chunk, end, permit))))
        },
    )
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::media::LinkLimits;

    #[tokio::test]
    async fn download_permit_is_held_until_last_frame_drops() {
        let limits = LinkLimits::new(1);
        let mut permits = Vec::new();
        // Take all permits, so that only this body's release makes one available.
        while let Some(permit) = limits.acquire_request().now_or_never() {
            permits.push(permit.unwrap());
        }
        let permit = permits.pop().unwrap();
        let chunks = [vec![1; FRAME_BYTES + 1], Vec::new(), vec![2; 3]];
        let body = frames(stream::iter(chunks.map(Ok)), permit);
        let mut frames: Vec<Bytes> = body.try_collect().await.unwrap();
        let lengths: Vec<_> = frames.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [FRAME_BYTES, 1, 3]);
        frames.truncate(1);
        assert!(limits.acquire_request().now_or_never().is_none());
        drop(frames);
        assert!(limits.acquire_request().now_or_never().is_some());
    }
}
