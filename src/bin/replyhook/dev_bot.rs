//! Your own bot in `replyhook dev`: where its service is, what it must know, and its process.
#![cfg(feature = "emulator")]

use std::ffi::OsString;
use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use replyhook::config::Sources;
use replyhook::{DevServer, Secret};
use replyhook_core::redact::redacted_url;
use tokio::net::TcpStream;

use crate::bot_process::BotProcess;
use crate::print::print;

/// Time after which `dev` says that it waits for the bot's process to listen. Most bots listen before.
const SILENT_WAIT: Duration = Duration::from_secs(2);
/// Time of the wait after that, before `dev` goes on without the bot. An interpreter may need seconds.
const ANNOUNCED_WAIT: Duration = Duration::from_secs(8);
/// Interval between two attempts to connect to it.
const CONNECT_INTERVAL: Duration = Duration::from_millis(25);

/// The way in which `dev` reaches your bot.
pub(crate) enum DevBot {
    /// The handler of the settings, in this process.
    BuiltIn,
    /// A service that replies to messages as JSON, as with `handler.kind = "forward"`.
    Forward {
        url: String,
        secret: Secret,
        /// Token of the HTTP API for a bot that `dev` starts, unless the settings have one.
        api_token: Option<Secret>,
    },
    /// A server that handles Twilio's webhooks itself.
    Webhook { url: String },
}

impl DevBot {
    /// Returns the bot that the options name. For one that forwards, `saved` is the secret of an earlier start.
    ///
    /// # Errors
    /// The operating system has no random numbers for a secret, or no free port.
    pub(crate) fn of(
        webhook: Option<&str>,
        forward: Option<&str>,
        has_command: bool,
        saved: Option<Secret>,
    ) -> anyhow::Result<Self> {
        let url = match (webhook, forward) {
            (Some(url), _) => {
                return Ok(Self::Webhook {
                    url: url.to_owned(),
                });
            }
            (None, Some(url)) => url.to_owned(),
            (None, None) if has_command => format!("http://127.0.0.1:{}/message", free_port()?),
            (None, None) => return Ok(Self::BuiltIn),
        };
        let secret = saved.map_or_else(new_secret, Ok)?;
        let api_token = has_command.then(new_api_token).transpose()?;
        Ok(Self::Forward {
            url,
            secret,
            api_token,
        })
    }

    /// Returns the secret to keep for the next start.
    pub(crate) fn forward_secret(&self) -> Option<&Secret> {
        match self {
            Self::Forward { secret, .. } => Some(secret),
            Self::BuiltIn | Self::Webhook { .. } => None,
        }
    }

    /// Sets the handler, over the settings file and the environment.
    pub(crate) fn apply(&self, sources: &mut Sources) {
        if let Self::Forward {
            url,
            secret,
            api_token,
        } = self
        {
            // Also ignores the `_file` key: setting both is a problem.
            sources.ignored.push("handler.forward_secret");
            let settings = [
                ("handler.kind", "forward"),
                ("handler.forward_url", url),
                ("handler.forward_secret", secret.expose()),
            ];
            let settings = settings.map(|(key, value)| (key, value.to_owned()));
            sources.fixed.extend(settings);
            // Not over the settings: the operator may call the API with the token in them.
            if let Some(token) = api_token {
                let token = token.expose().to_owned();
                sources.defaults.insert("admin.token", token);
            }
        }
    }

    /// Starts the bot's process, if there is a command for it, with what it needs in its environment, and without the
    /// variables to remove.
    ///
    /// # Errors
    /// The program cannot be started, or another one listens on the port of the bot's URL.
    pub(crate) async fn start(
        &self,
        command: Vec<OsString>,
        removed: Vec<String>,
        dev_server: &DevServer,
    ) -> anyhow::Result<Option<BotProcess>> {
        if command.is_empty() {
            return Ok(None);
        }
        let emulator = dev_server.emulator();
        let (url, mut env) = match self {
            Self::Forward { url, secret, .. } => {
                let mut env = vec![("FORWARD_SECRET", secret.expose().to_owned())];
                if let (Some(address), Some(token)) =
                    (dev_server.admin_addr(), dev_server.api_token())
                {
                    let mut address = address;
                    if address.ip().is_unspecified() {
                        address.set_ip(Ipv4Addr::LOCALHOST.into());
                    }
                    env.push(("REPLYHOOK_API_URL", format!("http://{address}")));
                    env.push(("REPLYHOOK_API_TOKEN", token.expose().to_owned()));
                }
                (url, env)
            }
            Self::Webhook { url } => (
                url,
                vec![
                    ("TWILIO_ACCOUNT_SID", emulator.account_sid().to_string()),
                    (
                        "TWILIO_AUTH_TOKEN",
                        emulator.auth_token().expose().to_owned(),
                    ),
                    ("TWILIO_API_URL", emulator.url().to_owned()),
                ],
            ),
            Self::BuiltIn => bail!("a command needs --forward or --webhook"),
        };
        let (host, port) = address(url)?;
        // That program would get the messages, and the bot could not listen.
        if TcpStream::connect((host.as_str(), port)).await.is_ok() {
            bail!(
                "{}: another program listens on port {port} already; end it, or name another port in the URL",
                redacted_url(url)
            );
        }
        env.push(("PORT", port.to_string()));
        BotProcess::start(command, env, removed).map(Some)
    }

