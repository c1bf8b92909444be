//! [`Engine`]: the state, clock and event channel that all modules share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use super::access_key::AccessKey;
use super::account::{EmulatedAccount, SENDERS};
use super::app_inspector::AppInspector;
use super::faults::Faults;
use super::files::MediaFolder;
use super::links::display_url;
use super::options::EmulatorOptions;
use super::record::{DebuggerEntry, Exchange, Record};
use super::recording::Recording;
use super::state::EmulatorState;
use replyhook_core::clock::Advance;
use replyhook_core::error_code::ErrorCode;

// Events buffered for each subscriber. A subscriber that falls further behind is disconnected, and reloads everything.
const MAX_BUFFERED_EVENTS: usize = 1024;

/// Shared state of an emulator.
pub(super) struct Engine {
    pub(super) account: EmulatedAccount,
    pub(super) options: EmulatorOptions,
    /// Origin of the emulator, without a trailing slash.
    pub(super) origin: String,
    pub(super) clock: Arc<dyn Advance>,
    app: Mutex<Option<Arc<dyn AppInspector>>>,
    pub(super) events: broadcast::Sender<StreamEvent>,
    pub(super) recording: Option<Recording>,
    /// `None` if `media_dir` is not set and the working directory cannot be opened.
    pub(super) media_folder: Option<Arc<MediaFolder>>,
    pub(super) access_key: Option<Arc<AccessKey>>,
    state: Mutex<EmulatorState>,
}

/// Event of the control API's event stream. `data` is JSON.
#[derive(Clone)]
pub(super) struct StreamEvent {
    pub(super) name: &'static str,
    pub(super) data: Arc<str>,
}

impl Engine {
    /// Creates the state of an emulator at `address`.
    pub(super) fn new(
        options: EmulatorOptions,
        clock: Arc<dyn Advance>,
        address: SocketAddr,
        recording: Option<Recording>,
        media_folder: Option<MediaFolder>,
    ) -> Self {
        let account = match &options.account {
            Some((sid, token)) => EmulatedAccount {
                sid: *sid,
                token: token.clone(),
            },
            None => EmulatedAccount::generate(),
        };
        let access_key = options.protect.then(|| AccessKey::generate(address.port()));
        Self {
            account,
            options,
            origin: format!("http://{address}"),
            clock,
            app: Mutex::default(),
            events: broadcast::Sender::new(MAX_BUFFERED_EVENTS),
            recording,
            media_folder: media_folder.map(Arc::new),
            access_key: access_key.map(Arc::new),
            state: Mutex::default(),
        }
    }

    /// Locks the state. The lock is not reentrant: while the guard lives, do not call methods that lock the state too.
    pub(super) fn state(&self) -> MutexGuard<'_, EmulatorState> {
        // Use a poisoned lock too: a panic leaves complete records, and the emulator should go on working.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the attached app, if any. Clones the handle, so that the lock is not held while the app is called.
    pub(super) fn app(&self) -> Option<Arc<dyn AppInspector>> {
        let app = self.app.lock().unwrap_or_else(PoisonError::into_inner);
        app.clone()
    }

    /// Attaches an app, instead of the one attached before.
    pub(super) fn attach(&self, app: Arc<dyn AppInspector>) {
        let mut attached = self.app.lock().unwrap_or_else(PoisonError::into_inner);
        *attached = Some(app);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the default senders, and those that users have written to.
    pub(super) fn senders(&self) -> Vec<String> {
        let mut senders: Vec<String> = SENDERS.iter().map(|sender| (*sender).to_owned()).collect();
        senders.extend(self.state().senders.iter().cloned());
        senders
    }

    pub(super) fn emit(&self, name: &'static str, data: &impl Serialize) {
        let data = serde_json::to_string(data).unwrap_or_default();
        // Fails only without subscribers, which is the normal case in tests.
        let _ = self.events.send(StreamEvent {
            name,
            data: data.into(),
        });
    }

    pub(super) fn emit_message(&self, message: &Record) {
        let mut data = serde_json::to_value(message.to_view()).unwrap_or_default();
        data["user"] = message.user.as_str().into();
        self.emit("message", &data);
    }

    pub(super) fn emit_status(&self, message: &Record) {
        let data = serde_json::json!({
            "user": message.user,
            "sid": message.sid,
            "status": message.status.as_str(),
            "error_code": message.error_code.map(|code| code.0),
            "failure": message.failure,
        });
        self.emit("status", &data);
    }

    pub(super) fn record_exchange(&self, exchange: Exchange) {
        let recorded = self.state().add_exchange(exchange);
        self.emit("exchange", &recorded);
    }

    /// Changes the faults, and reports the new ones to the page. Returns the result of `change`.
    pub(super) fn change_faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        let mut state = self.state();
        let before = state.faults.clone();
        let result = change(&mut state.faults);
        // Under the lock: a client that reads the faults after the event must get these, and events of concurrent
        // changes must have the order of the changes.
        if state.faults != before {
            self.emit("faults", &state.faults);
        }
        result
    }

    /// Adds an entry to the debugger. The entry shows the URL without its password and fragment.
    pub(super) fn add_debugger_entry(
        &self,
        code: ErrorCode,
        detail: Option<&str>,
        message_sid: Option<&str>,
        url: Option<&str>,
    ) {
        let entry = DebuggerEntry {
            message_sid: message_sid.map(str::to_owned),
            url: url.map(display_url),
            ..DebuggerEntry::new(code, detail, self.now())
        };
        self.state().add_debugger_entry(entry.clone());
        self.emit("debugger", &entry);
    }
}
