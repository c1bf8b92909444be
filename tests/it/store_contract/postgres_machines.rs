//! Several machines on one PostgreSQL database, and their behavior while it is unavailable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use replyhook::Secret;
use replyhook::internals::{
    AcceptOutcome, Journal, ReplyDecision, ReplyPath, SendOutcome, Store, TurnStatus,
};
use replyhook::store::postgres::PostgresStore;
use replyhook::store::{Access, StoreErrorKind};

use super::{
    ANA, BEN, Backend, Completion, Kind, RETRY, SENDER, accept, accept_and_answer, accept_claimed,
    at, claim_backlog, inbound_from, message_row, new_inbound, reply, reply_via_rest, run, sid,
    stop_keyword, with_keyword,
};
use crate::support::Wait;
use crate::support::postgres::{Proxy, ProxyState};

async fn open_another(backend: &Backend) -> Arc<dyn Store> {
    let store = backend.another();
    store.open(Access::Owner).await.unwrap();
    store
}

const EXPIRE_LEASES: &str = "UPDATE owner SET alive_until = now() - interval '1 s'";

/// Expires all leases until `poll` returns something that their owners had claimed.
async fn expire_leases_until<T>(backend: &Backend, poll: impl AsyncFn() -> Vec<T>) -> Vec<T> {
    let wait = Wait::until("a claim of an expired lease is free");
    loop {
        backend.database().run(EXPIRE_LEASES).await;
        let found = poll().await;
        if !found.is_empty() {
            return found;
        }
        wait.check();
    }
}

#[test]
fn live_machine_keeps_its_claims() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let (one, two) = (backend.store(), open_another(backend).await);
        let claim = accept_claimed(one, new_inbound(1)).await;
        let in_progress = AcceptOutcome::InProgress { id: claim.id };
        assert_eq!(accept(&*two, new_inbound(1)).await, in_progress);
        assert!(matches!(
            accept(&*two, new_inbound(2)).await,
            AcceptOutcome::Queued { .. }
        ));
        assert!(claim_backlog(&*two, at(3)).await.is_empty());
        reply_via_rest(one, inbound_from(&[BEN], 4), &["text"]).await;
        let message = one.claim(9, at(5)).await.unwrap().pop().unwrap();
        assert!(two.claim(9, at(5)).await.unwrap().is_empty());
        assert_eq!(message_row(&*two, 4).await.state, "deferred");
        // Another machine than the sending one may record the outcome.
        let sent = SendOutcome::Sent {
            sid: sid(11),
            status: replyhook::MessageStatus::Sent,
        };
        two.record_outcome(message.id, sent, at(6)).await.unwrap();
        assert_eq!(message_row(one, 4).await.state, "sent");
    });
}

// A machine that was only paused while it prepared a message does not release the claim of another.
#[test]
fn preparation_of_dead_machine_moves_to_another() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let (one, two) = (backend.store(), open_another(backend).await);
        reply_via_rest(one, inbound_from(&[BEN], 1), &["text"]).await;
        let message = one.claim(9, at(2)).await.unwrap().pop().unwrap();
        assert!(one.begin_preparation(message.id).await.unwrap());
        assert!(!two.begin_preparation(message.id).await.unwrap());
        assert!(two.claim(9, at(2)).await.unwrap().is_empty());
        let taken = expire_leases_until(backend, async || two.claim(9, at(3)).await.unwrap());
        let taken = taken.await.pop().unwrap();
        assert_eq!((taken.id, taken.attempt), (message.id, 1));
        let prepared = one.record_outcome(message.id, SendOutcome::Prepared, at(4));
        prepared.await.unwrap();
        assert!(!one.begin_preparation(message.id).await.unwrap());
        assert!(two.claim(9, at(5)).await.unwrap().is_empty());
        assert_eq!(message_row(&*two, 1).await.state, "deferred");
    });
}

