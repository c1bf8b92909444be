//! The contract of `Store`, tested for each implementation: in memory, in a file, and on PostgreSQL.

mod accepting;
mod callback_links;
mod consent;
mod handoff;
mod history;
mod identity;
mod media;
mod merge;
mod message_order;
mod opening;
mod operator;
mod outbound_list;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres_machines;
mod questions;
mod reply_order;
mod reply_path;
mod retention;
mod second_send;
mod send_order;
mod split;
mod status_events;
mod submission;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use replyhook::internals::{
    AcceptOutcome, BacklogMessage, Claim, Completion, ConsentKeyword, CrashPolicy, MessageFilter,
    MessageRow, NewInbound, NewOutbound, OutboundMessage, ReplyDecision, Retention, SendOutcome,
    Store,
};
use replyhook::signature::AuthTokenKind;
use replyhook::store::sqlite::SqliteStore;
use replyhook::store::{Access, ConsentSource};
use replyhook::{
    AccountSid, Address, FormParams, MessageSid, MessageStatus, MessagingServiceSid, Timestamp,
};

use crate::support::{ACCOUNT, Wait};

/// Runs each of these tests over each store.
macro_rules! over_all_stores {
    ($($test:ident),+ $(,)?) => {
        $(
            mod $test {
                use crate::store_contract::{Kind, run};

                #[test]
                fn in_memory() {
                    run(Kind::Memory, super::$test);
                }

                #[test]
                fn in_file() {
                    run(Kind::File, super::$test);
                }

                #[cfg(feature = "postgres")]
                #[test]
                fn in_postgres() {
                    run(Kind::Postgres, super::$test);
                }
            }
        )+
    };
}
use over_all_stores;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    File,
    #[cfg(feature = "postgres")]
    Postgres,
}

/// An open store, with its folder and database.
struct Backend {
    kind: Kind,
    /// `None` between a crash and the next start.
    store: Option<Arc<dyn Store>>,
    dir: tempfile::TempDir,
    #[cfg(feature = "postgres")]
    database: Option<crate::support::postgres::TestDatabase>,
}

impl Backend {
    fn store(&self) -> &dyn Store {
        &**self.store.as_ref().unwrap()
    }

    fn shared(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    #[cfg(feature = "postgres")]
    fn database(&self) -> &crate::support::postgres::TestDatabase {
        self.database.as_ref().unwrap()
    }

    /// Creates another store of this kind at the same place, not yet open.
    fn another(&self) -> Arc<dyn Store> {
        match self.kind {
            Kind::Memory => Arc::new(SqliteStore::memory()),
            Kind::File => Arc::new(SqliteStore::file(self.path())),
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let store = replyhook::store::postgres::PostgresStore::new(self.database().url());
                Arc::new(store.with_operation_timeout(OPERATION_TIMEOUT))
            }
        }
    }

    /// Simulates `kill -9` and a restart. Returns false for a store in memory, which does not survive its process.
    async fn crash(&mut self) -> bool {
        if self.kind == Kind::Memory {
            return false;
        }
        self.store = None;
        self.expire_leases().await;
        let next = self.another();
        next.open(Access::Owner).await.unwrap();
        self.store = Some(next);
        true
    }

    /// Expires the leases of all processes on a PostgreSQL database.
    async fn expire_leases(&self) {
        #[cfg(feature = "postgres")]
        if let Some(database) = &self.database {
            database
                .run("UPDATE owner SET alive_until = now() - interval '1 s'")
                .await;
        }
    }
}

