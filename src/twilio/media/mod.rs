//! A message's file, fetched as a stranger's: from an address that is made of SIDs, with credentials for nobody but the API,
//! redirects followed by hand, and limits on time and size that are ours and not the sender's.
//!
//! Source: twilio.com/docs/messaging/api/media-resource. The API answers with a redirect to a signed link on a storage's
//! host, which is good for four hours: none is kept, each fetch begins at the API.

mod hosts;
mod resolver;
mod sniffing;

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use reqwest::{Response, Url};

use hosts::Way;
pub(crate) use hosts::{HostPattern, MediaHosts};
use sniffing::HEAD;
pub(crate) use sniffing::sniff;

use super::{CONNECT, Client, Credentials};
use crate::clock::Clock;
use crate::handler::{MediaError, MediaErrorKind, MediaStream};
use crate::sid::{AccountSid, MediaSid, MessageSid};
use crate::tls;

/// The largest file that Twilio takes for any channel.
pub(crate) const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// For a whole file, from the first call on.
const TIME: Duration = Duration::from_secs(30);
/// Redirects that are followed.
const MOST_HOPS: usize = 3;
/// A file may lag behind the message that brings it: before each further try.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Fetches files. One for all accounts.
pub(crate) struct MediaClient {
    hosts: MediaHosts,
    clock: Arc<dyn Clock>,
    /// Has no credentials, and reaches nothing but public addresses.
    guarded: OnceLock<reqwest::Client>,
}

/// Where a file lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaAddress {
    pub(crate) account: AccountSid,
    pub(crate) message: MessageSid,
    pub(crate) media: MediaSid,
}

impl MediaAddress {
    fn path(&self) -> String {
        let Self {
            account,
            message,
            media,
        } = self;
        format!("/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}")
    }
}

/// Why a try gave nothing.
enum Trouble {
    /// It may be there in a moment.
    Again(MediaError),
    Never(MediaError),
}

impl MediaClient {
    pub(crate) fn new(hosts: MediaHosts, clock: Arc<dyn Clock>) -> Self {
        Self {
            hosts,
            clock,
            guarded: OnceLock::new(),
        }
    }

