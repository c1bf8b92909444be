//! Links to media, and stored files, in SQLite.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::error::StoreError;
use crate::store::link_rows::{self, LinkColumns};
use crate::store::media::{
    CHUNK_BYTES, FileHash, LinkSigningKey, LinkSource, LinkTokenHash, NewLink, ResolvedLink,
};

/// Maximum number of links and of files that one step of [`expire_links`] deletes.
// Messages wait for the writer while a step runs.
const STEP: i64 = 100;

/// Returns the file behind a link that has not expired.
pub(super) fn resolve_link(
    db: &Connection,
    token_hash: LinkTokenHash,
    now: Timestamp,
) -> Result<Option<ResolvedLink>, StoreError> {
    let found = db
        .prepare_cached(
            "SELECT l.content_type, l.account, l.auth_token, l.media_message, l.media, l.file, f.length FROM media_link l \
             LEFT JOIN media_file f ON f.hash = l.file WHERE l.token_hash = ?1 AND l.expires_at > ?2",
        )?
        .query_row(params![token_hash.0, now.as_microsecond()], |row| Ok(read_link(row)))
        .optional()?;
    found.transpose()
}

/// Returns a chunk of a stored file.
pub(super) fn read_chunk(
    db: &Connection,
    file: FileHash,
    number: u32,
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = db
        .prepare_cached("SELECT bytes FROM media_chunk WHERE file = ?1 AND number = ?2")?
        .query_row(params![file.0, number], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Deletes some expired links and files. Returns true if there were any.
pub(super) fn expire_links(db: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut any = false;
    // `insert_link` keeps a file at least as long as its longest link, so neither needs to know of the other. A trigger
    // deletes the chunks of a file.
    for sql in [
        "DELETE FROM media_link WHERE token_hash IN (SELECT token_hash FROM media_link WHERE expires_at <= ?1 LIMIT ?2)",
        "DELETE FROM media_file WHERE hash IN (SELECT hash FROM media_file WHERE expires_at <= ?1 LIMIT ?2)",
    ] {
        any |= db.execute(sql, params![now.as_microsecond(), STEP])? > 0;
    }
    Ok(any)
}

/// Reads the link signing key of this database, and creates it if there is none.
pub(super) fn link_signing_key(db: &Connection) -> Result<LinkSigningKey, StoreError> {
    let stored = || {
        db.query_row("SELECT key FROM media_link_key", [], |row| {
            row.get::<_, Vec<u8>>(0)
        })
        .optional()
    };
    if let Some(key) = stored()? {
        return link_rows::link_signing_key(&key);
    }
    // A command may open the database at the same time. OR IGNORE keeps the first key, and both processes then read it.
    db.execute(
        "INSERT OR IGNORE INTO media_link_key (id, key) VALUES (1, ?1)",
        [link_rows::new_link_signing_key()?],
    )?;
    link_rows::link_signing_key(&stored()?.unwrap_or_default())
}

/// Stores a link, and its file unless an equal one is stored.
pub(super) fn insert_link(
    db: &Connection,
    link: &NewLink,
    columns: &LinkColumns,
) -> Result<(), StoreError> {
    let expires_at = link.expires_at.as_microsecond();
    if let LinkSource::Stored(bytes) = &link.file {
        // Equal files are stored once, until their longest link expires.
        let known = db
            .prepare_cached(
                "UPDATE media_file SET expires_at = max(expires_at, ?2) WHERE hash = ?1",
            )?
            .execute(params![columns.file, expires_at])?;
        if known == 0 {
            db.prepare_cached(
                "INSERT INTO media_file (hash, expires_at, length) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![
                columns.file,
                expires_at,
                i64::try_from(bytes.len()).unwrap_or(i64::MAX)
            ])?;
            // In chunks, so that a download never has the whole file in memory.
            let mut insert = db.prepare_cached(
                "INSERT INTO media_chunk (file, number, bytes) VALUES (?1, ?2, ?3)",
            )?;
            for (number, chunk) in (0_i64..).zip(bytes.chunks(CHUNK_BYTES)) {
                insert.execute(params![columns.file, number, chunk])?;
            }
        }
    }
    db.prepare_cached(
        "INSERT INTO media_link (token_hash, expires_at, content_type, message, file, account, auth_token, media_message, media) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        link.token_hash.0,
        expires_at,
        link.content_type,
        columns.message,
        columns.file,
        columns.account,
        columns.auth_token,
        columns.media_message,
        columns.media,
    ])?;
    Ok(())
}

fn read_link(row: &Row<'_>) -> Result<ResolvedLink, StoreError> {
    let columns = LinkColumns {
        account: row.get(1)?,
        auth_token: row.get(2)?,
        media_message: row.get(3)?,
        media: row.get(4)?,
        file: row.get(5)?,
        ..LinkColumns::default()
    };
    link_rows::resolved_link(row.get(0)?, &columns, row.get(6)?)
}

/// Deletes the links of a conversation's messages, and the files that have no other link.
pub(super) fn delete_links(db: &Connection, conversation: i64) -> Result<(), StoreError> {
    db.execute(
        "DELETE FROM media_link WHERE message IN (SELECT sid FROM inbound WHERE conversation = ?1)",
        [conversation],
    )?;
    db.execute(
        "DELETE FROM media_file WHERE NOT EXISTS (SELECT 1 FROM media_link l WHERE l.file = media_file.hash)",
        [],
    )?;
    Ok(())
}
