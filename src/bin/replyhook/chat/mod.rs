//! `replyhook chat`: a conversation with the bot in the terminal.
#![cfg(feature = "emulator")]

mod bubble;
mod command;
mod delivery;
mod screen;
mod session;

use std::io::{BufRead, IsTerminal};

use anyhow::Context;
use replyhook::emulator::EmulatorClient;
use replyhook::{App, DevServer, DevServerOptions};
use tokio::sync::mpsc;

use self::command::Line;
use self::screen::Screen;
use self::session::ChatSession;
use crate::exit::ExitStatus;
use crate::handler_args::HandlerArgs;
use crate::runtime::runtime;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Type a message, or /help for a list of commands. If the input is not a terminal, each line is a message, each reply is a
line that begins with \"bot: \", and the command ends when all replies have arrived.

Exit codes:
  0  all messages were handled
  1  a message or a command failed
  2  usage or configuration error

Examples:
  replyhook chat
  replyhook chat --rules rules.toml
  printf 'hi\\n' | replyhook chat
  replyhook chat --emulator http://127.0.0.1:8081    as a user of a running replyhook dev")]
pub(crate) struct Chat {
    /// Connect to the emulator of a running `replyhook dev` at the address that it printed
    #[arg(long, value_name = "URL")]
    emulator: Option<String>,
    /// Address of the user [default: whatsapp:+15550001111]
    #[arg(long = "as", value_name = "ADDRESS")]
    user: Option<String>,
    #[command(flatten)]
    handler: HandlerArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The lines of the input. The channel is closed at its end.
type InputLines = mpsc::Receiver<String>;

impl Chat {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        runtime()?.block_on(async {
            let (dev_server, client) = if let Some(url) = &self.emulator {
                (None, EmulatorClient::new(url)?)
            } else {
                // Any free ports, so that a `replyhook dev` may run at the same time.
                let mut options = DevServerOptions::default();
                options.emulator_port = Some(0);
                options.port = Some(0);
                // Log lines would stand between the messages. A failure of the bot is one of these.
                options.logs = false;
                let mut sources = self.settings.sources();
                self.handler.apply(&mut sources);
                let dev_server = DevServer::start(App::builder(), sources, options).await?;
                let client = EmulatorClient::new(dev_server.emulator().url())?;
                (Some(dev_server), client)
            };
            let user = self.user.as_deref().unwrap_or(session::WHATSAPP_USER);
            let mut session = ChatSession::open(client, user).await?;
            let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            let result = if is_terminal {
                run_in_terminal(&mut session).await
            } else {
                run_in_pipe(&mut session).await
            };
            let closed = session.close().await;
            if let Some(dev_server) = dev_server {
                dev_server.stop().await;
            }
            let status = result?;
            closed?;
            Ok(status)
        })
    }
}

/// Handles one line after the other, and waits for the replies to each.
async fn run_in_pipe(session: &mut ChatSession) -> anyhow::Result<ExitStatus> {
    let screen = Screen::plain();
    let mut lines = read_lines();
    let mut all_succeeded = true;
    while let Some(line) = lines.recv().await {
        match command::parse(&line) {
            Line::Empty => {}
            Line::Quit => break,
            Line::Command(command) => match session.run(command).await {
                Ok(outcome) => {
                    all_succeeded &= outcome.has_succeeded();
                    screen.print_outcome(&outcome)?;
                    let replies = session.wait_for_replies().await?;
                    all_succeeded &= replies.iter().all(bubble::Bubble::has_succeeded);
                    screen.print_bubbles(&replies)?;
                }
                // Go on with the next line, and report the failure in the exit code.
                Err(error) => {
                    all_succeeded = false;
                    screen.print_problem(&format!("{error:#}"))?;
                }
            },
            Line::Invalid(problem) => {
                all_succeeded = false;
                screen.print_problem(&problem)?;
            }
        }
    }
    Ok(if all_succeeded {
        ExitStatus::Yes
    } else {
        ExitStatus::No
    })
}

fn read_lines() -> InputLines {
    let (line_tx, lines) = mpsc::channel(1);
    // A thread of its own: reading standard input blocks, and must not block the server in this process.
    std::thread::spawn(move || {
        // `split`, not `lines`, which would end at the first line that is not UTF-8.
        for line in std::io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            if line_tx.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Reads lines and shows messages at the same time.
async fn run_in_terminal(session: &mut ChatSession) -> anyhow::Result<ExitStatus> {
    let mut editor =
        rustyline::DefaultEditor::new().context("could not read from this terminal")?;
    let printer = editor
        .create_external_printer()
        .context("could not write to this terminal")?;
    let screen = Screen::terminal(printer);
    screen.print_note(&format!(
        "You are {}, writing to {}. /help lists all commands, Ctrl-D quits.",
        session.user(),
        session.sender()
    ))?;
    let (line_tx, mut lines) = mpsc::channel(1);
    let (prompt_tx, prompts) = std::sync::mpsc::channel::<String>();
    // `readline` blocks, so the editor has a thread. It gets a prompt per line: the prompt changes with the user.
    std::thread::spawn(move || {
        while let Ok(prompt) = prompts.recv() {
            let Ok(line) = editor.readline(&prompt) else {
                break;
            };
            let _ = editor.add_history_entry(line.as_str());
            if line_tx.blocking_send(line).is_err() {
                break;
            }
        }
    });
    // Before the first prompt, so that no message is missed.
    let mut events = session.events().await?;
    let _ = prompt_tx.send(session.prompt());
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else {
                    screen.print_problem("lost the connection to the emulator")?;
                    return Ok(ExitStatus::No);
                };
                if let Some(bubble) = session.bubble(&event) {
                    screen.print_bubbles(&[bubble])?;
                }
            }
            line = lines.recv() => {
                let Some(line) = line else { return Ok(ExitStatus::Yes) };
                match command::parse(&line) {
                    Line::Empty => {}
                    Line::Quit => return Ok(ExitStatus::Yes),
                    Line::Invalid(problem) => screen.print_problem(&problem)?,
                    Line::Command(command) => match session.run_in_background(command).await {
                        Ok(Some(outcome)) => screen.print_outcome(&outcome)?,
                        Ok(None) => {}
                        Err(error) => screen.print_problem(&format!("{error:#}"))?,
                    },
                }
                let _ = prompt_tx.send(session.prompt());
            }
            failure = session.next_failure() => screen.print_problem(&failure)?,
        }
    }
}
