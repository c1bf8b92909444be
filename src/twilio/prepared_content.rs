//! Content resources for choices and links, made ahead of the first message.

use std::collections::BTreeSet;

use super::contents::Contents;
use super::error::RestError;
use crate::address::Channel;
use crate::reply::ContentShape;

/// Content resource for choices or links, as [`Contents::prepare_choices`] returns it.
///
/// ```no_run
/// # use replyhook::Channel;
/// # use replyhook::twilio::{Client, Credentials, PreparedContent, RestError};
/// # async fn prepare(client: Client, credentials: Credentials) -> Result<(), RestError> {
/// let contents = client.contents(&credentials);
/// let prepared: Vec<PreparedContent> = contents.prepare_choices(&[Channel::WhatsApp], false).await?;
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
    /// Makes the content resources that questions with choices and link buttons need on some channels, unless they exist.
    ///
    /// With `has_descriptions`, also those of lists with descriptions. SMS and other channels without buttons need none.
    ///
    /// The server makes each on first use too. The client needs the host of the Content API.
    ///
    /// # Errors
    /// [`RestError`] of the first call that fails. The call may be repeated: resources that were made are found.
    pub async fn prepare_choices(
        &self,
        channels: &[Channel],
        has_descriptions: bool,
    ) -> Result<Vec<PreparedContent>, RestError> {
        let known = self.list_names().await?;
        let mut prepared = Vec::new();
        let shapes = channels
            .iter()
            .flat_map(|channel| ContentShape::of_channel(channel, has_descriptions));
        // WhatsApp and Messenger share shapes.
        let shapes: BTreeSet<_> = shapes.collect();
        for shape in shapes {
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
