//! Recordings of conversations for `TestBot::replay`: one JSON file per inbound message, with pseudonyms in place of
//! names and numbers.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::record::Record;
use replyhook_core::address::{Address, Identity};

/// Content of one file: an inbound message and its replies.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_debug_implementations, reason = "texts never reach a log")]
pub struct Recorded {
    /// Parameters of the webhook.
    pub params: Vec<(String, String)>,
    /// Bodies of the messages that the phone received, including late replies.
    pub replies: Vec<String>,
}

/// Folder of a recording, and its state.
pub(super) struct Recording {
    directory: PathBuf,
    state: Mutex<RecordingState>,
}

#[derive(Default)]
struct RecordingState {
    /// Number of the last file.
    last_number: u64,
    /// SIDs of replies that are in a file.
    written_sids: HashSet<String>,
    pseudonyms: Pseudonyms,
}

impl Recording {
    /// Opens or creates a folder. New files are numbered after the existing ones.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        // Continue after the highest number, not the count: files in between may be deleted, and others have no number.
        let existing = files(directory)?;
        let numbers = existing.iter().filter_map(|path| file_number(path));
        let last_number = numbers.max().unwrap_or_default();
        Ok(Self {
            directory: directory.to_owned(),
            state: Mutex::new(RecordingState {
                last_number,
                ..RecordingState::default()
            }),
        })
    }

    /// Writes a message and its replies, given as SIDs and bodies.
    pub(super) fn write(&self, message: &Record, replies: &[(String, String)]) -> io::Result<()> {
        // Held while writing: numbers and pseudonyms must be assigned in the order of the files. Only blocking threads
        // call this.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        state.last_number += 1;
        let file = self
            .directory
            .join(format!("{:04}.json", state.last_number));
        let pseudonyms = &mut state.pseudonyms;
        pseudonyms.add_user(&message.params);
        let params = message.params.iter().filter(|(name, _)| is_recorded(name));
        let recorded = Recorded {
            params: params
                .map(|(name, value)| (name.clone(), pseudonyms.pseudonymize_param(name, value)))
                .collect(),
            // A late reply does not name its inbound message. If two messages were pending, only the first that is
            // written gets it.
            replies: replies
                .iter()
                .filter(|(sid, _)| state.written_sids.insert(sid.clone()))
                .map(|(_, text)| pseudonyms.pseudonymize(text))
                .collect(),
        };
        let text = serde_json::to_string_pretty(&recorded)?;
        // Never overwrite a file, such as one of another process recording into the same folder.
        let mut file = File::create_new(file)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    }
}

/// Returns whether a parameter is recorded.
fn is_recorded(name: &str) -> bool {
    // A replay has an account of its own, and media whose content is not recorded cannot be used. The others identify
    // the user: `ChannelMetadata` repeats name and number, and a location has an address and a label.
    let is_excluded = ["AccountSid", "ChannelMetadata", "Address", "Label"].contains(&name);
    !is_excluded && !name.starts_with("MediaUrl") && !name.starts_with("MediaContentType")
}

/// Returns the number in the name of a recording's file, or `None` for a file with another name.
fn file_number(path: &Path) -> Option<u64> {
    // `u32`, so that the number after the highest one fits into `u64`.
    let number: u32 = path.file_stem()?.to_str()?.parse().ok()?;
    Some(number.into())
}

/// Returns the files of a recording in order, and then files with other names.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
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
    // By number: as texts, 10000 comes before 9999.
    files.sort_by_cached_key(|path| (file_number(path).unwrap_or(u64::MAX), path.clone()));
    Ok(files)
}

/// Pseudonyms of users' numbers, IDs and names.
#[derive(Default)]
struct Pseudonyms {
    /// Real text and pseudonym, the longest real text first: it must not be replaced in parts.
    known: Vec<(String, String)>,
    user_count: usize,
}

