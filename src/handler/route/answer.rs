//! What answers a route: a text, or an async function whose arguments are taken out of the message.

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::captures::Taken;
use crate::handler::{Context, HandlerError};
use crate::message::InboundMessage;
use crate::reply::{IntoReply, Reply, ReplyMessage};

/// A message on its way into an answer.
///
/// What is taken out of one: see [`FromMessage`].
#[derive(Debug)]
pub struct Call<'a, S> {
    pub(super) cx: &'a Context,
    pub(super) message: &'a InboundMessage,
    pub(in crate::handler) taken: &'a Taken,
    pub(super) shared: &'a S,
}

impl<S> Call<'_, S> {
    /// The call's context.
    pub fn context(&self) -> &Context {
        self.cx
    }

    /// The message.
    pub fn message(&self) -> &InboundMessage {
        self.message
    }

    /// What the router shares.
    pub fn shared(&self) -> &S {
        self.shared
    }
}

/// What an answer may take as an argument: [`InboundMessage`], [`Context`], [`Captures<T>`](super::Captures),
/// [`Shared<S>`](Shared), an `Option` of one of these, and types of yours.
///
/// ```
/// use replyhook::route::{Call, FromMessage, Router, any_media};
///
/// /// Who writes, as they call themselves.
/// struct Name(String);
///
/// impl<S> FromMessage<S> for Name {
///     fn from_message(call: &Call<'_, S>) -> Option<Self> {
///         call.message().profile_name.clone().map(Self)
///     }
/// }
///
/// async fn thanks(Name(name): Name) -> String {
///     format!("Thank you, {name}!")
/// }
///
/// // Without a name the first route does not match.
/// let bot = Router::new().on(any_media(), thanks).on(any_media(), "Thank you!");
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken out of a message",
    label = "an answer's arguments are `InboundMessage`, `Context`, `Captures<T>`, `Shared<S>` or types of yours that implement `FromMessage`",
    note = "`Shared<S>` needs a router whose state is of that very type: `.with_state(…)`"
)]
pub trait FromMessage<S>: Sized + Send {
    /// Takes it; nothing means that the route does not match, and the next one is tried.
    fn from_message(call: &Call<'_, S>) -> Option<Self>;
}

impl<S> FromMessage<S> for InboundMessage {
    fn from_message(call: &Call<'_, S>) -> Option<Self> {
        Some(call.message.clone())
    }
}

impl<S> FromMessage<S> for Context {
    fn from_message(call: &Call<'_, S>) -> Option<Self> {
        Some(call.cx.clone())
    }
}

impl<S, T: FromMessage<S>> FromMessage<S> for Option<T> {
    fn from_message(call: &Call<'_, S>) -> Option<Self> {
        Some(T::from_message(call))
    }
}

/// What a router shares among its answers: see [`Router::with_state`](super::Router::with_state).
///
/// ```
/// # #[cfg(feature = "testing")]
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use replyhook::route::{Router, Shared};
/// use replyhook::{App, testing::TestBot};
///
/// async fn next(Shared(counter): Shared<Arc<AtomicU32>>) -> String {
///     format!("You are number {}.", counter.fetch_add(1, Ordering::Relaxed) + 1)
/// }
///
/// let counter = Arc::new(AtomicU32::new(0));
/// let bot = move || Router::new().otherwise(next).with_state(counter.clone());
/// let bot = TestBot::start(move || App::builder().handler(bot())).await;
/// bot.sms("+34600000001").says("hi").await.assert_reply("You are number 1.");
/// # });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Shared<S>(pub S);

impl<S: Clone + Send> FromMessage<S> for Shared<S> {
    fn from_message(call: &Call<'_, S>) -> Option<Self> {
        Some(Self(call.shared.clone()))
    }
}

/// What an answer is once it is asked; nothing if an argument was not to be had.
///
/// Made by [`Answer::ask`]; nobody has to name it who writes async functions, as in the example of [`Answer`].
pub type Asked = Option<BoxFuture<'static, Result<Reply, HandlerError>>>;

/// What answers a route: a text, a [`Reply`], or an async function with up to six arguments that are [`FromMessage`], and
/// which returns what a bot can say.
///
/// ```
/// use replyhook::route::{Router, command, image, text};
/// use replyhook::{Context, InboundMessage, Media, Reply};
///
/// async fn receipt(cx: Context, message: InboundMessage) -> Option<String> {
///     (cx.attempt() == 1).then(|| format!("{} received.", message.message_sid))
/// }
///
/// let bot = Router::new()
///     .on(text("hi"), "A text.")
///     .on(command("menu"), Reply::media(Media::url("https://cdn.example.com/menu.pdf")))
///     .on(image(), receipt)
///     .otherwise(|message: InboundMessage| async move { message.body });
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot answer a route",
    label = "expected a text, a `Reply`, or an async function of what can be taken out of a message",
    note = "its arguments may be, in any order: `InboundMessage`, `Context`, `Captures<T>` (of a regex or a command), `Shared<S>` \
            (of a router with state), or an `Option` of one of these",
    note = "it returns what a bot can say: a text, `()`, a `Reply`, or an `Option` or `Result` of these; its future must be `Send`",
    note = "a closure's arguments need their types: `|message: InboundMessage| async move {{ … }}`",
    note = "a type that is a `Handler` goes by `.hand_to(filter, handler)`, a router by `.nest(filter, router)`"
)]
pub trait Answer<Arguments, S>: Send + Sync + 'static {
    /// Asks it.
    fn ask(&self, call: &Call<'_, S>) -> Asked;

    /// What the table of routes shows of it.
    fn shown(&self) -> String {
        shown(std::any::type_name::<Self>())
    }
}

