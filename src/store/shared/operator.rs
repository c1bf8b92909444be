//! Operations of commands.

use std::collections::HashMap;

use jiff::Timestamp;

use super::account_users::{AccountUser, address_texts, users_of};
use super::conditions::{has_new_owner, in_account, must_be_suppressed};
use super::database::{Database, ids, params};
use super::outbox::{outbound_columns, read_outbound};
use crate::address::Address;
use crate::sid::{AccountSid, MessageSid};
use crate::store::operator::{BacklogStats, MessageFilter, MessageRow, OutboundDetails};
use crate::store::outbound_message::OutboundRow;
use crate::store::redacted_params::RedactedParams;
use crate::store::{packing, states};

/// Returns the numbers of messages without a reply.
pub(in crate::store) async fn backlog_stats<D: Database>(
    db: &mut D,
) -> Result<BacklogStats, D::Error> {
    let mut stats = BacklogStats::default();
    // Open messages (below 3), and those in DEAD (6). Both statements read a partial index only, so that their time
    // does not grow with the number of messages. SQLite would scan the table without INDEXED BY.
    let open = D::choose(
        "SELECT state, count(*), min(received_at) FROM inbound INDEXED BY inbound_open WHERE state < 3 GROUP BY state",
        "SELECT state, count(*), min(received_at) FROM inbound WHERE state < 3 GROUP BY state",
    );
    for mut row in db.rows(open, params![]).await? {
        stats.add(row.take(0)?, row.take(1)?, packing::time(row.take(2)?)?);
    }
    let dead = D::choose(
        "SELECT reason, count(*) FROM inbound INDEXED BY inbound_dead WHERE state = 6 GROUP BY reason",
        "SELECT reason, count(*) FROM inbound WHERE state = 6 GROUP BY reason",
    );
    for mut row in db.rows(dead, params![]).await? {
        let reason: Option<String> = row.take(0)?;
        stats.add_dead(reason.as_deref(), row.take(1)?);
    }
    Ok(stats)
}

/// SQL that refuses the messages with the condition `$which`, which must not be sent any more: they become FAILED (5) with the
/// reason in the parameter 2 if their address is of another user now, or SUPPRESSED (6) if their user has opted out.
// PENDING (0) too if the address is of another user: parts behind a refused one would wait for ever. The claim suppresses other
// pending messages, and logs that.
macro_rules! refuse {
    ($which:literal) => {
        concat!(
            "UPDATE outbound SET state = CASE WHEN ",
            has_new_owner!("outbound"),
            " THEN 5 ELSE 6 END, reason = CASE WHEN ",
            has_new_owner!("outbound"),
            " THEN $2 ELSE '",
            states::user_opted_out!(),
            "' END WHERE ",
            $which,
            " AND state IN (0, 3, 5) AND (",
            has_new_owner!("outbound"),
            " OR (state > 0 AND ",
            must_be_suppressed!("outbound"),
            "))"
        )
    };
}

/// SQL condition: the message may be sent.
macro_rules! is_allowed {
    () => {
        concat!(
            "NOT ",
            has_new_owner!("outbound"),
            " AND NOT ",
            must_be_suppressed!("outbound")
        )
    };
}

/// Releases the held and failed replies to a message, and returns their number.
pub(in crate::store) async fn release<D: Database>(
    db: &mut D,
    sid: MessageSid,
    now: Timestamp,
) -> Result<u64, D::Error> {
    // Before the release, which then does not find them.
    let refused = refuse!("inbound IN (SELECT id FROM inbound WHERE sid = $1)");
    db.execute(
        refused,
        params![&packing::sid_bytes(sid.as_str()), states::NEW_OWNER],
    )
    .await?;
    // From HELD or FAILED (3, 5) to PENDING (0). Parts behind a held or failed one are still pending, and follow by
    // themselves. `attempt = 0`: a released message gets a call whatever its age. Without `params` there is nothing to
    // send.
    db.execute(
        concat!(
            "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $2, reason = NULL, error_code = NULL, \
             unordered = true WHERE inbound IN (SELECT id FROM inbound WHERE sid = $1) AND state IN (3, 5) \
             AND params IS NOT NULL AND ",
            is_allowed!(),
        ),
        params![&packing::sid_bytes(sid.as_str()), now],
    )
    .await
}

