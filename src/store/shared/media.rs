//! Links to media, and stored files. In PostgreSQL every server serves the links that any server has created.

use jiff::Timestamp;

use super::database::{Database, params};
use crate::store::link_rows::{self, LinkColumns};
use crate::store::media::{
    CHUNK_BYTES, FileHash, LinkSigningKey, LinkSource, LinkTokenHash, NewLink, ResolvedLink,
};

/// Maximum number of links and of files that one step of [`expire_links`] deletes.
// In SQLite messages wait for the writer while a step runs.
const STEP: i64 = 100;

/// Returns the file behind a link that has not expired.
pub(in crate::store) async fn resolve_link<D: Database>(
    db: &mut D,
    token_hash: LinkTokenHash,
    now: Timestamp,
) -> Result<Option<ResolvedLink>, D::Error> {
    let found = db
        .row(
            "SELECT l.content_type, l.account, l.auth_token, l.media_message, l.media, l.file, f.length FROM media_link l \
             LEFT JOIN media_file f ON f.hash = l.file WHERE l.token_hash = $1 AND l.expires_at > $2",
            params![&token_hash.0[..], now],
        )
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    let columns = LinkColumns {
        account: row.take(1)?,
        auth_token: row.take(2)?,
        media_message: row.take(3)?,
        media: row.take(4)?,
        file: row.take(5)?,
        ..LinkColumns::default()
    };
    let link = link_rows::resolved_link(row.take(0)?, &columns, row.take(6)?)?;
    Ok(Some(link))
}

/// Returns a chunk of a stored file.
pub(in crate::store) async fn read_chunk<D: Database>(
    db: &mut D,
    file: FileHash,
    number: u32,
) -> Result<Option<Vec<u8>>, D::Error> {
    let found = db
        .row(
            "SELECT bytes FROM media_chunk WHERE file = $1 AND number = $2",
            params![&file.0[..], number],
        )
        .await?;
    Ok(found.map(|mut row| row.take(0)).transpose()?)
}

/// Deletes some expired links and files. Returns true if there were any.
pub(in crate::store) async fn expire_links<D: Database>(
    db: &mut D,
    now: Timestamp,
) -> Result<bool, D::Error> {
    let mut any = false;
    // `insert_link` keeps a file at least as long as its longest link, so neither needs to know of the other. The chunks
    // are deleted with their file: by a trigger in SQLite, by the foreign key in PostgreSQL.
    //
    // `expires_at <= $1` is repeated outside of the subquery. If `insert_link` extends a row while this waits for its
    // lock, PostgreSQL checks the outer condition again and keeps the row.
    for sql in [
        "DELETE FROM media_link WHERE expires_at <= $1 AND token_hash IN (\
           SELECT token_hash FROM media_link WHERE expires_at <= $1 LIMIT $2)",
        "DELETE FROM media_file WHERE expires_at <= $1 AND hash IN (\
           SELECT hash FROM media_file WHERE expires_at <= $1 LIMIT $2)",
    ] {
        any |= db.execute(sql, params![now, STEP]).await? > 0;
    }
    Ok(any)
}

/// Reads the link signing key of this database, and creates it if there is none.
pub(in crate::store) async fn link_signing_key<D: Database>(
    db: &mut D,
) -> Result<LinkSigningKey, D::Error> {
    if let Some(key) = stored_key(db).await? {
        return Ok(link_rows::link_signing_key(&key)?);
    }
    // Several processes may open a new database at the same time. DO NOTHING keeps the first key, and all of them read
    // it.
    let key = link_rows::new_link_signing_key()?;
    db.execute(
        "INSERT INTO media_link_key (id, key) VALUES (1, $1) ON CONFLICT (id) DO NOTHING",
        params![&key[..]],
    )
    .await?;
    let key = stored_key(db).await?.unwrap_or_default();
    Ok(link_rows::link_signing_key(&key)?)
}

async fn stored_key<D: Database>(db: &mut D) -> Result<Option<Vec<u8>>, D::Error> {
    let found = db.row("SELECT key FROM media_link_key", params![]).await?;
    Ok(found.map(|mut row| row.take(0)).transpose()?)
}

/// Stores a link, and its file unless an equal one is stored.
pub(in crate::store) async fn insert_link<D: Database>(
    db: &mut D,
    link: &NewLink,
    columns: &LinkColumns,
) -> Result<(), D::Error> {
    if let LinkSource::Stored(bytes) = &link.file {
        insert_file(db, link, columns, bytes).await?;
    }
    db.execute(
        "INSERT INTO media_link (token_hash, expires_at, content_type, message, file, account, auth_token, media_message, media) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        params![
            &link.token_hash.0[..],
            link.expires_at,
            link.content_type.as_deref(),
            columns.message.as_ref(),
            columns.file.as_ref(),
            columns.account.as_ref(),
            columns.auth_token,
            columns.media_message.as_ref(),
            columns.media.as_deref(),
        ],
    )
    .await?;
    Ok(())
}

async fn insert_file<D: Database>(
    db: &mut D,
    link: &NewLink,
    columns: &LinkColumns,
    bytes: &[u8],
) -> Result<(), D::Error> {
    let file = columns.file.as_ref();
    // Equal files are stored once, until their longest link expires. Before the INSERT, so that the bytes of a stored
    // file are not sent to the database again. In PostgreSQL the UPDATE also locks the row, so the file cannot be deleted
    // before this link is committed.
    let known = db
        .execute(
            "UPDATE media_file SET expires_at = CASE WHEN expires_at < $2 THEN $2 ELSE expires_at END WHERE hash = $1",
            params![file, link.expires_at],
        )
        .await?;
    if known > 0 {
        return Ok(());
    }
    let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    // ON CONFLICT, here and below: another server may have stored the same file since the UPDATE. Its chunks are equal.
    db.execute(
        "INSERT INTO media_file AS f (hash, expires_at, length) VALUES ($1, $2, $3) ON CONFLICT (hash) DO UPDATE \
         SET expires_at = CASE WHEN f.expires_at < excluded.expires_at THEN excluded.expires_at ELSE f.expires_at END",
        params![file, link.expires_at, length],
    )
    .await?;
    // In chunks, so that a download never has the whole file in memory.
    for (number, chunk) in (0_i64..).zip(bytes.chunks(CHUNK_BYTES)) {
        db.execute(
            "INSERT INTO media_chunk (file, number, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            params![file, number, chunk],
        )
        .await?;
    }
    Ok(())
}
