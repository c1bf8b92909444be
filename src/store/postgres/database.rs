//! Shared operations on PostgreSQL.

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Column, PgConnection, Postgres, Row, TypeInfo};

use super::error::CallError;
use super::text::{pack, packed, unpack};
use crate::store::shared::database::{Database, Param, StoredRow, StoredValue};

// Texts are escaped here, so the shared operations need not do it.
impl Database for PgConnection {
    type Error = CallError;

    fn choose(_sqlite: &'static str, postgres: &'static str) -> &'static str {
        postgres
    }

    // An advisory lock, since the address may have no row yet. The seed keeps these keys apart from those of message
    // SIDs. Two addresses with the same hash only wait for each other.
    fn lock_address<'a>(&'a mut self, key: &'a str) -> BoxFuture<'a, Result<(), CallError>> {
        Box::pin(async move {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))")
                .bind(pack(key))
                .execute(self)
                .await?;
            Ok(())
        })
    }

    fn conflict() -> CallError {
        CallError::Conflict
    }

    fn rows<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<Vec<StoredRow>, CallError>> {
        Box::pin(async move {
            let found = bound(sql, params).fetch_all(self).await?;
            found.iter().map(stored_row).collect()
        })
    }

    fn execute<'a>(
        &'a mut self,
        sql: &'static str,
        params: &'a [Param<'a>],
    ) -> BoxFuture<'a, Result<u64, CallError>> {
        Box::pin(async move { Ok(bound(sql, params).execute(self).await?.rows_affected()) })
    }
}

fn bound<'q>(sql: &'static str, params: &'q [Param<'q>]) -> Query<'q, Postgres, PgArguments> {
    params
        .iter()
        .fold(sqlx::query(sql), |query, param| match *param {
            Param::Boolean(value) => query.bind(value),
            Param::Integer(value) => query.bind(value),
            Param::Integers(value) => query.bind(value),
            Param::Text(value) => query.bind(value.map(pack)),
            Param::Texts(value) => query.bind(packed(value.iter().map(String::as_str))),
            Param::Bytes(value) => query.bind(value),
        })
}

fn stored_row(row: &PgRow) -> Result<StoredRow, CallError> {
    let values = row.columns().iter().map(|column| {
        let number = column.ordinal();
        let value = match column.type_info().name() {
            "INT8" => row
                .try_get::<Option<i64>, _>(number)?
                .map(StoredValue::Integer),
            "BOOL" => {
                let value: Option<bool> = row.try_get(number)?;
                value.map(|value| StoredValue::Integer(value.into()))
            }
            "BYTEA" => row
                .try_get::<Option<Vec<u8>>, _>(number)?
                .map(StoredValue::Bytes),
            // All other columns are texts.
            _ => {
                let text: Option<String> = row.try_get(number)?;
                text.map(|text| StoredValue::Text(unpack(text)))
            }
        };
        Ok(value.unwrap_or_default())
    });
    Ok(StoredRow(values.collect::<Result<_, CallError>>()?))
}
