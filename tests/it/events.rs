//! Events for the service at `handler.events_url`: what is reported, in which order, and what a failing service gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::{
    Clock, Context, HandlerError, InboundMessage, ManualClock, Reply, SystemClock, Timestamp,
};
use serde_json::Value;

use crate::support::postgres::TestDatabase;
use crate::support::{
    ACCOUNT, Description, FakeTwilio, RecordedRequest, ScriptedServer, TempStore, TestApp, UNSET,
    Wait, Webhook, installed, report_skipped,
};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const FLOW: &str = "https://flow.example.test/";
const USER: &str = "whatsapp:+15550001111";
const SENDER: &str = "whatsapp:+15550002222";

/// Hands off a user who writes "human", and fails for "fail".
async fn bot(_: Context, message: InboundMessage) -> Result<Reply, HandlerError> {
    match message.body.as_str() {
        "human" => Reply::handoff(FLOW).map_err(HandlerError::new),
        "fail" => Err(HandlerError::new("it fails")),
        body => Ok(Reply::text(body)),
    }
}

/// An app with a service that gets its events.
struct World {
    app: TestApp,
    service: ScriptedServer,
    clock: Arc<ManualClock>,
}

impl World {
    async fn start(database_url: &str, env: &[(&str, &str)], status: u16) -> Self {
        let service = ScriptedServer::start().await;
        service.queue_response("/events", status, "", "");
        let url = format!("{}/events", service.url());
        let base = [
            ("DATABASE_URL", database_url),
            ("REPLYHOOK__HANDLER__EVENTS_URL", url.as_str()),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
        ];
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let own = clock.clone();
        let app = TestApp::build(&[&base[..], env].concat(), |app| {
            app.handler(bot).clock(own)
        });
        app.wait_until_ready().await;
        Self {
            app,
            service,
            clock,
        }
    }

    fn requests(&self) -> Vec<RecordedRequest> {
        self.service.requests_to("/events")
    }

