//! A service at `handler.events_url` that hangs, is slow, asks for a pause, or wants no more events; and several servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use jiff::SignedDuration;
use jiff::fmt::rfc2822::DateTimePrinter;
use replyhook::store::{ConsentAction, ConsentRecord, ConsentScope, ConsentSource};
use replyhook::{Clock, ManualClock, SystemClock};
use serde_json::Value;

use crate::support::postgres::TestDatabase;
use crate::support::{
    ScriptedServer, Server, TOKEN, TestApp, Wait, Webhook, replyhook, report_skipped,
};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const SENDER: &str = "whatsapp:+15550002222";
const RETRIES: &str = r#"replyhook_event_deliveries_total{outcome="retry"}"#;
const DELIVERED: &str = r#"replyhook_event_deliveries_total{outcome="delivered"}"#;
const STOPPED: &str = "replyhook_events_stopped";

/// A slow service, or one that hangs.
#[derive(Clone, Default)]
struct SlowService(Arc<Mutex<SlowState>>);

#[derive(Default)]
struct SlowState {
    is_hanging: bool,
    delay: Duration,
    /// Users with an event in progress.
    in_progress: Vec<String>,
    /// User and note of each event that was taken, in the order of the responses.
    taken: Vec<(String, u32)>,
    has_overlap: bool,
}

