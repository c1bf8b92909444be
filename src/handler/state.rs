//! What is remembered of a conversation, between its messages.
//!
//! It is one JSON object, which holds what is kept by name; each may have a time at which it is forgotten. It is loaded when
//! somebody asks for it, once a message, and written only if it has changed: with the answer, in one transaction.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::HandlerError;
use super::history::Conversing;
use crate::clock::after;

/// What a conversation may be remembered by, in bytes: it is read and written whole.
const MOST_BYTES: usize = 64 * 1024;

/// What is remembered of a message's conversation, and what its handler has made of that.
pub(crate) struct Memory {
    of: Option<Arc<dyn Conversing>>,
    now: Timestamp,
    kept: Mutex<Option<Kept>>,
}

#[derive(Default)]
struct Kept {
    slots: BTreeMap<String, Slot>,
    changed: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Slot {
    #[serde(rename = "is")]
    value: Value,
    #[serde(rename = "until", default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

/// What is to be remembered from now on.
#[cfg_attr(
    not(feature = "app"),
    expect(dead_code, reason = "only the dispatcher keeps conversations")
)]
pub(crate) enum Remember {
    /// This, until then.
    This(String, Option<Timestamp>),
    /// Nothing.
    Nothing,
}

/// Why what a bot remembers is not had.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("the state {0:?} cannot be written as JSON")]
    NotJson(&'static str),
    #[error(
        "the state {0:?} would be over 64 KiB, together with what else is kept of the conversation"
    )]
    TooLarge(&'static str),
}

impl Memory {
    pub(crate) fn new(of: Option<Arc<dyn Conversing>>, now: Timestamp) -> Self {
        Self {
            of,
            now,
            kept: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept, loaded if it was not.
    async fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> Result<T, HandlerError> {
        if self.lock().is_none() {
            let text = match &self.of {
                Some(conversation) => conversation.remembered().await?,
                None => None,
            };
            // Somebody else may have loaded it meanwhile, and changed it.
            self.lock()
                .get_or_insert_with(|| Kept::read(text, self.now));
        }
        let mut kept = self.lock();
        Ok(look(kept.get_or_insert_default()))
    }

    pub(crate) async fn load(&self, name: &str) -> Result<Option<Value>, HandlerError> {
        self.with(|kept| kept.slots.get(name).map(|slot| slot.value.clone()))
            .await
    }

    pub(crate) async fn save(
        &self,
        name: &'static str,
        value: Value,
        lasts: Option<Duration>,
    ) -> Result<(), HandlerError> {
        let expires_at = lasts.map(|lasts| after(self.now, lasts));
        self.with(|kept| {
            let before = kept
                .slots
                .insert(name.to_owned(), Slot { value, expires_at });
            if kept.text().len() > MOST_BYTES {
                match before {
                    Some(before) => kept.slots.insert(name.to_owned(), before),
                    None => kept.slots.remove(name),
                };
                return Err(HandlerError::new(StateError::TooLarge(name)));
            }
            kept.changed = true;
            Ok(())
        })
        .await?
    }

    pub(crate) async fn clear(&self, name: &str) -> Result<(), HandlerError> {
        self.with(|kept| kept.changed |= kept.slots.remove(name).is_some())
            .await
    }

    /// What is to be written with the answer, if anything has changed.
    #[cfg_attr(
        not(feature = "app"),
        expect(dead_code, reason = "only the dispatcher keeps conversations")
    )]
    pub(crate) fn change(&self) -> Option<Remember> {
        let kept = self.lock();
        let kept = kept.as_ref().filter(|kept| kept.changed)?;
        if kept.slots.is_empty() {
            return Some(Remember::Nothing);
        }
        // What has no end makes the whole have none.
        let ends: Option<Vec<_>> = kept.slots.values().map(|slot| slot.expires_at).collect();
        let end = ends.and_then(|ends| ends.into_iter().max());
        Some(Remember::This(kept.text(), end))
    }
}

impl Kept {
    fn read(text: Option<String>, now: Timestamp) -> Self {
        let Some(text) = text else {
            return Self::default();
        };
        let slots: BTreeMap<String, Slot> = serde_json::from_str(&text).unwrap_or_else(|_| {
            tracing::warn!("what is remembered of a conversation cannot be read, and is forgotten");
            BTreeMap::new()
        });
        let lasts = |slot: &Slot| slot.expires_at.is_none_or(|end| now < end);
        Self {
            slots: slots.into_iter().filter(|(_, slot)| lasts(slot)).collect(),
            changed: false,
        }
    }

    fn text(&self) -> String {
        serde_json::to_string(&self.slots).expect("these values are JSON")
    }
}

/// What a bot remembers of a conversation; [`Context::state`](super::Context::state) makes one.
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
    memory: Arc<Memory>,
    name: &'static str,
    lasts: Option<Duration>,
    of: PhantomData<fn() -> S>,
}

