use std::fmt::Write;

use replyhook::config::GuardSettings;
use replyhook::internals::ConsentEntry;
use replyhook::store::{Access, ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::{Address, MessageSid, MessagingServiceSid, Timestamp};
use serde_json::json;

use crate::consent_import::ImportConsentArgs;
use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, now, parse_address, parse_user};
use crate::opt_out::describe_since;
use crate::print::{print, printable, try_print};
use crate::settings_args::SettingsArgs;
use crate::verdict::other_silences;

/// Ledger entries per query of the store.
const PAGE_SIZE: u32 = 500;

#[derive(clap::Args)]
#[command(after_help = "\
Addresses are shown in full, because the records are your evidence. Works on the store of a running server.

Examples:
  replyhook consent show whatsapp:+15550001111 --sender whatsapp:+15550002222
  replyhook consent opt-in whatsapp:+15550001111 --sender whatsapp:+15550002222 --note 'order form, box 2'
  replyhook consent import opt-ins.csv --sender whatsapp:+15550002222 --dry-run
  replyhook consent export --csv > consent.csv")]
pub(crate) struct ConsentArgs {
    #[command(subcommand)]
    command: ConsentCommand,
}

#[derive(clap::Subcommand)]
enum ConsentCommand {
    /// Show whether a user has opted out or in, since when and how; without a scope, in every scope. Also an entry of the guard
    /// or a handoff that keeps replies from the user
    #[command(after_help = "\
Exit codes:
  0  shown
  1  the store cannot be used
  2  usage or configuration error")]
    Show(ShowConsentArgs),
    /// Record an opt-out: the user gets no more messages
    #[command(after_help = "\
Exit codes:
  0  recorded
  1  the store cannot be used
  2  usage or configuration error")]
    OptOut(ConsentChangeArgs),
    /// Record an opt-in, which also ends an opt-out
    #[command(after_help = "\
Exit codes:
  0  recorded
  1  the store cannot be used
  2  usage or configuration error")]
    OptIn(ConsentChangeArgs),
    /// Record the opt-ins and opt-outs of a CSV file
    #[command(after_help = "\
A CSV file has a header line. Its columns: address; sender or service, unless an option names one for all rows; optionally
status (opted_in, which is the default, or opted_out), source, note, evidence (the SID of a message, or another proof), at. An
opt-in needs source, note or evidence. The columns of `consent export --csv` are accepted too.

The same file again changes nothing. A row never replaces a newer change, and without a time (at) never ends an opt-out.

Exit codes:
  0  every row is recorded, or was before
  1  a row was rejected, or the store cannot be used
  2  usage or configuration error

Examples:
  replyhook consent import opt-ins.csv --dry-run
  replyhook consent import opt-ins.csv --service MG…")]
    Import(ImportConsentArgs),
    /// Print all consent records, oldest first
    #[command(after_help = "Example:\n  replyhook consent export --json | jq .")]
    Export(ExportConsentArgs),
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct ScopeArgs {
    /// Apply to this sender
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    sender: Option<Address>,
    /// Apply to all senders of this Messaging Service
    #[arg(long, value_name = "MG…")]
    service: Option<MessagingServiceSid>,
}

impl ScopeArgs {
    /// Checks that user and sender are on the same channel.
    fn check_channel(&self, user: &Address) -> anyhow::Result<()> {
        // No message of the sender could reach the user, so the record would have no effect, such as with a missing
        // `whatsapp:`.
        match &self.sender {
            Some(sender) if sender.channel() != user.channel() => anyhow::bail!(
                "user and sender are on different channels, {} and {}; write both as Twilio does, such as \
                 whatsapp:+15550001111",
                user.channel().as_str(),
                sender.channel().as_str()
            ),
            _ => Ok(()),
        }
    }

