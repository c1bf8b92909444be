//! Crashes of the server at each crash point, and the replies on the user's phone after them.
//!
//! P2 and P16 have no crash point in the code: `kill_loop` hits them at random.

use std::io::Write;
use std::sync::Mutex;

use rustix::process::Signal;

#[cfg(feature = "postgres")]
use crate::support::report_skipped;
use crate::support::world::{Supervisor, USER, World, assert_crashed};
use crate::support::{Fault, ORIGIN, Policy, SentVia, Server, Wait, Webhook, wire};

const POLICIES: [Policy; 4] = [
    Policy::NEITHER,
    Policy::RETRY,
    Policy::FALLBACK,
    Policy::BOTH,
];

/// Deadline of 100 ms. A later reply goes via the REST API, unless its request still waits for the store.
const SHORT_DEADLINE: (&str, &str) = ("REPLYHOOK__REPLY__DEADLINE_MS", "100");
const RESEND: (&str, &str) = ("REPLYHOOK__OUTBOUND__ON_UNKNOWN", "resend");

/// Replies that the phone must show after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// One reply, even if Twilio does not call again.
    Once,
    /// One reply if Twilio calls again. Otherwise none: the message was not acknowledged.
    OnceIfRetried,
    /// One reply, or a held one: the outbox worker may have claimed it just before the process ended.
    OnceOrHeld,
    /// No reply: it is held for the operator's decision.
    Held,
}

/// Crash point, text of the message, settings, and expected replies.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Expected,
);

/// Text whose handler takes longer than a request may wait for the store, so that the reply is always late.
const SLOW: &str = "slow 3000 of words";

const TABLE: [Row; 18] = [
    ("P0=return", "hello", &[], Expected::OnceIfRetried),
    ("P1=return", "hello", &[], Expected::OnceIfRetried),
    ("P3=return", "hello", &[], Expected::Once),
    ("P4=return", "hello", &[], Expected::Once),
    ("P5=return", "hello", &[], Expected::Once),
    ("P6=return", "hello", &[], Expected::OnceIfRetried),
    // After 5 bytes, in the status line; after 200 bytes, in the TwiML.
    ("P7=return(5)", "hello", &[], Expected::OnceIfRetried),
    ("P7=return(200)", "hello", &[], Expected::OnceIfRetried),
    ("P8=return", "hello", &[], Expected::Once),
    ("P9=return", SLOW, &[SHORT_DEADLINE], Expected::Once),
    ("P8=return", SLOW, &[SHORT_DEADLINE], Expected::Once),
    ("P9.done=return", SLOW, &[SHORT_DEADLINE], Expected::Once),
    ("P10=return", SLOW, &[SHORT_DEADLINE], Expected::OnceOrHeld),
    ("P11=return", SLOW, &[SHORT_DEADLINE], Expected::Held),
    (
        "P11=return",
        SLOW,
        &[SHORT_DEADLINE, RESEND],
        Expected::Once,
    ),
    // The content resource exists, but the message was not sent.
    ("P11.content=return", "ask when", &[], Expected::Once),
    ("P12=return", SLOW, &[SHORT_DEADLINE], Expected::Once),
    (
        "P12=return",
        SLOW,
        &[SHORT_DEADLINE, RESEND],
        Expected::Once,
    ),
];

fn check_crash(row: Row, policy: Policy) {
    let (point, text, env, expected) = row;
    let world = World::new(env);
    let supervisor = Supervisor::new(&world, &[point]);
    let delivery = supervisor.deliver(&Webhook::message(1, text), policy);
    let (phone, held) = supervisor.wait_until_settled();
    let what = format!("{point} {text:?} {env:?} {policy:?}: {delivery:?} {phone:?}");

    let is_redelivered = policy.retry || policy.fallback;
    let (times, held_count) = match expected {
        Expected::Once => (1, 0),
        Expected::OnceIfRetried => (usize::from(is_redelivered), 0),
        Expected::OnceOrHeld => (phone.len().min(1), 1 - phone.len().min(1) as u64),
        Expected::Held => (0, 1),
    };
    assert_eq!(phone.len(), times, "{what}");
    assert_eq!(held, held_count, "{what}");
    assert!(phone.iter().all(|message| message.body == text), "{what}");
    // The delivery guarantee, independent of the table.
    assert!(
        !delivery.acknowledged() || phone.len() + usize::try_from(held).unwrap() == 1,
        "{what}"
    );
    if is_redelivered {
        assert!(delivery.acknowledged(), "{what}");
    }
}

