//! [`HandOvers`] in PostgreSQL.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::PostgresStore;
use super::error::Trouble;
use super::text::{pack, unpack};
use crate::address::Address;
use crate::store::{HandOverChange, HandOvers, Outcome};

impl HandOvers for PostgresStore {
    fn handed_over(&self, conversation: i64, now: Timestamp) -> Outcome<'_, Option<String>> {
        self.ask(move |db| {
            Box::pin(async move {
                let url: Option<String> = sqlx::query_scalar(
                    "SELECT url FROM handover WHERE conversation = $1 AND until > $2",
                )
                .bind(conversation)
                .bind(now.as_microsecond())
                .fetch_optional(db)
                .await?;
                Ok(url.map(unpack))
            })
        })
    }

    fn take_back(&self, us: Option<&Address>, user: &Address, now: Timestamp) -> Outcome<'_, u64> {
        let us = us.map(|us| pack(us.as_str()).into_owned());
        let user = pack(user.as_str()).into_owned();
        self.ask(move |db| {
            let (us, user) = (us.clone(), user.clone());
            Box::pin(async move {
                let ended = sqlx::query(
                    "DELETE FROM handover WHERE until > $3 AND conversation IN (\
                       SELECT conversation FROM conversation_address WHERE address = $2 AND ($1::text IS NULL OR us = $1))",
                )
                .bind(us)
                .bind(user)
                .bind(now.as_microsecond())
                .execute(db)
                .await?;
                Ok(ended.rows_affected())
            })
        })
    }
}

/// A [`HandOverChange`] as a statement takes it: the parameters of `hand_over!`.
pub(super) fn columns(change: Option<&HandOverChange>) -> (Option<String>, Option<i64>) {
    change.map_or((None, None), |change| {
        let (url, until) = change.columns();
        (url.map(|url| pack(url).into_owned()), Some(until))
    })
}

/// Two conversations turn out to be with one person: the hand-over that lasts longer.
pub(super) async fn join(db: &mut PgConnection, kept: i64, other: i64) -> Result<(), Trouble> {
    sqlx::query(
        "WITH other AS (DELETE FROM handover WHERE conversation = $2 RETURNING url, until) \
         INSERT INTO handover AS h (conversation, url, until) SELECT $1, url, until FROM other \
         ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until WHERE excluded.until > h.until",
    )
    .bind(kept)
    .bind(other)
    .execute(db)
    .await?;
    Ok(())
}
