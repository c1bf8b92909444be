//! Handlers of routes: a text, a [`Reply`], or an async function whose arguments come from the message.

use std::marker::PhantomData;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::extracted::Extracted;
use crate::choice::Chosen;
use crate::handler::{Context, HandlerError};
use crate::message::InboundMessage;
use crate::reply::{IntoReply, Reply, ReplyMessage};

/// Message that a route matched, with its context and captures, from which [`FromMessage`] takes arguments.
///
/// See [`FromMessage`] for an example.
#[derive(Debug)]
pub struct RouteRequest<'a, S> {
    pub(super) cx: &'a Context,
    pub(super) message: &'a InboundMessage,
    pub(crate) captures: &'a Extracted,
    pub(super) shared: &'a S,
}

impl<S> RouteRequest<'_, S> {
    /// Returns the context of the handler call.
    pub fn context(&self) -> &Context {
        self.cx
    }

    /// Returns the message.
    pub fn message(&self) -> &InboundMessage {
        self.message
    }

    /// Returns the router's state.
    pub fn shared(&self) -> &S {
        self.shared
    }
}

/// Argument of a route handler: [`InboundMessage`], [`Context`], [`Captures<T>`](super::Captures),
/// [`Shared<S>`](Shared), [`Chosen`], an `Option` of one of these, or your own type.
///
/// ```
/// use replyhook::route::{FromMessage, RouteRequest, Router, any_media};
///
/// /// Profile name of the user.
/// struct Name(String);
///
/// impl<S> FromMessage<S> for Name {
///     fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
///         call.message().profile_name.clone().map(Self)
///     }
/// }
///
/// async fn thanks(Name(name): Name) -> String {
///     format!("Thank you, {name}!")
/// }
///
/// // For a user without a name the first route does not match.
/// let bot = Router::new().on(any_media(), thanks).on(any_media(), "Thank you!");
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken out of a message",
    label = "a route handler's arguments are `InboundMessage`, `Context`, `Captures<T>`, `Shared<S>` or your own types that implement `FromMessage`",
    note = "the `T` of `Captures<T>` must implement `serde::Deserialize`",
    note = "`Shared<S>` needs a router whose state is of that very type: `.with_state(…)`"
)]
pub trait FromMessage<S>: Sized + Send {
    /// Takes the argument from the message. `None` means that the route does not match, so the next one is tried.
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self>;
}

impl<S> FromMessage<S> for InboundMessage {
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
        Some(call.message.clone())
    }
}

impl<S> FromMessage<S> for Chosen {
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
        call.message.choice()
    }
}

impl<S> FromMessage<S> for Context {
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
        Some(call.cx.clone())
    }
}

impl<S, T: FromMessage<S>> FromMessage<S> for Option<T> {
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
        // An `Option` is always available, so the route matches without the value.
        Some(T::from_message(call))
    }
}

/// State of a router, shared by its route handlers and set by [`Router::with_state`](super::Router::with_state).
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
    fn from_message(call: &RouteRequest<'_, S>) -> Option<Self> {
        Some(Self(call.shared.clone()))
    }
}

/// Future of a route's reply, or `None` if an argument is not available.
///
/// [`RouteHandler::ask`] returns it. Code that uses async functions as handlers does not name this type.
pub type RouteFuture = Option<BoxFuture<'static, Result<Reply, HandlerError>>>;

/// Handler of a route: a text, a [`Reply`], a [`ReplyMessage`], or an async function.
///
/// The function has up to six arguments that implement [`FromMessage`], and returns a type that implements
/// [`IntoReply`].
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
    note = "the `T` of `Captures<T>` must implement `serde::Deserialize`: add `#[derive(serde::Deserialize)]` to it, and the crate \
            `serde` with the feature `derive`",
    note = "it returns what a bot can say: a text, `()`, a `Reply`, or an `Option` or `Result` of these; its future must be `Send`",
    note = "a closure's arguments need their types: `|message: InboundMessage| async move {{ … }}`",
    note = "add a type that is a `Handler` with `.on_handler(filter, handler)`, and a router with `.nest(filter, router)`"
)]
pub trait RouteHandler<Arguments, S>: Send + Sync + 'static {
    /// Takes the arguments from the message and returns the future of the reply.
    fn ask(&self, call: &RouteRequest<'_, S>) -> RouteFuture;

    /// Returns the text for the table of routes.
    fn shown(&self) -> String {
        short_type_name(std::any::type_name::<Self>())
    }
}

/// Shortens a type name, such as `bot::order`, to the function's own name.
fn short_type_name(name: &str) -> String {
    // Without generic arguments, whose paths contain `::` too.
    let name = name.split('<').next().unwrap_or(name);
    if name.ends_with("{{closure}}") {
        return "a closure".to_owned();
    }
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

/// Marker for route handlers with a fixed reply, in place of a function's arguments.
///
/// See [`RouteHandler`] for the types that may be handlers.
#[derive(Debug)]
pub struct SelfArgs;

// `SelfArgs` stands where the impls for functions have the tuple of their argument types.
macro_rules! fixed_reply {
    ($($type:ty),+) => {
        $(impl<S> RouteHandler<SelfArgs, S> for $type {
            fn ask(&self, _: &RouteRequest<'_, S>) -> RouteFuture {
                let reply = self.clone().into_reply();
                Some(Box::pin(std::future::ready(reply)))
            }

            fn shown(&self) -> String {
                format!("says {self:?}")
            }
        })+
    };
}

fixed_reply!(&'static str, String, Reply, ReplyMessage);

macro_rules! functions {
    ($(($($argument:ident),*))+) => {
        $(impl<F, Fut, S, $($argument),*> RouteHandler<($($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoReply,
            $($argument: FromMessage<S>,)*
        {
            fn ask(&self, call: &RouteRequest<'_, S>) -> RouteFuture {
                // The impl for functions without arguments does not use `call`.
                let _ = call;
                let future = self($($argument::from_message(call)?),*);
                Some(Box::pin(async move { future.await.into_reply() }))
            }
        })+
    };
}

functions! {
    () (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, G)
}

/// Route handler whose argument types are erased, so that a router can store handlers of all kinds.
pub(super) trait ErasedHandler<S>: Send + Sync {
    fn ask(&self, call: &RouteRequest<'_, S>) -> RouteFuture;
}

struct Erased<A, Arguments> {
    handler: A,
    // `fn() -> Arguments` is `Send` and `Sync` for all `Arguments`, which are not stored here.
    arguments: PhantomData<fn() -> Arguments>,
}

impl<A, Arguments, S> ErasedHandler<S> for Erased<A, Arguments>
where
    A: RouteHandler<Arguments, S>,
    Arguments: 'static,
{
    fn ask(&self, call: &RouteRequest<'_, S>) -> RouteFuture {
        self.handler.ask(call)
    }
}

pub(super) fn erase<A, Arguments, S>(handler: A) -> Arc<dyn ErasedHandler<S>>
where
    A: RouteHandler<Arguments, S>,
    Arguments: 'static,
{
    Arc::new(Erased {
        handler,
        arguments: PhantomData,
    })
}

/// Route handler together with its state, usable in a router with any other state.
pub(super) struct Bound<S> {
    pub(super) handler: Arc<dyn ErasedHandler<S>>,
    pub(super) state: S,
}

impl<S: Send + Sync, T> ErasedHandler<T> for Bound<S> {
    fn ask(&self, call: &RouteRequest<'_, T>) -> RouteFuture {
        let call = RouteRequest {
            cx: call.cx,
            message: call.message,
            captures: call.captures,
            shared: &self.state,
        };
        self.handler.ask(&call)
    }
}