/// Releases outbound messages that are not replies, and returns their number.
pub(in crate::store) async fn release_outbound<D: Database>(
    db: &mut D,
    id: Option<i64>,
    now: Timestamp,
) -> Result<u64, D::Error> {
    // Without an ID only messages in HELD (3): one in FAILED (5) is sent again only if the operator names it.
    let refused = refuse!(
        "inbound IS NULL AND (($1 IS NULL AND state = 3) OR (id = $1 AND state IN (3, 5)))"
    );
    db.execute(refused, params![id, states::NEW_OWNER]).await?;
    db.execute(
        concat!(
            "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $2, reason = NULL, error_code = NULL \
             WHERE inbound IS NULL AND params IS NOT NULL AND (($1 IS NULL AND state = 3) OR (id = $1 AND state IN (3, 5))) \
             AND ",
            is_allowed!(),
        ),
        params![id, now],
    )
    .await
}

/// Queues a message of the outbox for sending again: one that is held or failed, or that Twilio could not deliver.
pub(in crate::store) async fn send_again<D: Database>(
    db: &mut D,
    id: i64,
    now: Timestamp,
) -> Result<bool, D::Error> {
    let refused =
        refuse!("(id = $1 OR inbound = (SELECT f.inbound FROM outbound f WHERE f.id = $1))");
    db.execute(refused, params![id, states::NEW_OWNER]).await?;
    // From HELD, FAILED or, with the rank of a final failure, SENT (3, 5, 4) to PENDING (0). The SID moves to
    // `earlier_sid`, so that late callbacks of the failed send do not match.
    let changed = db
        .execute(
            concat!(
                "UPDATE outbound SET state = 0, attempt = 0, lookups = 0, not_before = $2, reason = NULL, error_code = NULL, \
                 earlier_sid = coalesce(sid, earlier_sid), sid = NULL, status = NULL, rank = -1, unordered = true \
                 WHERE id = $1 AND (state IN (3, 5) OR (state = 4 AND rank = 6)) AND params IS NOT NULL AND ",
                is_allowed!(),
            ),
            params![id, now],
        )
        .await?;
    Ok(changed > 0)
}

/// Marks an open message as answered.
pub(in crate::store) async fn mark_answered<D: Database>(
    db: &mut D,
    account: AccountSid,
    sid: MessageSid,
) -> Result<bool, D::Error> {
    // Only open messages (0, 1, 2), to ANSWERED (3): the responses of others are saved or queued. The owner is a process
    // that ended with the lost journal.
    let changed = db
        .execute(
            "UPDATE inbound SET state = 3, owner = NULL, reason = $3 \
             WHERE sid = $1 AND account = $2 AND state IN (0, 1, 2)",
            params![
                &packing::sid_bytes(sid.as_str()),
                &packing::sid_bytes(account.as_str()),
                states::ANSWERED_BEFORE,
            ],
        )
        .await?;
    Ok(changed > 0)
}

/// SQL that lists outbound messages that are not replies, and with a SID replies too. `$inbound` is the column of that
/// name, and `$owner` the account in hexadecimal with the key of the address.
// Rank 6, FAILURE_RANK: Twilio accepted the message (4, SENT) and could not deliver it, which is shown as FAILED (5).
macro_rules! outbound_messages {
    ($inbound:literal, $owner:literal) => {
        concat!(
            "SELECT ",
            outbound_columns!(),
            ", account, sender, address, attempt, created_at FROM outbound WHERE (",
            $inbound,
            " IS NULL OR $2 IS NOT NULL) AND id < $1 AND ($2 IS NULL OR sid = $2 OR earlier_sid = $2) \
             AND ($3 IS NULL OR $3 = CASE WHEN state = 4 AND rank = 6 THEN 5 ELSE state END) \
             AND ($6 OR ",
            $owner,
            " = ANY ($4)) ORDER BY id DESC LIMIT $5"
        )
    };
}