impl Pseudonyms {
    /// Adds the user's number, IDs and name from a webhook's parameters.
    fn add_user(&mut self, params: &[(String, String)]) {
        let value = |name: &str| {
            let param = params.iter().find(|(param, _)| param == name);
            param
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let number = self.user_count + 1;
        let mut is_new = false;
        for name in ["From", "ExternalUserId", "ParentExternalUserId"] {
            let Some(address) = value(name).map(Address::parse) else {
                continue;
            };
            let id = address.id();
            match address.identity() {
                Identity::Phone => {
                    // Without `+`, so that WaId and numbers inside texts are replaced too.
                    let digits = id.trim_start_matches('+');
                    is_new |= self.add_pair(digits, &format!("1555010{number:04}"));
                }
                Identity::BusinessScopedId => {
                    is_new |= self.add_pair(id, &format!("US.{number:020}"));
                }
                _ => is_new |= self.add_pair(id, &format!("user{number}")),
            }
        }
        if let Some(profile) = value("ProfileName") {
            is_new |= self.add_pair(profile, &format!("User {number}"));
        }
        self.user_count += usize::from(is_new);
    }

    fn add_pair(&mut self, real: &str, pseudonym: &str) -> bool {
        // `known_pseudonym == real`: a text that is a pseudonym already stays as it is.
        let is_known =
            |(known, known_pseudonym): &(String, String)| known == real || known_pseudonym == real;
        if real.is_empty() || self.known.iter().any(is_known) {
            return false;
        }
        self.known.push((real.to_owned(), pseudonym.to_owned()));
        self.known
            .sort_by_key(|(known, _)| std::cmp::Reverse(known.len()));
        true
    }

    /// Returns the recorded value of a parameter: `NumMedia` is 0, and coordinates are rounded to a tenth of a degree.
    fn pseudonymize_param(&self, name: &str, value: &str) -> String {
        match (name, value.parse::<f64>()) {
            ("NumMedia", _) => "0".to_owned(),
            ("Latitude" | "Longitude", Ok(degrees)) => format!("{degrees:.1}"),
            _ => self.pseudonymize(value),
        }
    }

    /// Replaces every occurrence.
    fn pseudonymize(&self, text: &str) -> String {
        let mut pseudonymous = String::with_capacity(text.len());
        let mut rest = text;
        // One pass, not one replacement after the other: a pseudonym that was inserted must not be replaced again.
        while let Some(next) = rest.chars().next() {
            let before = text[..text.len() - rest.len()].chars().next_back();
            let replacement = self.known.iter().find(|(known, _)| {
                let after = rest
                    .strip_prefix(known.as_str())
                    .map(|rest| rest.chars().next());
                // A name counts only as a whole word, so that "Ben" leaves "benefit" alone. A number counts anywhere.
                let is_name = known.starts_with(char::is_alphabetic);
                let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                after.is_some_and(|after| !is_name || !(is_word(before) || is_word(after)))
            });
            if let Some((known, pseudonym)) = replacement {
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

    // Numbers, user IDs and names are replaced inside texts too.
    #[test]
    fn recording_replaces_user_identities_with_pseudonyms() {
        let mut pseudonyms = Pseudonyms::default();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let ana = [
            pair("From", "whatsapp:+34600000001"),
            pair("ExternalUserId", "whatsapp:ES.12345"),
            pair("ProfileName", "Ana García"),
        ];
        pseudonyms.add_user(&ana);
        pseudonyms.add_user(&ana);
        let text = "Ana García (+34600000001, ES.12345) wrote, not +346000000012";
        let expected = "User 1 (+15550100001, US.00000000000000000001) wrote, not +155501000012";
        assert_eq!(pseudonyms.pseudonymize(text), expected);
        pseudonyms.add_user(&[pair("From", "+34611111111"), pair("ProfileName", "Ben")]);
        assert_eq!(
            pseudonyms.pseudonymize("Ben +34611111111 has a benefit, Benedict"),
            "User 2 +15550100002 has a benefit, Benedict"
        );
    }

    #[test]
    fn recording_continues_after_highest_number() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["notes.json", "10000.json", "9999.json"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        let recording = Recording::open(folder.path()).unwrap();
        let text = |text: &str| text.to_owned();
        let at = jiff::Timestamp::UNIX_EPOCH;
        let message = Record::inbound(text("SM1"), text("+1"), text("+2"), text("hi"), at);
        recording.write(&message, &[]).unwrap();
        let found = files(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            ["9999.json", "10000.json", "10001.json", "notes.json"]
        );
    }
}
