//! A message for each row of a CSV file.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use csv::{ReaderBuilder, StringRecord};
use replyhook::config::SenderSettings;
use replyhook::sending::{SendErrorKind, Sender};
use replyhook::{Address, Timestamp};
use serde_json::json;

use super::row::Draft;
use super::{Send, has_failed, open, refused, why};
use crate::operator::{Opened, address, number};
use crate::{Answer, print};

/// What a column holds.
enum Column {
    To,
    From,
    Service,
    Body,
    Template,
    Variable(String),
    Media,
    At,
    Key,
}

impl Column {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "to" => Self::To,
            "from" => Self::From,
            "service" => Self::Service,
            "body" => Self::Body,
            "template" => Self::Template,
            "media" => Self::Media,
            "at" => Self::At,
            "key" => Self::Key,
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::Variable(digits.to_owned())
            }
            other => Self::Variable(
                other
                    .strip_prefix("var.")
                    .filter(|name| !name.is_empty())?
                    .to_owned(),
            ),
        })
    }
}

/// What became of a row.
enum Told {
    /// It is in the outbox, or would be.
    Queued,
    /// It was there before.
    Known,
    Refused(String),
}

#[derive(Default)]
struct Counts {
    queued: u64,
    known: u64,
    refused: u64,
}

impl Send {
    pub(super) fn bulk(&self, file: &Path, settings: SenderSettings) -> anyhow::Result<Answer> {
        let shown = file.display();
        let input: Box<dyn Read> = if file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(file).with_context(|| format!("{shown} cannot be read"))?)
        };
        let mut reader = ReaderBuilder::new().from_reader(input);
        let heading = reader
            .headers()
            .map_err(|error| anyhow!("{shown}: {error}"))?;
        let columns = columns(heading).with_context(|| shown.to_string())?;
        let (opened, sender) = open(settings)?;
        let mut counts = Counts::default();
        // As a spreadsheet numbers them: the heading is row 1.
        for (record, row) in reader.records().zip(2_u64..) {
            let (to, told) = match record {
                Ok(record) => self.row(&opened, &sender, &columns, &record)?,
                Err(error) if error.is_io_error() => bail!("{shown}: {error}"),
                Err(error) => (None, Told::Refused(broken(&error))),
            };
            match told {
                Told::Queued => counts.queued += 1,
                Told::Known => counts.known += 1,
                Told::Refused(reason) => {
                    counts.refused += 1;
                    print(&self.refusal(row, to.as_ref(), &reason))?;
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

    fn row(
        &self,
        opened: &Opened,
        sender: &Sender,
        columns: &[Column],
        record: &StringRecord,
    ) -> anyhow::Result<(Option<Address>, Told)> {
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
        let Some(text) = to else {
            return Ok((None, Told::Refused("it has no recipient".to_owned())));
        };
        let shown = Some(Address::parse(text));
        let made = problem
            .map_or(Ok(()), Err)
            .and_then(|()| {
                address(text).map_err(|error| anyhow!("the recipient is no address: {error}"))
            })
            .and_then(|to| Ok((draft.message(to.clone())?, to)));
        let (message, to) = match made {
            Ok(made) => made,
            Err(error) => return Ok((shown, Told::Refused(error.to_string()))),
        };
        let key = key.map_or_else(|| draft.said_to(&to), str::to_owned);
        let key = match &self.key {
            Some(name) => format!("{name}/{key}"),
            None => key,
        };
        let taken = if self.dry_run {
            opened.run(sender.check(Some(&key), &message))
        } else {
            opened.run(sender.send_once(&key, &message)).map(Some)
        };
        let told = match taken {
            Ok(Some(known)) if known.repeated && has_failed(&known) => {
                let why = why(&known).unwrap_or_else(|| "no reason is known".to_owned());
                Told::Refused(format!("it was taken before and failed: {why}"))
            }
            Ok(Some(known)) if known.repeated => Told::Known,
            Ok(_) => Told::Queued,
            // The next rows would fare no better, and a second run goes on here.
            Err(error)
                if matches!(
                    error.kind(),
                    SendErrorKind::Store | SendErrorKind::NoAccount
                ) =>
            {
                return Err(refused(&error));
            }
            Err(error) => Told::Refused(error.to_string()),
        };
        Ok((Some(to), told))
    }

    fn refusal(&self, row: u64, to: Option<&Address>, reason: &str) -> String {
        let to = to.map(|to| format!("{to:?}"));
        if self.json {
            let line = json!({"kind": "refused", "row": row, "to": to, "reason": reason});
            return format!("{line}\n");
        }
        let to = to.map_or_else(String::new, |to| format!(" {to}"));
        format!("row {row}{to}: {reason}\n")
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

fn columns(heading: &StringRecord) -> anyhow::Result<Vec<Column>> {
    let mut columns = Vec::new();
    for name in heading {
        // Spreadsheets begin a file with a byte order mark.
        let name = name.trim_start_matches('\u{FEFF}').trim();
        match Column::named(name) {
            Some(column) => columns.push(column),
            None => bail!(
                "there is no column {name:?}: write to, from, service, body, template, media, at, key, and 1, 2, … or \
                 var.NAME for variables, separated by commas"
            ),
        }
    }
    if columns.iter().any(|column| matches!(column, Column::To)) {
        Ok(columns)
    } else {
        bail!("it has no column `to`")
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

/// Why a row is none. The crate's own words would do, but for their bytes and records.
fn broken(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "it has {}, and the heading has {expected_len}",
            number(*len, "field")
        ),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8: save the file as such".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}
