//! Media of a reply.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::names;

/// Media file that Twilio fetches and sends.
///
/// ```
/// use replyhook::{Media, Reply};
///
/// let elsewhere = Reply::media(Media::url("https://cdn.example.com/menu.pdf"));
/// let on_this_machine = Reply::media(Media::file("menu.pdf"));
/// let made_just_now = Reply::media(Media::bytes(*b"BEGIN:VCARD\r\nEND:VCARD\r\n", "text/vcard"));
/// # drop((elsewhere, on_this_machine, made_just_now));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    source: MediaSource,
    content_type: Option<String>,
}

/// Source of a media file.
#[derive(Clone, PartialEq, Eq)]
#[doc(hidden)]
#[expect(
    missing_debug_implementations,
    reason = "a URL may have secrets in its query"
)]
pub enum MediaSource {
    /// A URL from which Twilio can fetch the file.
    Url(String),
    /// A file on disk.
    File(PathBuf),
    /// The content itself.
    Bytes(Arc<[u8]>),
}

impl Media {
    /// Creates media from a public http or https URL. Twilio fetches the file, and uses the `Content-Type` of the
    /// response. The handler fails if the channel does not accept the type that the URL's extension stands for.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Url(url.into()),
            content_type: None,
        }
    }

    /// Creates media from a file on disk, which is read when the reply is sent.
    ///
    /// The file is copied to the store. Twilio fetches it with an unguessable link under `PUBLIC_URL`, which expires
    /// after three days. The extension determines the type, or else the first bytes. The handler fails if the channel
    /// does not accept the type, or the size: at most 16 MiB, and 5 MiB for all files of an MMS together.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            source: MediaSource::File(path.into()),
            content_type: None,
        }
    }

    /// Creates media from bytes in memory, of a type such as `image/png`. They are published like a
    /// [`file`](Self::file).
    pub fn bytes(bytes: impl Into<Arc<[u8]>>, content_type: impl Into<String>) -> Self {
        Self {
            source: MediaSource::Bytes(bytes.into()),
            content_type: Some(content_type.into()),
        }
    }

    /// Sets the type, for URLs without an extension that shows it.
    ///
    /// On WhatsApp only a JPEG or PNG has a caption. With other media the text is sent as a separate message.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Returns the URL, or `None` for a file that has not been published.
    #[doc(hidden)]
    pub fn link(&self) -> Option<&str> {
        match &self.source {
            MediaSource::Url(url) => Some(url),
            MediaSource::File(_) | MediaSource::Bytes(_) => None,
        }
    }

    #[doc(hidden)]
    pub fn source(&self) -> &MediaSource {
        &self.source
    }

    #[doc(hidden)]
    pub fn declared_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// Returns the type for the extension of a file on disk or of a URL.
    #[doc(hidden)]
    pub fn type_from_extension(&self) -> Option<&'static str> {
        match &self.source {
            MediaSource::File(path) => names::media_type_by_extension(path.to_str()?),
            MediaSource::Url(url) => names::media_type_by_extension(url),
            MediaSource::Bytes(_) => None,
        }
    }

    /// Returns true if every channel shows a text together with this file.
    pub(super) fn carries_caption(&self) -> bool {
        const CAPTIONED: [(&str, &str); 3] = [
            ("jpg", "image/jpg"),
            ("jpeg", "image/jpeg"),
            ("png", "image/png"),
        ];
        // A type that was set takes precedence over the extension.
        if let Some(content_type) = &self.content_type {
            return CAPTIONED
                .iter()
                .any(|(_, known)| content_type.eq_ignore_ascii_case(known));
        }
        // Files and bytes are `Url`s with a type by the time a reply is split; the dispatcher publishes them first.
        let MediaSource::Url(url) = &self.source else {
            return false;
        };
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let extension = path
            .rsplit('/')
            .next()
            .and_then(|file| file.rsplit_once('.'))
            .map(|(_, extension)| extension);
        extension.is_some_and(|extension| {
            CAPTIONED
                .iter()
                .any(|(known, _)| extension.eq_ignore_ascii_case(known))
        })
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caption_requires_jpeg_or_png() {
        assert!(Media::url("https://h/a.JPG?x=.pdf").carries_caption());
        assert!(
            Media::url("https://h/a")
                .content_type("image/png")
                .carries_caption()
        );
        for url in [
            "https://h/a.webp",
            "https://h/a.pdf",
            "https://h/png",
            "https://h/a.jpg/b",
        ] {
            assert!(!Media::url(url).carries_caption(), "{url}");
        }
    }
}
