//! `consent import`: one opt-in or opt-out per row of a CSV file.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use csv::StringRecord;
use replyhook::internals::{ConsentStatement, StatedFacts, StatedTime, StatementOutcome};
use replyhook::store::{Access, ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::{Address, MessageSid, MessagingServiceSid, Timestamp};
use serde_json::json;

use crate::csv_rows::CsvRows;
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_count, format_user, now, parse_address, parse_user};
use crate::print::print;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
pub(crate) struct ImportConsentArgs {
    /// CSV file with a header line; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Apply rows without a sender or service to this sender
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, conflicts_with = "service")]
    sender: Option<Address>,
    /// Apply rows without a sender or service to all senders of this Messaging Service
    #[arg(long, value_name = "MG…")]
    service: Option<MessagingServiceSid>,
    /// Check every row, and record nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The meaning of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConsentColumn {
    Address,
    Sender,
    Service,
    /// A sender or a service, as `consent export` prints it.
    Scope,
    Status,
    Source,
    Note,
    Evidence,
    At,
    /// The ID of an exported entry, which is ignored.
    Id,
}

/// Names of the columns. The second ones of a meaning are those of `consent export`.
const COLUMNS: [(&str, ConsentColumn); 12] = [
    ("address", ConsentColumn::Address),
    ("user", ConsentColumn::Address),
    ("sender", ConsentColumn::Sender),
    ("service", ConsentColumn::Service),
    ("scope", ConsentColumn::Scope),
    ("status", ConsentColumn::Status),
    ("action", ConsentColumn::Status),
    ("source", ConsentColumn::Source),
    ("note", ConsentColumn::Note),
    ("evidence", ConsentColumn::Evidence),
    ("at", ConsentColumn::At),
    ("id", ConsentColumn::Id),
];

#[derive(Default)]
struct ImportCounts {
    recorded: u64,
    unchanged: u64,
    rejected: u64,
}

fn parse_columns(header: &StringRecord) -> anyhow::Result<Vec<ConsentColumn>> {
    let mut columns = Vec::new();
    for name in header {
        let name = name.trim();
        let Some((_, column)) = COLUMNS.iter().find(|(known, _)| *known == name) else {
            bail!(
                "unknown column {name:?}; write address, sender, service, status, source, note, evidence and at, separated \
                 by commas"
            )
        };
        if columns.contains(column) {
            bail!("two columns for {name:?}; leave one out");
        }
        columns.push(*column);
    }
    if columns.contains(&ConsentColumn::Address) {
        Ok(columns)
    } else {
        bail!("the column `address` is missing")
    }
}

