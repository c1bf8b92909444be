use std::collections::HashSet;
use std::fmt::Write;

use replyhook::config::{ReconcileSettings, SmsKeywords};
use replyhook::reconcile::{
    AlreadySent, AnsweredOpen, MissingMessage, Reconciler, UnsentReply, list_messages,
};
use replyhook::store::{Access, ConsentAction};
use replyhook::twilio::{Client, Credentials};
use replyhook::{AccountSid, Timestamp};
use serde_json::json;

use crate::exit::ExitStatus;
use crate::operator::{OpenedStore, format_age, format_count, format_user, now};
use crate::print::print;
use crate::settings_args::SettingsArgs;

/// Seconds that Twilio gets to send a TwiML reply and add it to its list, before the reply counts as unsent.
const IN_FLIGHT_MARGIN: i64 = 60;

#[derive(clap::Args)]
#[command(after_help = "\
Needs TWILIO_ACCOUNT_SID and the auth token or an API key; includes the accounts of twilio.accounts. The server that
runs on the store, or the next one that starts, handles the added messages and replies via the REST API. An opt-out or
opt-in keyword among them applies, without a confirmation. Twilio's list has the number of a message's media, but not
their URLs.

A missing message counts as answered if Twilio sent its author something afterwards that the journal does not have. It
is added as answered, and not handled. After a restore, before the server starts, use --restored: the same then applies
to messages that the restored journal has not finished.

Exit codes:
  0  done
  1  --dry-run or --check-replies found something, or Twilio or the store failed
  2  usage or configuration error, or --restored while a server owns the store

Examples:
  replyhook reconcile --since 6
  replyhook reconcile --since 48 --restored --dry-run
  replyhook reconcile --check-replies --dry-run --json")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Reconcile {
    /// Compare messages of the last HOURS
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    since: u32,
    /// Also report TwiML replies that Twilio has not sent; does not send them
    #[arg(long)]
    check_replies: bool,
    /// Record open messages as answered and outbox messages as sent if Twilio's list shows that they were; for a
    /// restored backup, with the server stopped
    #[arg(long)]
    restored: bool,
    /// Handle the messages that count as answered too
    #[arg(long)]
    include_answered: bool,
    /// Report only, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Default)]
struct ReconcileCounts {
    listed: u64,
    known: u64,
    missing: u64,
    added: u64,
    closed: u64,
    answered: u64,
    sent: u64,
    unreadable: u64,
    compared: u64,
    expired: u64,
    unsent: u64,
}