/// Runs a test with a new store of this kind.
fn run(kind: Kind, test: impl AsyncFnOnce(&mut Backend)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        #[cfg(feature = "postgres")]
        let database = match kind {
            Kind::Postgres => {
                let Some(database) = crate::support::postgres::TestDatabase::create().await else {
                    return crate::support::report_skipped("the store's contract over PostgreSQL");
                };
                Some(database)
            }
            _ => None,
        };
        let mut backend = Backend {
            kind,
            store: None,
            dir: tempfile::tempdir().unwrap(),
            #[cfg(feature = "postgres")]
            database,
        };
        let store = backend.another();
        store.open(Access::Owner).await.unwrap();
        backend.store = Some(store);
        let outcome = AssertUnwindSafe(test(&mut backend)).catch_unwind().await;
        backend.store = None;
        #[cfg(feature = "postgres")]
        if let Some(database) = &backend.database {
            database.remove().await;
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Operation timeout for a database on a machine that is busy with other tests.
#[cfg(feature = "postgres")]
const OPERATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
const SENDER: &str = "whatsapp:+15550002222";
const ANA: &str = "whatsapp:+15550001111";
const ANA_ID: &str = "whatsapp:US.13491208655302741918";
const BEN: &str = "whatsapp:+15550003333";
const FALLBACK_TWIML: &str = "<Response><Message>Sorry</Message></Response>";
const SERVICE: &str = "MG00000000000000000000000000000001";
const RETRY: CrashPolicy = CrashPolicy {
    retry: true,
    max_attempts: 3,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn sid(number: u64) -> MessageSid {
    format!("SM{number:032x}").parse().unwrap()
}

fn account() -> AccountSid {
    ACCOUNT.parse().unwrap()
}

fn service() -> MessagingServiceSid {
    SERVICE.parse().unwrap()
}

/// Ana's message with this number, received as many seconds after the start.
fn new_inbound(number: u64) -> NewInbound {
    NewInbound {
        account: account(),
        sid: sid(number),
        sender: SENDER.into(),
        user: vec![ANA.into()],
        service: None,
        auth_token: AuthTokenKind::Primary,
        params: format!("Body=text+{number}"),
        consent: None,
        max_attempts: 3,
        retry_after_crash: true,
        final_response: FALLBACK_TWIML.to_owned(),
        received_at: at(i64::try_from(number).unwrap()),
    }
}

fn inbound_from(user: &[&str], number: u64) -> NewInbound {
    NewInbound {
        user: user.iter().map(|user| Address::from(*user)).collect(),
        ..new_inbound(number)
    }
}

fn stop_keyword() -> ConsentKeyword {
    ConsentKeyword::Stop {
        source: ConsentSource::Keyword,
        confirmation: "stopped".to_owned(),
    }
}

fn start_keyword() -> ConsentKeyword {
    ConsentKeyword::Start {
        source: ConsentSource::Keyword,
        confirmation: "started".to_owned(),
    }
}

fn with_keyword(consent: ConsentKeyword, inbound: NewInbound) -> NewInbound {
    NewInbound {
        consent: Some(consent),
        ..inbound
    }
}

/// Returns the claim of an accepted message.
#[track_caller]
fn expect_claimed(outcome: &AcceptOutcome) -> Claim {
    match outcome {
        AcceptOutcome::Claimed(claim) => *claim,
        other => panic!("{other:?} is not a claim"),
    }
}

#[track_caller]
fn expect_queued(outcome: &AcceptOutcome) -> i64 {
    match outcome {
        AcceptOutcome::Queued { id, .. } => *id,
        other => panic!("{other:?} is not queued"),
    }
}

async fn accept(store: &dyn Store, inbound: NewInbound) -> AcceptOutcome {
    store.accept(Arc::new(inbound)).await.unwrap()
}

async fn accept_claimed(store: &dyn Store, inbound: NewInbound) -> Claim {
    expect_claimed(&accept(store, inbound).await)
}

/// Accepts a message and replies by TwiML.
async fn accept_and_answer(store: &dyn Store, inbound: NewInbound) {
    let now = inbound.received_at;
    let claim = accept_claimed(store, inbound).await;
    let twiml = Some("<Response/>".to_owned());
    store
        .complete_inline(claim, twiml, Completion::default(), now)
        .await
        .unwrap();
}

/// A message for the outbox.
fn reply(text: &str) -> NewOutbound {
    NewOutbound {
        account: account(),
        auth_token: AuthTokenKind::Primary,
        sender: SENDER.into(),
        user: ANA.into(),
        service: None,
        params: [("To", ANA), ("Body", text)]
            .into_iter()
            .collect::<FormParams>(),
        template: false,
    }
}

/// Accepts a message and queues its replies for the REST API.
async fn reply_via_rest(store: &dyn Store, inbound: NewInbound, texts: &[&str]) -> Claim {
    let now = inbound.received_at;
    let claim = accept_claimed(store, inbound).await;
    let replies = texts.iter().map(|text| reply(text)).collect();
    assert!(
        store
            .complete_via_rest(claim, replies, Completion::default(), now)
            .await
            .unwrap()
    );
    claim
}

fn sent_outcome(number: u64) -> SendOutcome {
    SendOutcome::Sent {
        sid: sid(number),
        status: MessageStatus::Queued,
    }
}

/// Saves a TwiML response, without any other change of the conversation.
async fn save_twiml(store: &dyn Store, claim: Claim, twiml: &str, now: Timestamp) -> ReplyDecision {
    let completion = Completion::default();
    let saved = store.complete_inline(claim, Some(twiml.to_owned()), completion, now);
    saved.await.unwrap()
}

/// Claims up to nine messages of the backlog.
async fn claim_backlog(store: &dyn Store, now: Timestamp) -> Vec<BacklogMessage> {
    let claimed = store.claim_backlog(9, RETRY, now).await.unwrap();
    claimed.messages
}

/// Sends all due messages, and returns them in the order of their IDs.
///
/// It takes several rounds, since messages to one user are claimed one at a time.
async fn deliver(store: &dyn Store, seconds: i64) -> Vec<OutboundMessage> {
    let mut delivered = Vec::new();
    let wait = Wait::until("all due messages are sent");
    loop {
        let claimed = store.claim(9, at(seconds)).await.unwrap();
        if claimed.is_empty() {
            delivered.sort_unstable_by_key(|message: &OutboundMessage| message.id);
            return delivered;
        }
        wait.check();
        for message in claimed {
            let number = 1000 + message.id.unsigned_abs();
            store
                .record_outcome(message.id, sent_outcome(number), at(seconds))
                .await
                .unwrap();
            delivered.push(message);
        }
    }
}

/// Expires content in as many steps as it takes.
async fn expire_all(store: &dyn Store, retention: Retention) {
    let wait = Wait::until("nothing more expires");
    while store.expire(retention).await.unwrap().has_more {
        wait.check();
    }
}

fn bodies(messages: &[OutboundMessage]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message.params.get("Body").unwrap_or_default())
        .collect()
}

fn filter_with_limit(limit: u32) -> MessageFilter {
    MessageFilter {
        limit,
        ..MessageFilter::default()
    }
}

/// Returns a message as an operator sees it.
async fn message_row(store: &dyn Store, number: u64) -> MessageRow {
    let filter = MessageFilter {
        sid: Some(sid(number)),
        ..filter_with_limit(1)
    };
    store.messages(filter).await.unwrap().pop().unwrap()
}
