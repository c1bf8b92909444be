//! Detection of a file's type from its first bytes.
//!
//! Nothing is unpacked: an archive is recognized by its first bytes.

use infer::MatcherType;

use crate::handler::FileType;

/// Number of bytes that [`sniff`] examines.
pub(super) const HEAD: usize = 8192;
/// Extension of a file whose type is unknown or could be harmful.
const UNKNOWN: &str = "bin";

/// Detects the type of a file from its first bytes, `begin`.
pub(crate) fn sniff(declared: Option<String>, begin: &[u8]) -> FileType {
    let found = infer::get(&begin[..begin.len().min(HEAD)]);
    // Programs, scripts and pages get no extension of their own, so that opening a saved file never runs it.
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

    // The declared type never decides the extension, so programs and pages are saved as .bin.
    #[test]
    fn threat_35_media_type_is_sniffed_from_content() {
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
        // The extension must not make a program run or a page open in a browser.
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
