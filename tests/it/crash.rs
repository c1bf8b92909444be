//! The server dies at each of its crash points, and the user's phone is looked at: never twice, and once where Twilio was
//! told that the message was taken. P2 and P16 have no point in the code: `kill_loop` meets them at random.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use rustix::process::Signal;

use crate::support::{
    By, Delivery, FakeTwilio, Fault, Journal, ORIGIN, Policy, Server, Shown, Webhook, wire,
};

const USER: &str = "whatsapp:+15550001111";
const SIGABRT: i32 = 6;

const POLICIES: [Policy; 4] = [
    Policy::NEITHER,
    Policy::RETRY,
    Policy::FALLBACK,
    Policy::BOTH,
];

/// What is answered later than this goes by REST, unless the store took so long that its request still waits for it.
const EARLY: (&str, &str) = ("REPLYHOOK__REPLY__DEADLINE_MS", "100");
const RESEND: (&str, &str) = ("REPLYHOOK__REPLY__ON_UNKNOWN", "resend");

/// A database that outlives its servers, beside a Twilio.
struct World {
    folder: tempfile::TempDir,
    twilio: FakeTwilio,
    env: Vec<(&'static str, String)>,
}

impl World {
    fn new(env: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let twilio = FakeTwilio::start();
        let file = folder.path().join("replyhook.db");
        let mut all = vec![
            ("DATABASE_URL", format!("sqlite:{}", file.display())),
            ("REPLYHOOK__TWILIO__API_URL", twilio.url()),
        ];
        all.extend(env.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self {
            folder,
            twilio,
            env: all,
        }
    }

    /// One that dies at `point`, or at none where that is empty. It may not come to listening.
    fn launch(&self, point: &str) -> Server {
        Server::launch(bot(), &self.env_with(point))
    }

    fn start(&self, point: &str) -> Server {
        Server::start_by(bot(), &self.env_with(point))
    }

    fn env_with<'a>(&'a self, point: &'a str) -> Vec<(&'a str, &'a str)> {
        let mut env: Vec<_> = self
            .env
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        env.push(("FAILPOINTS", point));
        env
    }

    fn journal(&self) -> Journal {
        Journal::read(&self.file())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("replyhook.db")
    }
}

fn bot() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fault-bot"))
}

#[track_caller]
fn has_crashed(server: Server) {
    let (status, log) = server.wait();
    assert_eq!(status.signal(), Some(SIGABRT), "{status}\n{log}");
}

/// What starts a server again: each time it died, and with the next crash point.
struct Supervisor<'a> {
    world: &'a World,
    current: Mutex<Option<Server>>,
    points: Mutex<Vec<&'a str>>,
}

impl<'a> Supervisor<'a> {
    /// The first server dies at the first point, and so on; the last one lives.
    fn new(world: &'a World, points: &[&'a str]) -> Self {
        let mut points = [points, &[""]].concat();
        points.reverse();
        let first = points.pop().unwrap_or_default();
        Self {
            world,
            current: Mutex::new(Some(world.start(first))),
            points: Mutex::new(points),
        }
    }

    fn address(&self) -> SocketAddr {
        self.current.lock().unwrap().as_ref().unwrap().public
    }

    /// Waits for the crash that is due, if one is, and starts the next server.
    fn revive(&self) {
        let Some(point) = self.points.lock().unwrap().pop() else {
            return;
        };
        let mut current = self.current.lock().unwrap();
        has_crashed(current.take().unwrap());
        *current = Some(self.world.start(point));
    }

    /// The message as Twilio delivers it: what comes after the first attempt finds the next server.
    fn deliver(&self, webhook: &Webhook, policy: Policy) -> Delivery {
        let is_first = Cell::new(true);
        let server = || {
            if !is_first.replace(false) {
                self.revive();
            }
            Some(self.address())
        };
        self.world.twilio.deliver(server, webhook, policy)
    }

    /// Lets happen what is still to come, with the server that lives.
    fn settled(&self) -> (Vec<Shown>, u64) {
        while !self.points.lock().unwrap().is_empty() {
            self.revive();
        }
        self.world.journal().drained();
        let current = self.current.lock().unwrap();
        let server = current.as_ref().unwrap();
        // On a busy disk a look may take too long.
        let ready = std::iter::repeat_with(|| server.get("/readyz"));
        let ready = ready.take(20).find(|ready| ready.status == 200).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready.body).unwrap();
        let outbox = &ready["parts"]["outbox"];
        assert_eq!(outbox["pending"], 0);
        (
            self.world.twilio.phone(USER),
            outbox["held"].as_u64().unwrap(),
        )
    }
}

