//! The desk: server, emulator and page.
#![cfg(feature = "emulator")]

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replyhook::config::WebhookSettings;
use replyhook::emulator::SENDERS;
use replyhook::{App, Desk, DeskOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::pointed::Pointed;
use crate::sender::Which;
use crate::{Answer, SettingsArgs, print, runtime};

/// Between two looks at the settings.
const LOOK: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
#[command(after_help = "\
Nothing is needed: no account, no phone, no tunnel. TWILIO_… and PUBLIC_URL of the environment are not used. Messages are
kept in memory unless DATABASE_URL is set.

Examples:
  replyhook dev                                          chat with the configured bot in the browser
  replyhook dev --config bot.toml                        the same with its settings
  replyhook dev --webhook http://localhost:3000/sms      chat with another server, in any language
  replyhook dev --protect                                the same on a machine that others use too")]
pub(crate) struct Dev {
    /// Call this server instead of ours
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Its fallback URL
    #[arg(long, value_name = "URL", requires = "webhook")]
    fallback: Option<String>,
    /// Its status callback URL
    #[arg(long, value_name = "URL", requires = "webhook")]
    status_callback: Option<String>,
    /// Port of the emulator and its page [default: 8081, or the next that is free]
    #[arg(long, value_name = "N")]
    emulator_port: Option<u16>,
    /// Port of our server [default: 8080, or the next that is free]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Where a tunnel leads to our server from: the real account's webhooks for this URL are then answered as well. It needs
    /// that account's SID and token in the environment
    #[arg(long, value_name = "URL", conflicts_with = "webhook")]
    tunnel_url: Option<String>,
    /// Point this WhatsApp sender of the real account (whatsapp:+15550002222, or XE…) at the tunnel, and put back at the end
    /// what was there; as often as there are senders
    #[arg(long, value_name = "SENDER", requires = "tunnel_url", value_parser = Which::parse)]
    sender: Vec<Which>,
    /// Write conversations into this folder, with numbers and names that belong to nobody, for the test kit to replay
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Let messages send files of this folder by their path [default: the folder where it is started]
    #[arg(long, value_name = "DIR")]
    media_dir: Option<PathBuf>,
    /// Require the key in the printed address for the page and for every call below /_emulator, so that other users of this
    /// machine cannot use the emulator
    #[arg(long)]
    protect: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Dev {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        let mut options = DeskOptions::default();
        options.webhook.clone_from(&self.webhook);
        options.fallback = self.fallback;
        options.status_callback = self.status_callback;
        options.emulator_port = self.emulator_port;
        options.port = self.port;
        options.record = self.record;
        options.media_dir = self.media_dir;
        options.protect = self.protect;
        options.tunnel_url = self.tunnel_url;
        options.logs = true;
        options.private = true;
        let sources = self.settings.sources();
        let real = if self.sender.is_empty() {
            None
        } else {
            Some(WebhookSettings::load(&sources)?)
        };
        let runtime = runtime()?;
        let ended = runtime.block_on(async {
            let mut signals = Signals::new()?;
            // Before they are read: what is changed meanwhile is read again.
            let mut watched = Watched::new(self.settings.file());
            let mut desk = Desk::start(App::builder(), sources, options).await?;
            let pointed = match (real, desk.tunnelled()) {
                (Some(real), Some(urls)) => Some(Pointed::at(urls, &self.sender, real).await?),
                _ => None,
            };
            let ended = async {
                print(&welcome(&desk, self.webhook.as_deref(), pointed.as_ref())?)?;
                stand(&mut desk, &mut watched, &mut signals).await
            };
            let ended = ended.await;
            // While the desk still answers, and whatever has ended it.
            let restored = match &pointed {
                Some(pointed) => tokio::select! {
                    restored = pointed.restore() => restored,
                    () = signals.next() => Err(pointed.given_up()),
                },
                None => Ok(()),
            };
            ended?;
            tokio::select! {
                () = desk.stop() => {}
                () = signals.next() => {}
            }
            restored?;
            Ok(Answer::Yes)
        });
        // What blocks a thread, such as a file that never ends, does not hold this up.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Until a signal comes, or the desk ends by itself.
async fn stand(
    desk: &mut Desk,
    watched: &mut Watched,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            ended = desk.ended() => return Ok(ended?),
            () = watched.changed() => reload(desk).await?,
        }
    }
}

/// Starts the bot anew with the settings as they are now, or leaves it as it is and says what is wrong with them.
async fn reload(desk: &mut Desk) -> anyhow::Result<()> {
    match desk.restart(App::builder()).await {
        Ok(()) => {
            desk.emulator().announce_reload(Ok(()));
            print("  The settings have changed: read anew.\n")
        }
        Err(error) if desk.server_url().is_none() => Err(error.into()),
        Err(error) => {
            let reason = error.to_string();
            desk.emulator().announce_reload(Err(&reason));
            print(&format!(
                "  The settings have changed, and are wrong; the old ones stay.\n{reason}\n"
            ))
        }
    }
}

/// A file that is looked at twice a second: a library for it would be larger than all of this.
struct Watched {
    file: PathBuf,
    seen: Option<Version>,
}

impl Watched {
    fn new(file: PathBuf) -> Self {
        let seen = version(&file);
        Self { file, seen }
    }

    async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = version(&self.file);
            // A file that is being replaced is not there for a moment.
            if now.is_some() && now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Which file, how long, and when it was written.
type Version = (u64, u64, i64, i64);

fn version(file: &Path) -> Option<Version> {
    let file = std::fs::metadata(file).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

/// Of the environment, what senders are pointed with.
const POINTED_WITH: [&str; 4] = [
    "REPLYHOOK__TWILIO__MESSAGING_URL",
    "REPLYHOOK__TWILIO__API_KEY_SID",
    "REPLYHOOK__TWILIO__API_KEY_SECRET",
    "REPLYHOOK__TWILIO__API_KEY_SECRET_FILE",
];

fn welcome(
    desk: &Desk,
    webhook: Option<&str>,
    pointed: Option<&Pointed>,
) -> anyhow::Result<String> {
    let emulator = desk.emulator();
    let mut text = String::new();
    writeln!(text, "\n  Chat with your bot:  {}\n", emulator.page_url())?;
    if let (Some(url), Some(handler)) = (desk.server_url(), desk.handler()) {
        writeln!(text, "  the bot      {url}/webhook, answered by: {handler}")?;
        writeln!(
            text,
            "  it keeps     {}",
            desk.store_url().unwrap_or_default()
        )?;
    }
    if let Some(admin) = desk.admin() {
        writeln!(text, "  private      http://{admin}/readyz and /metrics")?;
    }
    writeln!(text, "  its numbers  {}", SENDERS.join(" and "))?;
    if let Some(webhook) = webhook {
        let (url, account) = (emulator.url(), emulator.account_sid());
        writeln!(
            text,
            "  it calls     {webhook}\n\n  Start that server with the emulator's account, made for this run:\n\
             \n    TWILIO_ACCOUNT_SID={account} TWILIO_AUTH_TOKEN={}\n\
             \n  and have its Twilio client call {url} instead of https://api.twilio.com.",
            emulator.auth_token().expose()
        )?;
    }
    if desk
        .store_url()
        .is_some_and(|url| !url.contains(":memory:"))
    {
        let (url, account) = (emulator.url(), emulator.account_sid());
        writeln!(
            text,
            "\n  Commands beside it, such as `replyhook send`, work on its account, made for this run, after\n\
             \n    export TWILIO_ACCOUNT_SID={account} TWILIO_AUTH_TOKEN={} REPLYHOOK__TWILIO__API_URL={url} \
             REPLYHOOK__TWILIO__CONTENT_URL={url} REPLYHOOK__TWILIO__MESSAGING_URL={url}",
            emulator.auth_token().expose()
        )?;
    }
    if let Some(pointed) = pointed {
        write!(text, "\n{}", pointed.shown()?)?;
    } else if let Some([primary, fallback, status]) = desk.tunnelled() {
        writeln!(
            text,
            "\n  Paste into Twilio's console, under the sender's or the sandbox's settings, each with POST:\n\
             \n    When a message comes in   {primary}\
             \n    Fallback URL              {fallback}\
             \n    Status callback URL       {status}"
        )?;
    }
    let is_used = |name: &String| pointed.is_some() && POINTED_WITH.contains(&name.as_str());
    let ignored = desk.ignored().iter().filter(|name| !is_used(name));
    let ignored: Vec<_> = ignored.map(String::as_str).collect();
    if !ignored.is_empty() {
        let names = ignored.join(", ");
        writeln!(text, "\n  Not used here, so that no real token is: {names}")?;
    }
    writeln!(text, "\n  Ctrl-C ends it.\n")?;
    Ok(text)
}
