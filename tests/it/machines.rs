//! Two servers on one PostgreSQL database. They handle each message once, and survive the loss of one server or of the
//! database.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;

use crate::support::{
    ContentFault, EMPTY, FakeTwilio, ORIGIN, SentVia, Server, Webhook, replyhook, report_skipped,
    root, twiml_message,
};

/// PostgreSQL server of one test, which can stop it.
struct Database {
    folder: tempfile::TempDir,
    url: String,
}

impl Database {
    /// Starts the server; `None` if the environment has no PostgreSQL for tests.
    fn start() -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test asks its script, not a setting"
        )]
        let is_requested = std::env::var_os("REPLYHOOK_TEST_POSTGRES").is_some();
        if !is_requested {
            report_skipped("several machines, which needs PostgreSQL");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL runs as another user, which must be able to enter the folder.
        let anyone = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), anyone).unwrap();
        let mut database = Self {
            folder,
            url: String::new(),
        };
        database.url = database.run_script("start");
        Some(database)
    }

    fn run_script(&self, command: &str) -> String {
        let output = Command::new(root().join("scripts/postgres"))
            .arg(command)
            .arg(self.folder.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn server(&self, twilio: &FakeTwilio) -> Server {
        self.server_with(twilio, &[])
    }

    fn server_with(&self, twilio: &FakeTwilio, more: &[(&str, &str)]) -> Server {
        let api = twilio.url();
        let base_env = [
            ("DATABASE_URL", self.url.as_str()),
            ("REPLYHOOK__TWILIO__API_URL", api.as_str()),
            ("REPLYHOOK__TWILIO__CONTENT_URL", api.as_str()),
        ];
        let bot = Command::new(env!("CARGO_BIN_EXE_fault-bot"));
        Server::start_by(bot, &[&base_env[..], more].concat())
    }

    /// Returns the state and attempt of a message, as `messages show` prints them.
    fn row(&self, number: u64) -> (String, u64) {
        let sid = format!("SM{number:032x}");
        let show = ["messages", "show", &sid, "--json"];
        let (_, row, error) = replyhook(&show, &[("DATABASE_URL", &self.url)], "");
        let row: serde_json::Value =
            serde_json::from_str(&row).unwrap_or_else(|reason| panic!("{reason}: {row}{error}"));
        let state = row["state"].as_str().unwrap().to_owned();
        (state, row["attempt"].as_u64().unwrap())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = Command::new(root().join("scripts/postgres"))
            .arg("stop")
            .arg(self.folder.path())
            .output();
    }
}

/// Reply deadline. A later reply goes via the REST API, unless its request is still waiting for the store.
const SHORT_DEADLINE: (&str, &str) = ("REPLYHOOK__REPLY__DEADLINE_MS", "400");
/// Message whose handler takes longer than a request waits for the store.
const SLOW_TEXT: &str = "slow 3000 hi";

fn user_address(number: u64) -> String {
    format!("whatsapp:+1555000{number:04}")
}

fn message(number: u64, body: &str) -> Webhook {
    Webhook::message(number, body).with("From", &user_address(number))
}

// All concurrent requests for the message get the same reply.
#[test]
fn message_sent_to_both_machines_is_handled_once() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let servers = [database.server(&twilio), database.server(&twilio)].map(Arc::new);
    for number in 1..=20 {
        let racing: Vec<_> = (0..8)
            .map(|racer| {
                let server = servers[racer % 2].clone();
                std::thread::spawn(move || server.send(&message(number, "slow 20 hi")))
            })
            .collect();
        for racing in racing {
            assert_eq!(racing.join().unwrap().twiml(), twiml_message("slow 20 hi"));
        }
        assert_eq!(database.row(number), ("answered".to_owned(), 1));
    }
    assert!(twilio.posts().is_empty());
}

