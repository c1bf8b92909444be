//! Fake Twilio on loopback, on its own threads: it accepts messages via the REST API, delivers webhooks, and records
//! the messages on the user's phone, by which tests judge a bot.
//!
//! It makes no request by itself: a test delivers messages ([`FakeTwilio::deliver`]) and reports statuses
//! ([`FakeTwilio::status`]). Methods that wait block their thread. With an app in the same process, call them in
//! `spawn_blocking`.

mod content;
mod delivery;
mod phone;
mod rest;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use content::ContentFault;
pub use delivery::{Attempt, Delivery, Policy};
pub use phone::{PhoneMessage, SentVia};
use replyhook::FormParams;
use tokio::net::TcpSocket;

/// Limit for conditions that must become true.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Fault of a `POST Messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Rejects the message with this response. Without a code the body is not JSON, like that of a proxy.
    Status {
        status: u16,
        code: Option<u32>,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// Rejects the message with 403 and 70051, for a right that the API key lacks, with this text.
    Denied(&'static str),
    /// Reads the request, and closes the connection without accepting the message.
    ResetBefore,
    /// Accepts the message, and closes the connection without a response.
    AcceptedThenReset,
    /// Accepts the message, and sends 201 with truncated JSON.
    AcceptedThenGarbage,
    /// Accepts the message, but sends this error status.
    AcceptedThenStatus(u16),
    /// Reads the request, and neither accepts nor rejects the message until this fake is dropped.
    Hang,
}

/// Outcome of a `POST Messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostOutcome {
    /// Held, or waiting for an earlier one.
    Waiting,
    /// Twilio's response, with this status.
    Status(u16),
    /// Fault that a test ordered.
    Fault(Fault),
}

/// `POST Messages` that was read, with its outcome.
#[derive(Debug, Clone)]
pub struct Post {
    pub form: FormParams,
    /// User of the request, an account or API key. Empty without a login.
    pub user: String,
    pub outcome: PostOutcome,
}

/// Fake Twilio with one phone per user. On drop its threads end, and all connections are closed.
pub struct FakeTwilio {
    inner: Arc<Inner>,
    /// Bound and never listening. It reserves the port during an outage.
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
    /// Accepted users and passwords. If empty, every account with the `TOKEN` of the tests is accepted.
    logins: Vec<(String, String)>,
    /// Messages in the order in which they were received or accepted.
    messages: Vec<phone::Message>,
    posts: Vec<Post>,
    lists: Vec<FormParams>,
    faults: VecDeque<Fault>,
    list_faults: VecDeque<u16>,
    content: content::ContentState,
    held: bool,
    listening: bool,
    stopped: bool,
    /// Last number of a SID, idempotency token or connection.
    numbers: u64,
    connections: BTreeMap<u64, TcpStream>,
}

impl FakeTwilio {
    pub fn start() -> Self {
        let reserved = TcpSocket::new_v4().unwrap();
        // SO_REUSEADDR: two sockets may share an address while at most one of them listens.
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let twilio = Self {
            inner: Arc::default(),
            reserved,
            accepting: Mutex::default(),
        };
        twilio.end_outage();
        twilio
    }

    pub fn address(&self) -> SocketAddr {
        self.reserved.local_addr().unwrap()
    }

    /// URL that a client uses instead of `https://api.twilio.com`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Accepts only these users and passwords from now on.
    pub fn logins(&self, logins: &[(&str, &str)]) {
        let owned = |(user, password): &(&str, &str)| ((*user).to_owned(), (*password).to_owned());
        self.inner.lock().logins = logins.iter().map(owned).collect();
    }

    /// Starts an outage: new connections are refused (`ECONNREFUSED`). Existing connections continue.
    pub fn start_outage(&self) {
        let Some(accepting) = lock(&self.accepting).take() else {
            return;
        };
        self.inner.lock().listening = false;
        // Connect to wake the thread, which closes the listener. If that fails, the next connection wakes it.
        if TcpStream::connect(self.address()).is_ok() {
            let _ = accepting.join();
        }
    }

