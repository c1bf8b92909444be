use std::fmt::Write;

use anyhow::bail;
use replyhook::config::GuardSettings;
use replyhook::internals::{
    AddressConsent, AddressLink, MessageFilter, MessageRow, UserChange, UserConversation,
    UserDetails,
};
use replyhook::store::{Access, ConsentAction, OpenWindow};
use replyhook::{AccountSid, Address, Channel, Timestamp};
use serde_json::{Value, json};

use crate::exit::ExitStatus;
use crate::messages::{message_texts, summary_json};
use crate::operator::{OpenedStore, format_age, now, parse_user};
use crate::opt_out::{consent_json, describe_opt_out};
use crate::print::{print, printable};
use crate::settings_args::SettingsArgs;
use crate::verdict::verdict;

/// Number of a user's latest messages to show.
const SHOWN_MESSAGES: u32 = 5;

#[derive(clap::Args)]
#[command(after_help = "\
One user may have several addresses: two spellings of a number, a business-scoped ID, the same number on several channels,
or a new number. Addresses are shown in full. Works on the store of a running server.

Examples:
  replyhook user show whatsapp:+15550001111
  replyhook user merge whatsapp:+15550001111 whatsapp:+15550003333 --reason 'new number, says her letter'
  replyhook user split whatsapp:+15550003333 --reason 'the number has a new owner'")]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(clap::Subcommand)]
enum UserCommand {
    /// Show whether a user gets replies, and their addresses, consents, windows and last messages
    #[command(after_help = "\
Exit codes:
  0  shown
  1  nothing is stored about this user, or the store cannot be used
  2  usage or configuration error")]
    Show(ShowUserArgs),
    /// Record that two addresses are of one user: they share opt-outs, and on one channel the conversation
    #[command(after_help = "\
Exit codes:
  0  recorded
  1  they are one user already, or the store cannot be used
  2  usage or configuration error")]
    Merge(MergeUsersArgs),
    /// Record that an address is of another user: it keeps its own opt-out, and nothing else of the user
    #[command(after_help = "\
Exit codes:
  0  recorded
  1  the address is tied to no other one, or the store cannot be used
  2  usage or configuration error")]
    Split(SplitUserArgs),
}

#[derive(clap::Args)]
struct ShowUserArgs {
    /// An address of the user, such as whatsapp:+15550001111
    #[arg(value_name = "ADDRESS", value_parser = parse_user)]
    user: Address,
    /// Show the texts of the last messages
    #[arg(long)]
    content: bool,
    /// Print JSON, one object for each account
    #[arg(long)]
    json: bool,
    /// Show the user in this account only; otherwise in each account that knows the address
    #[arg(long, value_name = "AC…")]
    account: Option<AccountSid>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct ReasonArgs {
    /// Reason, for the ledger
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Account within which it counts; needed if the store has messages of several
    #[arg(long, value_name = "AC…")]
    account: Option<AccountSid>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(clap::Args)]
struct MergeUsersArgs {
    /// An address of the user
    #[arg(value_name = "ADDRESS", value_parser = parse_user)]
    user: Address,
    /// Another address of the same user
    #[arg(value_name = "ADDRESS", value_parser = parse_user)]
    other: Address,
    #[command(flatten)]
    reason: ReasonArgs,
}

#[derive(clap::Args)]
struct SplitUserArgs {
    /// The address that is of another user
    #[arg(value_name = "ADDRESS", value_parser = parse_user)]
    user: Address,
    #[command(flatten)]
    reason: ReasonArgs,
}

impl UserArgs {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match self.command {
            UserCommand::Show(show) => show.run(),
            UserCommand::Merge(merge) => merge.run(),
            UserCommand::Split(split) => split.run(),
        }
    }
}

impl ReasonArgs {
    fn open(&self) -> anyhow::Result<OpenedStore> {
        if self.reason.trim().is_empty() {
            bail!("--reason is empty; the ledger needs one");
        }
        if self.reason.trim().contains(char::is_control) {
            bail!(
                "--reason has a line break or another control character; the ledger has one line"
            );
        }
        OpenedStore::from_sources(&self.settings.sources(), Access::Operator)
    }

    /// Returns the change, within the account of the user's messages.
    fn change(&self, opened: &OpenedStore, users: &[&Address]) -> anyhow::Result<UserChange> {
        opened.check_account(self.account)?;
        let mut accounts: Vec<AccountSid> = self.account.into_iter().collect();
        for user in users {
            if self.account.is_none() {
                accounts.extend(opened.wait(opened.store.accounts_of(user))?);
            }
        }
        if accounts.is_empty() {
            accounts = opened.wait(opened.store.known_accounts())?;
        }
        accounts.sort_unstable();
        accounts.dedup();
        let [account] = accounts[..] else {
            bail!(
                "the store has messages of {} accounts for these addresses; name one with --account AC…",
                accounts.len()
            );
        };
        Ok(UserChange {
            account,
            user: users[0].clone(),
            reason: self.reason.trim().to_owned(),
            at: now(),
        })
    }
}