/// What a phone must show after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// Once, whoever asks again.
    Once,
    /// Once if Twilio asks again. Else Twilio was told nothing, and nobody was answered.
    OnceIfAsked,
    /// Nothing: whether it was sent is for the operator to say.
    Held,
}

/// Point, text, settings, what the phone must show.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    Shows,
);

/// Slower than a request waits for the store.
const LATE: &str = "slow 3000 of words";

const TABLE: [Row; 17] = [
    ("P0=return", "hello", &[], Shows::OnceIfAsked),
    ("P1=return", "hello", &[], Shows::OnceIfAsked),
    ("P3=return", "hello", &[], Shows::Once),
    ("P4=return", "hello", &[], Shows::Once),
    ("P5=return", "hello", &[], Shows::Once),
    ("P6=return", "hello", &[], Shows::OnceIfAsked),
    // In the status line, and in the document.
    ("P7=return(5)", "hello", &[], Shows::OnceIfAsked),
    ("P7=return(200)", "hello", &[], Shows::OnceIfAsked),
    ("P8=return", "hello", &[], Shows::Once),
    ("P9=return", LATE, &[EARLY], Shows::Once),
    ("P8=return", LATE, &[EARLY], Shows::Once),
    ("P9.done=return", LATE, &[EARLY], Shows::Once),
    ("P10=return", LATE, &[EARLY], Shows::Once),
    ("P11=return", LATE, &[EARLY], Shows::Held),
    ("P11=return", LATE, &[EARLY, RESEND], Shows::Once),
    ("P12=return", LATE, &[EARLY], Shows::Once),
    ("P12=return", LATE, &[EARLY, RESEND], Shows::Once),
];

fn crash(row: Row, policy: Policy) {
    let (point, text, env, expected) = row;
    let world = World::new(env);
    let supervisor = Supervisor::new(&world, &[point]);
    let delivery = supervisor.deliver(&Webhook::message(1, text), policy);
    let (shown, held) = supervisor.settled();
    let what = format!("{point} {text:?} {env:?} {policy:?}: {delivery:?} {shown:?}");

    let asked_again = policy.retry || policy.fallback;
    let (times, kept_back) = match expected {
        Shows::Once => (1, 0),
        Shows::OnceIfAsked => (usize::from(asked_again), 0),
        Shows::Held => (0, 1),
    };
    assert_eq!(shown.len(), times, "{what}");
    assert_eq!(held, kept_back, "{what}");
    assert!(shown.iter().all(|shown| shown.body == text), "{what}");
    // The promise itself, whatever the table says.
    assert!(
        !delivery.acknowledged() || shown.len() + usize::try_from(held).unwrap() == 1,
        "{what}"
    );
    if asked_again {
        assert!(delivery.acknowledged(), "{what}");
    }
}

#[test]
fn threat_59_wherever_the_server_dies_nothing_is_lost_and_nobody_is_answered_twice() {
    // The slow ones first: looking for a message in Twilio's list takes ten seconds.
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
                    crash(row, policy);
                }
            });
        }
    });
}

