//! Output: plain lines in a pipe; colors, printed above the prompt, in a terminal.

use std::cell::RefCell;

use rustyline::ExternalPrinter;

use super::session::{Bubble, MessageOutcome};
use crate::{print, printable};

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

    pub(super) fn bubbles(&self, bubbles: &[Bubble]) -> anyhow::Result<()> {
        for bubble in bubbles {
            self.bubble(bubble)?;
        }
        Ok(())
    }

    pub(super) fn outcome(&self, outcome: &MessageOutcome) -> anyhow::Result<()> {
        match outcome {
            MessageOutcome::Answered(bubbles) => self.bubbles(bubbles),
            MessageOutcome::Failed { bubbles, reason } => {
                self.bubbles(bubbles)?;
                self.problem(reason)
            }
            MessageOutcome::Told(text) => self.line(DIM, text),
        }
    }

    pub(super) fn note(&self, text: &str) -> anyhow::Result<()> {
        self.line(DIM, text)
    }

    pub(super) fn problem(&self, text: &str) -> anyhow::Result<()> {
        self.line(RED, &format!("! {text}"))
    }

    fn bubble(&self, bubble: &Bubble) -> anyhow::Result<()> {
        let color = if bubble.is_well() { GREEN } else { RED };
        let text = bubble.to_string();
        // In a pipe, a message is always a single line, so that a script can read it. The backslash is escaped as well,
        // which makes the text unambiguous.
        let text = if self.printer.is_some() {
            text.replace('\n', "\n     ")
        } else {
            text.replace('\\', "\\\\").replace('\n', "\\n")
        };
        self.line(color, &format!("{}: {text}", bubble.by))
    }

    fn line(&self, color: &str, text: &str) -> anyhow::Result<()> {
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