// An acknowledged message gets exactly one reply, or one that is held; any other gets at most one.
#[test]
fn threat_59_crash_at_any_point_loses_and_duplicates_nothing() {
    // Sort P11 last, so that `pop` returns it first: looking up a message in Twilio's list takes ten seconds.
    let mut cases: Vec<(Row, Policy)> = Vec::new();
    for row in TABLE {
        cases.extend(POLICIES.map(|policy| (row, policy)));
    }
    cases.sort_by_key(|(row, _)| row.0.starts_with("P11"));
    let cases = Mutex::new(cases);
    let next = || cases.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while let Some((row, policy)) = next() {
                    check_crash(row, policy);
                }
            });
        }
    });
}

/// Completes a form across a crash at this point. Each answer is sent after its question has arrived.
fn sign_up_across_crash(world: &World, point: &str) {
    const ANSWERS: [(&str, &str); 3] = [
        ("sign up", "Your name?"),
        ("Ana", "Your age?"),
        ("42", "Ana is 42."),
    ];
    // `1*off`: the first message passes the point, and the second one crashes there.
    let crash_point = if point == "P7" {
        "P7=1*off->return(200)".to_owned()
    } else {
        format!("{point}=1*off->return")
    };
    let supervisor = Supervisor::new(world, &[&crash_point]);
    for (number, (text, _)) in (1..).zip(ANSWERS) {
        supervisor.deliver(&Webhook::message(number, text), Policy::BOTH);
        let count = usize::try_from(number).unwrap();
        world.twilio.wait_for_phone(USER, count);
    }
    assert!(supervisor.has_used_all_points(), "{point} was not reached");
    let (phone, held) = supervisor.wait_until_settled();
    let texts: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
    assert_eq!(texts, ANSWERS.map(|(_, text)| text), "{point}");
    assert_eq!(held, 0, "{point}");
}

/// Runs `sign_up_across_crash` for each crash point, `lanes` of them concurrently.
fn sign_up_across_each_crash(lanes: usize, world: impl Fn() -> World + Sync) {
    let points = Mutex::new(vec!["P1", "P3", "P4", "P5", "P6", "P7", "P8"]);
    let next = || points.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(point) = next() {
                    sign_up_across_crash(&world(), point);
                }
            });
        }
    });
}

#[test]
fn form_after_crash_asks_each_question_once() {
    sign_up_across_each_crash(7, || World::new(&[]));
}

// The next server can take the claims of a crashed one only after the lease of 15 s.
#[cfg(feature = "postgres")]
#[test]
fn postgres_form_after_crash_asks_each_question_once() {
    if World::on_postgres().is_none() {
        return report_skipped("a crash in a form, which needs PostgreSQL");
    }
    sign_up_across_each_crash(2, || World::on_postgres().unwrap());
}

// After the restart the handler gets the three messages as one, and a redelivery of each is acknowledged.
#[test]
fn debounced_burst_after_crash_gets_one_reply() {
    let burst = |points: &[&str]| {
        // The debounce ends after half of the deadline, which is shorter than the pause.
        let world = World::new(&[
            ("REPLYHOOK__REPLY__DEBOUNCE_MS", "10000"),
            ("REPLYHOOK__REPLY__DEADLINE_MS", "13000"),
        ]);
        let supervisor = Supervisor::new(&world, points);
        let texts = ["one", "two", "three"];
        let messages: Vec<_> = (1..)
            .zip(texts)
            .map(|(n, text)| Webhook::message(n, text))
            .collect();
        let mut streams = Vec::new();
        for message in &messages {
            let mut stream = wire::connect(supervisor.address());
            stream.write_all(&message.raw(ORIGIN)).unwrap();
            streams.push(stream);
            let wait = Wait::until(format!("{} messages are stored", streams.len()));
            while world.journal().entries().len() < streams.len() {
                wait.check();
                std::thread::yield_now();
            }
        }
        let (phone, held) = supervisor.wait_until_settled();
        let bodies: Vec<_> = phone.iter().map(|message| message.body.as_str()).collect();
        assert_eq!((bodies, held), (vec!["one\ntwo\nthree"], 0), "{points:?}");
        for message in &messages {
            let delivery = supervisor.deliver(message, Policy::NEITHER);
            assert!(delivery.acknowledged(), "{points:?} {delivery:?}");
        }
        assert_eq!(world.twilio.phone(USER).len(), 1, "{points:?}");
    };
    std::thread::scope(|scope| {
        for points in [
            &["P4=return"][..],
            &["P5=return"],
            &["P5=return", "P10=return"],
        ] {
            scope.spawn(move || burst(points));
        }
    });
}

