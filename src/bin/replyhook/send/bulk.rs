//! A message for each row of a CSV file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use anyhow::{Context, anyhow};
use csv::StringRecord;
use replyhook::config::SenderSettings;
use replyhook::sending::{Outgoing, SendErrorKind, Sender};
use replyhook::store::SendKey;
use replyhook::twilio::NewMessage;
use replyhook::{Address, Timestamp};
use serde_json::json;

use super::row::Draft;
use super::rows::{Column, Rows};
use super::{Send, has_failed, open, refused, why};
use crate::operator::{Opened, address, number};
use crate::{Answer, print};

/// What became of a row.
enum Told {
    /// It is in the outbox, or would be.
    Queued,
    /// It was there before.
    Known,
    Refused {
        reason: String,
        /// The message that has its key.
        id: Option<i64>,
    },
}

impl Told {
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
            id: None,
        }
    }

    /// Of a row whose key was taken before.
    fn known(message: &Outgoing) -> Self {
        let id = message.id;
        let reason = if message.differs {
            format!(
                "its key is that of message {id}, which says something else or goes to somebody else"
            )
        } else if has_failed(message) {
            let why = why(message).unwrap_or_else(|| "no reason is known".to_owned());
            format!("it is message {id}, taken before and failed: {why}")
        } else {
            return Self::Known;
        };
        Self::Refused {
            reason,
            id: Some(id),
        }
    }
}

/// A row that can be sent.
struct Ready {
    to: Address,
    message: NewMessage,
    key: String,
    /// All that it says.
    said: String,
}

/// The keys of a run, each with the line that had it first and what that says.
type Keys = HashMap<SendKey, (u64, SendKey)>;

#[derive(Default)]
struct Counts {
    queued: u64,
    known: u64,
    refused: u64,
}

impl Send {
    pub(super) fn bulk(&self, file: &Path, settings: SenderSettings) -> anyhow::Result<Answer> {
        let rows = Rows::read(file)?;
        let (opened, sender) = open(settings)?;
        let mut counts = Counts::default();
        let mut keys = Keys::new();
        for (line, record) in rows.each() {
            let (to, told) = match record.map(|record| self.ready(&rows.columns, &record)) {
                Ok(Ok(ready)) => {
                    let told = match repeated(&mut keys, line, &ready) {
                        Some(told) => told,
                        None => self.take(&opened, &sender, &ready)?,
                    };
                    (Some(ready.to), told)
                }
                Ok(Err((to, reason))) => (to, Told::refused(reason)),
                Err(reason) => (None, Told::refused(reason)),
            };
            match told {
                Told::Queued => counts.queued += 1,
                Told::Known => counts.known += 1,
                Told::Refused { reason, id } => {
                    counts.refused += 1;
                    print(&self.refusal(line, to.as_ref(), &reason, id))?;
                }
            }
        }
        print(&self.summary(&counts))?;
        Ok(if counts.refused > 0 {
            Answer::No
        } else {
            Answer::Yes
        })
    }

    /// What a row says, or to whom it would have been sent and why it is not.
    fn ready(
        &self,
        columns: &[Column],
        record: &StringRecord,
    ) -> Result<Ready, (Option<Address>, String)> {
        let fields = columns.iter().zip(record.iter());
        let mut to = None;
        let mut key = None;
        let mut draft = self.draft();
        let mut problem = None;
        for (column, field) in fields.filter(|(_, field)| !field.trim().is_empty()) {
            match column {
                Column::To => to = Some(field.trim()),
                Column::Key => key = Some(field),
                other => {
                    if let Err(error) = fill(&mut draft, other, field) {
                        problem.get_or_insert(error);
                    }
                }
            }
        }
        let text = to.ok_or_else(|| (None, "it has no recipient".to_owned()))?;
        let (to, message) = problem
            .map_or(Ok(()), Err)
            .and_then(|()| {
                address(text).map_err(|error| anyhow!("the recipient is no address: {error}"))
            })
            .and_then(|to| Ok((to.clone(), draft.message(to)?)))
            .map_err(|error| (Some(Address::parse(text)), error.to_string()))?;
        let said = draft.said_to(&to);
        let key = key.map_or_else(|| said.clone(), str::to_owned);
        let key = match &self.idempotency_key {
            Some(name) => format!("{name}/{key}"),
            None => key,
        };
        Ok(Ready {
            to,
            message,
            key,
            said,
        })
    }