    /// Waits until the bot accepts connections, so that the first message does not fail, and prints what it is waiting for if
    /// that takes long. Returns after a timeout too.
    pub(crate) async fn wait_until_listening(&self) -> anyhow::Result<()> {
        let (Self::Forward { url, .. } | Self::Webhook { url }) = self else {
            return Ok(());
        };
        let Ok((host, port)) = address(url) else {
            return Ok(());
        };
        let connect = async {
            while TcpStream::connect((host.as_str(), port)).await.is_err() {
                tokio::time::sleep(CONNECT_INTERVAL).await;
            }
        };
        tokio::pin!(connect);
        if tokio::time::timeout(SILENT_WAIT, &mut connect)
            .await
            .is_ok()
        {
            return Ok(());
        }
        let seconds = ANNOUNCED_WAIT.as_secs();
        print(&format!(
            "  Waiting up to {seconds} s for the bot to listen on port {port}, which it gets as PORT\n"
        ))?;
        if tokio::time::timeout(ANNOUNCED_WAIT, connect).await.is_err() {
            print(&format!(
                "  The bot does not listen on port {port} yet, so messages fail: see its output. Does it read PORT?\n"
            ))?;
        }
        Ok(())
    }

    /// Returns the help for a bot whose process has ended before it listened, which may be one of another kind.
    pub(crate) fn hint_after_early_end(&self) -> Option<&'static str> {
        matches!(self, Self::Forward { .. }).then_some(
            "  If the bot is a server for Twilio's webhooks, name its URL, as in --webhook http://127.0.0.1:3000/sms: it then gets an\n\
             \x20 emulated account. With --forward, or without a URL, it gets PORT and FORWARD_SECRET.\n",
        )
    }

    /// Describes where the bot is, and what to paste into its settings, for the text that `dev` prints.
    pub(crate) fn describe(
        &self,
        dev_server: &DevServer,
        has_process: bool,
    ) -> Result<String, std::fmt::Error> {
        let emulator = dev_server.emulator();
        let mut text = String::new();
        match self {
            Self::BuiltIn => {}
            Self::Forward { url, secret, .. } => {
                writeln!(text, "  forward      {}", redacted_url(url))?;
                if !has_process {
                    writeln!(
                        text,
                        "\n  Start that service with the secret with which it verifies requests:\n\
                         \n    FORWARD_SECRET={}",
                        secret.expose()
                    )?;
                }
            }
            Self::Webhook { url } => {
                writeln!(text, "  webhook      {}", redacted_url(url))?;
                let (account, token) = (emulator.account_sid(), emulator.auth_token().expose());
                let base = emulator.url();
                if !has_process {
                    writeln!(
                        text,
                        "\n  Start that server with the emulated account, for example in a file .env, which `node --env-file=.env` and\
                         \n  python-dotenv read:\n\
                         \n    TWILIO_ACCOUNT_SID={account}\n    TWILIO_AUTH_TOKEN={token}\n    TWILIO_API_URL={base}"
                    )?;
                }
                // Also with a process: Twilio's clients read no such variable.
                writeln!(
                    text,
                    "\n  If it calls Twilio's API, let its client use TWILIO_API_URL, {base}, in Node and in Python:\n\
                     \n    client.api.baseUrl = client.content.baseUrl = process.env.TWILIO_API_URL;\
                     \n    client.api.base_url = client.content.base_url = os.environ[\"TWILIO_API_URL\"]"
                )?;
            }
        }
        Ok(text)
    }
}

/// Returns the names of variables with which the bot's process could use a real account.
pub(crate) fn real_account_variables(sources: &Sources) -> Vec<String> {
    let is_real = |name: &&String| name.starts_with("TWILIO_") || name.contains("__TWILIO__");
    sources.env.keys().filter(is_real).cloned().collect()
}

/// Returns host and port of a URL, which its service listens on.
fn address(url: &str) -> anyhow::Result<(String, u16)> {
    let parsed: http::Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    let default = if parsed.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    // Brackets belong to the URL, not to the IPv6 address.
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
    Ok((host.to_owned(), parsed.port_u16().unwrap_or(default)))
}

/// Returns a port that is free now. Another program could take it before the bot does; the bot then reports it.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

fn new_secret() -> anyhow::Result<Secret> {
    Ok(Secret::new(format!("whsec_{}", random_base64()?)))
}

fn new_api_token() -> anyhow::Result<Secret> {
    Ok(Secret::new(random_base64()?))
}

fn random_base64() -> anyhow::Result<String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).context("the operating system has no random numbers")?;
    Ok(BASE64_STANDARD.encode(key))
}
