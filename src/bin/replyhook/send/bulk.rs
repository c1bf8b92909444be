//! `send --csv`: one message per row of a CSV file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use anyhow::{Context, anyhow};
use csv::StringRecord;
use replyhook::config::SendSettings;
use replyhook::internals::IdempotencyKey;
use replyhook::outbound::{OutboundClient, SendErrorKind, SendReceipt};
use replyhook::twilio::NewMessage;
use replyhook::{Address, Timestamp};
use serde_json::json;

use super::command::Send;
use super::command::{failure_reason, has_failed, open_outbox, to_exit_error};
use super::row::Draft;
use super::rows::{Column, parse_columns};
use crate::csv_rows::CsvRows;
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_count, parse_address, parse_user};
use crate::print::print;

/// The result of one row.
enum RowOutcome {
    /// The message was queued, or would be with `--dry-run`.
    Queued,
    /// The message had been queued before.
    Duplicate,
    Rejected {
        reason: String,
        /// Number of the message that already has the row's key.
        id: Option<i64>,
    },
}

impl RowOutcome {
    fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected {
            reason: reason.into(),
            id: None,
        }
    }

    /// Returns the outcome of a row whose key `message` already has.
    fn duplicate(message: &SendReceipt) -> Self {
        let id = message.id;
        let reason = if message.differs {
            format!("message {id} has the same key, but another text or recipient")
        } else if has_failed(message) {
            // Counted as rejected, not as a duplicate: running the command again will not send it.
            let reason = failure_reason(message).unwrap_or_else(|| "unknown reason".to_owned());
            format!("queued before as message {id}, which failed: {reason}")
        } else {
            return Self::Duplicate;
        };
        Self::Rejected {
            reason,
            id: Some(id),
        }
    }
}

/// A valid row.
struct ValidRow {
    to: Address,
    message: NewMessage,
    key: String,
    /// The whole content of the message as one text.
    content: String,
}

/// The keys of this run, each with the line that had it first and a hash of that row's content.
///
/// Hashes, so that the content of a large file is not in memory a second time.
type SeenKeys = HashMap<IdempotencyKey, (u64, IdempotencyKey)>;

#[derive(Default)]
struct BulkCounts {
    queued: u64,
    duplicates: u64,
    rejected: u64,
}