impl ImportConsentArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let rows = CsvRows::read(&self.file, "nothing is recorded", parse_columns)?;
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let mut counts = ImportCounts::default();
        // With --dry-run nothing is recorded, so only this finds equal rows within the file.
        let mut seen = HashSet::new();
        for (line, row) in rows.iter_rows() {
            let parsed = row.map_err(|reason| (None, reason)).and_then(|row| {
                let parsed = self.parse_row(&rows.columns, &row);
                parsed.map_err(|(user, error)| (user, error.to_string()))
            });
            let (user, reason) = match parsed {
                Err(rejected) => rejected,
                Ok(statement) => {
                    let user = statement.record.user.clone();
                    let is_repeated = self.dry_run && !seen.insert(identity(&statement));
                    match opened.wait(opened.store.state_consent(statement))? {
                        StatementOutcome::Recorded if !is_repeated => {
                            counts.recorded += 1;
                            continue;
                        }
                        StatementOutcome::Recorded | StatementOutcome::Unchanged => {
                            counts.unchanged += 1;
                            continue;
                        }
                        StatementOutcome::Superseded(at) => {
                            let reason = format!(
                                "the user decided otherwise at {at:.0}, which is newer or not known to be older"
                            );
                            (Some(user), reason)
                        }
                    }
                }
            };
            counts.rejected += 1;
            print(&self.format_rejection(line, user.as_ref(), &reason))?;
        }
        print(&self.format_summary(&counts))?;
        Ok(if counts.rejected > 0 {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }

    /// Reads a row, or returns its user and the reason why it is rejected.
    fn parse_row(
        &self,
        columns: &[ConsentColumn],
        row: &StringRecord,
    ) -> Result<ConsentStatement, (Option<Address>, anyhow::Error)> {
        let field = |wanted| {
            let mut fields = columns.iter().zip(row.iter());
            let found = fields.find(|(column, _)| **column == wanted);
            found
                .map(|(_, text)| text.trim())
                .filter(|text| !text.is_empty())
        };
        let user = field(ConsentColumn::Address)
            .ok_or_else(|| anyhow!("the address is missing"))
            .and_then(|text| parse_user(text).map_err(|error| anyhow!("the address is {error}")))
            .map_err(|error| (None, error))?;
        let statement = self.parse_statement(&user, field);
        statement.map_err(|error| (Some(user), error))
    }

    fn parse_statement<'a>(
        &self,
        user: &Address,
        field: impl Fn(ConsentColumn) -> Option<&'a str>,
    ) -> anyhow::Result<ConsentStatement> {
        let (sender, service) = (field(ConsentColumn::Sender), field(ConsentColumn::Service));
        let scope = match (sender, service, field(ConsentColumn::Scope)) {
            (Some(sender), None, None) => Some(parse_sender(sender)?),
            (None, Some(service), None) => Some(ConsentScope::Service(service.parse()?)),
            (None, None, Some(scope)) => Some(match scope.parse() {
                Ok(service) => ConsentScope::Service(service),
                Err(_) => parse_sender(scope)?,
            }),
            (None, None, None) => None,
            _ => bail!("both a sender and a service are given; leave one out"),
        };
        let of_options = || {
            let sender = self.sender.clone().map(ConsentScope::Sender);
            self.service.map(ConsentScope::Service).or(sender)
        };
        let scope = scope.or_else(of_options);
        let scope = scope.ok_or_else(|| {
            anyhow!(
                "no sender or service; fill in one of the columns, or add --sender or --service"
            )
        })?;
        if let ConsentScope::Sender(sender) = &scope
            && sender.channel() != user.channel()
        {
            bail!(
                "user and sender are on different channels, {} and {}",
                user.channel().as_str(),
                sender.channel().as_str()
            );
        }
        let action = match field(ConsentColumn::Status) {
            None | Some("opted_in" | "opt_in") => ConsentAction::OptIn,
            Some("opted_out" | "opt_out") => ConsentAction::OptOut,
            Some(_) => bail!("the status is neither opted_in nor opted_out"),
        };
        let owned = |column| field(column).map(str::to_owned);
        let (origin, note) = (owned(ConsentColumn::Source), owned(ConsentColumn::Note));
        let evidence = field(ConsentColumn::Evidence);
        let message: Option<MessageSid> = evidence.and_then(|text| text.parse().ok());
        if action == ConsentAction::OptIn
            && origin.is_none()
            && note.is_none()
            && evidence.is_none()
        {
            bail!("an opt-in without evidence; fill in source, note or evidence");
        }
        let present = now();
        let given = field(ConsentColumn::At).map(|text| {
            let at: Result<Timestamp, _> = text.parse();
            at.map_err(|_| anyhow!("invalid time in `at`; write one such as 2026-12-24T18:00:00Z"))
        });
        let given = given.transpose()?;
        if given.is_some_and(|at| at > present) {
            bail!("the time in `at` has not come yet");
        }
        Ok(ConsentStatement {
            record: ConsentRecord {
                scope,
                user: user.clone(),
                action,
                source: ConsentSource::Operator,
                evidence: message,
                note,
                at: given.unwrap_or(present),
            },
            stated: StatedFacts {
                origin,
                proof: evidence.filter(|_| message.is_none()).map(str::to_owned),
            },
            time: match given {
                Some(_) => StatedTime::Given,
                None => StatedTime::Unknown,
            },
            dry_run: self.dry_run,
        })
    }

    fn format_rejection(&self, line: u64, user: Option<&Address>, reason: &str) -> String {
        let user = user.map(|user| format_user(user, false));
        if self.json {
            let object = json!({"kind": "rejected", "line": line, "user": user, "reason": reason});
            return format!("{object}\n");
        }
        let user = user.map_or_else(String::new, |user| format!(" {user}"));
        format!("line {line}{user}: {reason}\n")
    }

    fn format_summary(&self, counts: &ImportCounts) -> String {
        let ImportCounts {
            recorded,
            unchanged,
            rejected,
        } = counts;
        if self.json {
            let line = json!({"kind": "counts", "recorded": recorded, "unchanged": unchanged, "rejected": rejected,
                "dry_run": self.dry_run});
            return format!("{line}\n");
        }
        let rows = format_count(recorded + unchanged + rejected, "row");
        let would = if self.dry_run { "would be " } else { "" };
        format!("{rows}: {recorded} {would}recorded, {unchanged} unchanged, {rejected} rejected\n")
    }
}

fn parse_sender(text: &str) -> anyhow::Result<ConsentScope> {
    let sender = parse_address(text).map_err(|error| anyhow!("the sender is {error}"))?;
    Ok(ConsentScope::Sender(sender))
}

/// Returns a text that is equal for equal rows.
fn identity(statement: &ConsentStatement) -> String {
    let record = &statement.record;
    let at = (statement.time == StatedTime::Given).then_some(record.at);
    format!(
        "{:?}",
        (
            record.user.as_str(),
            record.scope.as_str(),
            record.action.as_str(),
            record.evidence,
            &record.note,
            (&statement.stated.origin, &statement.stated.proof),
            at.map(|at| at.to_string()),
        )
    )
}
