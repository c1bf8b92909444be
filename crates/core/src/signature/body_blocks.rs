//! The body of a request that arrives in several frames.

/// A body that arrives in several frames, in blocks of one size.
// Memory is allocated for received bytes only, never for an announced length. Blocks of one size can be reused by the
// allocator for the next body.
#[derive(Default)]
pub(super) struct BodyBlocks(Vec<Vec<u8>>);

impl BodyBlocks {
    /// Size of hyper's read buffers.
    const BLOCK_BYTES: usize = 8192;

    pub(super) fn append(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let mut block = match self.0.pop() {
                Some(block) if block.len() < Self::BLOCK_BYTES => block,
                other => {
                    self.0.extend(other);
                    Vec::with_capacity(Self::BLOCK_BYTES)
                }
            };
            let (fitting, rest) = data.split_at(data.len().min(Self::BLOCK_BYTES - block.len()));
            block.extend_from_slice(fitting);
            self.0.push(block);
            data = rest;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn concat(&self) -> Vec<u8> {
        self.0.concat()
    }
}