impl Send {
    pub(super) fn send_csv(
        &self,
        file: &Path,
        settings: SendSettings,
    ) -> anyhow::Result<ExitStatus> {
        let rows = CsvRows::read(file, "nothing is sent", parse_columns)?;
        let (opened, client) = open_outbox(settings)?;
        let mut counts = BulkCounts::default();
        let mut keys = SeenKeys::new();
        let mut is_warned = false;
        for (line, record) in rows.iter_rows() {
            let (to, outcome) = match record.map(|record| self.parse_row(&rows.columns, &record)) {
                Ok(Ok(row)) => {
                    // The choices are those of the options, so once is enough.
                    is_warned = is_warned || self.warn_of_keywords(row.to.channel());
                    let outcome = match find_repeated_key(&mut keys, line, &row) {
                        Some(outcome) => outcome,
                        None => self.queue(&opened, &client, &row)?,
                    };
                    (Some(row.to), outcome)
                }
                Ok(Err((to, reason))) => (to, RowOutcome::rejected(reason)),
                Err(reason) => (None, RowOutcome::rejected(reason)),
            };
            match outcome {
                RowOutcome::Queued => counts.queued += 1,
                RowOutcome::Duplicate => counts.duplicates += 1,
                RowOutcome::Rejected { reason, id } => {
                    counts.rejected += 1;
                    print(&self.format_rejection(line, to.as_ref(), &reason, id))?;
                }
            }
        }
        print(&self.format_summary(&counts))?;
        Ok(if counts.rejected > 0 {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }

    /// Builds the message of a row, or returns its recipient and the reason why it is rejected.
    fn parse_row(
        &self,
        columns: &[Column],
        record: &StringRecord,
    ) -> Result<ValidRow, (Option<Address>, String)> {
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
                    if let Err(error) = set_field(&mut draft, other, field) {
                        problem.get_or_insert(error);
                    }
                }
            }
        }
        let text = to.ok_or_else(|| (None, "the recipient is missing".to_owned()))?;
        let (to, message) = problem
            .map_or(Ok(()), Err)
            .and_then(|()| parse_user(text).map_err(|error| anyhow!("the recipient is {error}")))
            .and_then(|to| Ok((to.clone(), draft.message(to)?)))
            .map_err(|error| (Some(Address::parse(text)), error.to_string()))?;
        let content = draft.content_for(&to);
        // Without a key of its own, a row is identified by its content: the same file sends nothing twice.
        let key = key.map_or_else(|| content.clone(), str::to_owned);
        let key = match &self.idempotency_key {
            Some(name) => format!("{name}/{key}"),
            None => key,
        };
        Ok(ValidRow {
            to,
            message,
            key,
            content,
        })
    }

    fn queue(
        &self,
        opened: &OpenedStore,
        client: &OutboundClient,
        row: &ValidRow,
    ) -> anyhow::Result<RowOutcome> {
        let (key, message) = (row.key.as_str(), &row.message);
        let queued = if self.dry_run {
            opened.run(client.check(Some(key), message))
        } else {
            opened.run(client.send_once(key, message)).map(Some)
        };
        match queued {
            Ok(Some(receipt)) if receipt.is_duplicate => Ok(RowOutcome::duplicate(&receipt)),
            Ok(_) => Ok(RowOutcome::Queued),
            // Stop: the following rows would fail in the same way. A second run continues here, thanks to the keys.
            Err(error)
                if matches!(
                    error.kind(),
                    SendErrorKind::Store | SendErrorKind::NoAccount
                ) =>
            {
                Err(to_exit_error(&error))
            }
            Err(error) => Ok(RowOutcome::rejected(error.to_string())),
        }
    }

    fn format_rejection(
        &self,
        line: u64,
        to: Option<&Address>,
        reason: &str,
        id: Option<i64>,
    ) -> String {
        let to = to.map(|to| format!("{to:?}"));
        if self.json {
            let object =
                json!({"kind": "rejected", "line": line, "to": to, "id": id, "reason": reason});
            return format!("{object}\n");
        }
        let to = to.map_or_else(String::new, |to| format!(" {to}"));
        format!("line {line}{to}: {reason}\n")
    }

    fn format_summary(&self, counts: &BulkCounts) -> String {
        let BulkCounts {
            queued,
            duplicates,
            rejected,
        } = counts;
        if self.json {
            let line = json!({"kind": "counts", "queued": queued, "duplicates": duplicates, "rejected": rejected,
                "dry_run": self.dry_run});
            return format!("{line}\n");
        }
        let rows = format_count(queued + duplicates + rejected, "row");
        let would = if self.dry_run { "would be " } else { "" };
        format!("{rows}: {queued} {would}queued, {duplicates} duplicates, {rejected} rejected\n")
    }
}

/// Returns the outcome of a row whose key an earlier row of the file has: equal content is the same message.
fn find_repeated_key(keys: &mut SeenKeys, line: u64, row: &ValidRow) -> Option<RowOutcome> {
    // With `--dry-run` nothing is queued, so only this finds duplicates within the file.
    let content = IdempotencyKey::new(&row.content);
    match keys.entry(IdempotencyKey::new(&row.key)) {
        Entry::Vacant(entry) => {
            entry.insert((line, content));
            None
        }
        Entry::Occupied(first) if first.get().1 == content => Some(RowOutcome::Duplicate),
        Entry::Occupied(first) => Some(RowOutcome::rejected(format!(
            "line {} has the same key, but another text or recipient",
            first.get().0
        ))),
    }
}

fn set_field(draft: &mut Draft, column: &Column, field: &str) -> anyhow::Result<()> {
    let trimmed = field.trim();
    match column {
        Column::To | Column::Key => {}
        Column::From => {
            let from = parse_address(trimmed).map_err(|error| anyhow!("the sender is {error}"))?;
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
            let at = at.map_err(|_| {
                anyhow!("invalid time in `at`; write one such as 2026-12-24T18:00:00Z")
            })?;
            draft.at = Some(at);
        }
    }
    Ok(())
}