#[test]
fn known_user_with_two_addresses_takes_one_round_trip_per_write() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let proxy = Proxy::to(backend.database()).await;
        let url = backend.database().url_at("127.0.0.1", proxy.port);
        let store = PostgresStore::new(url);
        store.open(Access::Owner).await.unwrap();
        let answer = async |number| {
            let named = inbound_from(&[ANA, "whatsapp:US.13491208655302741918"], number);
            let named = replyhook::internals::NewInbound {
                service: Some(super::service()),
                ..named
            };
            accept_and_answer(&store, named).await;
        };
        // The first messages make the user known, and prepare the statements on each connection.
        for number in 0..20 {
            answer(number).await;
        }
        let before = proxy.round_trips();
        for number in 20..60 {
            answer(number).await;
        }
        // 40 messages with two writes each. Heartbeats and pings of idle connections come in between; four round trips a message would be 160.
        let round_trips = proxy.round_trips() - before;
        assert!((80..120).contains(&round_trips), "{round_trips}");
    });
}

// A machine that was only paused cannot write with the claims it has lost.
#[test]
fn claims_of_dead_machine_move_to_another() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let (one, two) = (backend.store(), open_another(backend).await);
        let claim = accept_claimed(one, new_inbound(1)).await;
        reply_via_rest(one, inbound_from(&[BEN], 2), &["text"]).await;
        let message = one.claim(9, at(3)).await.unwrap().pop().unwrap();
        // Claiming renews the lease of `two`. `one` is still running, so its heartbeat may renew its lease first.
        // `expire_leases_until` then tries again.
        let backlog =
            expire_leases_until(backend, async || claim_backlog(&*two, at(4)).await).await;
        assert_eq!(
            (backlog[0].claim.id, backlog[0].claim.attempt),
            (claim.id, 2)
        );
        let unknown = expire_leases_until(backend, async || {
            assert!(two.claim(9, at(4)).await.unwrap().is_empty());
            two.claim_lookups(9, at(6)).await.unwrap()
        });
        assert_eq!(unknown.await[0].id, message.id);

        // `one` was only paused. Its writes must have no effect now.
        let late = one
            .complete_inline(claim, Some("late".to_owned()), Completion::default(), at(7))
            .await
            .unwrap();
        assert_eq!(late, ReplyDecision::ClaimLost);
        assert!(
            !one.complete_via_rest(claim, vec![reply("late")], Completion::default(), at(7))
                .await
                .unwrap()
        );
        assert!(
            two.complete_via_rest(backlog[0].claim, Vec::new(), Completion::default(), at(7))
                .await
                .unwrap()
        );
        let retry = SendOutcome::Retry {
            not_before: at(7),
            code: None,
        };
        two.record_outcome(message.id, retry, at(7)).await.unwrap();
        assert_eq!(two.claim(9, at(8)).await.unwrap()[0].id, message.id);
        let rejected = SendOutcome::Failed {
            code: None,
            reason: "given up".into(),
        };
        one.record_outcome(message.id, rejected, at(8))
            .await
            .unwrap();
        assert_eq!(
            message_row(one, 2).await.replies[0].state.as_str(),
            "sending"
        );
    });
}

#[test]
fn paused_machine_renews_lease_before_claiming() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let (one, two) = (backend.store(), open_another(backend).await);
        accept_and_answer(one, new_inbound(1)).await;
        backend.database().run(EXPIRE_LEASES).await;
        accept_claimed(one, new_inbound(2)).await;
        assert!(claim_backlog(&*two, at(3)).await.is_empty());
        // Claiming also restores the lease if its row was deleted.
        backend.database().run("DELETE FROM owner").await;
        accept_claimed(one, inbound_from(&[BEN], 3)).await;
        assert!(
            two.claim_backlog(9, RETRY, at(4))
                .await
                .is_ok_and(|left| left.messages.len() <= 1)
        );
    });
}