// The server dies after it writes the response and before Twilio reads it.
#[test]
fn saved_response_lost_in_transit_is_returned_again() {
    for policy in [Policy::RETRY, Policy::FALLBACK] {
        let world = World::new(&[]);
        let supervisor = Supervisor::new(&world, &["P8=return"]);
        let message = Webhook::message(1, "hello");
        // Twilio's first attempt, whose response is lost.
        wire::exchange(supervisor.address(), &message.raw(ORIGIN));
        supervisor.restart_after_crash();
        let delivery = supervisor.deliver(&message, policy);
        assert!(delivery.attempts[0].usable);
        let (phone, _) = supervisor.wait_until_settled();
        assert_eq!(phone.len(), 1, "{phone:?}");
    }
}

#[test]
fn crash_looping_message_is_dead_or_answered_once() {
    for (policy, acknowledged) in [
        (Policy::NEITHER, Some(false)),
        // The restarted server resumes the message immediately. If it crashes before the second request arrives, the message is
        // dead and this request gets 200; otherwise the request fails too.
        (Policy::RETRY, None),
        (Policy::BOTH, Some(true)),
    ] {
        let world = World::new(&[]);
        let supervisor = Supervisor::new(&world, &["P4=return", "P4=return"]);
        let delivery = supervisor.deliver(&Webhook::message(1, "hello"), policy);
        let (phone, _) = supervisor.wait_until_settled();
        let entries = world.journal().entries();
        let state = entries.values().next().unwrap().state;
        let what = format!("{policy:?} {delivery:?} {phone:?} {state}");
        if let Some(acknowledged) = acknowledged {
            assert_eq!(delivery.acknowledged(), acknowledged, "{what}");
        }
        // Either the user gets one reply, or the server marks the message dead.
        assert!(phone.len() <= 1, "{what}");
        assert_eq!(state == "dead", phone.is_empty(), "{what}");
    }
}

// The server dies before it stores `delivered`; a later `read` is applied, and nothing is sent twice.
#[test]
fn lost_status_callback_is_superseded_by_next() {
    let world = World::new(&[SHORT_DEADLINE]);
    let server = world.start("P13=return");
    let message = Webhook::message(1, SLOW);
    world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    let sid = world.twilio.wait_for_phone(USER, 1).remove(0).sid;
    world.journal().wait_until_drained();
    let answer = world.twilio.status(server.public, &sid, "delivered", None);
    assert!(answer.is_none(), "an unstored callback is not acknowledged");
    assert_crashed(server);

    let server = world.start("");
    let status = |server: &Server, status| world.twilio.status(server.public, &sid, status, None);
    assert_eq!(status(&server, "read").unwrap().status, 200);
    let entries = world.journal().wait_until_drained();
    assert_eq!(entries.values().next().unwrap().replies, ["sent"]);
    assert_eq!(world.twilio.phone(USER).len(), 1);
}

// Twilio accepted the REST call and the server died before reading the response; here only the callback can prove it.
#[test]
fn status_callback_confirms_send_interrupted_by_crash() {
    let world = World::new(&[SHORT_DEADLINE]);
    let server = world.start("P12=return");
    let message = Webhook::message(1, SLOW);
    world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    let sid = world.twilio.wait_for_phone(USER, 1).remove(0).sid;
    assert_crashed(server);
    // Without Twilio's message list, only the callback can confirm the send.
    world.twilio.list_fault(500, 1000);

    let server = world.start("");
    let answer = world.twilio.status(server.public, &sid, "sent", None);
    assert_eq!(answer.unwrap().status, 200);
    let entries = world.journal().wait_until_drained();
    assert_eq!(entries.values().next().unwrap().replies, ["sent"]);
    assert_eq!(world.twilio.phone(USER).len(), 1);
}

