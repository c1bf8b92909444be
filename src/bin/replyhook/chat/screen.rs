//! What is seen: plain lines in a pipe, colours and an undisturbed prompt at a terminal.

use std::cell::RefCell;

use rustyline::ExternalPrinter;

use super::talk::{Bubble, Outcome};
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

    pub(super) fn outcome(&self, outcome: &Outcome) -> anyhow::Result<()> {
        match outcome {
            Outcome::Answered(bubbles) => self.bubbles(bubbles),
            Outcome::Failed { bubbles, reason } => {
                self.bubbles(bubbles)?;
                self.problem(reason)
            }
            Outcome::Told(text) => self.line(DIM, text),
        }
    }

    pub(super) fn note(&self, text: &str) -> anyhow::Result<()> {
        self.line(DIM, text)
    }

    pub(super) fn problem(&self, text: &str) -> anyhow::Result<()> {
        self.line(RED, &format!("! {text}"))
    }

    fn bubble(&self, bubble: &Bubble) -> anyhow::Result<()> {
        let colour = if bubble.is_well() { GREEN } else { RED };
        let said = bubble.to_string();
        // In a pipe a reply is a line, whatever is in it.
        let said = if self.printer.is_some() {
            said.replace('\n', "\n     ")
        } else {
            said.replace('\\', "\\\\").replace('\n', "\\n")
        };
        self.line(colour, &format!("{}: {said}", bubble.by))
    }

    fn line(&self, colour: &str, text: &str) -> anyhow::Result<()> {
        let text = printable(text);
        match &self.printer {
            Some(printer) => {
                let line = format!("\x1b[{colour}m{text}\x1b[0m\n");
                Ok(printer.borrow_mut().print(line)?)
            }
            None => print(&format!("{text}\n")),
        }
    }
}
