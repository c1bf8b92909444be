//! Versions of the schema: which programs may work on which schema.

use sha2::{Digest, Sha256};

use super::error::{StoreError, StoreErrorKind};

/// Number of the newest schema, the same for SQLite and PostgreSQL.
pub const SCHEMA: usize = 1;

/// Lowest schema number whose programs may work on the newest schema. The store records it, so that older programs can
/// read it.
///
/// A migration that only adds an index or a nullable column leaves it unchanged. A migration without which older
/// programs would write incomplete rows sets it to its own number.
pub(super) const MIN_READER: usize = 1;

/// Name in `meta` of the [`MIN_READER`] of the newest program that migrated the schema.
pub(super) const MIN_READER_NAME: &str = "min_reader";

/// Name in `meta` of the [`fingerprint`] of the initial schema that the store was made with.
pub(super) const INITIAL_SCHEMA_NAME: &str = "initial_schema";

/// Returns the first 8 bytes of the SHA-256 of a schema's SQL, without comments and indentation.
///
/// The initial schema is edited in place until the first release. The fingerprint identifies a store that was made with
/// another version of it, which has the same number.
pub(super) fn fingerprint(sql: &str) -> i64 {
    let mut hash = Sha256::new();
    // `--` in a string literal would be cut as well, which does no harm to a hash as long as it is always the same.
    let lines = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        hash.update(line);
        hash.update("\n");
    }
    let hash: [u8; 32] = hash.finalize().into();
    i64::from_be_bytes(*hash.first_chunk().expect("a SHA-256 has 32 bytes"))
}

/// Rejects a store whose initial schema was not `sql`. `remedy` is the way to an empty store.
pub(super) fn check_initial_schema(
    sql: &str,
    stored: Option<i64>,
    remedy: &str,
) -> Result<(), StoreError> {
    if stored == Some(fingerprint(sql)) {
        return Ok(());
    }
    Err(StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is from before the first release and has changed since; use the version that made it, or {remedy} \
             and start with an empty store, which loses messages, replies and opt-outs (export opt-outs with the version that \
             made it: `replyhook consent export`)"
        ),
    ))
}

/// Checks that a program whose newest schema is `known` may work on a schema of number `version`.
pub(super) fn check_readable(
    version: usize,
    known: usize,
    min_reader: Option<i64>,
) -> Result<(), StoreError> {
    // A newer program has recorded the lowest schema number whose programs may work on its schema.
    let is_admitted = min_reader
        .and_then(|min_reader| usize::try_from(min_reader).ok())
        .is_some_and(|min_reader| min_reader <= known);
    if version <= known || is_admitted {
        Ok(())
    } else {
        Err(newer_schema(version, known))
    }
}

/// Creates the error for a schema that this version does not know.
fn newer_schema(version: usize, known: usize) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is number {version} and this version knows {known}; run the newer replyhook, or restore a backup from \
             before the upgrade"
        ),
    )
}

/// Creates the error for a schema that the server or `replyhook migrate` must update first.
pub(super) fn older_schema(version: usize, needed: usize) -> StoreError {
    StoreError::with_source(
        StoreErrorKind::Schema,
        format!(
            "its schema is number {version} and this version needs {needed}; stop the server and run `replyhook migrate`"
        ),
    )
}