// After a store outage a machine with peers delays the replies that go via the REST API.
#[test]
fn machine_knows_whether_it_has_peers() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        assert!(!backend.store().has_peers());
        let two = open_another(backend).await;
        assert!(two.has_peers());
        // The first machine finds the second at its next heartbeat.
        let wait = Wait::until("the first machine knows of the second");
        while !backend.store().has_peers() {
            wait.pause().await;
        }
        // A machine that has closed its store does not count, even if its lease has not expired.
        backend.store().close().await.unwrap();
        two.close().await.unwrap();
        assert!(!open_another(backend).await.has_peers());
    });
}

#[test]
fn concurrent_starts_on_empty_database_succeed() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        backend.store = None;
        backend
            .database()
            .run("DROP SCHEMA replyhook CASCADE; CREATE TABLE public.inbound (theirs INTEGER)")
            .await;
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let store = backend.another();
                tokio::spawn(async move {
                    store.open(Access::Owner).await.unwrap();
                    store.check().await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Claimed message of each conversation, and its handled messages in order.
#[derive(Default)]
struct HandledMessages {
    current: HashMap<i64, i64>,
    handled: HashMap<i64, Vec<i64>>,
}

const CONVERSATIONS: u64 = 50;
const MESSAGES: u64 = CONVERSATIONS * 20;

struct Worker {
    store: Arc<dyn Store>,
    messages: Arc<Mutex<HandledMessages>>,
    done: Arc<AtomicUsize>,
}

impl Worker {
    async fn handle(&self, claim: replyhook::internals::Claim) {
        {
            let mut messages = self.messages.lock().unwrap();
            let other = messages.current.insert(claim.conversation, claim.id);
            assert_eq!(other, None, "two of conversation {}", claim.conversation);
            messages
                .handled
                .entry(claim.conversation)
                .or_default()
                .push(claim.id);
        }
        tokio::task::yield_now().await;
        // Before the commit, after which another machine may claim the next message of the conversation.
        self.messages
            .lock()
            .unwrap()
            .current
            .remove(&claim.conversation);
        let decided = self
            .store
            .complete_inline(claim, None, Completion::default(), at(1))
            .await
            .unwrap();
        if decided == ReplyDecision::ViaRest {
            assert!(
                self.store
                    .complete_via_rest(claim, vec![reply("text")], Completion::default(), at(1))
                    .await
                    .unwrap()
            );
        }
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    async fn process_backlog(&self) {
        for message in self
            .store
            .claim_backlog(4, RETRY, at(1))
            .await
            .unwrap()
            .messages
        {
            self.handle(message.claim).await;
        }
    }

    async fn work(&self, next: &AtomicU64) {
        loop {
            // Each message is delivered twice, the second time a little later.
            let turn = next.fetch_add(1, Ordering::SeqCst);
            if turn >= 2 * MESSAGES {
                break;
            }
            let number = turn / 100 * 50 + turn % 50;
            let user = format!("whatsapp:+1555{:07}", number % CONVERSATIONS);
            match self
                .store
                .accept(std::sync::Arc::new(inbound_from(&[&user], number)))
                .await
                .unwrap()
            {
                AcceptOutcome::Claimed(claim) => self.handle(claim).await,
                AcceptOutcome::Queued { id, .. } => {
                    match self.store.try_claim(id, at(1)).await.unwrap() {
                        TurnStatus::Claimed(claim) => self.handle(claim).await,
                        TurnStatus::Waiting => {
                            self.store.decide(id, ReplyPath::Rest, at(1)).await.unwrap();
                        }
                        TurnStatus::Resolved(decision) => panic!("{decision:?}"),
                    }
                }
                AcceptOutcome::InProgress { .. } | AcceptOutcome::AlreadyAnswered(_) => {}
                other => panic!("{other:?}"),
            }
            self.process_backlog().await;
        }
        let wait = Wait::until("all messages are handled");
        while self.done.load(Ordering::SeqCst) < usize::try_from(MESSAGES).unwrap() {
            wait.check();
            self.process_backlog().await;
        }
    }
}

#[test]
fn eight_machines_handle_each_message_once_in_order() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let messages = Arc::new(Mutex::new(HandledMessages::default()));
        let done = Arc::new(AtomicUsize::new(0));
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let worker = Worker {
                store: open_another(backend).await,
                messages: messages.clone(),
                done: done.clone(),
            };
            let next = next.clone();
            tasks.push(tokio::spawn(async move { worker.work(&next).await }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let messages = messages.lock().unwrap();
        assert_eq!(messages.handled.len() as u64, CONVERSATIONS);
        for (conversation, handled) in &messages.handled {
            assert_eq!(handled.len(), 20, "{conversation}: {handled:?}");
            // IDs rise in the order of acceptance. A message that is handled twice would repeat its ID.
            assert!(
                handled.is_sorted_by(|a, b| a < b),
                "{conversation}: {handled:?}"
            );
        }
    });
}

/// Waits until the store responds again. It polls, because the store does not signal its recovery.
async fn wait_for_recovery(store: &dyn Store) {
    let wait = Wait::until("the store responds again");
    while store.check().await.is_err() {
        wait.check();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn check_failure_and_recovery(state: ProxyState) {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let proxy = Proxy::to(backend.database()).await;
        let url = backend.database().url_at("127.0.0.1", proxy.port);
        let store = PostgresStore::new(url);
        store.open(Access::Owner).await.unwrap();
        accept_and_answer(&store, new_inbound(1)).await;
        proxy.set(state).await;
        // Every call must fail, not only the first. The circuit breaker rejects the later ones immediately.
        for _ in 0..20 {
            let rejected = store.accept(Arc::new(new_inbound(2))).await;
            assert_eq!(rejected.unwrap_err().kind(), StoreErrorKind::Unavailable);
        }
        proxy.set(ProxyState::Open).await;
        wait_for_recovery(&store).await;
        // The database may still execute the rejected calls for Ana's message, so use a message of Ben.
        accept_and_answer(&store, inbound_from(&[BEN], 12)).await;
    });
}

#[test]
fn threat_54_unreachable_database_is_reported_and_recovers() {
    check_failure_and_recovery(ProxyState::Closed);
}

#[test]
fn threat_55_hanging_database_is_reported_and_recovers() {
    check_failure_and_recovery(ProxyState::Silent);
}

// Calls must not pile up behind a table lock, and the store recovers when the lock is released.
#[test]
fn threat_56_calls_beyond_busy_connections_are_rejected() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let store = PostgresStore::new(backend.database().url());
        store.open(Access::Owner).await.unwrap();
        accept_and_answer(&store, new_inbound(1)).await;
        let mut hog = backend.database().connect().await;
        let lock = "BEGIN; LOCK TABLE conversation IN ACCESS EXCLUSIVE MODE";
        sqlx::raw_sql(lock).execute(&mut hog).await.unwrap();
        let store = Arc::new(store);
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.accept(Arc::new(new_inbound(100 + number))).await })
            })
            .collect();
        for task in tasks {
            let rejected = task.await.unwrap().unwrap_err();
            assert!(matches!(
                rejected.kind(),
                StoreErrorKind::Unavailable | StoreErrorKind::Busy
            ));
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut hog).await.unwrap();
        wait_for_recovery(&*store).await;
        accept_and_answer(&*store, inbound_from(&[BEN], 12)).await;
    });
}

