use std::io::{IsTerminal, Write};
use std::time::Instant;

use anyhow::{Context, bail};
use replyhook::Address;
use replyhook::config::{MediaSettings, Sources};
use replyhook::store::{Access, Expired, MessageFilter, Retention};

use crate::messages::files_of;
use crate::operator::{Opened, now, number};
use crate::{Answer, SettingsArgs, print};

/// Messages that are looked at at once.
const PAGE: u32 = 500;

#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "\
Deletes texts, media, names, dialogues and the number, all over the file. What stays: the messages' keys (AccountSid,
MessageSid), so that a repeat is not answered again, and an opt-out with its evidence, unless --forget-opt-out. Works
beside a running server. Exit code 0 when it is done.

Examples:
  replyhook purge --user whatsapp:+15550001111
  replyhook purge --expired"
)]
pub(crate) struct Purge {
    /// Whose data, under this and every other address of theirs
    #[arg(long, value_name = "ADDRESS", group = "what")]
    user: Option<String>,
    /// Whatever is older than the settings of `[store]` allow, now instead of within the hour
    #[arg(long, group = "what")]
    expired: bool,
    /// Delete their opt-outs too: they may then be written to again
    #[arg(long, requires = "user")]
    forget_opt_out: bool,
    /// Do not ask
    #[arg(long, requires = "user")]
    yes: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Purge {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        match &self.user {
            Some(user) => self.user(&Address::parse(user.trim())),
            None => self.expired(),
        }
    }

    fn user(&self, user: &Address) -> anyhow::Result<Answer> {
        if user.as_str().is_empty() {
            bail!(
                "--user is empty: write the address as Twilio does, such as whatsapp:+15550001111"
            );
        }
        let sources = self.settings.sources();
        let opened = Opened::by(&sources, Access::Operator)?;
        if !self.yes && !self.is_meant(user)? {
            print("nothing was deleted\n")?;
            return Ok(Answer::No);
        }
        // While it is known which messages were theirs.
        let files = delete_files(&opened, &sources, user)?;
        let purged = opened.wait(opened.store.purge_user(user, self.forget_opt_out))?;
        let opt_out = if self.forget_opt_out {
            "opt-outs were deleted too"
        } else {
            "an opt-out with its evidence, if there is one (--forget-opt-out deletes it too)"
        };
        print(&format!(
            "deleted: the content of {}, {}, {}, {}, the dialogue and the number\n\
             stays: the messages' keys (AccountSid, MessageSid), so that a repeat is not answered again; {opt_out}\n",
            number(purged.messages, "message"),
            if purged.replies == 1 {
                "1 reply by REST".to_owned()
            } else {
                format!("{} replies by REST", purged.replies)
            },
            number(purged.consents, "consent"),
            number(files, "saved file"),
        ))?;
        Ok(Answer::Yes)
    }

    /// Asks on a terminal; elsewhere nobody can answer.
    fn is_meant(&self, user: &Address) -> anyhow::Result<bool> {
        if !std::io::stdin().is_terminal() {
            bail!("--yes is missing: this deletes for good, and there is no terminal to ask on");
        }
        let and = if self.forget_opt_out {
            " and their opt-outs"
        } else {
            ""
        };
        let mut question = std::io::stderr();
        write!(
            question,
            "Delete everything of {}{and}? [y/N] ",
            user.as_str()
        )?;
        question.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(matches!(
            answer.trim().to_ascii_lowercase().as_str(),
            "y" | "yes"
        ))
    }

    fn expired(&self) -> anyhow::Result<Answer> {
        let opened = Opened::by(&self.settings.sources(), Access::Operator)?;
        let settings = &opened.settings;
        let retention = Retention::new(settings.retention, settings.body_retention, now());
        loop {
            let begun = Instant::now();
            let expired = opened.wait(opened.store.expire(retention))?;
            for sid in expired.unanswered {
                print(&format!(
                    "{sid} was never answered, and its content is deleted now\n"
                ))?;
            }
            if !expired.more {
                break;
            }
            // A server beside this writes its messages meanwhile.
            std::thread::sleep(Expired::pause_after(begun.elapsed()));
        }
        print(&format!(
            "deleted: content from before {:.0}, texts from before {:.0}\n",
            retention.content_before, retention.texts_before
        ))?;
        Ok(Answer::Yes)
    }
}

/// Deletes what `media.save_dir` has kept of a user's on this machine. Returns how many files that were.
fn delete_files(opened: &Opened, sources: &Sources, user: &Address) -> anyhow::Result<u64> {
    if MediaSettings::load(sources)?.save.is_none() {
        return Ok(0);
    }
    let mut filter = MessageFilter {
        user: Some(user.clone()),
        limit: PAGE,
        ..MessageFilter::default()
    };
    let mut deleted = 0;
    loop {
        let rows = opened.wait(opened.store.messages(filter.clone()))?;
        let Some(last) = rows.last() else {
            return Ok(deleted);
        };
        filter.before = Some(last.id);
        for row in rows {
            for file in files_of(sources, row.sid)? {
                let removed = std::fs::remove_file(&file);
                removed.with_context(|| file.display().to_string())?;
                deleted += 1;
            }
        }
    }
}
