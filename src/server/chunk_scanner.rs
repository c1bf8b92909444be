//! [`ChunkScanner`]: finds white space after the size of a chunk, which hyper ignores.
//!
//! A proxy in front may read such a line differently, so that a part of the body becomes another request. RFC 9112
//! (section 7.1) allows white space only before an extension.

/// Position in a body of chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkScanner {
    /// In the size of a chunk; `None` before its first digit.
    Size(Option<u64>),
    /// In white space after the size.
    Space(u64),
    /// In the rest of the line with the size.
    LineEnd(u64),
    /// In the data of a chunk and the line end after it, with this many bytes left.
    Data(u64),
}

/// Result of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScannedChunks {
    /// All bytes belong to chunks.
    More(ChunkScanner),
    /// The last chunk has ended, or hyper rejects the body. The number of scanned bytes is not known.
    End,
    /// White space is between a size and the end of its line, which is at this index.
    SpaceBefore(usize),
}

impl ChunkScanner {
    pub(super) const START: Self = Self::Size(None);

    /// Scans bytes of a body.
    pub(super) fn scan(mut self, bytes: &[u8]) -> ScannedChunks {
        let mut index = 0;
        while let Some(&byte) = bytes.get(index) {
            if let Self::Data(left) = self {
                let rest = bytes.len() - index;
                let used = usize::try_from(left).map_or(rest, |left| left.min(rest));
                index += used;
                self = match left - used as u64 {
                    0 => Self::START,
                    left => Self::Data(left),
                };
                continue;
            }
            self = match (self, byte) {
                (Self::Size(size), byte) if byte.is_ascii_hexdigit() => {
                    let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                    let size = size.unwrap_or(0).checked_mul(16);
                    match size.and_then(|size| size.checked_add(digit)) {
                        Some(size) => Self::Size(Some(size)),
                        None => return ScannedChunks::End,
                    }
                }
                (Self::Size(Some(size)) | Self::Space(size), b' ' | b'\t') => Self::Space(size),
                (Self::Space(_), b'\r') => return ScannedChunks::SpaceBefore(index),
                (Self::Size(Some(size)), b';' | b'\r') | (Self::Space(size), b';') => {
                    Self::LineEnd(size)
                }
                (Self::LineEnd(0), b'\n') => return ScannedChunks::End,
                // With the line end after the data.
                (Self::LineEnd(size), b'\n') => match size.checked_add(2) {
                    Some(size) => Self::Data(size),
                    None => return ScannedChunks::End,
                },
                (Self::LineEnd(size), _) => Self::LineEnd(size),
                _ => return ScannedChunks::End,
            };
            index += 1;
        }
        ScannedChunks::More(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans a body in reads of one byte, and returns the index at which the scan ended, with its result.
    fn scanned(body: &str) -> (usize, ScannedChunks) {
        let mut scanner = ChunkScanner::START;
        for (index, byte) in body.bytes().enumerate() {
            match scanner.scan(&[byte]) {
                ScannedChunks::More(next) => scanner = next,
                result => return (index, result),
            }
        }
        (body.len(), ScannedChunks::More(scanner))
    }

    #[test]
    fn white_space_after_size_is_found() {
        for (before, after) in [
            ("5 ", "\r\nhello\r\n0\r\n\r\n"),
            ("5\t ", "\r\nhello\r\n0\r\n\r\n"),
            ("1\r\na\r\n0 ", "\r\n\r\n"),
            ("2;a=b\r\n \r\r\nA ", "\r\n"),
        ] {
            let body = format!("{before}{after}");
            let found = ScannedChunks::SpaceBefore(0);
            assert_eq!(scanned(&body), (before.len(), found), "{body:?}");
            let found = ScannedChunks::SpaceBefore(before.len());
            assert_eq!(ChunkScanner::START.scan(body.as_bytes()), found, "{body:?}");
        }
    }

    #[test]
    fn other_bodies_have_no_white_space_after_size() {
        for (body, ends_at) in [
            // In the data, before an extension and in it, and after the last chunk.
            ("3\r\n1 \r\r\n0\r\n1 \r\n", 10),
            ("1 ; a = b \r\nx\r\n0\r\n", 17),
            // hyper rejects these.
            (" 1\r\n", 0),
            ("1 x\r\n", 2),
            ("10000000000000000\r\n", 16),
        ] {
            assert_eq!(scanned(body), (ends_at, ScannedChunks::End), "{body:?}");
        }
        let (_, result) = scanned("5\r\nhel");
        assert_eq!(result, ScannedChunks::More(ChunkScanner::Data(4)));
    }
}
