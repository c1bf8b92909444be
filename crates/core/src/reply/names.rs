//! Media types by file extension.

/// Returns the media type for the extension of a file name or URL, if it is a common one in messages.
pub fn media_type_by_extension(name: &str) -> Option<&'static str> {
    // The query and fragment of a URL may contain dots.
    let path = name.split(['?', '#']).next().unwrap_or_default();
    let (_, extension) = path.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "heif" => "image/heif",
        "mp4" => "video/mp4",
        "3gp" => "video/3gpp",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "amr" => "audio/amr",
        "wav" => "audio/vnd.wave",
        "pdf" => "application/pdf",
        "vcf" => "text/vcard",
        "csv" => "text/csv",
        "txt" => "text/plain",
        "doc" => "application/msword",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_follows_file_extension() {
        for (name, content_type) in [
            ("a.JPG", Some("image/jpeg")),
            ("https://h/a.png?x=.pdf#y", Some("image/png")),
            ("a.b.vcf", Some("text/vcard")),
            ("jpg", None),
            ("a.xyz", None),
            ("", None),
        ] {
            assert_eq!(media_type_by_extension(name), content_type, "{name}");
        }
    }
}
