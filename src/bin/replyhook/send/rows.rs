//! The rows of a CSV file, read strictly.
//!
//! A missing closing quote would make the rows of other people part of one person's message. So a file with a misplaced
//! quote is rejected before anything is sent.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use csv::{Position, ReaderBuilder, StringRecord};

use crate::operator::format_count;

/// The meaning of a column.
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
    fn from_name(name: &str) -> Option<Self> {
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

/// A file with valid quotes and a valid header line.
pub(super) struct CsvRows {
    bytes: Vec<u8>,
    pub(super) columns: Vec<Column>,
}

impl CsvRows {
    /// Reads the whole file, or standard input for `-`.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        // The whole file: its quotes must be checked to the end before the first row is sent.
        let mut bytes = Vec::new();
        let read = if file == Path::new("-") {
            std::io::stdin().read_to_end(&mut bytes)
        } else {
            std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut bytes))
        };
        let path = file.display();
        read.with_context(|| format!("could not read {path}"))?;
        // Spreadsheet programs write a byte order mark, which would become part of the first column's name.
        if bytes.starts_with("\u{FEFF}".as_bytes()) {
            bytes.drain(.."\u{FEFF}".len());
        }
        check_quotes(&bytes).with_context(|| path.to_string())?;
        let mut reader = ReaderBuilder::new().from_reader(bytes.as_slice());
        let header = reader
            .headers()
            .map_err(|error| anyhow!("{path}: {error}"))?;
        let columns = parse_columns(header).with_context(|| path.to_string())?;
        Ok(Self { bytes, columns })
    }

    /// Returns each row with the number of its first line, or the reason why it is invalid.
    pub(super) fn iter_rows(&self) -> impl Iterator<Item = (u64, Result<StringRecord, String>)> {
        let mut reader = ReaderBuilder::new().from_reader(self.bytes.as_slice());
        // Read the header now: otherwise the reported position of the first row would be that of the header.
        let _ = reader.headers();
        reader.into_records().map(|record| match record {
            Ok(record) => (self.line(record.position()), Ok(record)),
            Err(error) => (self.line(error.position()), Err(invalid_row(&error))),
        })
    }

    /// Returns the line of a row that the reader began to read at `start`.
    fn line(&self, start: Option<&Position>) -> u64 {
        let Some(start) = start else { return 0 };
        // The reader begins at the blank lines before the row, if there are any.
        let at = usize::try_from(start.byte()).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        let blank = rest
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .filter(|byte| **byte == b'\n');
        start.line() + blank.count() as u64
    }
}

/// The state of [`check_quotes`] within a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field. It ends the field, unless it is the first of a doubled quote.
    QuoteInQuoted,
}

/// Checks that every quoted field is closed, and that quotes are only at the ends of fields or doubled inside.
fn check_quotes(bytes: &[u8]) -> anyhow::Result<()> {
    // The `csv` crate accepts such files and guesses.
    let (mut line, mut opened_line) = (1_u64, 1_u64);
    let mut state = QuoteState::FieldStart;
    for byte in bytes {
        state = match (state, byte) {
            (QuoteState::FieldStart, b'"') => {
                opened_line = line;
                QuoteState::Quoted
            }
            (QuoteState::Quoted, b'"') => QuoteState::QuoteInQuoted,
            (QuoteState::Quoted, _) | (QuoteState::QuoteInQuoted, b'"') => QuoteState::Quoted,
            (_, b',' | b'\r' | b'\n') => QuoteState::FieldStart,
            (QuoteState::QuoteInQuoted, _) => bail!(
                "line {line}: text after the closing quote of a field that was opened on line {opened_line}; nothing \
                 is sent; close the quotes, and double quotes inside of a field"
            ),
            (_, b'"') => bail!(
                "line {line}: a quote inside of a field without quotes; nothing is sent; put the whole field in quotes, \
                 and double the quotes inside of it"
            ),
            _ => QuoteState::Unquoted,
        };
        line += u64::from(*byte == b'\n');
    }
    if state == QuoteState::Quoted {
        bail!(
            "line {opened_line}: a quote is never closed, so the rest of the file would be one message; nothing is \
             sent; close it"
        );
    }
    Ok(())
}

fn parse_columns(header: &StringRecord) -> anyhow::Result<Vec<Column>> {
    let mut columns = Vec::new();
    for name in header {
        let name = name.trim();
        let Some(column) = Column::from_name(name) else {
            bail!(
                "unknown column {name:?}; write to, from, service, body, template, media, at, key, and 1, 2, … or \
                 var.NAME for variables, separated by commas"
            )
        };
        if columns.contains(&column) {
            bail!("two columns {name:?}; leave one out");
        }
        columns.push(column);
    }
    if columns.contains(&Column::To) {
        Ok(columns)
    } else {
        bail!("the column `to` is missing")
    }
}

/// Returns the reason why a row is invalid.
fn invalid_row(error: &csv::Error) -> String {
    // The crate's own text counts bytes and records, which an operator cannot find in a spreadsheet.
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "{}, but the header line has {expected_len}",
            format_count(*len, "field")
        ),
        csv::ErrorKind::Utf8 { .. } => "not UTF-8; save the file in that encoding".to_owned(),
        _ => "could not read the row".to_owned(),
    }
}