/// Lists outbound messages that are not replies, newest first. With a SID, replies too.
pub(in crate::store) async fn outbound_messages<D: Database>(
    db: &mut D,
    filter: &MessageFilter,
) -> Result<Vec<OutboundDetails>, D::Error> {
    let state = filter.state.as_deref().map(states::outbound_number_by_name);
    // An unknown state matches nothing.
    if state == Some(None) {
        return Ok(Vec::new());
    }
    // Unary `+` makes SQLite read the table from the newest row down. By the index of replies it would have to find and
    // sort all messages that are not replies.
    let sql = D::choose(
        outbound_messages!(
            "+inbound",
            "hex(outbound.account) || ' ' || outbound.address_key"
        ),
        outbound_messages!(
            "inbound",
            "upper(encode(outbound.account, 'hex')) || ' ' || outbound.address_key"
        ),
    );
    let sid = filter.sid.map(|sid| packing::sid_bytes(sid.as_str()));
    let addresses = match &filter.user {
        Some(user) => owners(&users_of(db, user, filter.account, filter.all_channels).await?),
        None => Vec::new(),
    };
    let found = db
        .rows(
            sql,
            params![
                filter.before_id.unwrap_or(i64::MAX),
                sid.as_ref(),
                state.flatten(),
                &addresses[..],
                filter.limit.max(1),
                filter.user.is_none(),
            ],
        )
        .await?;
    let listed = found.into_iter().map(|mut row| {
        let message = read_outbound(&mut row)?;
        let account: Vec<u8> = row.take(14)?;
        let (sender, user): (String, String) = (row.take(15)?, row.take(16)?);
        Ok(OutboundDetails {
            account: packing::account_sid(&account)?,
            sender: sender.into(),
            user: user.into(),
            state: states::shown_outbound_state(message.state, row.take(7)?),
            attempt: row.take(17)?,
            created_at: packing::time(row.take(18)?)?,
            message,
        })
    });
    listed.collect()
}

/// SQL that lists a page of messages with an ID below $1, newest first. $3 has the conversations of one user, or is NULL.
macro_rules! messages {
    ($condition:literal) => {
        concat!(
            "SELECT i.id, i.sid, i.account, i.state, i.attempt, i.received_at, i.reason, i.params, i.response, \
             (SELECT min(a.address) FROM conversation_address a WHERE a.conversation = coalesce(c.merged_into, c.id)), h.until \
             FROM inbound i LEFT JOIN conversation c ON c.id = i.conversation \
             LEFT JOIN handoff h ON h.conversation = coalesce(c.merged_into, c.id) WHERE ",
            $condition,
            " AND ($3 IS NULL OR i.conversation = ANY ($3)) ORDER BY i.id DESC LIMIT 500"
        )
    };
}

