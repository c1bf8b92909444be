//! Content resources for choices and links, made ahead of the first message.

use super::contents::Contents;
use super::error::RestError;
use crate::reply::ContentShape;

/// Content resource for choices or links, as [`Contents::prepare_choices`] returns it.
///
/// ```no_run
/// # use replyhook::twilio::{Client, Credentials, PreparedContent, RestError};
/// # async fn prepare(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let prepared: Vec<PreparedContent> = client.contents(&credentials).prepare_choices().await?;
/// println!("{} are new", prepared.iter().filter(|content| content.is_new).count());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreparedContent {
    /// Friendly name at Twilio.
    pub name: String,
    /// Content SID, `HX…`.
    pub sid: String,
    /// True if the resource was made now.
    pub is_new: bool,
}

impl Contents<'_> {
    /// Makes the content resources that questions with choices and link buttons need, unless they exist.
    ///
    /// The server makes each on first use too. The client needs the host of the Content API.
    ///
    /// # Errors
    /// [`RestError`] of the first call that fails. The call may be repeated: resources that were made are found.
    pub async fn prepare_choices(&self) -> Result<Vec<PreparedContent>, RestError> {
        let known = self.list_names().await?;
        let mut prepared = Vec::new();
        for shape in ContentShape::all() {
            let name = shape.name();
            let found = known.iter().find(|(known, _)| *known == name);
            let (sid, is_new) = match found {
                Some((_, sid)) => (sid.clone(), false),
                None => (self.create(&shape.resource()).await?, true),
            };
            prepared.push(PreparedContent { name, sid, is_new });
        }
        Ok(prepared)
    }
}
