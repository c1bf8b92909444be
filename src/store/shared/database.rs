//! Connection to either database, with parameters and rows that both have.

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::store::error::StoreError;
use crate::store::packing;

/// Connection to SQLite or PostgreSQL.
///
/// A statement names its parameters `$1`, `$2` and so on, as PostgreSQL does. SQLite takes these for names too. A list is
/// compared by `= ANY ($1)`.
// Without a cast like `$1::text`, which SQLite takes for a longer name. PostgreSQL gets the type of a parameter, also
// of NULL, from the variant of `Param`.
pub(in crate::store) trait Database {
    /// Error of a statement.
    type Error: From<StoreError> + 'static;

    /// Returns the statement for this database, where the two need different ones.
    fn choose(sqlite: &'static str, postgres: &'static str) -> &'static str;

    /// Runs a statement, and returns its rows.
    fn rows<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, Self::Error>>;

    /// Runs a statement, and returns the number of rows that it changed.
    fn execute<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<u64, Self::Error>>;

    /// Locks a user's address until the end of the transaction.
    fn lock_address<'a>(&'a mut self, key: &'a str) -> BoxFuture<'a, Result<(), Self::Error>>;

    /// Returns the error after which the whole operation runs again, because a concurrent transaction has changed the same
    /// rows.
    fn conflict() -> Self::Error;

    /// Returns whether changes are recorded as events.
    fn records_events(&self) -> bool {
        false
    }

    /// Runs a statement, and returns its first row.
    fn row<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Option<StoredRow>, Self::Error>> {
        let rows = self.rows(sql, params);
        Box::pin(async move { Ok(rows.await?.into_iter().next()) })
    }
}

/// Connection whose changes are recorded as events, or are not.
pub(in crate::store) struct RecordingDatabase<'c, D> {
    db: &'c mut D,
    is_on: bool,
}

impl<'c, D: Database> RecordingDatabase<'c, D> {
    pub(in crate::store) fn new(db: &'c mut D, is_on: bool) -> Self {
        Self { db, is_on }
    }
}

impl<D: Database> Database for RecordingDatabase<'_, D> {
    type Error = D::Error;

    fn choose(sqlite: &'static str, postgres: &'static str) -> &'static str {
        D::choose(sqlite, postgres)
    }

    fn rows<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, Self::Error>> {
        self.db.rows(sql, params)
    }

    fn execute<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<u64, Self::Error>> {
        self.db.execute(sql, params)
    }

    fn lock_address<'a>(&'a mut self, key: &'a str) -> BoxFuture<'a, Result<(), Self::Error>> {
        self.db.lock_address(key)
    }

    fn conflict() -> Self::Error {
        D::conflict()
    }

    fn records_events(&self) -> bool {
        self.is_on
    }
}

/// Parameter of a statement. `None` is NULL.
#[derive(Clone, Copy)]
pub(in crate::store) enum Param<'a> {
    Boolean(bool),
    Integer(Option<i64>),
    Integers(Option<&'a [i64]>),
    Text(Option<&'a str>),
    Texts(&'a [String]),
    Bytes(Option<&'a [u8]>),
}

/// Parameters of a statement, from values of several types.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::shared::database::Param::from($value)),*]
    };
}
pub(in crate::store) use params;

impl From<bool> for Param<'_> {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Param<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Param<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl<'a> From<&'a [i64]> for Param<'a> {
    fn from(value: &'a [i64]) -> Self {
        Self::Integers(Some(value))
    }
}

impl<'a> From<Option<&'a [i64]>> for Param<'a> {
    fn from(value: Option<&'a [i64]>) -> Self {
        Self::Integers(value)
    }
}

impl From<u32> for Param<'_> {
    fn from(value: u32) -> Self {
        Self::Integer(Some(value.into()))
    }
}

/// The time in microseconds, as stored.
impl From<Timestamp> for Param<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Integer(Some(value.as_microsecond()))
    }
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<Option<&'a str>> for Param<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [String]> for Param<'a> {
    fn from(value: &'a [String]) -> Self {
        Self::Texts(value)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(Some(value))
    }
}

impl<'a> From<&'a Vec<u8>> for Param<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

impl<'a> From<Option<&'a Vec<u8>>> for Param<'a> {
    fn from(value: Option<&'a Vec<u8>>) -> Self {
        Self::Bytes(value.map(Vec::as_slice))
    }
}

/// Row that a statement returned.
#[derive(Default)]
pub(in crate::store) struct StoredRow(pub(in crate::store) Vec<StoredValue>);

impl StoredRow {
    /// Takes the value out of a column. A second call for the same column finds NULL.
    pub(in crate::store) fn take<T: FromStored>(&mut self, column: usize) -> Result<T, StoreError> {
        let value = self.0.get_mut(column).map(std::mem::take);
        value
            .and_then(T::from_stored)
            .ok_or_else(packing::unreadable)
    }
}

/// Reads IDs, which are the first column of these rows.
pub(in crate::store) fn ids(rows: Vec<StoredRow>) -> Result<Vec<i64>, StoreError> {
    rows.into_iter().map(|mut row| row.take(0)).collect()
}

/// Value of a column.
#[derive(Default)]
pub(in crate::store) enum StoredValue {
    #[default]
    Null,
    /// A truth value is 0 or 1.
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Type of a column's value.
pub(in crate::store) trait FromStored: Sized {
    /// Converts a value; `None` if it has another type.
    fn from_stored(value: StoredValue) -> Option<Self>;
}

impl FromStored for i64 {
    fn from_stored(value: StoredValue) -> Option<Self> {
        match value {
            StoredValue::Integer(number) => Some(number),
            _ => None,
        }
    }
}

impl FromStored for u32 {
    fn from_stored(value: StoredValue) -> Option<Self> {
        i64::from_stored(value)?.try_into().ok()
    }
}

impl FromStored for bool {
    fn from_stored(value: StoredValue) -> Option<Self> {
        Some(i64::from_stored(value)? != 0)
    }
}

impl FromStored for String {
    fn from_stored(value: StoredValue) -> Option<Self> {
        match value {
            StoredValue::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl FromStored for Vec<u8> {
    fn from_stored(value: StoredValue) -> Option<Self> {
        match value {
            StoredValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl<T: FromStored> FromStored for Option<T> {
    fn from_stored(value: StoredValue) -> Option<Self> {
        match value {
            StoredValue::Null => Some(None),
            value => T::from_stored(value).map(Some),
        }
    }
}