/// The last part of a function's name, which tells it from the others.
fn shown(name: &str) -> String {
    let name = name.split('<').next().unwrap_or(name);
    if name.ends_with("{{closure}}") {
        return "a closure".to_owned();
    }
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

/// Marks an answer that always says the same.
///
/// It stands in a bound where a function's arguments would: see [`Answer`] for what may answer.
#[derive(Debug)]
pub struct Same;

macro_rules! same {
    ($($type:ty),+) => {
        $(impl<S> Answer<Same, S> for $type {
            fn ask(&self, _: &Call<'_, S>) -> Asked {
                let reply = self.clone().into_reply();
                Some(Box::pin(std::future::ready(reply)))
            }

            fn shown(&self) -> String {
                format!("says {self:?}")
            }
        })+
    };
}

same!(&'static str, String, Reply, ReplyMessage);

macro_rules! functions {
    ($(($($argument:ident),*))+) => {
        $(impl<F, Fut, S, $($argument),*> Answer<($($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoReply,
            $($argument: FromMessage<S>,)*
        {
            fn ask(&self, call: &Call<'_, S>) -> Asked {
                // Without arguments nothing is taken.
                let _ = call;
                let answer = self($($argument::from_message(call)?),*);
                Some(Box::pin(async move { answer.await.into_reply() }))
            }
        })+
    };
}

functions! {
    () (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, G)
}

/// An answer of a router with this state, whatever its arguments.
pub(super) trait Answering<S>: Send + Sync {
    fn ask(&self, call: &Call<'_, S>) -> Asked;
}

struct Erased<A, Arguments> {
    answer: A,
    arguments: PhantomData<fn() -> Arguments>,
}

impl<A, Arguments, S> Answering<S> for Erased<A, Arguments>
where
    A: Answer<Arguments, S>,
    Arguments: 'static,
{
    fn ask(&self, call: &Call<'_, S>) -> Asked {
        self.answer.ask(call)
    }
}

pub(super) fn erased<A, Arguments, S>(answer: A) -> Arc<dyn Answering<S>>
where
    A: Answer<Arguments, S>,
    Arguments: 'static,
{
    Arc::new(Erased {
        answer,
        arguments: PhantomData,
    })
}

/// An answer with its state.
pub(super) struct Bound<S> {
    pub(super) answer: Arc<dyn Answering<S>>,
    pub(super) state: S,
}

impl<S: Send + Sync, T> Answering<T> for Bound<S> {
    fn ask(&self, call: &Call<'_, T>) -> Asked {
        let call = Call {
            cx: call.cx,
            message: call.message,
            taken: call.taken,
            shared: &self.state,
        };
        self.answer.ask(&call)
    }
}
