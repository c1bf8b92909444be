//! The `replyhook` command. Each command is a file that uses the library's public parts only.
//!
//! Exit codes: 0 done or yes, 1 no, 2 usage or configuration.

mod before;
mod chat;
mod check;
mod config;
mod consent;
mod dev;
mod doctor;
mod explain;
mod handback;
mod health;
mod invoke;
mod messages;
mod migrate;
mod operator;
mod pointed;
mod purge;
mod reconcile;
mod request;
mod rules;
mod send;
mod sender;
mod serve;
mod shell;
mod sign;
mod templates;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use replyhook::config::Sources;

/// Receive WhatsApp and SMS messages through Twilio, and answer them.
#[derive(Parser)]
#[command(name = "replyhook", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  TWILIO_AUTH_TOKEN=… PUBLIC_URL=https://bot.example.com replyhook serve
  replyhook check                       what is wrong with the configuration
  replyhook doctor                      what is wrong with the deployment, beside a running server
  replyhook messages list --state held  what waits for you, beside a running server
  pbpaste | replyhook explain -         why a request saved as curl or HAR does not verify";

#[derive(Subcommand)]
enum Command {
    /// Chat with the bot on this machine: server, emulated Twilio and a page, no account needed
    #[cfg(feature = "emulator")]
    Dev(dev::Dev),
    /// Talk with the bot in the terminal, as a user of WhatsApp or SMS would
    #[cfg(feature = "emulator")]
    Chat(chat::Chat),
    /// Answer Twilio's webhooks until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Show all problems of the configuration at once, and the values in effect with secrets masked
    Check(check::Check),
    /// Try a deployment: does its public URL lead here and verify, and what is entered at Twilio
    #[cfg(feature = "emulator")]
    Doctor(doctor::Doctor),
    /// Run the examples that stand in a file of rules
    Rules(rules::Rules),
    /// Ask a server on this machine whether it is ready
    Health(health::Health),
    /// Print the signature that Twilio would send with a request
    Sign(sign::Sign),
    /// Tell why a captured request does not verify, and what mends it
    Explain(explain::Explain),
    /// Send one signed webhook to any URL and judge the answer as Twilio would
    #[cfg(feature = "emulator")]
    Invoke(invoke::Invoke),
    /// Look at the messages that came and at their replies; retry and release them
    Messages(messages::Messages),
    /// Fetch what Twilio has and the journal lacks, after an outage
    Reconcile(reconcile::Reconcile),
    /// Delete a user's data, or what is older than it may be
    Purge(purge::Purge),
    /// Look at, change and export who wants to be written to
    Consent(consent::Consent),
    /// Let the bot answer a user again whom it has handed over
    Handback(handback::Handback),
    /// Send a message that answers nothing, or one for each row of a CSV file
    Send(send::Send),
    /// Look at and set which webhooks a WhatsApp sender has at Twilio
    Sender(sender::Sender),
    /// List the templates and whether WhatsApp has approved them
    Templates(templates::Templates),
    /// Bring the store's schema up to date, and nothing else
    Migrate(migrate::Migrate),
    /// Print the documented defaults
    Config(config::Config),
    /// Print completions for a shell
    Completions(shell::Completions),
    /// Print the manual page, or write all of them into a folder
    Man(shell::Man),
}

/// Where settings come from.
#[derive(Args)]
struct SettingsArgs {
    /// Settings file [default: replyhook.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SettingsArgs {
    /// The file that is read, whether it is there or not.
    #[cfg(feature = "emulator")]
    fn file(&self) -> PathBuf {
        let file = self.config.as_deref();
        file.unwrap_or(std::path::Path::new("replyhook.toml"))
            .to_owned()
    }

    fn sources(&self) -> Sources {
        let sources = Sources::from_env();
        match &self.config {
            Some(file) => sources.with_file(file),
            None => sources,
        }
    }
}

/// How a command ends that did not fail.
enum Answer {
    Yes,
    No,
}

fn main() -> ExitCode {
    let answer = match Cli::parse().command {
        #[cfg(feature = "emulator")]
        Command::Dev(dev) => dev.run(),
        #[cfg(feature = "emulator")]
        Command::Chat(chat) => chat.run(),
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        #[cfg(feature = "emulator")]
        Command::Doctor(doctor) => doctor.run(),
        Command::Rules(rules) => rules.run(),
        Command::Health(health) => health.run(),
        Command::Sign(sign) => sign.run(),
        Command::Explain(explain) => explain.run(),
        #[cfg(feature = "emulator")]
        Command::Invoke(invoke) => invoke.run(),
        Command::Messages(messages) => messages.run(),
        Command::Reconcile(reconcile) => reconcile.run(),
        Command::Purge(purge) => purge.run(),
        Command::Consent(consent) => consent.run(),
        Command::Handback(handback) => handback.run(),
        Command::Send(send) => send.run(),
        Command::Sender(sender) => sender.run(),
        Command::Templates(templates) => templates.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Config(config) => config.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            // Nobody is left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr(), "replyhook: {error:#}");
            ExitCode::from(if error.is::<Failed>() { 1 } else { 2 })
        }
    }
}

/// What was asked for did not succeed, although it was asked for rightly: exit 1.
#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Two workers at least: a handler that blocks one must not hold up the timer that answers for it.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let workers = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .max(2);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    print_on(text).map(|_| ())
}

/// The same; returns whether somebody still reads.
fn print_on(text: &str) -> anyhow::Result<bool> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// A foreign text, without what would command the terminal.
fn printable(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{FFFD}'
            } else {
                c
            }
        })
        .collect()
}