    /// Listens again, at the same address.
    pub fn end_outage(&self) {
        let mut accepting = lock(&self.accepting);
        if accepting.is_some() {
            return;
        }
        self.inner.lock().listening = true;
        let listener = TcpListener::bind(self.address()).unwrap();
        let inner = self.inner.clone();
        *accepting = Some(std::thread::spawn(move || accept(&inner, &listener)));
    }

    /// Applies a fault to the next POSTs, after the faults already queued. POSTs that Twilio rejects use up no fault.
    pub fn fault(&self, fault: Fault, times: usize) {
        let faults = std::iter::repeat_n(fault, times);
        self.inner.lock().faults.extend(faults);
    }

    /// Answers the next lists with a status.
    pub fn list_fault(&self, status: u16, times: usize) {
        let faults = std::iter::repeat_n(status, times);
        self.inner.lock().list_faults.extend(faults);
    }

    /// Holds POSTs from now on: they are read, and get no response.
    pub fn hold_posts(&self) {
        self.inner.lock().held = true;
    }

    /// Processes the held POSTs in the order of arrival, even if their client has disconnected, and then returns.
    pub fn release_posts(&self) {
        self.inner.lock().held = false;
        self.inner.changed.notify_all();
        let waits = |post: &Post| post.outcome == PostOutcome::Waiting;
        let done = |state: &State| !state.posts.iter().any(waits);
        drop(self.inner.wait_for("end to the waiting POSTs", done));
    }

    /// POSTs that were read so far.
    pub fn posts(&self) -> Vec<Post> {
        self.inner.lock().posts.clone()
    }

    /// Waits until `count` POSTs have been read.
    pub fn wait_for_posts(&self, count: usize) -> Vec<Post> {
        let what = format!("POST number {count}");
        let state = self
            .inner
            .wait_for(&what, |state| state.posts.len() >= count);
        state.posts.clone()
    }

    /// Queries of all lists so far, including failed ones.
    pub fn lists(&self) -> Vec<FormParams> {
        self.inner.lock().lists.clone()
    }

    /// Messages on a user's phone, in the order of arrival.
    pub fn phone(&self, user: &str) -> Vec<PhoneMessage> {
        self.inner.lock().phone(user)
    }

    /// Waits until a phone shows `count` messages.
    pub fn wait_for_phone(&self, user: &str, count: usize) -> Vec<PhoneMessage> {
        let what = format!("message number {count} on the phone of {user}");
        let state = self
            .inner
            .wait_for(&what, |state| state.phone(user).len() >= count);
        state.phone(user)
    }
}

impl Drop for FakeTwilio {
    fn drop(&mut self) {
        self.start_outage();
        let mut state = self.inner.lock();
        state.stopped = true;
        for stream in state.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.inner.changed.notify_all();
        let open = |state: &mut State| !state.connections.is_empty();
        let _ = self
            .inner
            .changed
            .wait_timeout_while(state, WAIT_TIMEOUT, open);
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

    /// Waits for a condition, and panics if it does not become true.
    fn wait_for(&self, what: &str, happened: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let (state, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), WAIT_TIMEOUT, |state| !happened(state))
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

    fn phone(&self, user: &str) -> Vec<PhoneMessage> {
        let shown = self.messages.iter().filter_map(phone::Message::shown);
        shown
            .filter(|(to, _)| *to == user)
            .map(|(_, shown)| shown)
            .collect()
    }
}

/// Connection of a running thread. It is registered, so that dropping `FakeTwilio` can close it.
struct Connection {
    inner: Arc<Inner>,
    number: u64,
    stream: TcpStream,
}

impl Connection {
    /// Registers a connection. Returns `None` if no file descriptor is left.
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

/// Locks a mutex, even if a test has panicked: no code panics between two changes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
