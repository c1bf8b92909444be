//! `replyhook dev`: the bot with an emulated Twilio and a chat page.
#![cfg(feature = "emulator")]

use std::ffi::OsString;
use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replyhook::config::SenderWebhookSettings;
use replyhook::emulator::SENDERS;
use replyhook::{App, DevServer, DevServerOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::bot_process::BotProcess;
use crate::configured_sender::SenderId;
use crate::dev_account::{DevAccount, DevCredentials};
use crate::dev_bot::{DevBot, real_account_variables};
use crate::exit::{ExitStatus, Failed};
use crate::handler_args::HandlerArgs;
use crate::message_lines::MessageLines;
use crate::print::print;
use crate::runtime::runtime;
use crate::settings_args::SettingsArgs;
use crate::tunnel_webhooks::TunnelWebhooks;

/// Interval between two checks of the settings file for changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
#[command(after_help = "\
Needs no account, phone or tunnel. Ignores TWILIO_… and PUBLIC_URL of the environment. Stores messages in memory unless
DATABASE_URL is set. The emulated account and token of a folder stay the same; they are kept in ~/.local/state/replyhook/dev.

A COMMAND is started with what your bot needs in its environment, and again when it ends: PORT, and FORWARD_SECRET,
REPLYHOOK_API_URL and REPLYHOOK_API_TOKEN or, with --webhook, TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_API_URL of the
emulated account. Without --forward and --webhook, messages are posted to the path /message of a free port. The API's token
is admin.token, or else a new one.

Exit codes:
  0  ended by SIGINT or SIGTERM, or because its terminal closed (SIGHUP)
  1  the server failed, or the webhooks of a sender could not be set or restored
  2  usage or configuration error, or a port that was named is in use

Examples:
  replyhook dev                                          chat with the configured bot in the browser
  replyhook dev --config bot.toml                        the same with its settings
  replyhook dev --rules rules.toml                       chat with the rules of this file
  replyhook dev --forward http://localhost:3000/message  chat with your service, in any language
  replyhook dev -- node bot.mjs                          start your service, too
  replyhook dev --webhook http://localhost:3000/sms      chat with a server that handles Twilio's webhooks itself
  replyhook dev --protect                                the same on a machine with other users")]
pub(crate) struct Dev {
    /// Call this webhook of another server instead of the built-in one
    #[arg(long, value_name = "URL", conflicts_with = "rules")]
    webhook: Option<String>,
    /// Fallback URL of that server
    #[arg(long, value_name = "URL", requires = "webhook")]
    fallback: Option<String>,
    /// Status callback URL of that server
    #[arg(long, value_name = "URL", requires = "webhook")]
    status_callback: Option<String>,
    /// Port of the emulator and its page [default: 8081, or the next free port]
    #[arg(long, value_name = "N")]
    emulator_port: Option<u16>,
    /// Port of the server [default: 8080, or the next free port]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Also accept the real account's webhooks through the tunnel with this public URL; needs that account's SID and
    /// auth token in the environment
    #[arg(long, value_name = "URL", conflicts_with = "webhook")]
    tunnel_url: Option<String>,
    /// Point this sender of the real account (whatsapp:+15550002222, +15550002222 or MG…) at the tunnel, and restore its
    /// webhooks at the end; may be repeated
    #[arg(long, value_name = "SENDER", requires = "tunnel_url", value_parser = SenderId::parse)]
    sender: Vec<SenderId>,
    /// Record conversations in this folder, with invented numbers and names, for replay with the test kit
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Let messages refer to files of this folder by their path [default: the working directory]
    #[arg(long, value_name = "DIR")]
    media_dir: Option<PathBuf>,
    /// Require the key in the printed address for the page and for every call below /_emulator, so that other users of
    /// this machine cannot use the emulator
    #[arg(long)]
    protect: bool,
    /// Make a new emulated account and auth token, in place of those of the last start in this folder
    #[arg(long)]
    new_credentials: bool,
    /// Post messages to this service, as with handler.kind = "forward", with a secret that is made once and kept
    #[arg(long, value_name = "URL", conflicts_with_all = ["webhook", "rules"])]
    forward: Option<String>,
    #[command(flatten)]
    handler: HandlerArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Start your bot's own process, and start it again when it ends
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["rules"])]
    command: Vec<OsString>,
}

