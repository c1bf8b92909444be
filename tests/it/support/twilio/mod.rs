//! A Twilio on loopback, on threads of its own: it takes messages by REST, delivers webhooks, and keeps what the user's
//! phone shows, which is what a bot is judged by.
//!
//! It calls nobody by itself: a test delivers ([`FakeTwilio::deliver`]) and reports statuses ([`FakeTwilio::status`]).
//! Methods that wait block their thread; beside an app in process they belong into `spawn_blocking`.

mod delivery;
mod phone;
mod rest;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use delivery::{Attempt, Delivery, Policy};
pub use phone::{By, Shown};
use replyhook::FormParams;
use tokio::net::TcpSocket;

/// For what must happen sooner or later.
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes wrong with a `POST Messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not taken, and answered with this. Without a code the body is no JSON, as a proxy's.
    Status {
        status: u16,
        code: Option<u32>,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// Read and not taken; the connection is closed without an answer.
    ResetBefore,
    /// Taken; the connection is closed without an answer.
    TakenThenReset,
    /// Taken; 201 with half a JSON.
    TakenThenGarbage,
    /// Taken, and answered with this all the same.
    TakenThenStatus(u16),
    /// Read, not taken, and not answered for as long as this Twilio stands.
    Hang,
}

/// What became of a `POST Messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Held, or behind one that is held.
    Waiting,
    /// As Twilio answers.
    Status(u16),
    /// As a test ordered.
    Fault(Fault),
}

/// A `POST Messages` that was read, whatever became of it.
#[derive(Debug, Clone)]
pub struct Post {
    pub form: FormParams,
    /// Who called: an account or an API key; empty where nobody said.
    pub user: String,
    pub answered: Answered,
}

/// Twilio with one phone per user. Its threads end when it is dropped, and with them every connection.
pub struct FakeTwilio {
    inner: Arc<Inner>,
    /// Bound and never listening: it keeps the port while nobody listens there.
    reserved: TcpSocket,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Users and passwords. Empty: any account with the token of these tests.
    logins: Vec<(String, String)>,
    /// Every message in the order in which it was received or taken.
    messages: Vec<phone::Message>,
    posts: Vec<Post>,
    lists: Vec<FormParams>,
    faults: VecDeque<Fault>,
    list_faults: VecDeque<u16>,
    held: bool,
    listening: bool,
    stopped: bool,
    /// Of new SIDs, idempotency tokens and connections.
    numbers: u64,
    connections: BTreeMap<u64, TcpStream>,
}

impl FakeTwilio {
    pub fn start() -> Self {
        let reserved = TcpSocket::new_v4().unwrap();
        // Two sockets may share an address this way as long as one of them does not listen.
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let twilio = Self {
            inner: Arc::default(),
            reserved,
            accepting: Mutex::default(),
        };
        twilio.up();
        twilio
    }

    pub fn address(&self) -> SocketAddr {
        self.reserved.local_addr().unwrap()
    }

    /// What a client takes for `https://api.twilio.com`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// From now on only these users with these passwords are let in.
    pub fn logins(&self, logins: &[(&str, &str)]) {
        let owned = |(user, password): &(&str, &str)| ((*user).to_owned(), (*password).to_owned());
        self.inner.lock().logins = logins.iter().map(owned).collect();
    }

    /// An outage: the listener is closed and connections are refused (`ECONNREFUSED`). Those that exist go on.
    pub fn down(&self) {
        let Some(accepting) = lock(&self.accepting).take() else {
            return;
        };
        self.inner.lock().listening = false;
        // Wakes the thread, which closes the listener. Where that fails it closes it at the next connection.
        if TcpStream::connect(self.address()).is_ok() {
            let _ = accepting.join();
        }
    }

    /// Listens again, at the same address.
    pub fn up(&self) {
        let mut accepting = lock(&self.accepting);
        if accepting.is_some() {
            return;
        }
        self.inner.lock().listening = true;
        let listener = TcpListener::bind(self.address()).unwrap();
        let inner = self.inner.clone();
        *accepting = Some(std::thread::spawn(move || accept(&inner, &listener)));
    }