impl Reconcile {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let settings = ReconcileSettings::load(&self.settings.sources())?;
        // `Access::Migrate` fails while a server owns the store. `already_sent` cannot tell a reply that this server is
        // just sending from one that was sent before the backup.
        let access = if self.restored && !self.dry_run {
            Access::Migrate
        } else {
            Access::Operator
        };
        let opened = OpenedStore::open(settings.store, access)?;
        let consent = &settings.consent;
        let mut reconciler = Reconciler::new(
            opened.store.clone(),
            &consent.stop_words,
            &consent.start_words,
        );
        if consent.sms == SmsKeywords::Own {
            reconciler =
                reconciler.with_own_sms_keywords(&consent.sms_stop_words, &consent.sms_start_words);
        }
        let client = Client::new(settings.api_url);
        let mut counts = ReconcileCounts::default();
        let outcome = settings
            .accounts
            .iter()
            .try_for_each(|(account, credentials)| {
                self.reconcile_account(
                    &opened,
                    &reconciler,
                    &client,
                    *account,
                    credentials,
                    &mut counts,
                )
            });
        if !self.dry_run {
            // Deletes the lease under which messages were added. Servers would count this command as another server for a
            // day, and delay replies after a store failure. An error must not hide that of the work.
            let _ = opened.run(opened.store.close());
        }
        outcome?;
        self.print_counts(&counts)?;
        let has_findings =
            (self.dry_run && counts.missing + counts.closed + counts.sent > 0) || counts.unsent > 0;
        Ok(if has_findings {
            ExitStatus::No
        } else {
            ExitStatus::Yes
        })
    }

    fn reconcile_account(
        &self,
        opened: &OpenedStore,
        reconciler: &Reconciler,
        client: &Client,
        account: AccountSid,
        credentials: &Credentials,
        counts: &mut ReconcileCounts,
    ) -> anyhow::Result<()> {
        let now = now();
        let seconds_ago = |seconds: i64| {
            now.checked_sub(jiff::SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        };
        let since = seconds_ago(i64::from(self.since) * 3600);
        let mut listed = opened.call_twilio(list_messages(client, account, credentials, since))?;
        if self.restored {
            let already_sent = opened.wait(reconciler.already_sent(account, &listed, now))?;
            // `missing` must recognize these messages, also in a dry run, which does not mark them in the outbox.
            let sids: HashSet<_> = already_sent.iter().map(|sent| sent.sid).collect();
            listed.retain(|message| !sids.contains(&message.sid));
            for sent in &already_sent {
                counts.sent += 1;
                if !self.dry_run {
                    opened.wait(reconciler.mark_sent(sent, now))?;
                }
                print(&self.format_sent(sent))?;
            }
        }
        let mut inbound = opened.wait(reconciler.missing(account, &listed, since))?;
        counts.known += inbound.known;
        counts.unreadable += inbound.unreadable;
        counts.listed += inbound.known + inbound.unreadable + inbound.messages.len() as u64;
        // Only with --restored, which requires a stopped server: a running one may be about to reply to such a message.
        if self.restored && !self.include_answered {
            for answered in &inbound.answered_open {
                counts.closed += 1;
                if !self.dry_run {
                    opened.wait(reconciler.mark_answered(answered))?;
                }
                print(&self.format_closed(answered, now))?;
            }
        }
        for missing in &mut inbound.messages {
            missing.already_answered &= !self.include_answered;
            counts.missing += 1;
            counts.answered += u64::from(missing.already_answered);
            if !self.dry_run {
                opened.wait(reconciler.backfill(missing))?;
                counts.added += u64::from(!missing.already_answered);
            }
            print(&self.format_missing(missing, now))?;
        }
        if self.check_replies {
            let replies = opened.wait(reconciler.unsent_replies(
                account,
                &listed,
                since,
                seconds_ago(IN_FLIGHT_MARGIN),
            ))?;
            counts.compared += replies.compared;
            counts.expired += replies.expired;
            counts.unsent += replies.unsent.len() as u64;
            for unsent in &replies.unsent {
                print(&self.format_unsent(unsent, now))?;
            }
        }
        Ok(())
    }

    fn format_missing(&self, missing: &MissingMessage, now: Timestamp) -> String {
        let message = &missing.message;
        let kind = match (missing.already_answered, self.dry_run) {
            (true, _) => "answered",
            (false, true) => "missing",
            (false, false) => "added",
        };
        let consent = missing.consent.map(ConsentAction::as_str);
        let from = format_user(&message.from, false);
        if self.json {
            let line = json!({"kind": kind, "message_sid": message.message_sid.as_str(),
                "account_sid": message.account_sid.as_str(), "user": from,
                "received_at": message.received_at.to_string(), "consent": consent});
            return format!("{line}\n");
        }
        let age = format_age(message.received_at, now);
        let consent = consent.map_or_else(String::new, |consent| format!(" {consent}"));
        format!("{kind} {} {from} {age}{consent}\n", message.message_sid)
    }

    fn format_closed(&self, answered: &AnsweredOpen, now: Timestamp) -> String {
        let from = format_user(&answered.user, false);
        if self.json {
            let line = json!({"kind": "closed", "message_sid": answered.message_sid.as_str(),
                "account_sid": answered.account.as_str(), "user": from,
                "received_at": answered.received_at.to_string()});
            return format!("{line}\n");
        }
        let age = format_age(answered.received_at, now);
        format!(
            "closed {} {from} {age} still open here, and answered since\n",
            answered.message_sid
        )
    }

    fn format_sent(&self, sent: &AlreadySent) -> String {
        let to = format_user(&sent.user, false);
        if self.json {
            let line = json!({"kind": "sent", "outbound_id": sent.outbound, "outbound_sid": sent.sid.as_str(), "user": to});
            return format!("{line}\n");
        }
        format!(
            "sent {} {to} still queued here, and sent by Twilio\n",
            sent.sid
        )
    }

    fn format_unsent(&self, unsent: &UnsentReply, now: Timestamp) -> String {
        let to = format_user(&unsent.user, false);
        if self.json {
            let line = json!({"kind": "unsent", "message_sid": unsent.message_sid.as_str(), "user": to,
                "received_at": unsent.received_at.to_string()});
            return format!("{line}\n");
        }
        let age = format_age(unsent.received_at, now);
        format!(
            "unsent {} {to} {age} the reply is not in Twilio's list\n",
            unsent.message_sid
        )
    }

    fn print_counts(&self, counts: &ReconcileCounts) -> anyhow::Result<()> {
        if self.json {
            return print(&format!(
                "{}\n",
                json!({"kind": "counts", "listed": counts.listed, "known": counts.known, "missing": counts.missing,
                    "added": counts.added, "answered": counts.answered, "closed": counts.closed, "sent": counts.sent, "unreadable": counts.unreadable, "compared": counts.compared,
                    "expired": counts.expired, "unsent": counts.unsent})
            ));
        }
        let mut text = format!(
            "{} in Twilio's list: {} known, {} missing, {} added",
            format_count(counts.listed, "inbound message"),
            counts.known,
            counts.missing,
            counts.added
        );
        if counts.answered > 0 {
            write!(text, ", {} answered before", counts.answered)?;
        }
        if counts.unreadable > 0 {
            write!(text, ", {} unreadable", counts.unreadable)?;
        }
        text.push('\n');
        if self.restored {
            let closed = format_count(counts.closed, "open message");
            writeln!(text, "{closed} that Twilio shows as answered")?;
            let sent = format_count(counts.sent, "message");
            writeln!(text, "{sent} of the outbox that Twilio has already sent")?;
        } else if counts.answered > 0 {
            text.push_str(
                "If this store is a restored backup, stop the server and use --restored: it also finds open messages that were answered, and queued replies that were sent\n",
            );
        }
        if self.check_replies {
            writeln!(
                text,
                "{} of TwiML replies compared: {} not in Twilio's list, {} not comparable because their text has expired",
                format_count(counts.compared, "message"),
                counts.unsent,
                counts.expired
            )?;
        }
        print(&text)
    }
}
