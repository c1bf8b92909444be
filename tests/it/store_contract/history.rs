//! History of a conversation: the messages before one, and their replies.

use replyhook::internals::{EarlierMessage, ReplyPath, Retention, SendOutcome, Store};
use replyhook::{MessageStatus, Timestamp};

use super::{
    ANA, ANA_ID, BEN, Backend, Completion, accept, accept_and_answer, accept_claimed, at,
    expire_all, inbound_from, new_inbound, over_all_stores, reply_via_rest, save_twiml, sid,
};

over_all_stores!(
    history_is_oldest_first_per_conversation,
    history_includes_twiml_and_rest_replies,
    history_excludes_later_messages,
    history_includes_messages_of_linked_address,
    history_keeps_message_after_text_expired,
    history_of_purged_user_is_empty,
);

fn text(message: &EarlierMessage) -> &str {
    let params = message.params.as_ref().map_or("", |params| &params.0);
    params.trim_start_matches("Body=text+")
}

/// Returns the numbers of the messages before `message`.
async fn earlier_texts(store: &dyn Store, message: i64, limit: u32) -> Vec<String> {
    let earlier = store.earlier(message, limit).await.unwrap();
    earlier.iter().map(|one| text(one).to_owned()).collect()
}

async fn history_is_oldest_first_per_conversation(backend: &mut Backend) {
    let store = backend.store();
    let first = accept_claimed(store, new_inbound(1)).await;
    assert!(store.earlier(first.id, 9).await.unwrap().is_empty());
    store
        .complete_inline(first, None, Completion::default(), at(1))
        .await
        .unwrap();
    for number in [2, 3, 5] {
        accept_and_answer(store, new_inbound(number)).await;
    }
    accept_and_answer(store, inbound_from(&[BEN], 4)).await;
    let last = accept_claimed(store, new_inbound(6)).await;
    assert_eq!(earlier_texts(store, last.id, 9).await, ["1", "2", "3", "5"]);
    assert_eq!(earlier_texts(store, last.id, 2).await, ["3", "5"]);
    assert!(earlier_texts(store, last.id, 0).await.is_empty());
    let bens = accept_claimed(store, inbound_from(&[BEN], 7)).await;
    assert_eq!(earlier_texts(store, bens.id, 9).await, ["4"]);
}

// A reply that failed to send is left out, and one that is still pending is included.
async fn history_includes_twiml_and_rest_replies(backend: &mut Backend) {
    let store = backend.store();
    let claim = accept_claimed(store, new_inbound(1)).await;
    save_twiml(store, claim, "said", at(1)).await;
    reply_via_rest(store, new_inbound(2), &["one", "two"]).await;
    for sent in [true, false] {
        let message = store.claim(1, at(3)).await.unwrap().pop().unwrap();
        let outcome = if sent {
            SendOutcome::Sent {
                sid: sid(90),
                status: MessageStatus::Queued,
            }
        } else {
            SendOutcome::Failed {
                code: None,
                reason: "it was rejected".into(),
            }
        };
        store
            .record_outcome(message.id, outcome, at(3))
            .await
            .unwrap();
    }
    reply_via_rest(store, new_inbound(4), &["waits"]).await;
    let last = accept_claimed(store, new_inbound(5)).await;
    let earlier = store.earlier(last.id, 9).await.unwrap();
    let answers: Vec<_> = earlier
        .iter()
        .map(|one| one.response.as_ref().map(|answer| answer.0.as_str()))
        .collect();
    assert_eq!(answers, [Some("said"), None, None]);
    let replies: Vec<Vec<&str>> = earlier
        .iter()
        .map(|one| {
            let texts = one.replies.iter();
            texts
                .map(|reply| reply.0.split("Body=").nth(1).unwrap())
                .collect()
        })
        .collect();
    assert_eq!(replies, [vec![], vec!["one"], vec!["waits"]]);
    let times: Vec<Timestamp> = earlier.iter().map(|one| one.received_at).collect();
    assert_eq!(times, [at(1), at(2), at(4)]);
}

async fn history_excludes_later_messages(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    let second = accept_claimed(store, new_inbound(2)).await;
    for number in 3..6 {
        accept(store, new_inbound(number)).await;
    }
    assert_eq!(earlier_texts(store, second.id, 1).await, ["1"]);
    assert_eq!(earlier_texts(store, second.id, 9).await, ["1"]);
}

// Messages under a second address count once one message carries both addresses.
async fn history_includes_messages_of_linked_address(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA], 1)).await;
    accept_and_answer(store, inbound_from(&[ANA_ID], 2)).await;
    accept_and_answer(store, inbound_from(&[ANA], 3)).await;
    let open = accept_claimed(store, inbound_from(&[ANA_ID], 4)).await;
    assert_eq!(earlier_texts(store, open.id, 9).await, ["2"]);
    // The message with both addresses merges the conversations, and is queued behind the open message.
    let both = accept(store, inbound_from(&[ANA, ANA_ID], 5)).await;
    let both = super::expect_queued(&both);
    assert_eq!(earlier_texts(store, open.id, 9).await, ["1", "2", "3"]);
    assert_eq!(earlier_texts(store, both, 9).await, ["1", "2", "3", "4"]);
    store
        .complete_inline(open, None, Completion::default(), at(5))
        .await
        .unwrap();
    store
        .decide(both, ReplyPath::Twiml(String::new()), at(5))
        .await
        .unwrap();
    let last = accept_claimed(store, inbound_from(&[ANA_ID], 6)).await;
    assert_eq!(
        earlier_texts(store, last.id, 9).await,
        ["1", "2", "3", "4", "5"]
    );
    assert_eq!(earlier_texts(store, last.id, 3).await, ["3", "4", "5"]);
}

// The message leaves the history only when its key expires.
async fn history_keeps_message_after_text_expired(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    let retention = Retention {
        now: at(100),
        texts_before: at(2),
        content_before: at(-9),
        keys_before: at(-9),
        unmatched_status_before: at(-9),
    };
    expire_all(store, retention).await;
    accept_and_answer(store, new_inbound(3)).await;
    let last = accept_claimed(store, new_inbound(4)).await;
    assert_eq!(earlier_texts(store, last.id, 9).await, ["", "3"]);
    let keys = Retention {
        keys_before: at(2),
        ..retention
    };
    expire_all(store, keys).await;
    assert_eq!(earlier_texts(store, last.id, 9).await, ["3"]);
}

async fn history_of_purged_user_is_empty(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, new_inbound(1)).await;
    store.purge_user(&ANA.into(), None, false).await.unwrap();
    let next = accept_claimed(store, new_inbound(2)).await;
    assert!(store.earlier(next.id, 9).await.unwrap().is_empty());
}
