//! Shared operations on SQLite.

use std::borrow::Cow;
use std::future;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection};

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::packing;
use crate::store::shared::database::{Database, Param, StoredRow, StoredValue};

/// Returns the result of a shared operation. A statement of SQLite has ended when its call returns, so the operation
/// never waits.
pub(super) fn ready<T>(
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    operation
        .now_or_never()
        .expect("an operation on SQLite waits for nothing")
}

impl Database for &Connection {
    type Error = StoreError;

    fn choose(sqlite: &'static str, _postgres: &'static str) -> &'static str {
        sqlite
    }

    // The transaction has the write lock of the whole file.
    fn lock_address<'a>(&'a mut self, _key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(future::ready(Ok(())))
    }

    // Unreachable for the same reason.
    fn conflict() -> StoreError {
        StoreError::new(StoreErrorKind::Internal)
    }

    fn rows<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>> {
        Box::pin(future::ready(rows(self, sql, params)))
    }

    fn execute<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(future::ready(execute(self, sql, params)))
    }
}

fn rows(db: &Connection, sql: &str, params: &[Param<'_>]) -> Result<Vec<StoredRow>, StoreError> {
    let mut statement = bound(db, sql, params)?;
    let columns = statement.column_count();
    let mut found = statement.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let values = (0..columns).map(|column| stored_value(row.get_ref(column)?));
        rows.push(StoredRow(values.collect::<Result<_, _>>()?));
    }
    Ok(rows)
}

fn execute(db: &Connection, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
    Ok(bound(db, sql, params)?.raw_execute()? as u64)
}

/// Prepares a statement with its parameters.
// By name: SQLite numbers `$2` and `$1` in the order in which a statement contains them.
fn bound<'db>(
    db: &'db Connection,
    sql: &str,
    params: &[Param<'_>],
) -> Result<CachedStatement<'db>, StoreError> {
    let mut statement = db.prepare_cached(&with_json_lists(sql))?;
    for (number, param) in (1..).zip(params) {
        let name = &*format!("${number}");
        match *param {
            Param::Boolean(value) => statement.raw_bind_parameter(name, value)?,
            Param::Integer(value) => statement.raw_bind_parameter(name, value)?,
            // The debug format of integers is JSON.
            Param::Integers(value) => {
                statement.raw_bind_parameter(name, value.map(|list| format!("{list:?}")))?;
            }
            Param::Text(value) => statement.raw_bind_parameter(name, value)?,
            Param::Texts(value) => {
                let list = serde_json::Value::from(value);
                statement.raw_bind_parameter(name, list.to_string())?;
            }
            Param::Bytes(value) => statement.raw_bind_parameter(name, value)?,
        }
    }
    Ok(statement)
}

/// Replaces `= ANY ($1)` by a comparison with a list in JSON, since SQLite has no parameters that are lists.
fn with_json_lists(sql: &str) -> Cow<'_, str> {
    let mut parts = sql.split("= ANY (");
    let first = parts.next().unwrap_or_default();
    if first.len() == sql.len() {
        return Cow::Borrowed(sql);
    }
    let replaced = parts.map(|part| {
        let closed = part.replacen(')', "))", 1);
        format!("IN (SELECT value FROM json_each({closed}")
    });
    Cow::Owned(std::iter::once(first.to_owned()).chain(replaced).collect())
}

fn stored_value(value: ValueRef<'_>) -> Result<StoredValue, StoreError> {
    Ok(match value {
        ValueRef::Null => StoredValue::Null,
        ValueRef::Integer(number) => StoredValue::Integer(number),
        ValueRef::Text(text) => StoredValue::Text(
            str::from_utf8(text)
                .map_err(|_| packing::unreadable())?
                .into(),
        ),
        ValueRef::Blob(bytes) => StoredValue::Bytes(bytes.to_vec()),
        // No column has this type.
        ValueRef::Real(_) => return Err(packing::unreadable()),
    })
}