#[test]
fn threat_54_read_only_database_is_reported_and_recovers() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let store = backend.store();
        let database = backend.database();
        accept_and_answer(store, new_inbound(1)).await;
        let read_only = |setting: &str| {
            format!(
                "ALTER DATABASE {} SET default_transaction_read_only = {setting}",
                database.name()
            )
        };
        database.administrate(read_only("on")).await;
        database.cut().await;
        for _ in 0..20 {
            let error = store
                .accept(std::sync::Arc::new(new_inbound(2)))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        }
        database.administrate(read_only("off")).await;
        wait_for_recovery(store).await;
        accept_and_answer(store, new_inbound(2)).await;
    });
}

// Messages of other users are accepted afterwards, although the lock remains.
#[test]
fn call_waiting_for_lock_is_cancelled() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let store = &PostgresStore::new(backend.database().url());
        store.open(Access::Owner).await.unwrap();
        accept_and_answer(store, new_inbound(1)).await;
        let mut other = backend.database().connect().await;
        sqlx::raw_sql("BEGIN; SELECT * FROM conversation FOR UPDATE")
            .execute(&mut other)
            .await
            .unwrap();
        let error = store
            .accept(std::sync::Arc::new(new_inbound(2)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        // The circuit breaker is open only if the store's timeout ended the call before the database canceled it.
        wait_for_recovery(store).await;
        accept_claimed(store, inbound_from(&[BEN], 3)).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        accept_claimed(store, new_inbound(2)).await;
    });
}