    /// Waits for a number of requests, and returns the events in them.
    async fn events(&self, number: usize) -> Vec<Value> {
        let wait = Wait::until(format!("the service got {number} events"));
        loop {
            let requests = self.requests();
            if requests.len() >= number {
                return requests.iter().map(event).collect();
            }
            wait.check_found(&requests.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_for_empty_queue(&self) {
        let wait = Wait::until("no event waits");
        while self.app.store.event_stats().await.unwrap().pending > 0 {
            wait.check();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn record_opt_in(&self, user: &str, note: &str) {
        let record = ConsentRecord {
            scope: ConsentScope::Sender(SENDER.into()),
            user: user.into(),
            action: ConsentAction::OptIn,
            source: ConsentSource::Api,
            evidence: None,
            note: Some(note.to_owned()),
            at: self.clock.now(),
        };
        self.app.store.record_consent(record).await.unwrap();
    }
}

/// Returns the event in a request, which is as the description of the HTTP API says.
#[track_caller]
fn event(request: &RecordedRequest) -> Value {
    let event: Value = serde_json::from_slice(&request.body).unwrap();
    Description::current().check_webhook(event["type"].as_str().unwrap(), &event);
    event
}

fn types(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

/// Runs a test on both databases.
async fn on_both(test: impl AsyncFn(String)) {
    test("sqlite::memory:".to_owned()).await;
    let Some(database) = TestDatabase::create().await else {
        return report_skipped("events in PostgreSQL");
    };
    test(database.url().expose().to_owned()).await;
    database.remove().await;
}

fn callback(sid: &str, status: &str) -> Webhook {
    Webhook::form(
        "/webhook/status",
        &[
            ("MessageSid", sid),
            ("AccountSid", ACCOUNT),
            ("MessageStatus", status),
            ("From", SENDER),
            ("To", USER),
        ],
    )
}

#[tokio::test]
async fn handoff_and_its_messages_are_events() {
    on_both(async |url| {
        let world = World::start(&url, &[], 204).await;
        world.app.says(1, "human").await;
        world.app.says(2, "hello?").await;
        let now = world.clock.now();
        let ended = world.app.store.end_handoff(None, &USER.into(), now).await;
        assert_eq!(ended.unwrap(), 1);
        let events = world.events(3).await;
        assert_eq!(
            types(&events),
            ["handoff.started", "message.received", "handoff.ended"]
        );
        let (started, received) = (&events[0]["data"], &events[1]["data"]);
        assert_eq!(started["address"], USER);
        assert_eq!(started["sender"], SENDER);
        assert_eq!(started["url"], FLOW);
        assert_eq!(received["body"], "hello?");
        assert_eq!(received["from"], USER);
        assert!(received["params"][0][0].is_string());
        assert_eq!(events[2]["data"]["reason"], "request");
        // The id of the event is that of the request.
        let requests = world.requests();
        assert_eq!(
            requests[0].headers["webhook-id"],
            events[0]["id"].as_str().unwrap()
        );
        assert!(
            events[0]["at"]
                .as_str()
                .unwrap()
                .parse::<Timestamp>()
                .is_ok()
        );
        world.wait_for_empty_queue().await;
    })
    .await;
}

#[tokio::test]
async fn handoff_that_expires_is_an_event() {
    on_both(async |url| {
        let world = World::start(&url, &[], 204).await;
        world.app.says(1, "human").await;
        world.events(1).await;
        world.clock.advance(SignedDuration::from_hours(25));
        let events = world.events(2).await;
        assert_eq!(types(&events), ["handoff.started", "handoff.ended"]);
        assert_eq!(events[1]["data"]["reason"], "expired");
        assert_ne!(world.app.says(2, "hi").await, "");
    })
    .await;
}

#[tokio::test]
async fn consent_is_an_event() {
    on_both(async |url| {
        let world = World::start(&url, &[], 204).await;
        world.record_opt_in(USER, "the form").await;
        world.app.says(1, "STOP").await;
        // A repeated STOP changes nothing, and causes no event.
        world.app.says(2, "STOP").await;
        world.app.says(3, "START").await;
        let events = world.events(3).await;
        assert_eq!(types(&events), ["consent.changed"; 3]);
        let statuses = events.iter().map(|event| &event["data"]["status"]);
        assert_eq!(
            statuses.collect::<Vec<_>>(),
            ["opted_in", "opted_out", "opted_in"]
        );
        let (opt_in, stop) = (&events[0]["data"], &events[1]["data"]);
        assert_eq!(
            (&opt_in["status"], &opt_in["note"]),
            (&"opted_in".into(), &"the form".into())
        );
        assert_eq!(
            (&stop["status"], &stop["source"]),
            (&"opted_out".into(), &"keyword".into())
        );
        assert_eq!(
            (&stop["address"], &stop["sender"]),
            (&USER.into(), &SENDER.into())
        );
    })
    .await;
}

#[tokio::test]
async fn status_of_a_sent_message_is_an_event() {
    on_both(async |url| {
        let twilio = FakeTwilio::start();
        let api = twilio.url();
        let env = [
            ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
            ("REPLYHOOK__REPLY__PATH", "rest"),
        ];
        let world = World::start(&url, &env, 204).await;
        world.app.says(1, "hi").await;
        let first = world.events(1).await.remove(0);
        assert_eq!(first["type"], "message.status");
        let sid = first["data"]["sid"].as_str().unwrap().to_owned();
        assert_eq!(
            (&first["data"]["from"], &first["data"]["to"]),
            (&SENDER.into(), &USER.into())
        );
        world.app.send(callback(&sid, "delivered")).await;
        // A repeated callback is not an event.
        world.app.send(callback(&sid, "delivered")).await;
        let events = world.events(2).await;
        assert_eq!(events[1]["data"]["state"], "delivered");
        assert_eq!(events[1]["data"]["id"], first["data"]["id"]);
        world.app.says(2, "again").await;
        let third = world.events(3).await.remove(2);
        let sid = third["data"]["sid"].as_str().unwrap().to_owned();
        let failed = callback(&sid, "undelivered").with("ErrorCode", "63016");
        world.app.send(failed).await;
        let events = world.events(5).await;
        assert_eq!(types(&events[3..]), ["message.status", "message.failed"]);
        let data = &events[4]["data"];
        assert_eq!(
            (&data["state"], &data["error_code"]),
            (&"undelivered".into(), &63016.into())
        );
        assert!(
            data["error_meaning"]
                .as_str()
                .unwrap()
                .contains("24-hour window")
        );
    })
    .await;
}

#[tokio::test]
async fn message_whose_handler_fails_is_an_event_once() {
    on_both(async |url| {
        let world = World::start(&url, &[], 204).await;
        let sent = world.app.send(Webhook::message(1, "fail")).await;
        assert_eq!(sent.status, 500);
        let fallback = Webhook::message(1, "fail").to("/webhook/fallback");
        world.app.send(fallback).await;
        let events = world.events(1).await;
        assert_eq!(types(&events), ["message.failed"]);
        let data = &events[0]["data"];
        assert_eq!(
            (&data["from"], &data["direction"]),
            (&USER.into(), &"inbound".into())
        );
        assert_eq!(data["error_meaning"], "the handler failed");
        world.wait_for_empty_queue().await;
        assert_eq!(world.requests().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn without_events_url_nothing_is_recorded() {
    on_both(async |url| {
        let env = [
            ("REPLYHOOK__HANDLER__EVENTS_URL", UNSET),
            ("REPLYHOOK__HANDLER__FORWARD_SECRET", UNSET),
        ];
        let world = World::start(&url, &env, 204).await;
        world.record_opt_in(USER, "the form").await;
        world.app.says(1, "human").await;
        world.app.says(2, "STOP").await;
        assert_eq!(world.app.store.event_stats().await.unwrap().pending, 0);
    })
    .await;
}

// An hour of the app's clock, with 1,000 events of 40 users.
#[tokio::test]
async fn service_that_is_down_for_an_hour_gets_every_event_in_order() {
    on_both(async |url| {
        let world = World::start(&url, &[], 503).await;
        let users: Vec<_> = (0..40).map(|n| format!("whatsapp:+155500{n:05}")).collect();
        for number in 0..25 {
            for user in &users {
                world.record_opt_in(user, &number.to_string()).await;
            }
        }
        assert_eq!(world.app.store.event_stats().await.unwrap().pending, 1000);
        for _ in 0..6 {
            let seen = world.requests().len();
            world.clock.advance(SignedDuration::from_mins(10));
            world.events(seen + 1).await;
            // The webhooks do not wait for the service.
            let started = std::time::Instant::now();
            world.app.says(1, "hi").await;
            assert!(started.elapsed() < Duration::from_secs(5));
        }
        let failed = world.requests().len();
        world.service.clear_responses("/events");
        world.service.queue_response("/events", 204, "", "");
        // A delivery that failed while the clock moved waits from the new time on.
        let wait = Wait::until("no event waits");
        while world.app.store.event_stats().await.unwrap().pending > 0 {
            wait.check();
            world.clock.advance(SignedDuration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut notes: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for request in &world.requests()[failed..] {
            let data = event(request)["data"].clone();
            let note = data["note"].as_str().unwrap().parse().unwrap();
            let of_user = notes.entry(data["address"].as_str().unwrap().to_owned());
            let of_user = of_user.or_default();
            // A request in flight at the change may have been taken, so the first may be missing or repeated.
            if of_user.last() != Some(&note) {
                of_user.push(note);
            }
        }
        assert_eq!(notes.len(), users.len());
        for (user, notes) in notes {
            assert_eq!(notes, (0..25).collect::<Vec<_>>(), "{user}");
        }
        assert_eq!(
            world
                .app
                .metric(r#"replyhook_event_deliveries_total{outcome="dropped"}"#)
                .await,
            0.0
        );
    })
    .await;
}

#[tokio::test]
async fn event_is_dropped_after_a_day() {
    on_both(async |url| {
        let world = World::start(&url, &[], 500).await;
        world.record_opt_in(USER, "the form").await;
        world.events(1).await;
        world.clock.advance(SignedDuration::from_hours(25));
        world.wait_for_empty_queue().await;
        // Counted after the transaction that deletes the event.
        let dropped = r#"replyhook_event_deliveries_total{outcome="dropped"}"#;
        world.app.wait_for(dropped, 1.0).await;
    })
    .await;
}

#[tokio::test]
async fn gone_stops_delivery_and_keeps_events() {
    on_both(async |url| {
        let world = World::start(&url, &[], 410).await;
        world.record_opt_in(USER, "one").await;
        world.events(1).await;
        let wait = Wait::until("/readyz reports that delivery is stopped");
        loop {
            let readiness = world.app.readiness().await;
            if readiness["checks"]["events"]["stopped"] == true {
                assert_eq!(readiness["ready"], true);
                break;
            }
            wait.pause().await;
        }
        world.record_opt_in(USER, "two").await;
        world.clock.advance(SignedDuration::from_hours(1));
        world.app.wait_for_worker_rounds(2).await;
        assert_eq!(world.requests().len(), 1);
        assert_eq!(world.app.store.event_stats().await.unwrap().pending, 2);
        assert_eq!(world.app.metric("replyhook_events_stopped").await, 1.0);
    })
    .await;
}

#[tokio::test]
async fn redirect_is_retried_and_not_followed() {
    on_both(async |url| {
        let world = World::start(&url, &[], 204).await;
        world.service.clear_responses("/events");
        let target = format!("{}/elsewhere", world.service.url());
        world
            .service
            .script("/events", (307, vec![("location", target)], Vec::new()));
        world.service.queue_response("/events", 204, "", "");
        world.record_opt_in(USER, "one").await;
        world.events(1).await;
        // Two rounds: the outcome is recorded before the clock is moved.
        world.app.wait_for_worker_rounds(1).await;
        world.clock.advance(SignedDuration::from_mins(1));
        let events = world.events(2).await;
        assert_eq!(events[0]["id"], events[1]["id"]);
        world.wait_for_empty_queue().await;
        assert!(world.service.requests_to("/elsewhere").is_empty());
    })
    .await;
}

#[tokio::test]
async fn retry_after_is_honored() {
    on_both(async |url| {
        let world = World::start(&url, &[], 204).await;
        world.service.clear_responses("/events");
        let wait = vec![("retry-after", "1200".to_owned())];
        world.service.script("/events", (429, wait, Vec::new()));
        world.service.queue_response("/events", 204, "", "");
        world.record_opt_in(USER, "one").await;
        world.events(1).await;
        world.app.wait_for_worker_rounds(1).await;
        world.clock.advance(SignedDuration::from_mins(15));
        world.app.wait_for_worker_rounds(2).await;
        assert_eq!(world.requests().len(), 1);
        world.clock.advance(SignedDuration::from_mins(6));
        world.events(2).await;
    })
    .await;
}

#[tokio::test]
async fn purge_deletes_events_of_the_user() {
    on_both(async |url| {
        let world = World::start(&url, &[], 500).await;
        world.record_opt_in(USER, "one").await;
        world.record_opt_in("whatsapp:+15550009999", "two").await;
        world.events(2).await;
        world
            .app
            .store
            .purge_user(&USER.into(), None, true)
            .await
            .unwrap();
        assert_eq!(world.app.store.event_stats().await.unwrap().pending, 1);
    })
    .await;
}

// The official libraries judge the signature.
#[tokio::test]
async fn standard_webhooks_libraries_accept_events() {
    let world = World::start("sqlite::memory:", &[], 204).await;
    world.record_opt_in(USER, "the form").await;
    world.events(1).await;
    let request = world.requests().remove(0);
    let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
    let headers = serde_json::json!({
        "webhook-id": header("webhook-id"), "webhook-timestamp": header("webhook-timestamp"),
        "webhook-signature": header("webhook-signature"),
    });
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    let args = [SECRET, &body, &headers.to_string()].map(str::to_owned);
    if let Some(python) = installed("REPLYHOOK_TEST_PYTHON") {
        let script = "import json, sys\nfrom standardwebhooks.webhooks import Webhook\n\
                      Webhook(sys.argv[1]).verify(sys.argv[2].encode(), json.loads(sys.argv[3]))";
        let mut command = std::process::Command::new(python);
        assert!(
            command
                .args(["-c", script])
                .args(&args)
                .status()
                .unwrap()
                .success()
        );
    } else {
        report_skipped("the signature of events in Python");
    }
    if let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") {
        let script = "const {Webhook} = require('standardwebhooks');\
                      new Webhook(process.argv[1]).verify(process.argv[2], JSON.parse(process.argv[3]));";
        let mut command = std::process::Command::new("node");
        command
            .env("NODE_PATH", modules)
            .args(["-e", script])
            .args(&args);
        assert!(command.status().unwrap().success());
    } else {
        report_skipped("the signature of events in Node");
    }
}

// The server is killed while events wait, and the next one delivers them.
#[test]
fn events_survive_a_kill() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(ScriptedServer::start());
    service.queue_response("/events", 503, "", "");
    let url = format!("{}/events", service.url());
    let env = [
        ("REPLYHOOK__HANDLER__EVENTS_URL", url.as_str()),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
    ];
    let store = TempStore::new();
    let server = store.server_with(&env);
    for number in 0..5 {
        let stop =
            Webhook::message(number, "STOP").with("From", &format!("whatsapp:+1555000100{number}"));
        assert_eq!(server.send(&stop).status, 200);
    }
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    service.clear_responses("/events");
    service.queue_response("/events", 204, "", "");
    // A command's change is an event of the server too.
    let args = [
        "consent",
        "opt-in",
        "whatsapp:+15550001009",
        "--sender",
        SENDER,
        "--note",
        "the form",
    ];
    let (code, _, err) = store.run_with(&args, &env);
    assert_eq!(code, 0, "{err}");
    let before = service.requests_to("/events").len();
    let server = store.server_with(&env);
    server.wait_until(
        r#"replyhook_event_deliveries_total{outcome="delivered"}"#,
        6.0,
    );
    let requests = service.requests_to("/events");
    let mut users: Vec<_> = requests[before..]
        .iter()
        .map(|request| {
            event(request)["data"]["address"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    users.sort();
    users.dedup();
    assert_eq!(users.len(), 6);
}