impl<S: Serialize + DeserializeOwned + Default> State<S> {
    pub(super) fn new(memory: Arc<Memory>, name: &'static str) -> Self {
        Self {
            memory,
            name,
            lasts: None,
            of: PhantomData,
        }
    }

    /// Forgets what is saved from here on, this long after the message that it is saved with. Without it nothing is
    /// forgotten.
    #[must_use]
    pub fn expires_in(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self
    }

    /// What was saved last, or the default. What was saved as another type, as by an older version of the bot, is the
    /// default too, and a warning.
    ///
    /// # Errors
    /// [`HandlerError`] when the store is away.
    pub async fn load(&self) -> Result<S, HandlerError> {
        let Some(value) = self.memory.load(self.name).await? else {
            return Ok(S::default());
        };
        Ok(serde_json::from_value(value).unwrap_or_else(|_| {
            tracing::warn!(
                name = self.name,
                "a state is not of the type that the bot has now, and begins anew"
            );
            S::default()
        }))
    }

    /// Remembers this.
    ///
    /// # Errors
    /// [`HandlerError`] for what cannot be JSON, for over 64 KiB, or when the store is away.
    pub async fn save(&self, state: &S) -> Result<(), HandlerError> {
        let value = serde_json::to_value(state)
            .map_err(|_| HandlerError::new(StateError::NotJson(self.name)))?;
        self.memory.save(self.name, value, self.lasts).await
    }

    /// Forgets it.
    ///
    /// # Errors
    /// [`HandlerError`] when the store is away.
    pub async fn clear(&self) -> Result<(), HandlerError> {
        self.memory.clear(self.name).await
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
    use crate::handler::history::Said;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    struct Saved(String);

    impl Conversing for Saved {
        fn remembered(&self) -> BoxFuture<'_, Result<Option<String>, HandlerError>> {
            Box::pin(std::future::ready(Ok(Some(self.0.clone()))))
        }

        fn said(&self, _limit: usize) -> BoxFuture<'_, Result<Vec<Said>, HandlerError>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn is_new(&self) -> BoxFuture<'_, Result<bool, HandlerError>> {
            Box::pin(std::future::ready(Ok(false)))
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn after(text: &str, second: i64) -> Arc<Memory> {
        Arc::new(Memory::new(
            Some(Arc::new(Saved(text.to_owned()))),
            at(second),
        ))
    }

    fn now<T>(future: impl Future<Output = Result<T, HandlerError>>) -> T {
        future.now_or_never().unwrap().unwrap()
    }

    fn written(memory: &Memory) -> (String, Option<Timestamp>) {
        match memory.change() {
            Some(Remember::This(text, end)) => (text, end),
            _ => panic!("nothing to write"),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_until_its_time_is_up() {
        let memory = Arc::new(Memory::new(None, at(100)));
        let number = State::<u32>::new(memory.clone(), "number");
        assert_eq!(now(number.load()), 0);
        assert!(memory.change().is_none());
        now(number.expires_in(Duration::from_mins(1)).save(&7));
        let (text, end) = written(&memory);
        assert_eq!(end, Some(at(160)));
        let load = |second| now(State::<u32>::new(after(&text, second), "number").load());
        assert_eq!(load(159), 7);
        assert_eq!(load(160), 0);
    }

    #[test]
    fn several_states_are_kept_beside_each_other_and_as_long_as_the_longest() {
        let memory = Arc::new(Memory::new(None, at(0)));
        let short = State::<u32>::new(memory.clone(), "a").expires_in(Duration::from_secs(5));
        now(short.save(&1));
        now(State::<String>::new(memory.clone(), "b").save(&"x".to_owned()));
        let (text, end) = written(&memory);
        assert_eq!(end, None);
        let later = after(&text, 10);
        assert_eq!(now(State::<u32>::new(later.clone(), "a").load()), 0);
        assert_eq!(now(State::<String>::new(later.clone(), "b").load()), "x");
        now(State::<String>::new(later.clone(), "b").clear());
        assert!(matches!(later.change(), Some(Remember::Nothing)));
    }

    #[test]
    fn a_state_of_another_type_begins_anew_and_one_that_is_too_large_changes_nothing() {
        let memory = after(r#"{"state":{"is":{"Dish":"soup"}}}"#, 0);
        let state = State::<u32>::new(memory.clone(), "state");
        assert_eq!(now(state.load()), 0);
        let large = State::<String>::new(memory.clone(), "large");
        assert!(
            large
                .save(&"x".repeat(MOST_BYTES))
                .now_or_never()
                .unwrap()
                .is_err()
        );
        assert!(memory.change().is_none());
        assert_eq!(now(large.load()), "");
        assert_eq!(
            now(State::<u32>::new(after("no JSON", 0), "state").load()),
            0
        );
    }
}