impl MergeUsersArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        if self.user == self.other {
            bail!("both addresses are the same; name two addresses of one user");
        }
        let opened = self.reason.open()?;
        let change = self.reason.change(&opened, &[&self.user, &self.other])?;
        let (user, other) = (self.user.as_str(), self.other.as_str());
        if !opened.wait(opened.store.merge_users(change, &self.other))? {
            print(&format!("{user} and {other} are one user already\n"))?;
            return Ok(ExitStatus::No);
        }
        let shared = if self.user.channel() == self.other.channel() {
            "they share opt-outs, windows and conversations"
        } else {
            "they share opt-outs where their channels do, `purge` and `user show`; each channel keeps its conversation"
        };
        print(&format!("{user} and {other} are one user: {shared}\n"))?;
        Ok(ExitStatus::Yes)
    }
}

impl SplitUserArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let opened = self.reason.open()?;
        let change = self.reason.change(&opened, &[&self.user])?;
        let user = self.user.as_str();
        if !opened.wait(opened.store.split_user(change))? {
            print(&format!("{user} is tied to no other address\n"))?;
            return Ok(ExitStatus::No);
        }
        print(&format!(
            "{user} is another user now: an opt-out that was made under this address stays, and a shared conversation stays \
             with the others\n"
        ))?;
        Ok(ExitStatus::Yes)
    }
}

impl ShowUserArgs {
    fn run(self) -> anyhow::Result<ExitStatus> {
        let sources = self.settings.sources();
        let guard = GuardSettings::load(&sources)?;
        let opened = OpenedStore::from_sources(&sources, Access::Operator)?;
        let accounts = opened.accounts_of(&self.user, self.account)?;
        let mut is_known = false;
        for (number, account) in accounts.iter().enumerate() {
            // Each account has its own view: an address may be of different users in two accounts.
            let named = account.filter(|_| accounts.len() > 1);
            is_known |= self.show_in_account(&opened, &guard, *account, named, number > 0)?;
        }
        Ok(if is_known {
            ExitStatus::Yes
        } else {
            ExitStatus::No
        })
    }

    /// Shows the user in one account, with the name of the account if there are several. Returns false if nothing is stored.
    fn show_in_account(
        &self,
        opened: &OpenedStore,
        guard: &GuardSettings,
        account: Option<AccountSid>,
        named: Option<AccountSid>,
        is_further: bool,
    ) -> anyhow::Result<bool> {
        let user = opened.wait(opened.store.user(&self.user, account))?;
        let filter = MessageFilter {
            user: Some(self.user.clone()),
            account,
            all_channels: true,
            limit: SHOWN_MESSAGES,
            ..MessageFilter::default()
        };
        let messages = opened.wait(opened.store.messages(filter))?;
        let is_known = !user.conversations.is_empty()
            || !user.consents.is_empty()
            || !user.links.is_empty()
            || !messages.is_empty();
        let now = now();
        let verdict = verdict(&user, guard, now);
        if self.json {
            let mut line = user_json(&user, &messages, self.content, now);
            line["verdict"] = json!(verdict);
            line["account_sid"] = json!(account.map(|account| account.to_string()));
            print(&format!("{line}\n"))?;
        } else {
            let gap = if is_further { "\n" } else { "" };
            let mut text = format!("{gap}{}\n", printable(&verdict));
            if let Some(account) = named {
                writeln!(text, "account       {account}")?;
            }
            text += &format_user_details(&user, &messages, self.content, now)?;
            let known = if is_known {
                ""
            } else {
                "nothing is stored about this user\n"
            };
            print(&format!("{known}{text}"))?;
        }
        Ok(is_known)
    }
}

fn format_user_details(
    user: &UserDetails,
    messages: &[MessageRow],
    content: bool,
    now: Timestamp,
) -> anyhow::Result<String> {
    let mut text = String::new();
    for address in &user.addresses {
        writeln!(text, "address       {}", address.as_str())?;
        for (one, other) in &user.spellings {
            if address == one || address == other {
                let other = if address == one { other } else { one };
                writeln!(
                    text,
                    "              is {} by the two spellings of one number",
                    other.as_str()
                )?;
            }
        }
        for line in evidence_of(address, &user.links, now) {
            writeln!(text, "              {line}")?;
        }
    }
    for alias in &user.possible_aliases {
        writeln!(
            text,
            "possibly      {}: shares opt-outs on WhatsApp, and nothing else",
            alias.as_str()
        )?;
    }
    for consent in &user.consents {
        writeln!(text, "consent       {}", format_consent(consent, now))?;
    }
    for conversation in &user.conversations {
        writeln!(
            text,
            "conversation  {}",
            format_conversation(conversation, now)
        )?;
    }
    for entry in &user.changes {
        let record = &entry.record;
        if matches!(record.action, ConsentAction::Merge | ConsentAction::Split) {
            writeln!(
                text,
                "{:<13} {:.0} {} {}",
                record.action.as_str(),
                record.at,
                record.user.as_str(),
                record.note.as_deref().unwrap_or_default()
            )?;
        }
    }
    for row in messages {
        writeln!(
            text,
            "message       {} {} {} ago",
            row.sid,
            row.state,
            format_age(row.received_at, now)
        )?;
        if content {
            for line in message_texts(row) {
                writeln!(text, "              {line}")?;
            }
        }
    }
    Ok(format!("{}\n", printable(&text)))
}

