use std::time::Instant;

use anyhow::Context;
use replyhook::config::{MediaSettings, Sources};
use replyhook::internals::{ExpiryReport, MessageFilter, Retention};
use replyhook::store::Access;
use replyhook::{AccountSid, Address};

use crate::confirm::confirm;
use crate::exit::ExitStatus;
use crate::messages::list_saved_files;
use crate::operator::{OpenedStore, format_count, now, parse_user};
use crate::print::print;
use crate::settings_args::SettingsArgs;

/// Messages per query of the store.
const PAGE_SIZE: u32 = 500;

#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "\
Deletes texts, media, names, dialogues and the address; SQLite overwrites them in the file. Keeps the keys of messages
(AccountSid, MessageSid), so that a redelivery gets no second reply, and an opt-out with its evidence, unless
--forget-opt-out. Works on the store of a running server.

Exit codes:
  0  deleted
  1  the operator declined, or the store cannot be used
  2  usage or configuration error

Examples:
  replyhook purge --user whatsapp:+15550001111
  replyhook purge --expired"
)]
pub(crate) struct Purge {
    /// Delete the data of this user, under this and all other known addresses of the user
    #[arg(long, value_name = "ADDRESS", value_parser = parse_user, group = "what")]
    user: Option<Address>,
    /// Delete the user's data in this account only; otherwise in each account that knows the address
    #[arg(long, value_name = "AC…", requires = "user")]
    account: Option<AccountSid>,
    /// Delete content older than the retention times of `[store]`, without waiting for the server's hourly run
    #[arg(long, group = "what")]
    expired: bool,
    /// Also delete opt-outs, so that the user can get messages again
    #[arg(long, requires = "user")]
    forget_opt_out: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "user")]
    yes: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Purge {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        match &self.user {
            Some(user) => self.purge_user(user),
            None => self.purge_expired(),
        }
    }

    fn purge_user(&self, user: &Address) -> anyhow::Result<ExitStatus> {
        let sources = self.settings.sources();
        let opened = OpenedStore::from_sources(&sources, Access::Operator)?;
        let accounts = opened.accounts_of(user, self.account)?;
        if !self.yes && !self.confirm(user)? {
            print("nothing was deleted\n")?;
            return Ok(ExitStatus::No);
        }
        for account in &accounts {
            if accounts.len() > 1
                && let Some(account) = account
            {
                print(&format!("account {account}\n"))?;
            }
            self.purge_in_account(&opened, &sources, user, *account)?;
        }
        Ok(ExitStatus::Yes)
    }

    /// Deletes the user's data in one account, in which the user's addresses may be others than in a second one.
    fn purge_in_account(
        &self,
        opened: &OpenedStore,
        sources: &Sources,
        user: &Address,
        account: Option<AccountSid>,
    ) -> anyhow::Result<()> {
        // Files first: `purge_user` deletes the addresses by which `delete_files` finds the user's messages.
        let files = delete_files(opened, sources, user, account)?;
        let purged = opened.wait(opened.store.purge_user(user, account, self.forget_opt_out))?;
        let opt_out = if self.forget_opt_out {
            "opt-outs were deleted too"
        } else {
            "an opt-out with its evidence, if there is one (--forget-opt-out deletes it too)"
        };
        print(&format!(
            "deleted: the content of {}, {}, {}, {}, the dialogue and the address\n\
             kept: the keys of messages (AccountSid, MessageSid), so that a redelivery gets no second reply; {opt_out}\n",
            format_count(purged.messages, "message"),
            if purged.outbound == 1 {
                "1 REST reply".to_owned()
            } else {
                format!("{} REST replies", purged.outbound)
            },
            format_count(purged.consents, "consent"),
            format_count(files, "saved file"),
        ))
    }

    fn confirm(&self, user: &Address) -> anyhow::Result<bool> {
        let opt_out_suffix = if self.forget_opt_out {
            " and their opt-outs"
        } else {
            ""
        };
        confirm(
            &format!("Delete everything of {}{opt_out_suffix}?", user.as_str()),
            "deletes permanently",
        )
    }

    fn purge_expired(&self) -> anyhow::Result<ExitStatus> {
        let opened = OpenedStore::from_sources(&self.settings.sources(), Access::Operator)?;
        let settings = &opened.settings;
        let retention = Retention::new(settings.retention, settings.body_retention, now());
        let (mut texts, mut outbound) = (0, 0);
        loop {
            let started = Instant::now();
            let expired = opened.wait(opened.store.expire(retention))?;
            texts += expired.texts;
            outbound += expired.outbound;
            for sid in expired.unanswered {
                print(&format!(
                    "{sid} never got a reply, and its content is deleted now\n"
                ))?;
            }
            if !expired.has_more {
                break;
            }
            // Pause between the steps, so that a running server can write to the store.
            std::thread::sleep(ExpiryReport::pause_after(started.elapsed()));
        }
        print(&format!(
            "deleted: content from before {:.0}, texts from before {:.0}: the texts of {}, and {} of the outbox\n",
            retention.content_before,
            retention.texts_before,
            format_count(texts, "message"),
            format_count(outbound, "message")
        ))?;
        Ok(ExitStatus::Yes)
    }
}

/// Deletes the user's files in `media.save_dir` on this machine, and returns their number.
fn delete_files(
    opened: &OpenedStore,
    sources: &Sources,
    user: &Address,
    account: Option<AccountSid>,
) -> anyhow::Result<u64> {
    if MediaSettings::load(sources)?.save_dir.is_none() {
        return Ok(0);
    }
    let mut filter = MessageFilter {
        user: Some(user.clone()),
        account,
        all_channels: true,
        limit: PAGE_SIZE,
        ..MessageFilter::default()
    };
    let mut deleted = 0;
    loop {
        let rows = opened.wait(opened.store.messages(filter.clone()))?;
        let Some(last) = rows.last() else {
            return Ok(deleted);
        };
        filter.before_id = Some(last.id);
        for row in rows {
            for file in list_saved_files(sources, row.sid)? {
                let removed = std::fs::remove_file(&file);
                removed.with_context(|| file.display().to_string())?;
                deleted += 1;
            }
        }
    }
}