/// Lists inbound messages with their replies, newest first.
pub(in crate::store) async fn messages<D: Database>(
    db: &mut D,
    filter: &MessageFilter,
) -> Result<Vec<MessageRow>, D::Error> {
    let conversations = match &filter.user {
        None => None,
        Some(user) => {
            let mut conversations = Vec::new();
            for user in users_of(db, user, filter.account, filter.all_channels).await? {
                conversations.extend(conversations_of(db, &user).await?);
            }
            Some(conversations)
        }
    };
    let sid = filter.sid.map(|sid| packing::sid_bytes(sid.as_str()));
    // Two conditions: with one for both cases SQLite would scan the whole table for a single SID. So would it with the
    // ID in place of the SID's index, from which unary `+` keeps it.
    let sql = match &sid {
        Some(_) => messages!("+i.id < $1 AND i.sid = $2"),
        None => messages!("i.id < $1 AND $2 IS NULL"),
    };
    let wanted = filter.limit.max(1) as usize;
    let mut before = filter.before_id.unwrap_or(i64::MAX);
    let mut listed = Vec::new();
    // In pages: the state is compared here and not in SQL, because the shown state follows from the replies.
    loop {
        let mut page = Vec::new();
        for mut row in db
            .rows(sql, params![before, sid.as_ref(), conversations.as_deref()])
            .await?
        {
            page.push((row.take::<i64>(0)?, row));
        }
        let ids: Vec<i64> = page.iter().map(|(id, _)| *id).collect();
        let Some(last) = ids.last() else {
            return Ok(listed);
        };
        before = *last;
        let mut replies = replies(db, &ids).await?;
        for (id, mut row) in page {
            let replies = replies.remove(&id).unwrap_or_default();
            let states: Vec<_> = replies
                .iter()
                .map(|(reply, rank)| (reply.state, *rank == states::FAILURE_RANK))
                .collect();
            let state = states::shown_inbound_state(row.take(3)?, &states);
            let reason: Option<String> = row.take(6)?;
            if states::is_left_out(filter.state.as_deref(), state, reason.as_deref()) {
                continue;
            }
            let (sid, account): (Vec<u8>, Vec<u8>) = (row.take(1)?, row.take(2)?);
            let (params, response): (Option<String>, Option<String>) = (row.take(7)?, row.take(8)?);
            let (user, until): (Option<String>, Option<i64>) = (row.take(9)?, row.take(10)?);
            listed.push(MessageRow {
                id,
                sid: packing::message_sid(&sid)?,
                account: packing::account_sid(&account)?,
                state,
                attempt: row.take(4)?,
                user: user.map(Address::from),
                handed_off_until: until.map(packing::time).transpose()?,
                received_at: packing::time(row.take(5)?)?,
                reason,
                replies: replies.into_iter().map(|(reply, _)| reply).collect(),
                params: params.map(RedactedParams),
                response: response.map(RedactedParams),
            });
            if listed.len() == wanted {
                return Ok(listed);
            }
        }
    }
}

/// Returns the replies to these messages, in order, each with the rank of its status.
async fn replies<D: Database>(
    db: &mut D,
    inbound: &[i64],
) -> Result<HashMap<i64, Vec<(OutboundRow, i64)>>, D::Error> {
    let found = db
        .rows(
            concat!(
                "SELECT ",
                outbound_columns!(),
                ", inbound FROM outbound WHERE inbound = ANY ($1) ORDER BY inbound, ordinal"
            ),
            params![inbound],
        )
        .await?;
    let mut replies: HashMap<i64, Vec<_>> = HashMap::new();
    for mut row in found {
        let reply = (read_outbound(&mut row)?, row.take(7)?);
        replies.entry(row.take(14)?).or_default().push(reply);
    }
    Ok(replies)
}

/// Returns the texts that the column `$owner` of `outbound_messages!` has for messages to these users.
fn owners(users: &[AccountUser]) -> Vec<String> {
    let owners = users.iter().flat_map(|user| {
        let account = user.account.as_deref().unwrap_or_default();
        let account = account
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02X}"));
        let keys = address_texts(&user.keys);
        keys.into_iter().map(move |key| format!("{account} {key}"))
    });
    owners.collect()
}

/// Returns all conversations of a user in one account, including those that were merged into others.
pub(in crate::store) async fn conversations_of<D: Database>(
    db: &mut D,
    user: &AccountUser,
) -> Result<Vec<i64>, D::Error> {
    let found = db
        .rows(
            concat!(
                "WITH own AS (SELECT DISTINCT n.conversation AS id FROM conversation_address n WHERE n.address_key = ANY ($1) AND ",
                in_account!("n.sender", "$2"),
                ") SELECT id FROM own UNION SELECT id FROM conversation WHERE merged_into IN (SELECT id FROM own)"
            ),
            params![&address_texts(&user.keys)[..], user.account.as_ref()],
        )
        .await?;
    Ok(ids(found)?)
}
