//! Panics of background work: a task is restarted, a unit of work is set aside, and a task that keeps failing ends the
//! server.

use crate::support::world::{USER, World};
use crate::support::{Policy, SentVia, Webhook, wal};

/// Deadline of 100 ms, so that the reply to [`SLOW`] goes via the REST API.
const SHORT_DEADLINE: (&str, &str) = ("REPLYHOOK__REPLY__DEADLINE_MS", "100");
const SLOW: &str = "slow 1000 of words";
const OUTBOX_FAILURES: &str = r#"replyhook_background_failures_total{task="outbox"}"#;

// The loop of the outbox worker panics twice. After the second restart it sends the reply.
#[test]
fn background_task_panics_and_reply_is_sent() {
    let world = World::new(&[SHORT_DEADLINE]);
    let server = world.start("outbox.poll=2*return");
    server.wait_until(OUTBOX_FAILURES, 2.0);
    server.wait_for_readiness(200);
    let message = Webhook::message(1, SLOW);
    let delivery = world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    assert_eq!(delivery.attempts[0].status, Some(200));
    let phone = world.twilio.wait_for_phone(USER, 1);
    assert_eq!(
        (phone[0].body.as_str(), phone[0].via),
        (SLOW, SentVia::Rest)
    );
    assert_eq!(server.metric(OUTBOX_FAILURES), 2.0);
}

#[test]
fn task_that_keeps_failing_ends_server() {
    let world = World::new(&[]);
    let server = world.launch("outbox.poll=return");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("`outbox` kept failing"), "{log}");
    assert!(log.contains("draining"), "{log}");
    // The store was closed, so the next server needs not recover anything.
    assert_eq!(wal::bytes(&world.path()), 0);
    world.journal().assert_intact();
}

// Twilio may have accepted the message before the panic, so its result is unknown and it is not sent blindly again.
#[test]
fn panic_during_send_makes_result_unknown() {
    let world = World::new(&[SHORT_DEADLINE]);
    let server = world.start("outbox.send=1*return");
    let message = Webhook::message(1, SLOW);
    world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    server.wait_until(r#"replyhook_replies_total{outcome="unknown"}"#, 1.0);
    assert!(world.twilio.phone(USER).is_empty());
    // The lookup does not find it at Twilio, so it waits for the operator, and a later reply is sent.
    server.wait_until(r#"replyhook_replies_total{outcome="held"}"#, 1.0);
    let later = Webhook::message(2, "hello");
    world
        .twilio
        .deliver(|| Some(server.public), &later, Policy::NEITHER);
    let phone = world.twilio.wait_for_phone(USER, 1);
    assert_eq!(phone[0].body, "hello");
    assert_eq!(server.get("/readyz").status, 200);
}

// A panic outside the handler counts as a failed attempt, so the fallback call runs the handler again.
#[test]
fn panic_outside_handler_fails_attempt_only() {
    let world = World::new(&[]);
    let server = world.start("message.process=1*return");
    let message = Webhook::message(1, "hello");
    let delivery = world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::FALLBACK);
    let statuses: Vec<_> = delivery
        .attempts
        .iter()
        .map(|attempt| attempt.status)
        .collect();
    assert_eq!(statuses, [Some(500), Some(200)]);
    let phone = world.twilio.phone(USER);
    assert_eq!(phone.len(), 1, "{phone:?}");
    assert_eq!(phone[0].body, "hello");
    assert_eq!(
        server.metric(r#"replyhook_background_failures_total{task="message"}"#),
        1.0
    );
    world.journal().wait_until_drained();
}