// The late reply waits in the outbox when the server stores STOP and dies.
#[test]
fn stop_stored_before_crash_suppresses_late_reply() {
    let stopped = |policy: Policy| {
        let world = World::new(&[SHORT_DEADLINE]);
        let supervisor = Supervisor::new(&world, &["P14=return"]);
        // Keeps the reply in the outbox until long after the STOP.
        let later = Fault::Status {
            status: 429,
            code: Some(20429),
            retry_after: Some(20),
        };
        world.twilio.fault(later, 1);
        supervisor.deliver(&Webhook::message(1, SLOW), Policy::NEITHER);
        world.twilio.wait_for_posts(1);
        let waits = || {
            let entries = world.journal().entries();
            entries.values().any(|entry| entry.replies == ["pending"])
        };
        let wait = Wait::until("a reply waits to be sent");
        while !waits() {
            wait.check();
            std::thread::yield_now();
        }
        let stop = supervisor.deliver(&Webhook::message(2, "STOP"), policy);
        assert_eq!(stop.acknowledged(), policy.retry || policy.fallback);
        let (phone, held) = supervisor.wait_until_settled();
        assert_eq!(held, 0);
        // The phone shows only the confirmation of the STOP.
        let answers = phone
            .iter()
            .filter(|message| message.via == SentVia::Twiml)
            .count();
        assert_eq!(answers, usize::from(stop.acknowledged()));
        assert_eq!(phone.len(), answers, "{phone:?}");
        let entries = world.journal().wait_until_drained();
        assert_eq!(entries.values().next().unwrap().replies, ["suppressed"]);
    };
    std::thread::scope(|scope| {
        for policy in POLICIES {
            scope.spawn(move || stopped(policy));
        }
    });
}

// The younger message is being handled when the older one is redelivered. After a crash neither may wait for the other.
#[test]
fn redelivered_older_message_after_crash_does_not_deadlock() {
    let world = World::new(&[SHORT_DEADLINE]);
    let server = world.start("");
    let address = || Some(server.public);
    // The older message fails. The younger one is deferred, and its handler still runs. Then the older one is
    // redelivered, and waits for its turn.
    let older = Webhook::message(1, "fail at first");
    let younger = Webhook::message(2, "hang at first");
    assert!(
        !world
            .twilio
            .deliver(address, &older, Policy::NEITHER)
            .acknowledged()
    );
    assert!(
        world
            .twilio
            .deliver(address, &younger, Policy::NEITHER)
            .acknowledged()
    );
    let mut stream = wire::connect(server.public);
    stream.write_all(&older.raw(ORIGIN)).unwrap();
    let sid = older.form.get("MessageSid").unwrap();
    let wait = Wait::until("the failed message is claimed again");
    while world.journal().entries()[sid].state == "failed" {
        wait.check();
        std::thread::yield_now();
    }
    server.signal(Signal::KILL);
    server.wait();

    let _server = world.start("");
    let entries = world.journal().wait_until_drained();
    let younger = &entries[younger.form.get("MessageSid").unwrap()];
    assert_eq!(
        (younger.state, younger.replies.as_slice()),
        ("done", &["sent"][..])
    );
    let phone = world.twilio.phone(USER);
    assert_eq!(phone.len(), 1, "{phone:?}");
}

#[test]
fn threat_61_message_cut_off_by_shutdown_resumes_after_restart() {
    let world = World::new(&[
        SHORT_DEADLINE,
        ("REPLYHOOK__SERVER__SHUTDOWN_TIMEOUT_S", "1"),
    ]);
    let server = world.start("");
    let message = Webhook::message(1, "hang at first");
    let delivery = world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    assert!(delivery.acknowledged());
    server.signal(Signal::TERM);
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(143), "{log}");

    let _server = world.start("");
    world.journal().wait_until_drained();
    let phone = world.twilio.phone(USER);
    assert_eq!(phone.len(), 1, "{phone:?}");
}

#[test]
fn migration_interrupted_by_crash_runs_again() {
    let world = World::new(&[]);
    for _ in 0..2 {
        assert_crashed(world.launch("P15=return"));
    }
    let supervisor = Supervisor::new(&world, &[]);
    supervisor.deliver(&Webhook::message(1, "hello"), Policy::NEITHER);
    world.journal().assert_intact();
    assert_eq!(world.twilio.phone(USER).len(), 1);
}