    /// Begins to fetch a file, by the API of `api`. `declared` is what the message says it is.
    ///
    /// # Errors
    /// [`MediaError`].
    pub(crate) async fn fetch(
        &self,
        api: &Client,
        credentials: &Credentials,
        at: MediaAddress,
        declared: Option<String>,
    ) -> Result<MediaStream, MediaError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            match self.try_once(api, credentials, at, declared.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(Trouble::Never(error)) => return Err(error),
                Err(Trouble::Again(error)) => {
                    let pause = pauses.next().ok_or(error)?;
                    self.clock.sleep(pause).await;
                }
            }
        }
    }

    /// Deletes a file at Twilio, where it stays otherwise. One that is not there is no error.
    ///
    /// # Errors
    /// [`MediaError`].
    pub(crate) async fn delete(
        &self,
        api: &Client,
        credentials: &Credentials,
        at: MediaAddress,
    ) -> Result<(), MediaError> {
        let path = format!("{}.json", at.path());
        let request = api.request(Method::DELETE, &path, credentials);
        let request = request.map_err(unreachable)?;
        let status = request.send().await.map_err(unreachable)?.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(MediaError::new(MediaErrorKind::Refused(status.as_u16())))
    }

    async fn try_once(
        &self,
        api: &Client,
        credentials: &Credentials,
        at: MediaAddress,
        declared: Option<String>,
    ) -> Result<MediaStream, Trouble> {
        let mut time = self.clock.sleep(TIME);
        let found = {
            let asked = pin!(self.ask(api, credentials, at));
            match select(asked, &mut time).await {
                Either::Left((found, _)) => found?,
                Either::Right(_) => {
                    return Err(Trouble::Never(MediaError::new(MediaErrorKind::TooSlow)));
                }
            }
        };
        let length = found.content_length();
        if length.is_some_and(|length| length > MOST_BYTES) {
            return Err(Trouble::Never(MediaError::new(MediaErrorKind::TooLarge)));
        }
        let served = found.headers().get(CONTENT_TYPE);
        let served = served.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let mut rest = counted(found, time);
        let mut begin = Vec::new();
        while begin.len() < HEAD {
            match rest.next().await {
                None => break,
                Some(Ok(chunk)) => begin.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(Trouble::Never(error)),
            }
        }
        let file_type = sniff(declared.or(served), &begin);
        Ok(MediaStream::new(file_type, length, begin, rest))
    }

    /// From the API to where the file is.
    async fn ask(
        &self,
        api: &Client,
        credentials: &Credentials,
        at: MediaAddress,
    ) -> Result<Response, Trouble> {
        let request = api.request(Method::GET, &at.path(), credentials);
        let mut response = request.map_err(again)?.send().await.map_err(again)?;
        let mut hops = 0;
        while response.status().is_redirection() {
            hops += 1;
            let next = Some(hops)
                .filter(|hops| *hops <= MOST_HOPS)
                .and_then(|_| target(&response));
            let foreign = || Trouble::Never(MediaError::new(MediaErrorKind::ForeignHost));
            let next = next.ok_or_else(foreign)?;
            let http = match self.hosts.way(&next, &api.url) {
                Some(Way::Guarded) => self.guarded().map_err(again)?,
                // A stand-in on this machine keeps the files it names itself.
                Some(Way::Same) => api.http().map_err(again)?,
                None => return Err(foreign()),
            };
            response = http.get(next).send().await.map_err(not_connected)?;
        }
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(Trouble::Again(MediaError::new(MediaErrorKind::Gone))),
            // A link that has run out on the way is made anew by the API.
            StatusCode::FORBIDDEN if hops > 0 => Err(Trouble::Again(refused(status))),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Trouble::Again(refused(status)))
            }
            status => Err(Trouble::Never(refused(status))),
        }
    }

    fn guarded(&self) -> Result<&reqwest::Client, reqwest::Error> {
        if let Some(http) = self.guarded.get() {
            return Ok(http);
        }
        tls::install_provider();
        let built = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(TIME)
            .dns_resolver(Arc::new(resolver::Guarded))
            .no_proxy()
            .user_agent(concat!("replyhook/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(self.guarded.get_or_init(|| built))
    }
}

fn again(error: impl Into<super::RestError>) -> Trouble {
    Trouble::Again(unreachable(error))
}

/// A name that leads inside will not lead elsewhere in a second.
fn not_connected(error: reqwest::Error) -> Trouble {
    if resolver::is_private(&error) {
        return Trouble::Never(MediaError::new(MediaErrorKind::ForeignHost));
    }
    again(error)
}

fn target(response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    response.url().join(location).ok()
}

fn refused(status: StatusCode) -> MediaError {
    MediaError::new(MediaErrorKind::Refused(status.as_u16()))
}

/// The source of a failed call holds no URL, since a link lets in whoever has it.
fn unreachable(error: impl Into<super::RestError>) -> MediaError {
    MediaError::with_source(MediaErrorKind::Unreachable, error.into())
}

/// The bytes of an answer, within limits, whatever its head says.
fn counted(
    response: Response,
    time: BoxFuture<'static, ()>,
) -> BoxStream<'static, Result<Vec<u8>, MediaError>> {
    unfold(Some((response, time, 0_u64)), |state| async move {
        let (mut response, mut time, so_far) = state?;
        let chunk = {
            let chunk = pin!(response.chunk());
            match select(chunk, &mut time).await {
                Either::Left((chunk, _)) => chunk,
                Either::Right(_) => {
                    return Some((Err(MediaError::new(MediaErrorKind::TooSlow)), None));
                }
            }
        };
        let chunk = match chunk {
            Ok(chunk) => Vec::from(chunk?),
            Err(error) if error.is_timeout() => {
                return Some((Err(MediaError::new(MediaErrorKind::TooSlow)), None));
            }
            Err(error) => return Some((Err(unreachable(error)), None)),
        };
        let so_far = so_far + chunk.len() as u64;
        if so_far > MOST_BYTES {
            return Some((Err(MediaError::new(MediaErrorKind::TooLarge)), None));
        }
        Some((Ok(chunk), Some((response, time, so_far))))
    })
    .fuse()
    .boxed()
}
