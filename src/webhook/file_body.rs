//! The body of an answer that is a file: one piece of it in memory at a time, and a place among the readers until the last
//! byte has been handed to the connection.

use axum::body::{Body, Bytes};
use futures_util::stream::{self, Stream, TryStreamExt};

use crate::error::BoxError;
use crate::media::LinkPermit;

/// Bytes that the connection gets at once. It holds two of these for a slow reader, and not a whole piece.
const FRAME_BYTES: usize = 32 * 1024;

/// Bytes of a frame, and their reader's place.
struct Frame {
    bytes: Vec<u8>,
    _permit: LinkPermit,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Creates the body of these pieces.
pub(super) fn file_body<S>(pieces: S, permit: LinkPermit) -> Body
where
    S: Stream<Item = Result<Vec<u8>, BoxError>> + Send + 'static,
{
    Body::from_stream(frames(pieces, permit))
}

fn frames<S>(
    pieces: S,
    permit: LinkPermit,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static
where
    S: Stream<Item = Result<Vec<u8>, BoxError>> + Send + 'static,
{
    let begin = (Box::pin(pieces), Vec::new(), 0, permit);
    stream::try_unfold(
        begin,
        |(mut pieces, mut piece, mut at, permit)| async move {
            while at == piece.len() {
                // Freed before the next one is read.
                drop(std::mem::take(&mut piece));
                let Some(next) = pieces.try_next().await? else {
                    return Ok(None);
                };
                (piece, at) = (next, 0);
            }
            let end = piece.len().min(at + FRAME_BYTES);
            let frame = Bytes::from_owner(Frame {
                bytes: piece[at..end].to_vec(),
                _permit: permit.clone(),
            });
            Ok(Some((frame, (pieces, piece, end, permit))))
        },
    )
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::media::LinkLimits;

    #[tokio::test]
    async fn place_is_held_until_the_last_frame_is_gone() {
        let limits = LinkLimits::new(1);
        let mut permits = Vec::new();
        while let Some(permit) = limits.request().now_or_never() {
            permits.push(permit.unwrap());
        }
        let permit = permits.pop().unwrap();
        let pieces = [vec![1; FRAME_BYTES + 1], Vec::new(), vec![2; 3]];
        let body = frames(stream::iter(pieces.map(Ok)), permit);
        let mut frames: Vec<Bytes> = body.try_collect().await.unwrap();
        let lengths: Vec<_> = frames.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [FRAME_BYTES, 1, 3]);
        frames.truncate(1);
        assert!(limits.request().now_or_never().is_none());
        drop(frames);
        assert!(limits.request().now_or_never().is_some());
    }
}
