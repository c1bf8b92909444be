//! The columns of a CSV file of messages.

use anyhow::bail;
use csv::StringRecord;

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

pub(super) fn parse_columns(header: &StringRecord) -> anyhow::Result<Vec<Column>> {
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