    fn take(&self, opened: &Opened, sender: &Sender, ready: &Ready) -> anyhow::Result<Told> {
        let (key, message) = (ready.key.as_str(), &ready.message);
        let taken = if self.dry_run {
            opened.run(sender.check(Some(key), message))
        } else {
            opened.run(sender.send_once(key, message)).map(Some)
        };
        match taken {
            Ok(Some(known)) if known.repeated => Ok(Told::known(&known)),
            Ok(_) => Ok(Told::Queued),
            // The next rows would fare no better, and a second run goes on here.
            Err(error)
                if matches!(
                    error.kind(),
                    SendErrorKind::Store | SendErrorKind::NoAccount
                ) =>
            {
                Err(refused(&error))
            }
            Err(error) => Ok(Told::refused(error.to_string())),
        }
    }

    fn refusal(&self, line: u64, to: Option<&Address>, reason: &str, id: Option<i64>) -> String {
        let to = to.map(|to| format!("{to:?}"));
        if self.json {
            let told =
                json!({"kind": "refused", "line": line, "to": to, "id": id, "reason": reason});
            return format!("{told}\n");
        }
        let to = to.map_or_else(String::new, |to| format!(" {to}"));
        format!("line {line}{to}: {reason}\n")
    }

    fn summary(&self, counts: &Counts) -> String {
        let Counts {
            queued,
            known,
            refused,
        } = counts;
        if self.json {
            let line = json!({"kind": "counts", "queued": queued, "known": known, "refused": refused,
                "dry_run": self.dry_run});
            return format!("{line}\n");
        }
        let rows = number(queued + known + refused, "row");
        let would = if self.dry_run { "would be " } else { "" };
        format!("{rows}: {queued} {would}queued, {known} known from before, {refused} refused\n")
    }
}

/// What is told of a row whose key another row of the file has: one that says the same is the same message.
fn repeated(keys: &mut Keys, line: u64, ready: &Ready) -> Option<Told> {
    let said = SendKey::new(&ready.said);
    match keys.entry(SendKey::new(&ready.key)) {
        Entry::Vacant(entry) => {
            entry.insert((line, said));
            None
        }
        Entry::Occupied(first) if first.get().1 == said => Some(Told::Known),
        Entry::Occupied(first) => Some(Told::refused(format!(
            "its key is that of line {}, which says something else or goes to somebody else",
            first.get().0
        ))),
    }
}

fn fill(draft: &mut Draft, column: &Column, field: &str) -> anyhow::Result<()> {
    let trimmed = field.trim();
    match column {
        Column::To | Column::Key => {}
        Column::From => {
            let from =
                address(trimmed).map_err(|error| anyhow!("the sender is no address: {error}"))?;
            draft.from = Some(from);
        }
        Column::Service => draft.service = Some(trimmed.parse().context("service")?),
        Column::Body => draft.body = Some(field.to_owned()),
        Column::Template => draft.template = Some(trimmed.to_owned()),
        Column::Variable(name) => {
            draft.variables.insert(name.clone(), field.to_owned());
        }
        Column::Media => draft.media = trimmed.split_whitespace().map(str::to_owned).collect(),
        Column::At => {
            let at: Result<Timestamp, _> = trimmed.parse();
            let at =
                at.map_err(|_| anyhow!("at is no time: write one such as 2026-12-24T18:00:00Z"))?;
            draft.at = Some(at);
        }
    }
    Ok(())
}
