//! The operator's list of outbound messages.

use replyhook::internals::{MessageFilter, NewOutbound, SendOutcome, StatusEvent, Store};
use replyhook::{ErrorCode, MessageStatus};

use super::{
    ANA, ANA_ID, BEN, Backend, SENDER, accept_and_answer, account, at, filter_with_limit,
    inbound_from, new_inbound, over_all_stores, reply, reply_via_rest, sent_outcome, sid,
};

over_all_stores!(outbound_messages_are_listed_newest_first_and_filtered);

async fn list_ids(store: &dyn Store, filter: MessageFilter) -> Vec<i64> {
    let rows = store.outbound_messages(filter).await.unwrap();
    rows.iter().map(|row| row.message.id).collect()
}

async fn outbound_messages_are_listed_newest_first_and_filtered(backend: &mut Backend) {
    let store = backend.store();
    accept_and_answer(store, inbound_from(&[ANA, ANA_ID], 1)).await;
    reply_via_rest(store, new_inbound(2), &["an answer"]).await;
    let to = |user: &str, text: &str| NewOutbound {
        user: user.into(),
        ..reply(text)
    };
    let replies = vec![to(BEN, "one"), to(ANA_ID, "two"), to("+1", "three")];
    let ids = store.enqueue(replies, at(3)).await.unwrap();
    assert_eq!(
        list_ids(store, filter_with_limit(9)).await,
        [ids[2], ids[1], ids[0]]
    );
    assert_eq!(
        list_ids(store, filter_with_limit(2)).await,
        [ids[2], ids[1]]
    );
    let page = MessageFilter {
        before_id: Some(ids[1]),
        ..filter_with_limit(9)
    };
    assert_eq!(list_ids(store, page).await, [ids[0]]);
    for user in [ANA, ANA_ID] {
        let of_user = MessageFilter {
            user: Some(user.into()),
            ..filter_with_limit(9)
        };
        assert_eq!(list_ids(store, of_user).await, [ids[1]]);
    }
    let claimed = store.claim(9, at(4)).await.unwrap();
    // The second message is to another address of the same user, so it waits for the answer.
    store
        .record_outcome(claimed[0].id, sent_outcome(12), at(4))
        .await
        .unwrap();
    store.claim(9, at(4)).await.unwrap();
    let rejected = SendOutcome::Failed {
        code: Some(ErrorCode(20003)),
        reason: "Twilio rejected it".into(),
    };
    store.record_outcome(ids[0], rejected, at(5)).await.unwrap();
    store
        .record_outcome(ids[1], sent_outcome(11), at(5))
        .await
        .unwrap();
    let undelivered = StatusEvent {
        account: account(),
        sid: sid(11),
        outbound: None,
        status: MessageStatus::Undelivered,
        error_code: Some(ErrorCode(63024)),
        sender: None,
        service: None,
        user: Vec::new(),
        at: at(6),
    };
    store.apply_status(undelivered).await.unwrap();
    for (state, expected) in [
        ("failed", &ids[..2]),
        ("sending", &ids[2..]),
        ("sent", &[]),
        ("answered", &[]),
    ] {
        let in_state = MessageFilter {
            state: Some(state.to_owned()),
            ..filter_with_limit(9)
        };
        let mut found = list_ids(store, in_state).await;
        found.reverse();
        assert_eq!(found, expected, "{state}");
    }
    let by_sid = MessageFilter {
        sid: Some(sid(11)),
        ..filter_with_limit(9)
    };
    let row = store.outbound_messages(by_sid).await.unwrap().remove(0);
    assert_eq!(
        (row.sender.as_str(), row.user.as_str(), row.account),
        (SENDER, ANA_ID, account())
    );
    assert_eq!(
        (row.state, row.attempt, row.created_at),
        ("failed", 1, at(3))
    );
    assert_eq!(row.message.sid, Some(sid(11)));
    assert_eq!(row.message.error_code, Some(63024));
}
