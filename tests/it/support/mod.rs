//! Test support: the real router in this process ([`TestApp`]), the real binary over a socket ([`Server`]), a fake
//! Twilio that calls both and is called by them ([`FakeTwilio`]), and raw HTTP ([`wire`]).

pub mod app;
mod browser;
mod command;
pub mod console;
mod dev;
pub mod http;
mod journal;
pub mod markdown;
mod openapi;
mod output_file;
#[cfg(feature = "postgres")]
pub mod postgres;
mod program;
pub mod proxy;
mod random;
mod raw_server;
mod request;
mod scripted_server;
pub mod server;
pub mod session;
mod temp_store;
pub mod twilio;
mod wait;
#[cfg(feature = "failpoints")]
pub mod wal;
pub mod wire;
#[cfg(feature = "failpoints")]
pub mod world;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use app::{TestApp, sources};
pub use browser::Browser;
pub use command::{output_of, replyhook};
pub use dev::{ANA, BEN, Dev, NUMBER, SANDBOX};
use futures_util::future::BoxFuture;
pub use journal::JournalFile;
pub use openapi::{API_TOKEN, Description};
pub use program::Program;
pub use random::Random;
pub use raw_server::{RawServer, ResponseEnd};
use replyhook::store::OpenWindow;
use replyhook::{Context, InboundMessage, Timestamp};
pub use request::{HttpResponse, Webhook, base64_decoded, base64_of};
use rustix::time::{ClockId, clock_gettime};
pub use scripted_server::{RecordedRequest, ScriptedServer};
pub use server::{Server, silent_port};
pub use temp_store::{TempStore, json_lines};
use tokio::sync::Semaphore;
pub use twilio::{
    Attempt, ContentFault, Delivery, FakeTwilio, Fault, PhoneMessage, Policy, Post, PostOutcome,
    SentVia,
};
pub use wait::Wait;

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const OTHER_TOKEN: &str = "fedcba9876543210fedcba9876543210";
pub const ORIGIN: &str = "https://hooks.example.test";
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
/// Value that removes a variable from the environment of an app, server or command.
pub const UNSET: &str = "(unset)";
pub const EMPTY: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#;

/// TwiML with one message, whose text must not contain special characters.
pub fn twiml_message(text: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Response><Message>{text}</Message></Response>"#
    )
}

/// Reports a test that was left out. Writes to stderr directly, because the harness hides the output of passing tests.
pub fn report_skipped(what: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "left out: {what} (./scripts/test brings what it needs)"
    );
}

/// Reports a test that was left out because a program is missing. Panics if `scripts/test` has found that program.
#[track_caller]
pub fn report_missing(what: &str) {
    assert_eq!(installed("REPLYHOOK_TEST_FAULTS"), None, "missing: {what}");
    report_skipped(what);
}

/// Value of the variable in which `scripts/test` passes an installed program, if it is set.
pub fn installed(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test asks its script, not a setting"
    )]
    std::env::var(name).ok().filter(|path| !path.is_empty())
}

/// Number in a variable of a test run, such as the number of rounds.
pub fn number_setting(name: &str, default: u64) -> u64 {
    installed(name).map_or(default, |value| value.parse().unwrap())
}

/// Open window for calls that do not depend on a user's window.
pub fn open_window() -> OpenWindow {
    let now = Timestamp::UNIX_EPOCH;
    OpenWindow::of(&"whatsapp:+15550001111".into(), Some(now), now).unwrap()
}

/// Handler that waits for a permit before it replies with the text of the message.
pub fn handler_with_permits(
    go: &Arc<Semaphore>,
) -> impl Fn(Context, InboundMessage) -> BoxFuture<'static, String> + use<> {
    let go = go.clone();
    move |_, message| {
        let go = go.clone();
        Box::pin(async move {
            go.acquire().await.unwrap().forget();
            message.body
        })
    }
}

/// Processor time of this thread, on which the handlers of a `#[tokio::test]` run too.
pub fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Sets the flag when it is dropped, so also if the test panics.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
