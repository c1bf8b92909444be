//! A conversation with the bot in the terminal.
#![cfg(feature = "emulator")]

mod command;
mod screen;
mod talk;

use std::io::{BufRead, IsTerminal};

use anyhow::Context;
use replyhook::emulator::Remote;
use replyhook::{App, Desk, DeskOptions};
use tokio::sync::mpsc;

use self::command::Line;
use self::screen::Screen;
use self::talk::Talk;
use crate::{Answer, SettingsArgs, runtime};

#[derive(clap::Args)]
#[command(after_help = "\
Type to talk; /help shows what else there is. Input that is no terminal is one message a line: every reply is one line
that begins with \"bot: \", and it ends when the answers are in. Exit code 1 if a message failed.

Examples:
  replyhook chat
  printf 'hi\\n' | replyhook chat
  replyhook chat --emulator http://127.0.0.1:8081    as a user of a running replyhook dev")]
pub(crate) struct Chat {
    /// The emulator of a running `replyhook dev`, instead of one of its own: the address that it printed
    #[arg(long, value_name = "URL")]
    emulator: Option<String>,
    /// The user's address [default: whatsapp:+15550001111]
    #[arg(long = "as", value_name = "ADDRESS")]
    user: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What reads the lines, and knows when there are no more.
type Lines = mpsc::Receiver<String>;

impl Chat {
    pub(crate) fn run(self) -> anyhow::Result<Answer> {
        runtime()?.block_on(async {
            let (desk, remote) = if let Some(url) = &self.emulator {
                (None, Remote::new(url)?)
            } else {
                let mut options = DeskOptions::default();
                options.emulator_port = Some(0);
                options.port = Some(0);
                let sources = self.settings.sources();
                let desk = Desk::start(App::builder(), sources, options).await?;
                let remote = Remote::new(desk.emulator().url())?;
                (Some(desk), remote)
            };
            let user = self.user.as_deref().unwrap_or(talk::WHATSAPP_USER);
            let talk = Talk::open(remote, user).await?;
            let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            let answer = if is_terminal {
                at_a_terminal(talk).await
            } else {
                in_a_pipe(talk).await
            };
            if let Some(desk) = desk {
                desk.stop().await;
            }
            answer
        })
    }
}

/// One line after the other, each with its answers.
async fn in_a_pipe(mut talk: Talk) -> anyhow::Result<Answer> {
    let screen = Screen::plain();
    let mut lines = read_lines();
    let mut all_well = true;
    while let Some(line) = lines.recv().await {
        match command::parse(&line) {
            Line::Nothing => {}
            Line::Quit => break,
            Line::Command(command) => match talk.run(command).await {
                Ok(outcome) => {
                    all_well &= outcome.is_well();
                    screen.outcome(&outcome)?;
                    let late = talk.wait_for_answers().await?;
                    all_well &= late.iter().all(talk::Bubble::is_well);
                    screen.bubbles(&late)?;
                }
                Err(error) => {
                    all_well = false;
                    screen.problem(&format!("{error:#}"))?;
                }
            },
            Line::Wrong(problem) => {
                all_well = false;
                screen.problem(&problem)?;
            }
        }
    }
    Ok(if all_well { Answer::Yes } else { Answer::No })
}

fn read_lines() -> Lines {
    let (to, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        // What is no UTF-8 is said with what stands for it, and not lost with all that follows.
        for line in std::io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            if to.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Lines are typed while answers come.
async fn at_a_terminal(mut talk: Talk) -> anyhow::Result<Answer> {
    let mut editor = rustyline::DefaultEditor::new().context("this terminal")?;
    let printer = editor.create_external_printer().context("this terminal")?;
    let screen = Screen::terminal(printer);
    screen.note(&format!(
        "You are {}, writing to {}. /help shows what else there is, Ctrl-D ends it.",
        talk.user(),
        talk.sender()
    ))?;
    let (to, mut lines) = mpsc::channel(1);
    let (next, wanted) = std::sync::mpsc::channel::<String>();
    // The editor blocks its thread; it is given a prompt for each line.
    std::thread::spawn(move || {
        while let Ok(prompt) = wanted.recv() {
            let Ok(line) = editor.readline(&prompt) else {
                break;
            };
            let _ = editor.add_history_entry(line.as_str());
            if to.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let mut events = talk.events().await?;
    let _ = next.send(talk.prompt());
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else {
                    screen.problem("the emulator is gone")?;
                    return Ok(Answer::No);
                };
                if let Some(bubble) = talk.bubble(&event) {
                    screen.bubbles(&[bubble])?;
                }
            }
            line = lines.recv() => {
                let Some(line) = line else { return Ok(Answer::Yes) };
                match command::parse(&line) {
                    Line::Nothing => {}
                    Line::Quit => return Ok(Answer::Yes),
                    Line::Wrong(problem) => screen.problem(&problem)?,
                    Line::Command(command) => match talk.run_beside(command).await {
                        Ok(Some(outcome)) => screen.outcome(&outcome)?,
                        Ok(None) => {}
                        Err(error) => screen.problem(&format!("{error:#}"))?,
                    },
                }
                let _ = next.send(talk.prompt());
            }
            failed = talk.failed() => screen.problem(&failed)?,
        }
    }
}
