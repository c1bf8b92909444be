//! What a file is, by its first bytes. Nothing is unpacked: an archive is told by how it begins.

use infer::MatcherType;

use crate::handler::FileType;

/// Bytes that are looked at.
pub(super) const HEAD: usize = 8192;
/// What names end in where nothing better is known.
const UNKNOWN: &str = "bin";

/// The type of what begins like this.
pub(crate) fn sniff(declared: Option<String>, begin: &[u8]) -> FileType {
    let found = infer::get(&begin[..begin.len().min(HEAD)]);
    let harmless = |kind: &infer::Type| {
        !matches!(
            kind.matcher_type(),
            MatcherType::App | MatcherType::Text | MatcherType::Custom
        )
    };
    FileType::new(
        declared,
        found.map(|found| found.mime_type()),
        found
            .filter(harmless)
            .map_or(UNKNOWN, |found| found.extension()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_35_a_file_is_what_it_begins_like_and_not_what_it_is_called() {
        let sniffed = |begin: &[u8]| {
            let found = sniff(Some("image/jpeg".to_owned()), begin);
            assert_eq!(found.declared.as_deref(), Some("image/jpeg"));
            (found.sniffed, found.extension)
        };
        assert_eq!(sniffed(b"\xff\xd8\xff\xe0"), (Some("image/jpeg"), "jpg"));
        assert_eq!(sniffed(b"%PDF-1.7\n"), (Some("application/pdf"), "pdf"));
        assert_eq!(
            sniffed(b"PK\x03\x04\x14\0"),
            (Some("application/zip"), "zip")
        );
        assert_eq!(sniffed(b"BEGIN:VCARD\n"), (None, "bin"));
        assert_eq!(sniffed(b""), (None, "bin"));
        // A program or a page is not made one that is run or shown by its name.
        for begin in [
            &b"MZ\x90\0"[..],
            b"\x7fELF\x02\x01\x01\0",
            b"<!DOCTYPE html><script>",
            b"#!/bin/sh\n",
        ] {
            assert_eq!(sniffed(begin).1, "bin", "{begin:?}");
        }
    }
}
