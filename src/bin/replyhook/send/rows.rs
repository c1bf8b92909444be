//! The rows of a CSV file.
//!
//! Read strictly: a quote that is never closed, or is closed by a later one, makes other people's rows part of the message
//! to one of them. So a file in which a quote stands where none may is refused before anything is sent.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use csv::{Position, ReaderBuilder, StringRecord};

use crate::operator::number;

/// What a column holds.
#[derive(PartialEq, Eq)]
pub(super) enum Column {
    To,
    From,
    Service,
    Body,
    Template,
    Variable(String),
    Media,
    At,
    Key,
}

impl Column {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "to" => Self::To,
            "from" => Self::From,
            "service" => Self::Service,
            "body" => Self::Body,
            "template" => Self::Template,
            "media" => Self::Media,
            "at" => Self::At,
            "key" => Self::Key,
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::Variable(digits.to_owned())
            }
            other => Self::Variable(
                other
                    .strip_prefix("var.")
                    .filter(|name| !name.is_empty())?
                    .to_owned(),
            ),
        })
    }
}

/// A file that is one.
pub(super) struct Rows {
    bytes: Vec<u8>,
    pub(super) columns: Vec<Column>,
}

impl Rows {
    /// Reads the whole file, or standard input where it is `-`.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        let read = if file == Path::new("-") {
            std::io::stdin().read_to_end(&mut bytes)
        } else {
            std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
        };
        let shown = file.display();
        read.with_context(|| format!("{shown} cannot be read"))?;
        // Spreadsheets begin a file with a byte order mark.
        if bytes.starts_with("\u{FEFF}".as_bytes()) {
            bytes.drain(.."\u{FEFF}".len());
        }
        quotes(&bytes).with_context(|| shown.to_string())?;
        let mut reader = ReaderBuilder::new().from_reader(bytes.as_slice());
        let heading = reader
            .headers()
            .map_err(|error| anyhow!("{shown}: {error}"))?;
        let columns = columns(heading).with_context(|| shown.to_string())?;
        Ok(Self { bytes, columns })
    }

    /// Each row with the line on which it begins, or why it is none.
    pub(super) fn each(&self) -> impl Iterator<Item = (u64, Result<StringRecord, String>)> {
        let mut reader = ReaderBuilder::new().from_reader(self.bytes.as_slice());
        // It was looked at already; unread, the first row would begin where it does.
        let _ = reader.headers();
        reader.into_records().map(|record| match record {
            Ok(record) => (self.line(record.position()), Ok(record)),
            Err(error) => (self.line(error.position()), Err(broken(&error))),
        })
    }

    /// The line of a row whose reading began there: blank lines before it were read with it.
    fn line(&self, began: Option<&Position>) -> u64 {
        let Some(began) = began else { return 0 };
        let at = usize::try_from(began.byte()).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        let blank = rest
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .filter(|byte| **byte == b'\n');
        began.line() + blank.count() as u64
    }
}

/// Where in a field something stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Beginning,
    Plain,
    Quoted,
    /// After a quote in a quoted field, which ends it unless another follows.
    Quote,
}

/// Refuses quotes where none may stand.
fn quotes(bytes: &[u8]) -> anyhow::Result<()> {
    let (mut line, mut opened) = (1_u64, 1_u64);
    let mut at = In::Beginning;
    for byte in bytes {
        at = match (at, byte) {
            (In::Beginning, b'"') => {
                opened = line;
                In::Quoted
            }
            (In::Quoted, b'"') => In::Quote,
            (In::Quoted, _) | (In::Quote, b'"') => In::Quoted,
            (_, b',' | b'\r' | b'\n') => In::Beginning,
            (In::Quote, _) => bail!(
                "line {line}: something follows the quote that ends a field; it was opened on line {opened}. Nothing is \
                 sent: close the quotes, and double those inside of a field"
            ),
            (_, b'"') => bail!(
                "line {line}: there is a quote inside of a field that does not begin with one. Nothing is sent: put the \
                 whole field in quotes, and double those inside of it"
            ),
            _ => In::Plain,
        };
        line += u64::from(*byte == b'\n');
    }
    if at == In::Quoted {
        bail!(
            "line {opened}: a quote is opened and never closed, so that all that follows would be one message. Nothing is \
             sent: close it"
        );
    }
    Ok(())
}

fn columns(heading: &StringRecord) -> anyhow::Result<Vec<Column>> {
    let mut columns = Vec::new();
    for name in heading {
        let name = name.trim();
        let Some(column) = Column::named(name) else {
            bail!(
                "there is no column {name:?}: write to, from, service, body, template, media, at, key, and 1, 2, … or \
                 var.NAME for variables, separated by commas"
            )
        };
        if columns.contains(&column) {
            bail!("there are two columns {name:?}: leave one out");
        }
        columns.push(column);
    }
    if columns.contains(&Column::To) {
        Ok(columns)
    } else {
        bail!("it has no column `to`")
    }
}

/// Why a row is none. The crate's own words would do, but for their bytes and records.
fn broken(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "it has {}, and the heading has {expected_len}",
            number(*len, "field")
        ),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8: save the file as such".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}