impl Dev {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let mut options = self.options();
        let mut sources = self.settings.sources();
        let account = DevAccount::new(&sources.env)?;
        let credentials = if self.new_credentials {
            DevCredentials::default()
        } else {
            account.load()?
        };
        options.account = credentials.account;
        let has_secret = credentials.forward_secret.is_some();
        let bot = DevBot::of(
            self.webhook.as_deref(),
            self.forward.as_deref(),
            !self.command.is_empty(),
            credentials.forward_secret,
        )?;
        // Behind a tunnel, no other server needs the emulated account.
        let is_saved = options.account.is_some() || options.tunnel_url.is_some();
        let is_saved = is_saved && (has_secret || bot.forward_secret().is_none());
        self.handler.apply(&mut sources);
        bot.apply(&mut sources);
        let removed = real_account_variables(&sources);
        // Before anything starts: these are the real account's settings, which `DevServer::start` ignores.
        let sender_settings = if self.sender.is_empty() {
            None
        } else {
            Some(SenderWebhookSettings::load(&sources)?)
        };
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            // Before any webhook is changed: a signal must not end the process without restoring them.
            let mut signals = StopSignals::new()?;
            // Before `DevServer::start` reads the settings, so that a change in between is not missed.
            let mut watcher = ConfigWatcher::new(self.settings.file());
            let mut dev_server = DevServer::start(App::builder(), sources, options).await?;
            let unsaved = if is_saved {
                None
            } else {
                account.save(dev_server.emulator(), bot.forward_secret())
            };
            let mut process = bot.start(self.command, removed, &dev_server).await?;
            // Before the bot listens, which may take it seconds.
            let page = dev_server.emulator().page_url();
            print(&format!("\n  Chat with your bot:  {page}\n\n"))?;
            if let Some(process) = &mut process {
                tokio::select! {
                    listening = bot.wait_until_listening() => listening?,
                    // Reports a process that ends during that time, and starts it again.
                    ended = process.keep_running(bot.hint_after_early_end()) => {
                        return ended.map(|()| ExitStatus::No);
                    }
                    () = signals.next() => {
                        process.stop().await;
                        return Ok(ExitStatus::Yes);
                    }
                }
            }
            let mut lines = MessageLines::start(&dev_server).await?;
            // Last: what fails before has not changed the webhooks of the account.
            let tunnel = match (sender_settings, dev_server.tunnel_webhook_urls()) {
                (Some(sender_settings), Some(urls)) => {
                    Some(TunnelWebhooks::point_senders(urls, &self.sender, sender_settings).await?)
                }
                _ => None,
            };
            // A block, so that an error of `print` does not skip the restore below either.
            let session = async {
                let bot = bot.describe(&dev_server, process.is_some())?;
                print(&welcome_text(
                    &dev_server,
                    &bot,
                    tunnel.as_ref(),
                    unsaved.as_deref(),
                )?)?;
                let process = process.as_mut();
                run_until_stopped(
                    &mut dev_server,
                    &mut watcher,
                    &mut signals,
                    process,
                    &mut lines,
                )
                .await
            };
            let ended = session.await;
            if let Some(process) = &mut process {
                process.stop().await;
            }
            // Whatever the result, and while the server still accepts webhooks: Twilio calls the tunnel until this is
            // done.
            let restored = match &tunnel {
                Some(tunnel) => tokio::select! {
                    restored = tunnel.restore() => restored,
                    () = signals.next() => Err(tunnel.interrupted_restore()),
                },
                None => Ok(()),
            };
            ended?;
            // A second signal skips the graceful shutdown.
            tokio::select! {
                () = dev_server.stop() => {}
                () = signals.next() => {}
            }
            restored?;
            Ok(ExitStatus::Yes)
        });
        // A blocked thread, such as one that reads a pipe, must not delay the exit.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }

    fn options(&self) -> DevServerOptions {
        let mut options = DevServerOptions::default();
        options.webhook.clone_from(&self.webhook);
        options.fallback.clone_from(&self.fallback);
        options.status_callback.clone_from(&self.status_callback);
        options.emulator_port = self.emulator_port;
        options.port = self.port;
        options.record_dir.clone_from(&self.record);
        options.media_dir.clone_from(&self.media_dir);
        options.protect = self.protect;
        options.tunnel_url.clone_from(&self.tunnel_url);
        options.admin_listener = true;
        options
    }
}

/// Streams of the signals that stop the command.
struct StopSignals {
    term: Signal,
    int: Signal,
    /// The terminal has closed.
    hangup: Option<Signal>,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup: ends_on_hangup()
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
        })
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
            // Once only: kernel and shell may both send it, and the second one must not cut the shutdown short.
            _ = hangup => self.hangup = None,
        }
    }
}

/// Returns whether SIGHUP may end a command that was started from a terminal: not under `nohup`, which has it ignored.
fn ends_on_hangup() -> bool {
    // Signal 1 is the lowest bit. Without /proc, `nohup` shows by the streams that it redirects.
    match std::fs::read_to_string("/proc/self/status") {
        Ok(status) => {
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
            let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            ignored.is_none_or(|mask| mask & 1 == 0)
        }
        Err(_) => io::stdin().is_terminal() || io::stdout().is_terminal(),
    }
}

/// Runs until a signal stops it or the dev server ends. Restarts the bot when its settings change.
async fn run_until_stopped(
    dev_server: &mut DevServer,
    watcher: &mut ConfigWatcher,
    signals: &mut StopSignals,
    process: Option<&mut BotProcess>,
    lines: &mut MessageLines,
) -> anyhow::Result<()> {
    // One future for all rounds of the loop: it may be in the middle of a start.
    let process = async {
        match process {
            Some(process) => process.keep_running(None).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(process);
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            ended = dev_server.wait() => {
                // `dev` has one exit code for a server that failed; `AppError` would exit with 74 for a failed disk.
                ended.map_err(|error| Failed(error.to_string()))?;
                return Ok(());
            }
            ended = &mut process => return ended,
            line = lines.next() => print(&line)?,
            () = watcher.wait_for_change() => reload(dev_server).await?,
        }
    }
}

