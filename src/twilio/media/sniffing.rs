//! Detection of a file's type from its first bytes.
//!
//! Nothing is unpacked: an archive is recognized by its first bytes.

use infer::MatcherType;

use crate::handler::FileType;

/// Number of bytes that [`sniff`] examines.
pub(super) const SNIFF_BYTES: usize = 8192;
/// Extension of a file whose type is unknown or could be harmful.
const UNKNOWN_EXTENSION: &str = "bin";

/// Detects the type of a file from its first bytes.
pub(crate) fn sniff(declared: Option<String>, first_bytes: &[u8]) -> FileType {
    let found = infer::get(&first_bytes[..first_bytes.len().min(SNIFF_BYTES)]);
    // Programs, scripts and pages get no extension of their own, so that opening a saved file never runs it.
    let is_harmless = |kind: &infer::Type| {
        !matches!(
            kind.matcher_type(),
            MatcherType::App | MatcherType::Text | MatcherType::Custom
        )
    };
    FileType::new(
        declared,
        found.map(|found| found.mime_type()),
        found
            .filter(is_harmless)
            .map_or(UNKNOWN_EXTENSION, |found| found.extension()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    // The declared type never decides the extension, so programs and pages are saved as .bin.
    #[test]
    fn threat_35_media_type_is_sniffed_from_content() {
        let sniffed = |first_bytes: &[u8]| {
            let found = sniff(Some("image/jpeg".to_owned()), first_bytes);
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
        for first_bytes in [
            &b"MZ\x90\0"[..],
            b"\x7fELF\x02\x01\x01\0",
            b"<!DOCTYPE html><script>",
            b"#!/bin/sh\n",
        ] {
            assert_eq!(sniffed(first_bytes).1, "bin", "{first_bytes:?}");
        }
    }
}