    fn into_scope(self) -> ConsentScope {
        match (self.service, self.sender) {
            (Some(service), _) => ConsentScope::Service(service),
            (None, sender) => ConsentScope::Sender(sender.unwrap_or_else(|| "".into())),
        }
    }
}

#[derive(clap::Args)]
#[group(multiple = false)]
struct ShownScopeArgs {
    /// Only for this sender
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    sender: Option<Address>,
    /// Only for this Messaging Service
    #[arg(long, value_name = "MG…")]
    service: Option<MessagingServiceSid>,
}

impl ShownScopeArgs {
    fn into_scope_args(self) -> Option<ScopeArgs> {
        let has_scope = self.sender.is_some() || self.service.is_some();
        has_scope.then_some(ScopeArgs {
            sender: self.sender,
            service: self.service,
        })
    }
}

#[derive(clap::Args)]
struct ShowConsentArgs {
    /// The user, such as whatsapp:+15550001111
    #[arg(value_parser = parse_user)]
    user: Address,
    #[command(flatten)]
    scope: ShownScopeArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct ConsentChangeArgs {
    /// The user, such as whatsapp:+15550001111
    #[arg(value_parser = parse_user)]
    user: Address,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Add a note, such as where the user agreed
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Add the SID of the message that proves it
    #[arg(long, value_name = "SID")]
    evidence: Option<MessageSid>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct ExportConsentArgs {
    /// Print one JSON object per line
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values (RFC 4180) with a header line
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl ConsentArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.command {
            ConsentCommand::Show(show) => show.run(),
            ConsentCommand::OptOut(change) => change.run(ConsentAction::OptOut),
            ConsentCommand::OptIn(change) => change.run(ConsentAction::OptIn),
            ConsentCommand::Import(import) => import.run(),
            ConsentCommand::Export(export) => export.run(),
        }
    }
}

impl ShowConsentArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let scope = self.scope.into_scope_args();
        if let Some(scope) = &scope {
            scope.check_channel(&self.user)?;
        }
        let sources = self.settings.sources();
        let guard = GuardSettings::load(&sources)?;
        let opened = OpenedStore::from_sources(&sources, Access::Operator)?;
        let scope = scope.map(ScopeArgs::into_scope);
        match &scope {
            Some(scope) => print_state(&opened, scope, &self.user)?,
            None => print_all_states(&opened, &self.user)?,
        }
        let details = opened.wait(opened.store.user(&self.user, None))?;
        let user = self.user.as_str();
        for reason in other_silences(&details, &guard, scope.as_ref(), now()) {
            let line = format!("{user}: gets no replies: {reason}");
            print(&format!("{}\n", printable(&line)))?;
        }
        Ok(ExitStatus::Yes)
    }
}

impl ConsentChangeArgs {
    fn run(self, action: ConsentAction) -> anyhow::Result<ExitStatus> {
        self.scope.check_channel(&self.user)?;
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let scope = self.scope.into_scope();
        let record = ConsentRecord {
            scope: scope.clone(),
            user: self.user.clone(),
            action,
            source: ConsentSource::Operator,
            evidence: self.evidence,
            note: self.note,
            at: now(),
        };
        opened.wait(opened.store.record_consent(record))?;
        print_state(&opened, &scope, &self.user)?;
        Ok(ExitStatus::Yes)
    }
}

/// Prints the consent of a user in one scope, and in the service that the sender's messages come through.
fn print_state(opened: &OpenedStore, scope: &ConsentScope, user: &Address) -> anyhow::Result<()> {
    let consents = opened.wait(opened.store.consents(user))?;
    let details = opened.wait(opened.store.user(user, None))?;
    let mut services = details.conversations.iter().filter_map(|conversation| {
        let ConsentScope::Sender(sender) = scope else {
            return None;
        };
        conversation
            .service
            .filter(|_| conversation.sender == *sender)
    });
    // An opt-out from a service covers its senders: the one that the last message named, and the one in which the sender
    // was last seen.
    let service = services.next().map(ConsentScope::Service);
    let service_of_sender = match scope {
        ConsentScope::Sender(sender) => opened.wait(opened.store.service_of_sender(sender))?,
        _ => None,
    };
    let service_of_sender = service_of_sender.map(ConsentScope::Service);
    let in_scope = |wanted: &ConsentScope| consents.iter().find(|found| found.scope == *wanted);
    let own = in_scope(scope);
    let by_service = [&service, &service_of_sender];
    let by_service = by_service
        .into_iter()
        .filter_map(|service| in_scope(service.as_ref()?));
    let mut opt_outs = own.into_iter().chain(by_service);
    let opted_out = opt_outs.find_map(|consent| describe_since(consent, scope.as_str()));
    let opted_in = own.and_then(|consent| consent.opted_in);
    print(&format!(
        "{} for {}: {}\n",
        user.as_str(),
        scope.as_str(),
        format_state(opted_out, opted_in),
    ))
}