#[test]
fn in_the_middle_of_a_form_a_crash_neither_asks_twice_nor_skips() {
    for point in ["P1", "P3", "P4", "P5", "P6", "P7", "P8"] {
        let world = World::new(&[]);
        // The first message passes.
        let dies = if point == "P7" {
            "P7=1*off->return(200)".to_owned()
        } else {
            format!("{point}=1*off->return")
        };
        let supervisor = Supervisor::new(&world, &[&dies]);
        for (number, text) in [(1, "sign up"), (2, "Ana"), (3, "42")] {
            supervisor.deliver(&Webhook::message(number, text), Policy::BOTH);
        }
        let (shown, _) = supervisor.settled();
        let mut said: Vec<_> = shown.iter().map(|shown| shown.body.as_str()).collect();
        // A reply that goes by REST after a crash may be overtaken by the next one.
        said.sort_unstable();
        assert_eq!(said, ["Ana is 42.", "Your age?", "Your name?"], "{point}");
        assert!(
            supervisor.points.lock().unwrap().is_empty(),
            "{point} was never met"
        );
    }
}

#[test]
fn a_burst_over_which_the_server_dies_is_one_turn_after_it() {
    let burst = |points: &[&str]| {
        // The turn ends after half of the deadline, however quickly the others come.
        let world = World::new(&[
            ("REPLYHOOK__REPLY__MERGE_MS", "10000"),
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
            while world.journal().entries().len() < streams.len() {
                std::thread::yield_now();
            }
        }
        let (shown, held) = supervisor.settled();
        let bodies: Vec<_> = shown.iter().map(|shown| shown.body.as_str()).collect();
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

#[test]
fn an_answer_that_was_written_and_never_read_is_the_answer_of_the_next_request() {
    for policy in [Policy::RETRY, Policy::FALLBACK] {
        let world = World::new(&[]);
        let supervisor = Supervisor::new(&world, &["P8=return"]);
        let message = Webhook::message(1, "hello");
        // Twilio's first attempt, whose answer is lost on the way.
        wire::exchange(supervisor.address(), &message.raw(ORIGIN));
        supervisor.revive();
        let delivery = supervisor.deliver(&message, policy);
        assert!(delivery.attempts[0].usable);
        let (shown, _) = supervisor.settled();
        assert_eq!(shown.len(), 1, "{shown:?}");
    }
}

#[test]
fn a_message_that_kills_the_server_again_and_again_is_given_up_and_nobody_hears_two_answers() {
    for (policy, acknowledged) in [
        (Policy::NEITHER, false),
        (Policy::RETRY, false),
        (Policy::BOTH, true),
    ] {
        let world = World::new(&[]);
        let supervisor = Supervisor::new(&world, &["P4=return", "P4=return"]);
        let delivery = supervisor.deliver(&Webhook::message(1, "hello"), policy);
        let (shown, _) = supervisor.settled();
        let entries = world.journal().entries();
        let state = entries.values().next().unwrap().state;
        let what = format!("{policy:?} {delivery:?} {shown:?} {state}");
        assert_eq!(delivery.acknowledged(), acknowledged, "{what}");
        // Either the third request hears the apology, or the server has given up before it, and says so.
        assert!(shown.len() <= 1, "{what}");
        assert_eq!(state == "dead", shown.is_empty(), "{what}");
    }
}

#[test]
fn a_status_callback_over_which_the_server_dies_is_made_up_for_by_the_next_one() {
    let world = World::new(&[EARLY]);
    let server = world.start("P13=return");
    let message = Webhook::message(1, LATE);
    world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    let sid = world.twilio.wait_for_phone(USER, 1).remove(0).sid;
    world.journal().drained();
    let answer = world.twilio.status(server.public, &sid, "delivered", None);
    assert!(answer.is_none(), "nothing is acknowledged that is not kept");
    has_crashed(server);

    let server = world.start("");
    let status = |server: &Server, status| world.twilio.status(server.public, &sid, status, None);
    assert_eq!(status(&server, "read").unwrap().status, 200);
    let entries = world.journal().drained();
    assert_eq!(entries.values().next().unwrap().replies, ["sent"]);
    assert_eq!(world.twilio.phone(USER).len(), 1);
}

#[test]
fn a_status_callback_proves_that_a_call_was_taken_whose_answer_died_with_the_server() {
    let world = World::new(&[EARLY]);
    let server = world.start("P12=return");
    let message = Webhook::message(1, LATE);
    world
        .twilio
        .deliver(|| Some(server.public), &message, Policy::NEITHER);
    let sid = world.twilio.wait_for_phone(USER, 1).remove(0).sid;
    has_crashed(server);
    // The list would tell as well; without it only the callback can.
    world.twilio.list_fault(500, 1000);

    let server = world.start("");
    let answer = world.twilio.status(server.public, &sid, "sent", None);
    assert_eq!(answer.unwrap().status, 200);
    let entries = world.journal().drained();
    assert_eq!(entries.values().next().unwrap().replies, ["sent"]);
    assert_eq!(world.twilio.phone(USER).len(), 1);
}

#[test]
fn a_stop_that_was_kept_counts_after_the_crash_for_what_was_late() {
    let stopped = |policy: Policy| {
        let world = World::new(&[EARLY]);
        let supervisor = Supervisor::new(&world, &["P14=return"]);
        // A reply that waits in the outbox until long after the STOP.
        let later = Fault::Status {
            status: 429,
            code: Some(20429),
            retry_after: Some(20),
        };
        world.twilio.fault(later, 1);
        supervisor.deliver(&Webhook::message(1, LATE), Policy::NEITHER);
        world.twilio.wait_for_posts(1);
        let waits = || {
            let entries = world.journal().entries();
            entries.values().any(|entry| entry.replies == ["pending"])
        };
        while !waits() {
            std::thread::yield_now();
        }
        let stop = supervisor.deliver(&Webhook::message(2, "STOP"), policy);
        assert_eq!(stop.acknowledged(), policy.retry || policy.fallback);
        let (shown, held) = supervisor.settled();
        assert_eq!(held, 0);
        // Nothing but what the STOP itself is answered with.
        let answers = shown.iter().filter(|shown| shown.by == By::Twiml).count();
        assert_eq!(answers, usize::from(stop.acknowledged()));
        assert_eq!(shown.len(), answers, "{shown:?}");
        let entries = world.journal().drained();
        assert_eq!(entries.values().next().unwrap().replies, ["suppressed"]);
    };
    std::thread::scope(|scope| {
        for policy in POLICIES {
            scope.spawn(move || stopped(policy));
        }
    });
}

#[test]
fn an_older_message_that_came_back_and_a_younger_one_do_not_wait_for_each_other_after_a_crash() {
    let world = World::new(&[EARLY]);
    let server = world.start("");
    let address = || Some(server.public);
    // The older one has failed, and the younger one, which was told that its answer is late, is being handled when the
    // older one comes back and waits for its turn.
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
    while world.journal().entries()[sid].state == "failed" {
        std::thread::yield_now();
    }
    server.signal(Signal::KILL);
    server.wait();

    let _server = world.start("");
    let entries = world.journal().drained();
    let younger = &entries[younger.form.get("MessageSid").unwrap()];
    assert_eq!(
        (younger.state, younger.replies.as_slice()),
        ("done", &["sent"][..])
    );
    let shown = world.twilio.phone(USER);
    assert_eq!(shown.len(), 1, "{shown:?}");
}

#[test]
fn threat_61_what_a_drain_has_cut_off_is_handled_by_the_next_start() {
    let world = World::new(&[EARLY, ("REPLYHOOK__SERVER__DRAIN_S", "1")]);
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
    world.journal().drained();
    let shown = world.twilio.phone(USER);
    assert_eq!(shown.len(), 1, "{shown:?}");
}

#[test]
fn a_migration_over_which_the_server_dies_begins_anew() {
    let world = World::new(&[]);
    for _ in 0..2 {
        has_crashed(world.launch("P15=return"));
    }
    let supervisor = Supervisor::new(&world, &[]);
    supervisor.deliver(&Webhook::message(1, "hello"), Policy::NEITHER);
    world.journal().is_whole();
    assert_eq!(world.twilio.phone(USER).len(), 1);
}
