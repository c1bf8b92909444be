//! State of a conversation, kept between its messages.
//!
//! All states of a conversation are one record: a JSON object from name to value, each with an optional expiry. The
//! record is loaded on first use, once per message. It is written only if it has changed, in the transaction that saves
//! the reply.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::history::ConversationAccess;
use crate::clock::after;
use crate::lock::IgnorePoison;
use replyhook_core::HandlerError;

/// Maximum size of a conversation's record, in bytes of JSON.
// The whole record is read and written for each message that uses a state, so it has to stay small.
const MAX_STATE_BYTES: usize = 64 * 1024;

/// The states of a message's conversation, with the changes of its handler.
pub(crate) struct StateStore {
    conversation: Option<Arc<dyn ConversationAccess>>,
    /// Arrival of the message, from which the lifetime of saved states is counted.
    now: Timestamp,
    /// `None` until the first use of a state.
    loaded: Mutex<Option<LoadedState>>,
}

#[derive(Default)]
struct LoadedState {
    entries: BTreeMap<String, StateEntry>,
    is_changed: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct StateEntry {
    // These names are on disk: records with other names cannot be read.
    value: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// A change of the stored record.
#[cfg_attr(
    not(feature = "app"),
    expect(dead_code, reason = "only the dispatcher keeps conversations")
)]
pub(crate) enum StateChange {
    /// Replace the record by this JSON text, which expires at this time, if at any.
    Set(String, Option<Timestamp>),
    /// Delete the record.
    Clear,
}

