use std::fmt::Write;

use replyhook::config::ReconcileSettings;
use replyhook::reconcile::{Missing, Reconciler, SentBefore, Unsaid, list};
use replyhook::store::{Access, ConsentAction};
use replyhook::twilio::{Client, Credentials};
use replyhook::{AccountSid, Timestamp};
use serde_json::json;

use crate::operator::{Opened, age, now, number, user};
use crate::{Answer, SettingsArgs, print};

/// What Twilio gets between a webhook's answer and the message in its list, in seconds.
const UNDER_WAY: i64 = 60;

#[derive(clap::Args)]
#[command(after_help = "\
Needs TWILIO_ACCOUNT_SID and the auth token or an API key; accounts of twilio.accounts are looked at too. What is entered
is handled by the running server, or by the next that starts, and answered by REST. A STOP or START among it counts, and
is not confirmed to the user. REST tells how many files came with a message, and not where they are.

What Twilio has sent something after that the journal does not know of was answered before, by a journal that is lost or by
somebody else: it is entered as answered. After a restore, before the server starts, use --restored as well.

Exit code 0 when it is done; 1 when --dry-run or --check-replies finds something missing, or Twilio or the store fail.

Examples:
  replyhook reconcile --since 6
  replyhook reconcile --since 48 --restored --dry-run
  replyhook reconcile --check-replies --dry-run --json")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Reconcile {
    /// How many hours back
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
    since: u32,
    /// Also report answers by TwiML that Twilio has not sent; nothing is sent again
    #[arg(long)]
    check_replies: bool,
    /// The store is a restored backup, and no server runs: replies that wait in it, and that Twilio has, are marked as sent
    #[arg(long)]
    restored: bool,
    /// Let also those messages be handled that were answered before
    #[arg(long)]
    include_answered: bool,
    /// Change nothing: only report
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Default)]
struct Counts {
    listed: u64,
    known: u64,
    missing: u64,
    entered: u64,
    answered: u64,
    sent: u64,
    unreadable: u64,
    compared: u64,
    expired: u64,
    unsaid: u64,
}

