//! The paths of the webhooks below the public URL.

use std::fmt;

/// Maximum length of a path.
const MAX_PATH_BYTES: usize = 200;
/// Path below which the server has its own links to files.
const MEDIA_PATH: &str = "/media";

/// A path of the public listener, such as `/webhook`, without a slash at its end. `/` is the root.
///
/// ```
/// use replyhook::signature::{RoutePath, RoutePathError};
///
/// assert_eq!(RoutePath::parse("/twilio/sms/")?.as_str(), "/twilio/sms");
/// assert_eq!(RoutePath::parse("sms"), Err(RoutePathError::Start));
/// # Ok::<(), RoutePathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePath(String);

/// Error of a text that is not a path of the public listener. `Display` includes the fix.
///
/// See [`RoutePath`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoutePathError {
    /// The text does not begin with a slash.
    #[error(
        "must begin with a slash, as in /webhook: write the path alone, without scheme and host"
    )]
    Start,
    /// The text has other characters than letters, digits, `-`, `.`, `_`, `~` and slashes.
    #[error(
        "has a character other than letters, digits, - . _ ~ and slashes: write a path such as /twilio/sms, without a \
         query"
    )]
    Character,
    /// A segment is empty, `.` or `..`. Proxies and clients would change such a path.
    #[error(
        "has two slashes in a row, or a segment that is . or .. : write a path such as /twilio/sms"
    )]
    Segment,
    /// The text is too long.
    #[error("is longer than 200 characters: write a shorter path")]
    Length,
    /// The path is `/media` or below it.
    #[error("is /media or below it, where the server has its links to files: write another path")]
    Media,
}

impl RoutePath {
    /// Parses a path. Slashes at its end are removed.
    ///
    /// # Errors
    /// [`RoutePathError`], whose text includes the fix.
    pub fn parse(text: &str) -> Result<Self, RoutePathError> {
        let text = text.trim();
        if !text.starts_with('/') {
            return Err(RoutePathError::Start);
        }
        let is_plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/')
        };
        if !text.bytes().all(is_plain) {
            return Err(RoutePathError::Character);
        }
        let path = text.trim_end_matches('/');
        if path.len() > MAX_PATH_BYTES {
            return Err(RoutePathError::Length);
        }
        let is_below_media = path
            .strip_prefix(MEDIA_PATH)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_below_media {
            return Err(RoutePathError::Media);
        }
        // The part before the first slash is empty, and not a segment.
        if path
            .split('/')
            .skip(1)
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err(RoutePathError::Segment);
        }
        Ok(Self(if path.is_empty() { "/" } else { path }.to_owned()))
    }

    /// Returns the path as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The paths of the primary webhook, its fallback and the status callbacks.
///
/// ```
/// use replyhook::signature::{RoutePath, WebhookPaths};
///
/// assert_eq!(WebhookPaths::default().primary(), "/webhook");
/// let [sms, failed, status] = ["/sms", "/sms/failed", "/sms/status"].map(|path| RoutePath::parse(path).unwrap());
/// let paths = WebhookPaths::new(sms.clone(), failed.clone(), status)?;
/// assert_eq!(paths.named()[1], ("fallback", "/sms/failed"));
/// assert!(WebhookPaths::new(sms.clone(), failed, sms).is_err());
/// # Ok::<(), replyhook::signature::EqualPaths>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPaths {
    primary: RoutePath,
    fallback: RoutePath,
    status: RoutePath,
}

/// Error of two webhooks with the same path.
///
/// See [`WebhookPaths`] for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{second} has the path of {first}: give each webhook a path of its own")]
pub struct EqualPaths {
    /// Name of the first webhook.
    pub first: &'static str,
    /// Name of the second webhook.
    pub second: &'static str,
}

impl Default for WebhookPaths {
    fn default() -> Self {
        let path = |text: &str| RoutePath(text.to_owned());
        Self {
            primary: path("/webhook"),
            fallback: path("/webhook/fallback"),
            status: path("/webhook/status"),
        }
    }
}

impl WebhookPaths {
    /// Creates paths from three different ones.
    ///
    /// # Errors
    /// [`EqualPaths`] if two are equal.
    pub fn new(
        primary: RoutePath,
        fallback: RoutePath,
        status: RoutePath,
    ) -> Result<Self, EqualPaths> {
        let paths = Self {
            primary,
            fallback,
            status,
        };
        let named = paths.named();
        for (index, (second, path)) in named.iter().enumerate() {
            if let Some((first, _)) = named[..index].iter().find(|(_, other)| other == path) {
                return Err(EqualPaths { first, second });
            }
        }
        Ok(paths)
    }

    /// Returns the path of the primary webhook.
    pub fn primary(&self) -> &str {
        self.primary.as_str()
    }

    /// Returns the path of the fallback.
    pub fn fallback(&self) -> &str {
        self.fallback.as_str()
    }

    /// Returns the path of status callbacks.
    pub fn status(&self) -> &str {
        self.status.as_str()
    }

    /// Returns name and path of each: `primary`, `fallback` and `status`.
    pub fn named(&self) -> [(&'static str, &str); 3] {
        [
            ("primary", self.primary()),
            ("fallback", self.fallback()),
            ("status", self.status()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_path_is_cleaned_or_rejected() {
        let parse = |text| RoutePath::parse(text).map(|path| path.to_string());
        for (text, path) in [
            ("/sms", "/sms"),
            (" /Twilio/sms-in_1.x~// ", "/Twilio/sms-in_1.x~"),
            ("/", "/"),
            ("/mediafile", "/mediafile"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(path));
        }
        for (text, error) in [
            ("", RoutePathError::Start),
            ("sms", RoutePathError::Start),
            ("https://h.test/sms", RoutePathError::Start),
            ("/sms?x=1", RoutePathError::Character),
            ("/{token}", RoutePathError::Character),
            ("/a b", RoutePathError::Character),
            ("/ä", RoutePathError::Character),
            ("//sms", RoutePathError::Segment),
            ("/a/../b", RoutePathError::Segment),
            ("/media", RoutePathError::Media),
            ("/media/x/", RoutePathError::Media),
            (&format!("/{}", "a".repeat(200)), RoutePathError::Length),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