/// The reason why a state cannot be saved.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("state {0:?} cannot be serialized as JSON")]
    NotJson(&'static str),
    #[error("state {0:?} is too large: all states of a conversation together may take 64 KiB")]
    TooLarge(&'static str),
}

impl StateStore {
    pub(crate) fn new(conversation: Option<Arc<dyn ConversationAccess>>, now: Timestamp) -> Self {
        Self {
            conversation,
            now,
            loaded: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<LoadedState>> {
        self.loaded.lock().ignore_poison()
    }

    /// Calls `access` with the states, loaded on first use.
    async fn with_states<T>(
        &self,
        access: impl FnOnce(&mut LoadedState) -> T,
    ) -> Result<T, HandlerError> {
        if self.lock().is_none() {
            // Load without the lock: a `std` mutex guard must not be held across an await.
            let text = match &self.conversation {
                Some(conversation) => conversation.load_state().await?,
                None => None,
            };
            // Keep what is there by now: a concurrent call on a clone of the context may have loaded the states during
            // the await, and may have changed them.
            self.lock()
                .get_or_insert_with(|| LoadedState::parse(text, self.now));
        }
        let mut loaded = self.lock();
        // The default is never inserted: nothing sets `loaded` back to `None`.
        Ok(access(loaded.get_or_insert_default()))
    }

    pub(crate) async fn load(&self, name: &str) -> Result<Option<Value>, HandlerError> {
        self.with_states(|loaded| loaded.entries.get(name).map(|entry| entry.value.clone()))
            .await
    }

    pub(crate) async fn save(
        &self,
        name: &'static str,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<(), HandlerError> {
        let expires_at = ttl.map(|ttl| after(self.now, ttl));
        self.with_states(|loaded| {
            // Insert first and measure the whole record: the limit is on its JSON text, with all other states.
            let previous = loaded
                .entries
                .insert(name.to_owned(), StateEntry { value, expires_at });
            if loaded.to_json().len() > MAX_STATE_BYTES {
                // Undo: the handler may ignore the error, and `change` would then store the record that is too large.
                match previous {
                    Some(previous) => loaded.entries.insert(name.to_owned(), previous),
                    None => loaded.entries.remove(name),
                };
                return Err(HandlerError::new(StateError::TooLarge(name)));
            }
            loaded.is_changed = true;
            Ok(())
        })
        .await?
    }

    pub(crate) async fn clear(&self, name: &str) -> Result<(), HandlerError> {
        // Clearing a state that does not exist changes nothing, and must not cost a write.
        self.with_states(|loaded| loaded.is_changed |= loaded.entries.remove(name).is_some())
            .await
    }

    /// Returns the change to write together with the reply, if there is one.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher keeps conversations")
    )]
    pub(crate) fn change(&self) -> Option<StateChange> {
        let loaded = self.lock();
        let loaded = loaded.as_ref().filter(|loaded| loaded.is_changed)?;
        if loaded.entries.is_empty() {
            return Some(StateChange::Clear);
        }
        // The record must live as long as its longest-lived state: one state without expiry makes the whole `collect`
        // `None`, which is a record without expiry.
        let expiries: Option<Vec<_>> = loaded
            .entries
            .values()
            .map(|entry| entry.expires_at)
            .collect();
        let expires_at = expiries.and_then(|expiries| expiries.into_iter().max());
        Some(StateChange::Set(loaded.to_json(), expires_at))
    }
}

impl LoadedState {
    fn parse(text: Option<String>, now: Timestamp) -> Self {
        let Some(text) = text else {
            return Self::default();
        };
        // Start without states rather than fail: otherwise no message of this conversation could ever be handled.
        let entries: BTreeMap<String, StateEntry> =
            serde_json::from_str(&text).unwrap_or_else(|_| {
                tracing::warn!(
                    "could not read the stored states of a conversation; it starts without them"
                );
                BTreeMap::new()
            });
        let is_alive = |entry: &StateEntry| entry.expires_at.is_none_or(|end| now < end);
        Self {
            entries: entries
                .into_iter()
                .filter(|(_, entry)| is_alive(entry))
                .collect(),
            // Expired states alone do not cause a write. They leave the record with the next state that is saved.
            is_changed: false,
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(&self.entries).expect("these values are JSON")
    }
}

/// A state of a conversation, from [`Context::state`](super::Context::state).
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use replyhook::testing::TestBot;
/// use replyhook::{App, Context, HandlerError, InboundMessage};
///
/// async fn bot(cx: Context, _message: InboundMessage) -> Result<String, HandlerError> {
///     let count = cx.state::<u32>().expires_in(Duration::from_hours(24));
///     let before = count.load().await?;
///     count.save(&(before + 1)).await?;
///     Ok(format!("{before} before this one"))
/// }
///
/// let bot = TestBot::start(|| App::builder().handler(bot)).await;
/// let ana = bot.whatsapp("+34600000001");
/// ana.says("hi").await.assert_reply("0 before this one");
/// bot.restart().await;
/// ana.says("hi").await.assert_reply("1 before this one");
/// bot.advance(Duration::from_hours(25)).await;
/// ana.says("hi").await.assert_reply("0 before this one");
/// # });
/// ```
pub struct State<S> {
    store: Arc<StateStore>,
    name: &'static str,
    ttl: Option<Duration>,
    // A function pointer, because a `State` holds no `S`: it is `Send` and `Sync` whatever `S` is.
    marker: PhantomData<fn() -> S>,
}

impl<S: Serialize + DeserializeOwned + Default> State<S> {
    pub(super) fn new(store: Arc<StateStore>, name: &'static str) -> Self {
        Self {
            store,
            name,
            ttl: None,
            marker: PhantomData,
        }
    }

    /// Sets the lifetime of values that are saved from here on, counted from the arrival of the message.
    ///
    /// Without it, saved values do not expire.
    #[must_use]
    pub fn expires_in(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Returns the value that was saved last, or the default.
    ///
    /// A value of another type, as saved by an older version of the bot, is logged as a warning and replaced by the
    /// default.
    ///
    /// # Errors
    /// [`HandlerError`] if the store is unavailable.
    pub async fn load(&self) -> Result<S, HandlerError> {
        let Some(value) = self.store.load(self.name).await? else {
            return Ok(S::default());
        };
        Ok(serde_json::from_value(value).unwrap_or_else(|_| {
            tracing::warn!(
                name = self.name,
                "a stored state does not fit the bot's current type; the default is used"
            );
            S::default()
        }))
    }

    /// Saves a value. It is stored together with the reply to this message.
    ///
    /// # Errors
    /// [`HandlerError`] if the value cannot be serialized as JSON, if all states of the conversation together take more
    /// than 64 KiB, or if the store is unavailable.
    pub async fn save(&self, state: &S) -> Result<(), HandlerError> {
        let value = serde_json::to_value(state)
            .map_err(|_| HandlerError::new(StateError::NotJson(self.name)))?;
        self.store.save(self.name, value, self.ttl).await
    }

    /// Deletes the value. It is deleted from the store together with the reply to this message.
    ///
    /// # Errors
    /// [`HandlerError`] if the store is unavailable.
    pub async fn clear(&self) -> Result<(), HandlerError> {
        self.store.clear(self.name).await
    }
}

impl<S> fmt::Debug for State<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::history::HistoryEntry;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    struct Saved(String);

    impl ConversationAccess for Saved {
        fn load_state(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
            Box::pin(std::future::ready(Ok(Some(self.0.clone()))))
        }

        fn history(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<HistoryEntry>, HandlerError>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>> {
            Box::pin(std::future::ready(Ok(false)))
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn store_at(text: &str, second: i64) -> Arc<StateStore> {
        Arc::new(StateStore::new(
            Some(Arc::new(Saved(text.to_owned()))),
            at(second),
        ))
    }

    fn ready<T>(future: impl Future<Output = Result<T, HandlerError>>) -> T {
        future.now_or_never().unwrap().unwrap()
    }

    fn written_record(store: &StateStore) -> (String, Option<Timestamp>) {
        match store.change() {
            Some(StateChange::Set(text, end)) => (text, end),
            _ => panic!("nothing to write"),
        }
    }

    #[test]
    fn saved_state_loads_until_expiry() {
        let store = Arc::new(StateStore::new(None, at(100)));
        let number = State::<u32>::new(store.clone(), "number");
        assert_eq!(ready(number.load()), 0);
        assert!(store.change().is_none());
        ready(number.expires_in(Duration::from_mins(1)).save(&7));
        let (text, end) = written_record(&store);
        assert_eq!(end, Some(at(160)));
        let load = |second| ready(State::<u32>::new(store_at(&text, second), "number").load());
        assert_eq!(load(159), 7);
        assert_eq!(load(160), 0);
    }

    // Each state expires on its own; the shared record lasts as long as the longest-lived state.
    #[test]
    fn states_share_record_until_last_expiry() {
        let store = Arc::new(StateStore::new(None, at(0)));
        let short = State::<u32>::new(store.clone(), "a").expires_in(Duration::from_secs(5));
        ready(short.save(&1));
        ready(State::<String>::new(store.clone(), "b").save(&"x".to_owned()));
        let (text, end) = written_record(&store);
        assert_eq!(end, None);
        let later = store_at(&text, 10);
        assert_eq!(ready(State::<u32>::new(later.clone(), "a").load()), 0);
        assert_eq!(ready(State::<String>::new(later.clone(), "b").load()), "x");
        // "a" has expired, so "b" is the last state, and the record goes with it.
        ready(State::<String>::new(later.clone(), "b").clear());
        assert!(matches!(later.change(), Some(StateChange::Clear)));
    }

    // A failed save leaves the stored states unchanged.
    #[test]
    fn incompatible_state_resets_and_oversized_save_fails() {
        let store = store_at(r#"{"state":{"is":{"Dish":"soup"}}}"#, 0);
        let state = State::<u32>::new(store.clone(), "state");
        assert_eq!(ready(state.load()), 0);
        let large = State::<String>::new(store.clone(), "large");
        // The quotes and the name alone take it over the limit.
        assert!(
            large
                .save(&"x".repeat(MAX_STATE_BYTES))
                .now_or_never()
                .unwrap()
                .is_err()
        );
        assert!(store.change().is_none());
        assert_eq!(ready(large.load()), "");
        assert_eq!(
            ready(State::<u32>::new(store_at("no JSON", 0), "state").load()),
            0
        );
    }
}
