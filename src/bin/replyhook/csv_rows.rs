//! The rows of a CSV file, read strictly.
//!
//! A missing closing quote would make the rows of other people part of one person's row. So a file with a misplaced quote
//! is rejected before anything is done.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use csv::{Position, ReaderBuilder, StringRecord};

use crate::operator::format_count;

/// A file with valid quotes and a valid header line.
pub(crate) struct CsvRows<C> {
    bytes: Vec<u8>,
    pub(crate) columns: Vec<C>,
}

impl<C> CsvRows<C> {
    /// Reads the whole file, or standard input for `-`. `consequence` completes the texts of problems, as in "nothing is
    /// sent".
    pub(crate) fn read(
        file: &Path,
        consequence: &str,
        parse_columns: impl FnOnce(&StringRecord) -> anyhow::Result<Vec<C>>,
    ) -> anyhow::Result<Self> {
        // The whole file: its quotes must be checked to the end before the first row is used.
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
        check_quotes(&bytes, consequence).with_context(|| path.to_string())?;
        let mut reader = ReaderBuilder::new().from_reader(bytes.as_slice());
        let header = reader
            .headers()
            .map_err(|error| anyhow!("{path}: {error}"))?;
        let columns = parse_columns(header).with_context(|| path.to_string())?;
        Ok(Self { bytes, columns })
    }

    /// Returns each row with the number of its first line, or the reason why it is invalid.
    pub(crate) fn iter_rows(&self) -> impl Iterator<Item = (u64, Result<StringRecord, String>)> {
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
fn check_quotes(bytes: &[u8], consequence: &str) -> anyhow::Result<()> {
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
                "line {line}: text after the closing quote of a field that was opened on line {opened_line}; {consequence}; close the quotes, and double quotes inside of a field"
            ),
            (_, b'"') => bail!(
                "line {line}: a quote inside of a field without quotes; {consequence}; put the whole field in quotes, \
                 and double the quotes inside of it"
            ),
            _ => QuoteState::Unquoted,
        };
        line += u64::from(*byte == b'\n');
    }
    if state == QuoteState::Quoted {
        bail!(
            "line {opened_line}: a quote is never closed, so the rest of the file would be one row; {consequence}; close it"
        );
    }
    Ok(())
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
