//! State changes that are committed with a reply, for both ways to reply: their SQL and its parameters.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{PgConnection, Postgres};

use super::error::CallError;
use super::text::pack;
use crate::store::handoff::HandoffChange;
use crate::store::journal::{Claim, Completion, DialogueChange, QuestionChange};
use crate::store::shared::database::RecordingDatabase;
use crate::store::shared::events;
use crate::store::{packing, states};

/// SQL that saves the state changes of the message in `completed`, which has its `conversation`.
///
/// [`CompletionParams::query`] binds its parameters: 1 to 3 are message, owner and attempt, 4 to 7 the dialogue and the
/// time, 8 and 9 the merged messages and their reason, 10, 11 and 15 the handoff, 12 to 14 the question. The
/// statement continues with 16.
// All of them read from `completed`, which has no row if the claim was lost: the state changes only together with the
// reply.
macro_rules! save_completion {
    () => {
        concat!(
            "dialogue_deleted AS (DELETE FROM dialogue d USING completed WHERE d.conversation = completed.conversation AND $5), ",
            // A conversation has at most one dialogue, and the newest change replaces it.
            "dialogue_saved AS (INSERT INTO dialogue (conversation, data, expires_at, changed_at) \
               SELECT completed.conversation, $4::text, $6::bigint, $7::bigint FROM completed WHERE $4::text IS NOT NULL \
               ON CONFLICT (conversation) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at, \
               changed_at = excluded.changed_at), ",
            // Messages that were debounced into this one. A message whose request waits for its turn (0, RECEIVED)
            // becomes ANSWERED (3), with the empty response. A deferred one (2) has its response already and becomes DONE
            // (4). One that a process has claimed in the meantime gets a reply of its own.
            "merged AS (UPDATE inbound i SET state = CASE WHEN i.state = 0 THEN 3 ELSE 4 END, owner = NULL, reason = $9, \
               claimed_at = $7 FROM completed WHERE i.id = ANY ($8::bigint[]) AND i.conversation = completed.conversation \
               AND (i.state = 0 OR (i.state = 2 AND NOT ",
            $crate::store::postgres::conditions::is_owned!("$2"),
            "))), ",
            // $10 is the URL of a handoff that begins, which replaces an earlier one; empty for a silent bot.
            "handoff_saved AS (INSERT INTO handoff (conversation, url, until, ttl) \
               SELECT completed.conversation, $10::text, $11::bigint, $15::bigint FROM completed WHERE $10::text IS NOT NULL \
               ON CONFLICT (conversation) DO UPDATE SET url = excluded.url, until = excluded.until, ttl = excluded.ttl), ",
            // $11 is NULL if the handoff does not change. An UPDATE and not an upsert: an operator may have ended the
            // handoff since the message was claimed.
            "handoff_extended AS (UPDATE handoff h SET until = $11::bigint FROM completed \
               WHERE h.conversation = completed.conversation AND $10::text IS NULL AND $11::bigint IS NOT NULL), ",
            // $13 is a question's data. A conversation has at most one open question, and the newest replaces it.
            "question_asked AS (INSERT INTO question (conversation, id, data, expires_at, asked_at) \
               SELECT completed.conversation, $12::text, $13::text, $14::bigint, $7::bigint FROM completed WHERE $13::text IS NOT NULL \
               ON CONFLICT (conversation) DO UPDATE SET id = excluded.id, data = excluded.data, \
               expires_at = excluded.expires_at, asked_at = excluded.asked_at, numbered = false), ",
            // Without data, the question $12 was answered. By ID: one that was asked since stays open.
            "question_ended AS (DELETE FROM question q USING completed WHERE q.conversation = completed.conversation \
               AND q.id = $12::text AND $13::text IS NULL)"
        )
    };
}
pub(super) use save_completion;

/// Parameters 1 to 15 of a statement with `save_completion!`.
#[derive(Clone)]
pub(super) struct CompletionParams {
    claim: Claim,
    me: i64,
    dialogue: Option<Arc<str>>,
    ends_dialogue: bool,
    dialogue_expires_at: Option<i64>,
    now: i64,
    merged: Arc<[i64]>,
    handoff_url: Option<Arc<str>>,
    handoff_until: Option<i64>,
    handoff_ttl: Option<i64>,
    question_id: Option<Arc<str>>,
    question: Option<Arc<str>>,
    question_expires_at: Option<i64>,
}

impl CompletionParams {
    pub(super) fn of(me: i64, claim: Claim, completion: &Completion, now: Timestamp) -> Self {
        let (dialogue, expires_at) = match &completion.dialogue {
            Some(DialogueChange::Set { data, expires_at }) => (
                Some(pack(data).into()),
                expires_at.map(Timestamp::as_microsecond),
            ),
            Some(DialogueChange::End) | None => (None, None),
        };
        let handoff = completion.handoff.as_ref().map(HandoffChange::columns);
        let until = handoff.map(|(_, until)| until);
        let (url, ttl) = handoff.and_then(|(begun, _)| begun).unzip();
        let (question_id, asked) = match completion.question.as_ref().map(QuestionChange::columns) {
            Some((id, asked)) => (Some(id.into()), asked),
            None => (None, None),
        };
        let (question, question_expires_at) = asked.map_or((None, None), |(data, at)| {
            (Some(pack(&data).into()), Some(at))
        });
        Self {
            claim,
            me,
            dialogue,
            ends_dialogue: completion.dialogue == Some(DialogueChange::End),
            dialogue_expires_at: expires_at,
            now: now.as_microsecond(),
            merged: completion.merged.as_slice().into(),
            handoff_url: url.map(|url| pack(url).into()),
            handoff_until: until,
            handoff_ttl: ttl,
            question_id,
            question,
            question_expires_at,
        }
    }

    /// Records the event of a completion that is saved.
    // In the same transaction as the completion.
    pub(super) async fn record_event(
        &self,
        db: &mut PgConnection,
        completion: &Completion,
    ) -> Result<(), CallError> {
        let conversation: Option<i64> =
            sqlx::query_scalar("SELECT conversation FROM inbound WHERE id = $1")
                .bind(self.claim.id)
                .fetch_optional(&mut *db)
                .await?;
        let Some(conversation) = conversation else {
            return Ok(());
        };
        let mut db = RecordingDatabase::new(db, true);
        let (change, now) = (completion.handoff.as_ref(), packing::time(self.now)?);
        events::record_completion(&mut db, self.claim.id, conversation, change, now).await
    }

    /// Begins a query for a statement with `save_completion!`, and binds its parameters 1 to 15.
    pub(super) fn query<'q, O>(&'q self, sql: &'static str) -> QueryAs<'q, Postgres, O, PgArguments>
    where
        O: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        sqlx::query_as(sql)
            .bind(self.claim.id)
            .bind(self.me)
            .bind(i64::from(self.claim.attempt))
            .bind(self.dialogue.as_deref())
            .bind(self.ends_dialogue)
            .bind(self.dialogue_expires_at)
            .bind(self.now)
            .bind(&self.merged[..])
            .bind(states::MERGED)
            .bind(self.handoff_url.as_deref())
            .bind(self.handoff_until)
            .bind(self.question_id.as_deref())
            .bind(self.question.as_deref())
            .bind(self.question_expires_at)
            .bind(self.handoff_ttl)
    }
}
