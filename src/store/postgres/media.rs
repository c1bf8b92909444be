//! Links to media, and stored files, in PostgreSQL: every server serves the links that any server has created.

use jiff::Timestamp;
use sqlx::{PgConnection, Row};

use super::error::{CallError, store_error};
use super::text::{pack, unpack};
use crate::store::error::StoreError;
use crate::store::link_rows::{self, LinkColumns};
use crate::store::media::{
    CHUNK_BYTES, FileHash, LinkSigningKey, LinkSource, LinkTokenHash, NewLink, ResolvedLink,
};

/// Maximum number of rows that one statement of [`expire_links`] deletes.
const STEP: i64 = 100;

/// Returns the file behind a link that has not expired.
pub(super) async fn resolve_link(
    db: &mut PgConnection,
    token_hash: LinkTokenHash,
    now: Timestamp,
) -> Result<Option<ResolvedLink>, CallError> {
    let found = sqlx::query(
        "SELECT l.content_type, l.account, l.auth_token, l.media_message, l.media, l.file, f.length FROM media_link l \
         LEFT JOIN media_file f ON f.hash = l.file WHERE l.token_hash = $1 AND l.expires_at > $2",
    )
    .bind(&token_hash.0[..])
    .bind(now.as_microsecond())
    .fetch_optional(db)
    .await?;
    let Some(row) = found else { return Ok(None) };
    let columns = LinkColumns {
        account: row.try_get(1)?,
        auth_token: row.try_get(2)?,
        media_message: row.try_get(3)?,
        media: row.try_get(4)?,
        file: row.try_get(5)?,
        ..LinkColumns::default()
    };
    let content_type: Option<String> = row.try_get(0)?;
    let linked = link_rows::resolved_link(content_type.map(unpack), &columns, row.try_get(6)?);
    Ok(Some(linked?))
}

/// Returns a chunk of a stored file.
pub(super) async fn read_chunk(
    db: &mut PgConnection,
    file: FileHash,
    number: u32,
) -> Result<Option<Vec<u8>>, CallError> {
    let found = sqlx::query_scalar("SELECT bytes FROM media_chunk WHERE file = $1 AND number = $2")
        .bind(&file.0[..])
        .bind(i64::from(number))
        .fetch_optional(db)
        .await?;
    Ok(found)
}

/// Deletes some expired links and files. Returns true if there were any.
pub(super) async fn expire_links(db: &mut PgConnection, now: Timestamp) -> Result<bool, CallError> {
    let mut any = false;
    // `expires_at <= $1` is repeated outside of the subquery. If `insert_link` extends a row while this waits for its
    // lock, PostgreSQL checks the outer condition again and keeps the row. Chunks are deleted by the foreign key.
    for sql in [
        "DELETE FROM media_link WHERE expires_at <= $1 AND token_hash IN (\
           SELECT token_hash FROM media_link WHERE expires_at <= $1 LIMIT $2)",
        "DELETE FROM media_file WHERE expires_at <= $1 AND hash IN (\
           SELECT hash FROM media_file WHERE expires_at <= $1 LIMIT $2)",
    ] {
        let deleted = sqlx::query(sql)
            .bind(now.as_microsecond())
            .bind(STEP)
            .execute(&mut *db)
            .await?;
        any |= deleted.rows_affected() > 0;
    }
    Ok(any)
}

/// Reads the key of this database's links, and creates it if there is none.
pub(super) async fn link_signing_key(db: &mut PgConnection) -> Result<LinkSigningKey, StoreError> {
    if let Some(key) = stored_key(db).await? {
        return link_rows::link_signing_key(&key);
    }
    // Several servers may open a new database concurrently. The first key stays, and all of them read it.
    sqlx::query("INSERT INTO media_link_key (id, key) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
        .bind(&link_rows::new_link_signing_key()?[..])
        .execute(&mut *db)
        .await
        .map_err(|error| store_error(&error))?;
    link_rows::link_signing_key(&stored_key(db).await?.unwrap_or_default())
}

async fn stored_key(db: &mut PgConnection) -> Result<Option<Vec<u8>>, StoreError> {
    let stored = sqlx::query_scalar("SELECT key FROM media_link_key")
        .fetch_optional(db)
        .await;
    stored.map_err(|error| store_error(&error))
}

/// Stores a link, and its file unless an equal one is stored.
pub(super) async fn insert_link(
    db: &mut PgConnection,
    link: &NewLink,
    columns: &LinkColumns,
) -> Result<(), CallError> {
    let expires_at = link.expires_at.as_microsecond();
    if let LinkSource::Stored(bytes) = &link.file {
        // Before the INSERT, so that the bytes of a stored file are not sent to the database again. The UPDATE also
        // locks the row, so the file cannot be deleted before this link is committed.
        let known = sqlx::query(
            "UPDATE media_file SET expires_at = greatest(expires_at, $2) WHERE hash = $1",
        )
        .bind(&columns.file)
        .bind(expires_at)
        .execute(&mut *db)
        .await?;
        if known.rows_affected() == 0 {
            sqlx::query(
                "INSERT INTO media_file AS f (hash, expires_at, length) VALUES ($1, $2, $3) \
                 ON CONFLICT (hash) DO UPDATE SET expires_at = greatest(f.expires_at, excluded.expires_at)",
            )
            .bind(&columns.file)
            .bind(expires_at)
            .bind(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
            .execute(&mut *db)
            .await?;
            for (number, chunk) in (0_i64..).zip(bytes.chunks(CHUNK_BYTES)) {
                // Another server may have stored the same file since the UPDATE. Its chunks are equal.
                sqlx::query(
                    "INSERT INTO media_chunk (file, number, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                )
                .bind(&columns.file)
                .bind(number)
                .bind(chunk)
                .execute(&mut *db)
                .await?;
            }
        }
    }
    sqlx::query(
        "INSERT INTO media_link (token_hash, expires_at, content_type, message, file, account, auth_token, media_message, media) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&link.token_hash.0[..])
    .bind(expires_at)
    .bind(link.content_type.as_deref().map(pack))
    .bind(&columns.message)
    .bind(&columns.file)
    .bind(&columns.account)
    .bind(columns.auth_token)
    .bind(&columns.media_message)
    .bind(&columns.media)
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes the links made for messages of these conversations, and the files that no other link leads to.
pub(super) async fn delete_links(
    db: &mut PgConnection,
    conversations: &[i64],
) -> Result<(), CallError> {
    let files: Vec<Vec<u8>> = sqlx::query_scalar(
        "WITH deleted AS (DELETE FROM media_link WHERE message IN (\
           SELECT sid FROM inbound WHERE conversation = ANY ($1)) RETURNING file) \
         SELECT DISTINCT file FROM deleted WHERE file IS NOT NULL",
    )
    .bind(conversations)
    .fetch_all(&mut *db)
    .await?;
    // Lock the files in a statement of its own. A concurrent `insert_link` has then either committed its link, which
    // the next statement sees, or waits and stores the file again. In the order of hashes, so that two purges do not
    // deadlock.
    sqlx::query("SELECT hash FROM media_file WHERE hash = ANY ($1) ORDER BY hash FOR UPDATE")
        .bind(&files)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM media_file f WHERE f.hash = ANY ($1) AND NOT EXISTS (SELECT 1 FROM media_link l WHERE l.file = f.hash)",
    )
    .bind(&files)
    .execute(db)
    .await?;
    Ok(())
}
