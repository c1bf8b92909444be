//! The `replyhook` command. Each subcommand is a module that uses only the library's public API.
//!
//! Exit codes: 0 done or yes, 1 no, 2 usage or configuration error.

mod audit;
mod bot_process;
mod channel_name;
mod chat;
mod check;
mod config;
mod configured_sender;
mod confirm;
mod consent;
mod consent_import;
mod csv_rows;
mod dev;
mod dev_account;
mod dev_bot;
mod doctor;
mod exit;
mod explain;
mod finding;
mod handler_args;
mod handoff;
mod health;
mod invoke;
mod message_lines;
mod messages;
mod migrate;
mod operator;
mod opt_out;
mod opt_out_advice;
mod print;
mod purge;
mod reconcile;
mod request;
mod rules;
mod runtime;
mod send;
mod sender;
mod serve;
mod serve_runtime;
mod settings_args;
mod shell;
mod sign;
mod templates;
mod tunnel_webhooks;
mod user;
mod verdict;
mod webhook_backup;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::exit::{ExitStatus, exit_code};
use self::serve_runtime::ServeRuntime;

/// Receive WhatsApp and SMS messages through Twilio, and reply to them.
#[derive(Parser)]
#[command(name = "replyhook", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  TWILIO_AUTH_TOKEN=… PUBLIC_URL=https://bot.example.com replyhook serve
  replyhook check                       find problems in the configuration
  replyhook doctor                      find problems in the deployment of a running server
  replyhook messages list --state held  list messages whose replies wait for your decision
  pbpaste | replyhook explain -         explain why a request saved as curl or HAR does not verify

Exit codes:
  0         done, or yes
  1         no, such as: not ready, does not verify, not sent, or there are findings
  2         usage or configuration error
  74        the disk failed while `serve` ran
  130, 143  SIGINT or SIGTERM ended `serve` before all work in progress was finished";

#[derive(Subcommand)]
enum Command {
    /// Chat with the bot on this machine: server, emulated Twilio and a page, no account needed
    #[cfg(feature = "emulator")]
    Dev(dev::Dev),
    /// Chat with the bot in the terminal, as a WhatsApp or SMS user
    #[cfg(feature = "emulator")]
    Chat(chat::Chat),
    /// Serve Twilio's webhooks until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Show all problems of the configuration, and the effective values with secrets masked
    Check(check::Check),
    /// Test a deployment: its public URL, store, credentials, and the webhooks configured at Twilio
    #[cfg(feature = "emulator")]
    Doctor(doctor::Doctor),
    /// Run the examples of rules files
    Rules(rules::RulesArgs),
    /// Check whether the server on this machine is ready
    Health(health::HealthArgs),
    /// Print the signature that Twilio would send with a request
    Sign(sign::Sign),
    /// Explain why a captured request does not verify, and how to fix it
    Explain(explain::Explain),
    /// Check any bot behind a Twilio webhook: some 20 requests, and a scorecard
    #[cfg(feature = "emulator")]
    Audit(audit::Audit),
    /// Send one signed webhook to any URL, and check the response as Twilio would
    #[cfg(feature = "emulator")]
    Invoke(invoke::Invoke),
    /// List, show and export messages and their replies; retry and release them
    Messages(messages::MessagesArgs),
    /// Add messages that Twilio has and the journal lacks, after an outage or a restore
    Reconcile(reconcile::Reconcile),
    /// Delete a user's data, or content older than its retention time
    Purge(purge::Purge),
    /// Show, change and export opt-in and opt-out records
    Consent(consent::ConsentArgs),
    /// Show who a user is and why they get replies or none; merge and split users
    User(user::UserArgs),
    /// List or end handoffs of users to people or other systems
    Handoff(handoff::HandoffArgs),
    /// Send an outbound message, or one per row of a CSV file
    Send(send::Send),
    /// Show and set the webhooks of senders at Twilio: WhatsApp, numbers and Messaging Services
    Sender(sender::Sender),
    /// List, check and create templates and their WhatsApp approval
    Templates(templates::TemplatesArgs),
    /// Migrate the store to the current schema, without starting a server
    Migrate(migrate::MigrateArgs),
    /// Print the default settings with their documentation
    Config(config::Config),
    /// Print completions for a shell
    Completions(shell::Completions),
    /// Print the manual page, or write all manual pages into a folder
    Man(shell::Man),
}

fn main() -> ExitCode {
    let serve_runtime = ServeRuntime::start_if_serving();
    let result = match Cli::parse().command {
        #[cfg(feature = "emulator")]
        Command::Dev(dev) => dev.run(),
        #[cfg(feature = "emulator")]
        Command::Chat(chat) => chat.run(),
        Command::Serve(serve) => serve.run(serve_runtime),
        Command::Check(check) => check.run(),
        #[cfg(feature = "emulator")]
        Command::Doctor(doctor) => doctor.run(),
        Command::Rules(rules) => rules.run(),
        Command::Health(health) => health.run(),
        Command::Sign(sign) => sign.run(),
        Command::Explain(explain) => explain.run(),
        #[cfg(feature = "emulator")]
        Command::Invoke(invoke) => invoke.run(),
        #[cfg(feature = "emulator")]
        Command::Audit(audit) => audit.run(),
        Command::Messages(messages) => messages.run(),
        Command::Reconcile(reconcile) => reconcile.run(),
        Command::Purge(purge) => purge.run(),
        Command::Consent(consent) => consent.run(),
        Command::User(user) => user.run(),
        Command::Handoff(handoff) => handoff.run(),
        Command::Send(send) => send.run(),
        Command::Sender(sender) => sender.run(),
        Command::Templates(templates) => templates.run(),
        Command::Migrate(migrate) => migrate.run(),
        Command::Config(config) => config.run(),
        Command::Completions(completions) => completions.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
    };
    match result {
        Ok(ExitStatus::Yes) => ExitCode::SUCCESS,
        Ok(ExitStatus::No) => ExitCode::from(1),
        Err(error) => {
            // If standard error is closed, the exit code is all that is left to report with.
            let _ = writeln!(std::io::stderr(), "replyhook: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}