#[test]
fn store_errors_reveal_no_user_data_or_password() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        let store = backend.store();
        // PostgreSQL's message about a violated CHECK contains the row.
        backend
            .database()
            .run("ALTER TABLE inbound ADD CONSTRAINT no_params CHECK (params IS NULL)")
            .await;
        let error = store
            .accept(std::sync::Arc::new(inbound_from(&[ANA], 1)))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Internal);
        let text = format!("{error} {error:?}");
        assert!(text.contains("23514"), "{text}");
        assert!(
            !text.contains("text+1") && !text.contains("5550001111"),
            "{text}"
        );
        let unreachable = PostgresStore::new(Secret::new("postgres://u:s3cret@127.0.0.1:1/db"));
        let error = unreachable.open(Access::Owner).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(!format!("{error} {unreachable:?}").contains("s3cret"));
    });
}

// One machine learns the pair from a message, the other one from a message to another sender or a STOP under the ID. Whatever
// runs first, they agree in the end, and the STOP holds under both addresses.
#[test]
fn threat_79_machines_that_learn_one_pair_concurrently_agree() {
    run(Kind::Postgres, async |backend: &mut Backend| {
        const OTHER_SENDER: &str = "whatsapp:+15550004444";
        let (one, two) = (backend.shared(), open_another(backend).await);
        for round in 0..40_u64 {
            let phone = format!("whatsapp:+1555{round:07}");
            let id = format!("whatsapp:US.1349{round:07}");
            let number = 10 * round + 10;
            // Each address has a conversation already, on two senders.
            accept_and_answer(&*one, inbound_from(&[&phone], number)).await;
            accept_and_answer(&*one, inbound_from(&[&id], number + 1)).await;
            let pair = inbound_from(&[&phone, &id], number + 2);
            let stop = with_keyword(stop_keyword(), inbound_from(&[&id], number + 3));
            let elsewhere = replyhook::internals::NewInbound {
                sender: OTHER_SENDER.into(),
                ..inbound_from(&[&phone, &id], number + 4)
            };
            let (learned, stopped, other) = tokio::join!(
                one.accept(Arc::new(pair)),
                two.accept(Arc::new(stop)),
                two.accept(Arc::new(elsewhere)),
            );
            let (_, _, _) = (learned.unwrap(), stopped.unwrap(), other.unwrap());
            for store in [&*one, &*two] {
                for sender in [SENDER, OTHER_SENDER] {
                    let of = |user: &str| store.conversation(&sender.into(), &user.into());
                    let (by_phone, by_id) = (of(&phone).await.unwrap(), of(&id).await.unwrap());
                    assert_eq!(by_phone.unwrap().id, by_id.unwrap().id, "round {round}");
                }
                for user in [&phone, &id] {
                    let found =
                        store.eligibility(&SENDER.into(), None, &user.as_str().into(), at(1));
                    assert!(found.await.unwrap().opted_out, "round {round}");
                }
                assert_eq!(
                    store
                        .user(&phone.as_str().into(), None)
                        .await
                        .unwrap()
                        .links
                        .len(),
                    2
                );
            }
        }
    });
}
