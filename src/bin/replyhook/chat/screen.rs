//! Output: plain lines in a pipe; colors, printed above the prompt, in a terminal.

use std::cell::RefCell;

use rustyline::ExternalPrinter;

use super::bubble::Bubble;
use super::session::MessageOutcome;
use crate::print::{print, printable};

const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

pub(super) struct Screen {
    /// Prints above the line that is being typed.
    printer: Option<RefCell<Box<dyn ExternalPrinter>>>,
}

impl Screen {
    pub(super) fn plain() -> Self {
        Self { printer: None }
    }

    pub(super) fn terminal(printer: impl ExternalPrinter + 'static) -> Self {
        Self {
            printer: Some(RefCell::new(Box::new(printer))),
        }
    }

    pub(super) fn print_bubbles(&self, bubbles: &[Bubble]) -> anyhow::Result<()> {
        for bubble in bubbles {
            self.print_bubble(bubble)?;
        }
        Ok(())
    }

    pub(super) fn print_outcome(&self, outcome: &MessageOutcome) -> anyhow::Result<()> {
        match outcome {
            MessageOutcome::Answered(bubbles) => self.print_bubbles(bubbles),
            MessageOutcome::Failed { bubbles, reason } => {
                self.print_bubbles(bubbles)?;
                self.print_problem(reason)
            }
            MessageOutcome::Note(text) => self.print_line(DIM, text),
        }
    }

    pub(super) fn print_note(&self, text: &str) -> anyhow::Result<()> {
        self.print_line(DIM, text)
    }

    pub(super) fn print_problem(&self, text: &str) -> anyhow::Result<()> {
        self.print_line(RED, &format!("! {text}"))
    }

    fn print_bubble(&self, bubble: &Bubble) -> anyhow::Result<()> {
        let color = if bubble.has_succeeded() { GREEN } else { RED };
        // In a pipe, a message is always a single line, so that a script can read it. The backslash is escaped as well,
        // which makes the text unambiguous.
        let text = if self.printer.is_some() {
            bubble.to_lines().replace('\n', "\n     ")
        } else {
            bubble
                .to_string()
                .replace('\\', "\\\\")
                .replace('\n', "\\n")
        };
        self.print_line(color, &format!("{}: {text}", bubble.author))
    }

    fn print_line(&self, color: &str, text: &str) -> anyhow::Result<()> {
        // The text may come from a bot: its control characters must not reach the terminal.
        let text = printable(text);
        match &self.printer {
            Some(printer) => {
                let line = format!("\x1b[{color}m{text}\x1b[0m\n");
                Ok(printer.borrow_mut().print(line)?)
            }
            None => print(&format!("{text}\n")),
        }
    }
}