/// Restarts the bot with the changed settings. If they are invalid, prints the problems, and the bot runs on.
async fn reload(dev_server: &mut DevServer) -> anyhow::Result<()> {
    match dev_server.restart(App::builder()).await {
        Ok(()) => {
            dev_server.emulator().announce_reload(Ok(()));
            print("  Reloaded the changed settings.\n")
        }
        // The old server has been stopped and the new one has not started: nothing runs any more.
        Err(error) if dev_server.server_url().is_none() => Err(error.into()),
        Err(error) => {
            let reason = error.to_string();
            dev_server.emulator().announce_reload(Err(&reason));
            print(&format!(
                "  Could not reload the changed settings; the previous settings stay in use.\n{reason}\n"
            ))
        }
    }
}

/// Polls a file for changes. A library for file events would be larger than this code.
struct ConfigWatcher {
    file: PathBuf,
    last_version: Option<FileVersion>,
}

impl ConfigWatcher {
    fn new(file: PathBuf) -> Self {
        let last_version = file_version(&file);
        Self { file, last_version }
    }

    /// Waits until the file has changed since the last call, or since [`ConfigWatcher::new`].
    async fn wait_for_change(&mut self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let now = file_version(&self.file);
            // While an editor replaces the file, it does not exist for a moment.
            if now.is_some() && now != self.last_version {
                self.last_version = now;
                return;
            }
        }
    }
}

/// Inode, size and modification time (seconds, nanoseconds) of a file.
type FileVersion = (u64, u64, i64, i64);

fn file_version(file: &Path) -> Option<FileVersion> {
    let file = std::fs::metadata(file).ok()?;
    Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
}

/// Environment variables that [`TunnelWebhooks`] uses, although [`DevServer`] ignores them.
const TUNNEL_ENV_VARS: [&str; 5] = [
    "REPLYHOOK__TWILIO__API_URL",
    "REPLYHOOK__TWILIO__MESSAGING_URL",
    "REPLYHOOK__TWILIO__API_KEY_SID",
    "REPLYHOOK__TWILIO__API_KEY_SECRET",
    "REPLYHOOK__TWILIO__API_KEY_SECRET_FILE",
];

fn welcome_text(
    dev_server: &DevServer,
    bot: &str,
    tunnel: Option<&TunnelWebhooks>,
    unsaved: Option<&str>,
) -> anyhow::Result<String> {
    let emulator = dev_server.emulator();
    let mut text = String::new();
    if let (Some(url), Some(handler)) = (dev_server.webhook_url(), dev_server.handler_name()) {
        writeln!(text, "  webhook      {url} (handler: {handler})")?;
        writeln!(
            text,
            "  store        {}",
            dev_server.store_url().unwrap_or_default()
        )?;
    }
    if let Some(admin) = dev_server.admin_addr() {
        writeln!(text, "  private      http://{admin}/readyz and /metrics")?;
    }
    writeln!(text, "  senders      {}", SENDERS.join(", "))?;
    text.push_str(bot);
    // Other processes cannot use a store in memory.
    if dev_server
        .store_url()
        .is_some_and(|url| !url.contains(":memory:"))
    {
        let (url, account) = (emulator.url(), emulator.account_sid());
        writeln!(
            text,
            "\n  To use other commands, such as `replyhook send`, with the emulated account:\n\
             \n    export TWILIO_ACCOUNT_SID={account} TWILIO_AUTH_TOKEN={} REPLYHOOK__TWILIO__API_URL={url} \
             REPLYHOOK__TWILIO__CONTENT_URL={url} REPLYHOOK__TWILIO__MESSAGING_URL={url}",
            emulator.auth_token().expose()
        )?;
    }
    if let Some(tunnel) = tunnel {
        write!(text, "\n{}", tunnel.describe()?)?;
    } else if let Some([primary, fallback, status]) = dev_server.tunnel_webhook_urls() {
        writeln!(
            text,
            "\n  Paste into Twilio's console, in the settings of the sender or the sandbox, each with POST:\n\
             \n    When a message comes in   {primary}\
             \n    Fallback URL              {fallback}\
             \n    Status callback URL       {status}"
        )?;
    }
    let is_used = |name: &String| tunnel.is_some() && TUNNEL_ENV_VARS.contains(&name.as_str());
    let ignored = dev_server
        .ignored_env_vars()
        .iter()
        .filter(|name| !is_used(name));
    let ignored: Vec<_> = ignored.map(String::as_str).collect();
    if !ignored.is_empty() {
        let names = ignored.join(", ");
        writeln!(
            text,
            "\n  Ignored, to keep real credentials out of this run: {names}"
        )?;
    }
    if let Some(problem) = unsaved {
        writeln!(text, "\n  Note: {problem}")?;
    }
    writeln!(text, "\n  Ctrl-C ends it.\n")?;
    Ok(text)
}