impl Reconcile {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let settings = ReconcileSettings::load(&self.settings.sources())?;
        // What is marked as sent by the weaker evidence of a restore may be on its way from a running server.
        let access = if self.restored && !self.dry_run {
            Access::Migrate
        } else {
            Access::Operator
        };
        let opened = Opened::at(settings.store, access)?;
        let consent = &settings.consent;
        let reconciler = Reconciler::new(
            opened.store.clone(),
            &consent.stop_words,
            &consent.start_words,
        );
        let client = Client::new(settings.api_url);
        let mut counts = Counts::default();
        for (account, credentials) in &settings.accounts {
            self.account(
                &opened,
                &reconciler,
                &client,
                *account,
                credentials,
                &mut counts,
            )?;
        }
        self.print_counts(&counts)?;
        let found = (self.dry_run && counts.missing + counts.sent > 0) || counts.unsaid > 0;
        Ok(if found { Answer::No } else { Answer::Yes })
    }

    fn account(
        &self,
        opened: &Opened,
        reconciler: &Reconciler,
        client: &Client,
        account: AccountSid,
        credentials: &Credentials,
        counts: &mut Counts,
    ) -> anyhow::Result<()> {
        let now = now();
        let before = |seconds: i64| {
            now.checked_sub(jiff::SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        };
        let since = before(i64::from(self.since) * 3600);
        let listed = opened.ask(list(client, account, credentials, since))?;
        if self.restored {
            for sent in &opened.wait(reconciler.sent_before(account, &listed, now))? {
                counts.sent += 1;
                if !self.dry_run {
                    opened.wait(reconciler.mark_sent(sent, now))?;
                }
                print(&self.sent(sent))?;
            }
        }
        let mut inbound = opened.wait(reconciler.missing(account, &listed, since))?;
        counts.known += inbound.known;
        counts.unreadable += inbound.unreadable;
        counts.listed += inbound.known + inbound.unreadable + inbound.messages.len() as u64;
        for missing in &mut inbound.messages {
            missing.answered_before &= !self.include_answered;
            counts.missing += 1;
            counts.answered += u64::from(missing.answered_before);
            if !self.dry_run {
                opened.wait(reconciler.enter(missing))?;
                counts.entered += u64::from(!missing.answered_before);
            }
            print(&self.missing(missing, now))?;
        }
        if self.check_replies {
            let answers =
                opened.wait(reconciler.unsaid(account, &listed, since, before(UNDER_WAY)))?;
            counts.compared += answers.compared;
            counts.expired += answers.expired;
            counts.unsaid += answers.unsaid.len() as u64;
            for unsaid in &answers.unsaid {
                print(&self.unsaid(unsaid, now))?;
            }
        }
        Ok(())
    }

    fn missing(&self, missing: &Missing, now: Timestamp) -> String {
        let message = &missing.message;
        let what = match (missing.answered_before, self.dry_run) {
            (true, _) => "answered",
            (false, true) => "missing",
            (false, false) => "entered",
        };
        let consent = missing.consent.map(ConsentAction::as_str);
        let from = user(&message.from, false);
        if self.json {
            let line = json!({"kind": what, "message_sid": message.message_sid.as_str(),
                "account_sid": message.account_sid.as_str(), "user": from,
                "received_at": message.received_at.to_string(), "consent": consent});
            return format!("{line}\n");
        }
        let age = age(message.received_at, now);
        let consent = consent.map_or_else(String::new, |consent| format!(" {consent}"));
        format!("{what} {} {from} {age}{consent}\n", message.message_sid)
    }

    fn sent(&self, sent: &SentBefore) -> String {
        let to = user(&sent.user, false);
        if self.json {
            let line =
                json!({"kind": "sent", "reply": sent.reply, "sid": sent.sid.as_str(), "user": to});
            return format!("{line}\n");
        }
        format!("sent {} {to} it waits here, and Twilio has it\n", sent.sid)
    }

    fn unsaid(&self, unsaid: &Unsaid, now: Timestamp) -> String {
        let to = user(&unsaid.user, false);
        if self.json {
            let line = json!({"kind": "unsaid", "message_sid": unsaid.message_sid.as_str(), "user": to,
                "received_at": unsaid.received_at.to_string()});
            return format!("{line}\n");
        }
        let age = age(unsaid.received_at, now);
        format!(
            "unsaid {} {to} {age} its answer is not in Twilio's list\n",
            unsaid.message_sid
        )
    }

    fn print_counts(&self, counts: &Counts) -> anyhow::Result<()> {
        if self.json {
            return print(&format!(
                "{}\n",
                json!({"kind": "counts", "listed": counts.listed, "known": counts.known, "missing": counts.missing,
                    "entered": counts.entered, "answered": counts.answered, "sent": counts.sent, "unreadable": counts.unreadable, "compared": counts.compared,
                    "expired": counts.expired, "unsaid": counts.unsaid})
            ));
        }
        let mut text = format!(
            "{} in Twilio's list: {} known, {} missing, {} entered",
            number(counts.listed, "inbound message"),
            counts.known,
            counts.missing,
            counts.entered
        );
        if counts.answered > 0 {
            write!(text, ", {} answered before", counts.answered)?;
        }
        if counts.unreadable > 0 {
            write!(text, ", {} unreadable", counts.unreadable)?;
        }
        text.push('\n');
        if self.restored {
            let sent = number(counts.sent, "message");
            writeln!(text, "{sent} of the outbox that Twilio has already")?;
        } else if counts.answered > 0 {
            text.push_str(
                "If this store is a restored backup: --restored also marks replies as sent that wait in it, before the server starts\n",
            );
        }
        if self.check_replies {
            writeln!(
                text,
                "{} by TwiML looked for: {} not in Twilio's list, {} could not be looked for, because their text has expired",
                number(counts.compared, "message"),
                counts.unsaid,
                counts.expired
            )?;
        }
        print(&text)
    }
}