impl SlowService {
    async fn start(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let router = Router::new().route("/events", post(take)).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn set(&self, is_hanging: bool, delay: Duration) {
        let mut state = self.0.lock().unwrap();
        (state.is_hanging, state.delay) = (is_hanging, delay);
    }

    /// Returns the notes of each user in the order in which they were taken.
    fn notes(&self) -> BTreeMap<String, Vec<u32>> {
        let state = self.0.lock().unwrap();
        assert!(!state.has_overlap, "two events of a user at once");
        let mut notes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (user, note) in &state.taken {
            notes.entry(user.clone()).or_default().push(*note);
        }
        notes
    }
}

async fn take(State(service): State<SlowService>, body: Bytes) -> StatusCode {
    let event: Value = serde_json::from_slice(&body).unwrap();
    let user = event["data"]["address"].as_str().unwrap().to_owned();
    let note = event["data"]["note"].as_str().unwrap().parse().unwrap();
    let (is_hanging, delay) = {
        let state = service.0.lock().unwrap();
        (state.is_hanging, state.delay)
    };
    if is_hanging {
        std::future::pending::<()>().await;
    }
    {
        let mut state = service.0.lock().unwrap();
        state.has_overlap |= state.in_progress.contains(&user);
        state.in_progress.push(user.clone());
    }
    tokio::time::sleep(delay).await;
    let mut state = service.0.lock().unwrap();
    state.in_progress.retain(|other| *other != user);
    state.taken.push((user, note));
    StatusCode::NO_CONTENT
}

fn start_app(database_url: &str, events_url: &str, clock: &Arc<ManualClock>) -> TestApp {
    let env = [
        ("DATABASE_URL", database_url),
        ("REPLYHOOK__HANDLER__EVENTS_URL", events_url),
        ("REPLYHOOK__HANDLER__FORWARD_SECRET", SECRET),
    ];
    let clock = clock.clone();
    TestApp::build(&env, |app| app.clock(clock))
}

fn user(number: u32) -> String {
    format!("whatsapp:+155500{number:05}")
}

/// Records opt-ins, whose notes count up for each user.
async fn record_events(app: &TestApp, clock: &ManualClock, users: u32, each: u32) {
    for note in 0..each {
        for number in 0..users {
            let record = ConsentRecord {
                scope: ConsentScope::Sender(SENDER.into()),
                user: user(number).as_str().into(),
                action: ConsentAction::OptIn,
                source: ConsentSource::Api,
                evidence: None,
                note: Some(note.to_string()),
                at: clock.now(),
            };
            app.store.record_consent(record).await.unwrap();
        }
    }
}

async fn wait_for_empty_queue(app: &TestApp, clock: &ManualClock) {
    let wait = Wait::until("no event waits");
    while app.store.event_stats().await.unwrap().pending > 0 {
        wait.check();
        clock.advance(SignedDuration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// More users than concurrent requests, so that every one of these hangs.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_service_delays_no_webhook_and_loses_no_event() {
    let service = SlowService::default();
    service.set(true, Duration::ZERO);
    let url = service.clone().start().await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = start_app("sqlite::memory:", &url, &clock);
    app.wait_until_ready().await;
    record_events(&app, &clock, 20, 2).await;
    // Answered before the first request to the service has timed out.
    for number in 1..=5 {
        app.send(Webhook::message(number, "hi")).await.twiml();
    }
    assert_eq!(app.metric(RETRIES).await, 0.0);
    app.wait_for(RETRIES, 16.0).await;
    service.set(false, Duration::ZERO);
    wait_for_empty_queue(&app, &clock).await;
    let notes = service.notes();
    assert_eq!(notes.len(), 20);
    assert!(notes.values().all(|notes| notes == &[0, 1]), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_service_gets_events_of_a_user_one_after_the_other() {
    let service = SlowService::default();
    service.set(false, Duration::from_millis(100));
    let url = service.clone().start().await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let app = start_app("sqlite::memory:", &url, &clock);
    app.wait_until_ready().await;
    record_events(&app, &clock, 3, 4).await;
    app.wait_for(DELIVERED, 12.0).await;
    let notes = service.notes();
    assert_eq!(notes.len(), 3);
    assert!(
        notes.values().all(|notes| notes == &[0, 1, 2, 3]),
        "{notes:?}"
    );
    assert_eq!(app.metric(RETRIES).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_keep_order_of_each_user() {
    let Some(database) = TestDatabase::create().await else {
        return report_skipped("events of two servers on PostgreSQL");
    };
    let service = SlowService::default();
    // So slow that both servers take part, and that more time passes by their clock, which the wait below advances, than
    // a claim lasts: a server must not take an event from a live one.
    service.set(false, Duration::from_millis(450));
    let url = service.clone().start().await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let database_url = database.url().expose().to_owned();
    let apps = [(); 2].map(|()| start_app(&database_url, &url, &clock));
    for app in &apps {
        app.wait_until_ready().await;
    }
    record_events(&apps[0], &clock, 40, 3).await;
    wait_for_empty_queue(&apps[1], &clock).await;
    let notes = service.notes();
    assert_eq!(notes.len(), 40);
    assert!(notes.values().all(|notes| notes == &[0, 1, 2]), "{notes:?}");
    for app in apps {
        assert!(app.metric(DELIVERED).await > 0.0);
        app.shut_down().await;
    }
    database.remove().await;
}

// The service's clock is an hour ahead.
#[tokio::test]
async fn retry_after_as_date_is_honored_by_the_services_clock() {
    let service = ScriptedServer::start().await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let there = clock.now() + SignedDuration::from_hours(1);
    let date = |time: jiff::Timestamp| {
        let printer = DateTimePrinter::new();
        printer.timestamp_to_rfc9110_string(&time).unwrap()
    };
    let headers = vec![
        ("date", date(there)),
        ("retry-after", date(there + SignedDuration::from_mins(20))),
    ];
    service.script("/events", (503, headers, Vec::new()));
    service.queue_response("/events", 204, "", "");
    let app = start_app(
        "sqlite::memory:",
        &format!("{}/events", service.url()),
        &clock,
    );
    app.wait_until_ready().await;
    record_events(&app, &clock, 1, 1).await;
    app.wait_for(RETRIES, 1.0).await;
    clock.advance(SignedDuration::from_mins(15));
    app.wait_for_worker_rounds(2).await;
    assert_eq!(service.requests_to("/events").len(), 1);
    clock.advance(SignedDuration::from_mins(6));
    app.wait_for(DELIVERED, 1.0).await;
}

fn settings(events_url: &str) -> String {
    format!("[handler]\nevents_url = \"{events_url}\"\nforward_secret = \"{SECRET}\"\n")
}

/// Starts a server with this settings file.
fn start_server(file: &Path, database_url: &str) -> Server {
    let mut shell = Command::new("/bin/sh");
    // `exec`: the signals go to the server.
    let script = format!(
        "exec {} \"$1\" --config {}",
        env!("CARGO_BIN_EXE_replyhook"),
        file.display()
    );
    shell.args(["-c", &script, "sh"]);
    Server::start_by(shell, &[("DATABASE_URL", database_url)])
}

/// Sends SIGHUP, and returns the log lines of the reload.
fn reload(server: &Server) -> String {
    let before = server.log().lines().count();
    server.signal(rustix::process::Signal::HUP);
    let lines = server.wait_for_new(before, |line| line.contains("reloaded the settings"));
    lines.join("\n")
}

/// Returns the line of `doctor` about events.
fn doctor_line(server: &Server) -> Option<String> {
    let (public, private) = (server.public.to_string(), server.private.to_string());
    let env = [
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("PUBLIC_URL", "http://127.0.0.1:9"),
        ("REPLYHOOK__SERVER__LISTEN", public.as_str()),
        ("REPLYHOOK__ADMIN__LISTEN", private.as_str()),
        ("REPLYHOOK__TWILIO__API_URL", "http://127.0.0.1:9"),
        ("REPLYHOOK__TWILIO__MESSAGING_URL", "http://127.0.0.1:9"),
    ];
    let (_, out, err) = replyhook(&["doctor"], &env, "");
    assert!(out.contains("store"), "{out}{err}");
    let line = out.lines().find(|line| line.contains("410"));
    line.map(str::to_owned)
}

// By SIGHUP, and by a restart. Each time the service has moved.
#[test]
fn stopped_delivery_goes_on_at_another_url() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(ScriptedServer::start());
    service.queue_response("/gone", 410, "", "");
    service.queue_response("/moved", 204, "", "");
    let url = |path: &str| settings(&format!("{}{path}", service.url()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replyhook.toml");
    let database = format!("sqlite:{}", folder.path().join("kept.db").display());
    std::fs::write(&file, url("/gone")).unwrap();
    let server = start_server(&file, &database);
    let stop = |number: u64| {
        let user = format!("whatsapp:+1555000{number:04}");
        Webhook::message(number, "STOP").with("From", &user)
    };
    assert_eq!(server.send(&stop(1)).status, 200);
    server.wait_until(STOPPED, 1.0);
    server.wait_for("responded with 410");
    let line = doctor_line(&server).expect("doctor says so");
    assert!(line.contains("handler.events_url"), "{line}");

    std::fs::write(&file, url("/moved")).unwrap();
    let applied = reload(&server);
    assert!(applied.contains("applied: handler.events_url"), "{applied}");
    server.wait_until(DELIVERED, 1.0);
    assert_eq!(server.metric(STOPPED), 0.0);
    assert_eq!(doctor_line(&server), None);
    assert_eq!(service.requests_to("/moved").len(), 1);

    // The URL responds with 410 again, so this event waits until the next start.
    std::fs::write(&file, url("/gone")).unwrap();
    reload(&server);
    assert_eq!(server.send(&stop(2)).status, 200);
    server.wait_until(STOPPED, 1.0);
    server.signal(rustix::process::Signal::TERM);
    server.wait();
    std::fs::write(&file, url("/moved")).unwrap();
    let server = start_server(&file, &database);
    server.wait_until(DELIVERED, 1.0);
    let ids: Vec<_> = service
        .requests_to("/moved")
        .iter()
        .map(|request| request.headers["webhook-id"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

// Without a service at the start, nothing is recorded, so another one takes effect after a restart.
#[test]
fn first_events_url_takes_effect_after_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replyhook.toml");
    std::fs::write(&file, settings("")).unwrap();
    let server = start_server(&file, "sqlite::memory:");
    for _ in 0..2 {
        std::fs::write(&file, settings("http://127.0.0.1:9/events")).unwrap();
        let log = reload(&server);
        assert!(log.contains("after a restart: handler.events_url"), "{log}");
    }
}