// The other machine sends them, and reruns only an unfinished handler.
#[test]
fn replies_of_killed_machine_are_sent_once() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let first = database.server_with(&twilio, &[SHORT_DEADLINE]);
    // The kill may interrupt a REST call while Twilio is down. The second server looks it up and resends the message.
    let second = database.server_with(&twilio, &[("REPLYHOOK__OUTBOUND__ON_UNKNOWN", "resend")]);
    twilio.start_outage();
    for number in 1..=4 {
        assert_eq!(first.send(&message(number, SLOW_TEXT)).twiml(), EMPTY);
    }
    // The replies are in the outbox, and Twilio is down.
    first.wait_until(r#"replyhook_replies_total{outcome="retry"}"#, 4.0);
    // The handler of this message is still running at the kill.
    assert_eq!(first.send(&message(5, "hang on")).twiml(), EMPTY);
    first.signal(Signal::KILL);
    first.wait();
    twilio.end_outage();
    for number in 1..=5 {
        let phone = twilio.wait_for_phone(&user_address(number), 1);
        assert_eq!(phone[0].via, SentVia::Rest);
    }
    second.wait_until(r#"replyhook_replies_total{outcome="sent"}"#, 5.0);
    assert_eq!(twilio.posts().len(), 5);
    // Only the message with the unfinished handler was handled again.
    assert_eq!(database.row(1), ("sent".to_owned(), 1));
    assert_eq!(database.row(5), ("sent".to_owned(), 2));
    // The second server answers a redelivery with the saved response.
    assert_eq!(second.send(&message(1, SLOW_TEXT)).twiml(), EMPTY);
}

// The first machine is killed while the Content API keeps it waiting. No call has sent the question then.
#[test]
fn question_of_machine_killed_while_content_is_made_is_sent_once() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let first = database.server(&twilio);
    twilio.content_fault(ContentFault::Hang, 1);
    assert_eq!(first.send(&message(1, "ask when")).twiml(), EMPTY);
    twilio.wait_for_content_fault();
    let second = database.server(&twilio);
    first.signal(Signal::KILL);
    first.wait();
    let phone = twilio.wait_for_phone(&user_address(1), 1);
    assert!(phone[0].content.is_some());
    second.wait_until(r#"replyhook_replies_total{outcome="sent"}"#, 1.0);
    assert_eq!(database.row(1), ("sent".to_owned(), 1));
    let answer = message(2, "2").with("From", &user_address(1));
    assert_eq!(
        second.send(&answer).twiml(),
        twiml_message("Tomorrow it is")
    );
    assert_eq!(twilio.posts().len(), 1);
}

// Before the kill, the answers already alternate between the machines.
#[test]
fn form_continues_on_other_machine_after_kill() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let (first, second) = (database.server(&twilio), database.server(&twilio));
    let says_to = |server: &Server, number: u64, text: &str| {
        let webhook = Webhook::message(number, text).with("From", &user_address(1));
        server.send(&webhook).twiml().to_owned()
    };
    assert_eq!(says_to(&first, 1, "sign up"), twiml_message("Your name?"));
    assert_eq!(says_to(&second, 2, "Ana"), twiml_message("Your age?"));
    assert_eq!(says_to(&first, 3, "many"), twiml_message("Your age?"));
    assert_eq!(says_to(&second, 4, "42"), twiml_message("Ana is 42."));
    assert_eq!(says_to(&first, 5, "sign up"), twiml_message("Your name?"));
    first.signal(Signal::KILL);
    first.wait();
    // A redelivery of a message that the killed server answered, and then the next message.
    assert_eq!(says_to(&second, 5, "sign up"), twiml_message("Your name?"));
    assert_eq!(says_to(&second, 6, "Ben"), twiml_message("Your age?"));
    assert_eq!(says_to(&second, 7, "7"), twiml_message("Ben is 7."));
}

#[test]
fn media_link_is_served_by_other_machine() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let (first, second) = (database.server(&twilio), database.server(&twilio));
    let answer = first.send(&message(1, "picture"));
    let (_, link) = answer.twiml().split_once(ORIGIN).unwrap();
    let (path, _) = link.split_once('<').unwrap();
    // Kill the server that created the link.
    first.signal(Signal::KILL);
    first.wait();
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let response = second.exchange(request.as_bytes()).unwrap();
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some("image/png"))
    );
    assert_eq!(response.header("content-length"), Some("4"));
}

// The handler does not run; after the outage the redelivered message is accepted.
#[test]
fn threat_54_messages_during_postgres_outage_are_rejected() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let server = database.server(&twilio);
    assert_eq!(server.send(&message(1, "hi")).twiml(), twiml_message("hi"));
    database.run_script("down");
    let handler_runs = server.metric("replyhook_handler_duration_seconds_count");
    for _ in 0..5 {
        assert_eq!(
            server.send(&message(2, "hi")).assert_rejected(503),
            "store unavailable\n"
        );
    }
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(
        server.metric("replyhook_handler_duration_seconds_count"),
        handler_runs
    );
    database.run_script("up");
    server.wait_for_readiness(200);
    assert_eq!(server.send(&message(2, "hi")).twiml(), twiml_message("hi"));
    assert_eq!(server.send(&message(1, "hi")).twiml(), twiml_message("hi"));
    assert_eq!(database.row(2), ("answered".to_owned(), 1));
}

#[test]
fn graceful_shutdown_releases_claim_to_other_machine() {
    let Some(database) = Database::start() else {
        return;
    };
    let twilio = FakeTwilio::start();
    let first = database.server_with(
        &twilio,
        &[
            SHORT_DEADLINE,
            ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "1"),
        ],
    );
    let _second = database.server(&twilio);
    assert_eq!(first.send(&message(1, "hang on")).twiml(), EMPTY);
    first.signal(Signal::TERM);
    first.wait();
    assert_eq!(
        twilio.wait_for_phone(&user_address(1), 1)[0].body,
        "hang on"
    );
    assert_eq!(database.row(1).1, 2);
}

#[test]
fn interrupted_migration_restarts_on_next_machine() {
    let Some(database) = Database::start() else {
        return;
    };
    for _ in 0..2 {
        let bot = Command::new(env!("CARGO_BIN_EXE_fault-bot"));
        let dies = [
            ("DATABASE_URL", &*database.url),
            ("FAILPOINTS", "P15=return"),
        ];
        let (status, log) = Server::launch(bot, &dies).wait();
        assert_eq!(status.signal(), Some(6), "{status}\n{log}");
    }
    let twilio = FakeTwilio::start();
    let server = database.server(&twilio);
    assert_eq!(server.send(&message(1, "hi")).twiml(), twiml_message("hi"));
    assert_eq!(database.row(1), ("answered".to_owned(), 1));
}