/// Returns the evidence that ties an address to the others.
fn evidence_of(address: &Address, links: &[AddressLink], now: Timestamp) -> Vec<String> {
    let of_address = links.iter().filter_map(|link| {
        let (one, other) = &link.addresses;
        let other = match address {
            address if address == one => other,
            address if address == other => one,
            _ => return None,
        };
        let sender = link
            .sender
            .as_ref()
            .map(|sender| format!(" to {}", sender.as_str()));
        let evidence = link.evidence.map(|sid| format!(" ({sid})"));
        let note = link.note.as_deref().map(|note| format!(": {note}"));
        Some(format!(
            "is {} by {}{}{}, {} ago{}",
            other.as_str(),
            link.kind.as_str().replace('_', " "),
            sender.unwrap_or_default(),
            evidence.unwrap_or_default(),
            format_age(link.at, now),
            note.unwrap_or_default()
        ))
    });
    of_address.collect()
}

fn format_consent(consent: &AddressConsent, now: Timestamp) -> String {
    let state = describe_opt_out(consent, now)
        .unwrap_or_else(|| format!("not opted out of {}", consent.scope.as_str()));
    let opted_in = match consent.opted_in {
        Some(at) => format!("opted in since {at:.0}"),
        None => "no opt-in recorded".to_owned(),
    };
    format!("{}: {state}, {opted_in}", consent.address.as_str())
}

fn format_conversation(conversation: &UserConversation, now: Timestamp) -> String {
    let users: Vec<&str> = conversation.addresses.iter().map(Address::as_str).collect();
    let window = match window_of(conversation, now) {
        None => "window closed".to_owned(),
        Some(window) => match window.until() {
            None => "no window on this channel".to_owned(),
            Some(until) => format!("window open until {until:.0}"),
        },
    };
    let handoff = conversation.handed_off_until.filter(|until| *until > now);
    let handoff = handoff.map(|until| format!(", handed off until {until:.0}"));
    format!(
        "{} with {}: last message {} ago, {window}{}",
        users.join(", "),
        conversation.sender.as_str(),
        format_age(conversation.last_inbound, now),
        handoff.unwrap_or_default()
    )
}

fn window_of(conversation: &UserConversation, now: Timestamp) -> Option<OpenWindow> {
    let user = conversation.addresses.first()?;
    OpenWindow::of(user, Some(conversation.last_inbound), now)
}

fn user_json(user: &UserDetails, messages: &[MessageRow], content: bool, now: Timestamp) -> Value {
    let texts = |addresses: &[Address]| {
        addresses
            .iter()
            .map(|address| address.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    let links = user.links.iter().map(|link| {
        json!({
            "addresses": [link.addresses.0.as_str(), link.addresses.1.as_str()],
            "kind": link.kind.as_str(),
            "account_sid": link.account.as_str(),
            "sender": link.sender.as_ref().map(Address::as_str),
            "evidence": link.evidence.map(|sid| sid.to_string()),
            "note": link.note,
            "at": link.at.to_string(),
        })
    });
    let conversations = user.conversations.iter().map(|conversation| {
        let has_window = conversation
            .addresses
            .first()
            .is_some_and(|user| *user.channel() == Channel::WhatsApp);
        let window = has_window.then(|| {
            let open = window_of(conversation, now);
            let until = open.and_then(|open| open.until());
            json!({"open": open.is_some(), "closes_at": until.map(|at| at.to_string())})
        });
        json!({
            "addresses": texts(&conversation.addresses),
            "sender": conversation.sender.as_str(),
            "last_inbound": conversation.last_inbound.to_string(),
            "window": window,
            "handed_off_until": conversation.handed_off_until.map(|at| at.to_string()),
        })
    });
    let changes = user.changes.iter().map(|entry| {
        let record = &entry.record;
        json!({
            "id": entry.id,
            "user": record.user.as_str(),
            "scope": record.scope.as_str(),
            "action": record.action.as_str(),
            "source": record.source.as_str(),
            "evidence": record.evidence.map(|sid| sid.to_string()),
            "note": record.note,
            "at": record.at.to_string(),
        })
    });
    json!({
        "addresses": texts(&user.addresses),
        "spellings": user.spellings.iter().map(|(one, other)| [one.as_str(), other.as_str()]).collect::<Vec<_>>(),
        "possible_aliases": texts(&user.possible_aliases),
        "links": links.collect::<Vec<_>>(),
        "consents": user.consents.iter().map(consent_json).collect::<Vec<_>>(),
        "conversations": conversations.collect::<Vec<_>>(),
        "ledger": changes.collect::<Vec<_>>(),
        "messages": messages.iter().map(|row| summary_json(row, content)).collect::<Vec<_>>(),
    })
}