/// Prints the consents of a user in every scope.
fn print_all_states(opened: &OpenedStore, user: &Address) -> anyhow::Result<()> {
    let consents = opened.wait(opened.store.consents(user))?;
    let mut text = String::new();
    for consent in &consents {
        let scope = consent.scope.as_str();
        writeln!(
            text,
            "{} for {scope}: {}",
            user.as_str(),
            format_state(describe_since(consent, scope), consent.opted_in),
        )?;
    }
    if consents.is_empty() {
        writeln!(text, "{}: no opt-out or opt-in recorded", user.as_str())?;
    }
    if consents.len() > 1 {
        text.push_str(
            "An opt-out from a message's sender or from its Messaging Service counts, also if the user opted in to the other.\n",
        );
    }
    print(&text)
}

/// Returns both states, and which of them counts.
fn format_state(opted_out: Option<String>, opted_in: Option<Timestamp>) -> String {
    let counts = match (&opted_out, opted_in) {
        (Some(_), _) => "; the opt-out counts: nothing is sent",
        (None, Some(_)) => "; the opt-in counts",
        (None, None) => "",
    };
    let opted_out = opted_out.unwrap_or_else(|| "not opted out".to_owned());
    let opted_in = opted_in.map_or_else(
        || "no opt-in recorded".to_owned(),
        |at| format!("opted in since {at:.0}"),
    );
    format!("{opted_out}, {opted_in}{counts}")
}

impl ExportConsentArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let mut text = String::new();
        if self.csv {
            text.push_str("id,user,scope,action,source,evidence,note,at\r\n");
        }
        let mut after = 0;
        loop {
            let entries = opened.wait(opened.store.consent_ledger(after, PAGE_SIZE))?;
            for entry in &entries {
                after = entry.id;
                self.write_entry(entry, &mut text)?;
            }
            let pipe_is_open = try_print(&text)?;
            if entries.is_empty() || !pipe_is_open {
                return Ok(ExitStatus::Yes);
            }
            text.clear();
        }
    }

    fn write_entry(&self, entry: &ConsentEntry, text: &mut String) -> std::fmt::Result {
        let record = &entry.record;
        let evidence = record.evidence.as_ref().map(MessageSid::as_str);
        let evidence = evidence.or(entry.stated.proof.as_deref());
        let note = record.note.as_deref();
        let (user, scope) = (record.user.as_str(), record.scope.as_str());
        // Prefer the source that the API request or the CSV file gave. `record.source` is only the interface that it came by.
        let source = entry.stated.origin.as_deref();
        let source = source.unwrap_or(record.source.as_str());
        let action = record.action.as_str();
        let (id, at) = (entry.id, record.at);
        if self.json {
            let line = json!({"id": id, "user": user, "scope": scope, "action": action, "source": source,
                "evidence": evidence, "note": note, "at": at.to_string()});
            return writeln!(text, "{line}");
        }
        let (evidence, note) = (evidence.unwrap_or_default(), note.unwrap_or_default());
        if self.csv {
            let fields = [user, scope, action, source, evidence, note].map(quote_field);
            return write!(text, "{id},{},{at}\r\n", fields.join(","));
        }
        let line = format!("{at:.0} {user} {scope} {action} {source} {evidence} {note}");
        writeln!(text, "{}", printable(&line).replace('\n', " "))
    }
}

/// Quotes a CSV field.
fn quote_field(field: &str) -> String {
    // Always: a spreadsheet could take an unquoted phone number for a number, because it begins with `+`.
    format!("\"{}\"", field.replace('"', "\"\""))
}