    /// Does this to the next POSTs, after the faults that are already due. What Twilio refuses by itself uses up none.
    pub fn fault(&self, fault: Fault, times: usize) {
        let faults = std::iter::repeat_n(fault, times);
        self.inner.lock().faults.extend(faults);
    }

    /// Answers the next lists with a status.
    pub fn list_fault(&self, status: u16, times: usize) {
        let faults = std::iter::repeat_n(status, times);
        self.inner.lock().list_faults.extend(faults);
    }

    /// From now on POSTs are read and wait.
    pub fn hold_posts(&self) {
        self.inner.lock().held = true;
    }

    /// Takes the POSTs that wait, in the order in which they came and whether their sender is still there or not.
    /// Returns when it is done.
    pub fn release_posts(&self) {
        self.inner.lock().held = false;
        self.inner.changed.notify_all();
        let waits = |post: &Post| post.answered == Answered::Waiting;
        let done = |state: &State| !state.posts.iter().any(waits);
        drop(self.inner.wait_for("end to the waiting POSTs", done));
    }

    /// Every POST so far that was read.
    pub fn posts(&self) -> Vec<Post> {
        self.inner.lock().posts.clone()
    }

    /// Waits until so many POSTs have been read.
    pub fn wait_for_posts(&self, count: usize) -> Vec<Post> {
        let what = format!("POST number {count}");
        let state = self
            .inner
            .wait_for(&what, |state| state.posts.len() >= count);
        state.posts.clone()
    }

    /// What every list so far asked for, those that failed included.
    pub fn lists(&self) -> Vec<FormParams> {
        self.inner.lock().lists.clone()
    }

    /// What a user's phone shows, in the order of showing.
    pub fn phone(&self, user: &str) -> Vec<Shown> {
        self.inner.lock().phone(user)
    }

    /// Waits until a phone shows so many messages.
    pub fn wait_for_phone(&self, user: &str, count: usize) -> Vec<Shown> {
        let what = format!("message number {count} on the phone of {user}");
        let state = self
            .inner
            .wait_for(&what, |state| state.phone(user).len() >= count);
        state.phone(user)
    }
}

impl Drop for FakeTwilio {
    fn drop(&mut self) {
        self.down();
        let mut state = self.inner.lock();
        state.stopped = true;
        for stream in state.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.inner.changed.notify_all();
        let open = |state: &mut State| !state.connections.is_empty();
        let _ = self.inner.changed.wait_timeout_while(state, PATIENCE, open);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed
            .wait_while(self.lock(), |state| waits(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what must happen, and panics where it does not.
    fn wait_for(&self, what: &str, happened: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let (state, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, |state| !happened(state))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "no {what}");
        state
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn phone(&self, user: &str) -> Vec<Shown> {
        let shown = self.messages.iter().filter_map(phone::Message::shown);
        shown
            .filter(|(to, _)| *to == user)
            .map(|(_, shown)| shown)
            .collect()
    }
}

/// A connection for as long as its thread works; known, so that a drop can end it.
struct Connection {
    inner: Arc<Inner>,
    number: u64,
    stream: TcpStream,
}

impl Connection {
    /// `None` where there is no descriptor left for it.
    fn open(inner: &Arc<Inner>, stream: TcpStream) -> Option<Self> {
        let known = stream.try_clone().ok()?;
        let mut state = inner.lock();
        let number = state.number();
        state.connections.insert(number, known);
        Some(Self {
            inner: inner.clone(),
            number,
            stream,
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inner.lock().connections.remove(&self.number);
        self.inner.changed.notify_all();
    }
}

fn accept(inner: &Arc<Inner>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        if !inner.lock().listening {
            return;
        }
        let connection = accepted
            .ok()
            .and_then(|(stream, _)| Connection::open(inner, stream));
        if let Some(connection) = connection {
            std::thread::spawn(move || rest::serve(connection));
        }
    }
}

/// What a test that panicked leaves behind is whole: nothing panics between two changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
