//! Conversations written down, to be replayed by the test kit: one file a message, with numbers and names that belong to
//! nobody.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::record::Record;
use crate::address::{Address, Identity};

/// Between two looks at whether the bot is done.
const LOOK: Duration = Duration::from_millis(100);
/// A bot may take two minutes.
const PATIENCE: Duration = Duration::from_mins(3);

/// One message and its replies, as a file holds them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded {
    /// The parameters of the webhook.
    pub(crate) params: Vec<(String, String)>,
    /// The texts that the phone got, late ones included.
    pub(crate) replies: Vec<String>,
}

/// Where it is written.
pub(super) struct Recording {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    written: usize,
    /// Replies that are in a file.
    seen: HashSet<String>,
    pseudonyms: Pseudonyms,
}

impl Recording {
    /// Writes into a folder, after what is there already.
    pub(super) fn into_folder(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // After the last, whatever was deleted between.
        let last = files(directory)?.pop();
        let last = last.and_then(|path| path.file_stem()?.to_str()?.parse().ok());
        let written = last.unwrap_or_default();
        Ok(Self {
            directory: directory.to_owned(),
            state: Mutex::new(State {
                written,
                ..State::default()
            }),
        })
    }

    /// `replies` are SIDs and texts; of two messages at once a late reply belongs to the first that is written.
    fn write(&self, message: &Record, replies: &[(String, String)]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.written += 1;
        let file = self.directory.join(format!("{:04}.json", state.written));
        let pseudonyms = &mut state.pseudonyms;
        pseudonyms.learn(&message.params);
        let kept = message.params.iter().filter(|(name, _)| is_kept(name));
        let recorded = Recorded {
            params: kept
                .map(|(name, value)| (name.clone(), pseudonyms.of_param(name, value)))
                .collect(),
            replies: replies
                .iter()
                .filter(|(sid, _)| state.seen.insert(sid.clone()))
                .map(|(_, text)| pseudonyms.apply(text))
                .collect(),
        };
        let text = serde_json::to_string_pretty(&recorded)?;
        let mut file = File::create_new(file)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    }
}

/// What a replay cannot use, or what tells of somebody in other words: the account is another at every start, files are
/// gone with the emulator, and `ChannelMetadata` says names and numbers once more.
fn is_kept(name: &str) -> bool {
    let is_left_out = ["AccountSid", "ChannelMetadata", "Address", "Label"].contains(&name);
    !is_left_out && !name.starts_with("MediaUrl") && !name.starts_with("MediaContentType")
}

/// The files of a recording, in their order.
pub(crate) fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Engine {
    /// Writes a message down once the bot is done with it.
    pub(super) fn record_conversation(
        self: &Arc<Self>,
        message: &Record,
        before: &HashSet<String>,
    ) {
        if self.recording.is_none() {
            return;
        }
        let (engine, message, before) = (self.clone(), message.clone(), before.clone());
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, engine.until_done(&message)).await;
            let replies = {
                let state = engine.state();
                let shown = state.shown_since(&message, &before);
                let shown = shown.into_iter();
                let shown = shown.map(|reply| (reply.sid.clone(), reply.body.clone()));
                shown.collect::<Vec<_>>()
            };
            let writing = tokio::task::spawn_blocking(move || {
                let recording = engine.recording.as_ref();
                recording.map_or(Ok(()), |recording| recording.write(&message, &replies))
            });
            if let Ok(Err(error)) = writing.await {
                tracing::error!(%error, "a message could not be recorded");
            }
        });
    }

    /// Waits for our own server; nobody knows when another is done.
    async fn until_done(&self, message: &Record) {
        let Some(own) = self.own() else { return };
        loop {
            let (user, sender) = (message.user.clone(), message.sender.clone());
            let state = own.state(user, sender).await;
            if state["pending"].as_u64().unwrap_or_default() == 0 {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What stands for whom.
#[derive(Default)]
struct Pseudonyms {
    /// Longest first, so that no number is replaced inside a longer one.
    known: Vec<(String, String)>,
    people: usize,
}

impl Pseudonyms {
    /// Takes the user's number, ids and name from a webhook's parameters.
    fn learn(&mut self, params: &[(String, String)]) {
        let value = |name: &str| {
            let found = params.iter().find(|(known, _)| known == name);
            found
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let number = self.people + 1;
        let mut is_new = false;
        for name in ["From", "ExternalUserId", "ParentExternalUserId"] {
            let Some(address) = value(name).map(Address::parse) else {
                continue;
            };
            let id = address.id();
            match address.identity() {
                Identity::Phone => {
                    let digits = id.trim_start_matches('+');
                    is_new |= self.add(digits, &format!("1555010{number:04}"));
                }
                Identity::BusinessScopedId => {
                    is_new |= self.add(id, &format!("US.{number:020}"));
                }
                _ => is_new |= self.add(id, &format!("user{number}")),
            }
        }
        if let Some(profile) = value("ProfileName") {
            is_new |= self.add(profile, &format!("User {number}"));
        }
        self.people += usize::from(is_new);
    }

    fn add(&mut self, real: &str, pseudonym: &str) -> bool {
        let is_known = |(known, made): &(String, String)| known == real || made == real;
        if real.is_empty() || self.known.iter().any(is_known) {
            return false;
        }
        self.known.push((real.to_owned(), pseudonym.to_owned()));
        self.known
            .sort_by_key(|(known, _)| std::cmp::Reverse(known.len()));
        true
    }

    /// A parameter, with files that are not there left out and places to a tenth of a degree.
    fn of_param(&self, name: &str, value: &str) -> String {
        match (name, value.parse::<f64>()) {
            ("NumMedia", _) => "0".to_owned(),
            ("Latitude" | "Longitude", Ok(degrees)) => format!("{degrees:.1}"),
            _ => self.apply(value),
        }
    }

    /// Every occurrence replaced, and nothing that was put in replaced again.
    fn apply(&self, text: &str) -> String {
        let mut pseudonymous = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let before = text[..text.len() - rest.len()].chars().next_back();
            let found = self.known.iter().find(|(known, _)| {
                let after = rest
                    .strip_prefix(known.as_str())
                    .map(|rest| rest.chars().next());
                // A name inside a word is none; a number is one wherever it stands.
                let is_name = known.starts_with(char::is_alphabetic);
                let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                after.is_some_and(|after| !is_name || !(is_word(before) || is_word(after)))
            });
            if let Some((known, pseudonym)) = found {
                pseudonymous.push_str(pseudonym);
                rest = &rest[known.len()..];
            } else {
                pseudonymous.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        pseudonymous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ids_and_names_are_replaced_wherever_they_stand() {
        let mut pseudonyms = Pseudonyms::default();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let ana = [
            pair("From", "whatsapp:+34600000001"),
            pair("ExternalUserId", "whatsapp:ES.12345"),
            pair("ProfileName", "Ana García"),
        ];
        pseudonyms.learn(&ana);
        pseudonyms.learn(&ana);
        let text = "Ana García (+34600000001, ES.12345) wrote, not +346000000012";
        let expected = "User 1 (+15550100001, US.00000000000000000001) wrote, not +155501000012";
        assert_eq!(pseudonyms.apply(text), expected);
        pseudonyms.learn(&[pair("From", "+34611111111"), pair("ProfileName", "Ben")]);
        assert_eq!(
            pseudonyms.apply("Ben +34611111111 has a benefit, Benedict"),
            "User 2 +15550100002 has a benefit, Benedict"
        );
    }
}
