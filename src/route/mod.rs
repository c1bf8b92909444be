//! Routing of messages by filters: a [`Router`] is a handler made of routes.
//!
//! The first route whose filter matches replies. A message that no route matches goes to [`Router::otherwise`], or gets
//! an empty reply.
//!
//! ```
//! use replyhook::route::{Captures, Router, command, country, first_contact, image, regex, text, words};
//! use replyhook::{InboundMessage, Reply};
//!
//! async fn photo(message: InboundMessage) -> String {
//!     format!("{} picture(s), thank you!", message.media.len())
//! }
//!
//! async fn order(Captures(id): Captures<u32>) -> String {
//!     format!("Order {id} ships today.")
//! }
//!
//! let bot = Router::new()
//!     .on(text(["hi", "hello"]) & first_contact(), "Welcome! Write *order 42*, or send a picture.")
//!     .on(text(["hi", "hello"]), "Welcome back!")
//!     .on(regex(r"^order (?<id>\d+)$") | command("order"), order)
//!     .on(image() & !country("US"), photo)
//!     .on(words(["refund", "money back"]), || async { Reply::text("A colleague will call you.") })
//!     .otherwise("Write *order 42*, or send a picture.");
//! println!("{bot}");
//! # fn is_handler(_: impl replyhook::Handler) {}
//! # is_handler(bot);
//! ```
//!
//! Filters compare texts regardless of case, accents (`é` is `e`), width (NFKC), white space, typographic quotes and
//! invisible characters. There are two exceptions. To [`regex()`], accents and quotes matter. The payload of a button
//! and the id of a list item, which a program made, must be equal byte by byte.
//!
//! To ask follow-up questions, add a [`Form`] with [`Router::form`], or keep your own [`Context::state`].

mod address_filters;
mod captures;
mod extracted;
mod filter;
mod filters;
mod hours;
mod pattern;
mod pattern_cost;
mod request;

use std::fmt;
use std::sync::Arc;

pub use crate::folding::IntoTexts;
pub use address_filters::{from, sent_by, sent_to, to};
pub use captures::Captures;
#[cfg(feature = "rules")]
pub(crate) use extracted::Extracted;
pub use filter::Filter;
use filter::Subject;
pub use filters::{
    all, any, any_button, any_choice, any_list_item, any_media, anything, audio, button, channel,
    choice, command, country, document, during, first_contact, flow_response, forwarded, hours,
    image, list_item, location, matches, media, quotes_our_message, regex, text, try_regex, video,
    within_km, words,
};
#[cfg(feature = "rules")]
pub(crate) use filters::{has_word, regex_filter};
use futures_util::future::BoxFuture;
pub use hours::{Hours, HoursError};
pub use pattern::PatternError;
#[cfg(feature = "rules")]
pub(crate) use pattern::{MAX_PATTERN_BYTES, Pattern};
use request::{Bound, ErasedHandler, erase};
pub use request::{FromMessage, RouteFuture, RouteHandler, RouteRequest, Shared};

use crate::dialogue::{self, Form};
use crate::handler::{Context, Handler, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;

/// Handler that chooses a reply by routes, tried in order. `Display` prints the table of routes.
///
/// Route handlers that take [`Shared<S>`](Shared) make a `Router<S>`. [`with_state`](Self::with_state) turns it into a
/// [`Handler`]:
///
/// ```
/// use std::sync::Arc;
/// use replyhook::route::{Router, Shared, channel, text};
/// use replyhook::Channel;
///
/// struct Shop { name: &'static str }
///
/// async fn about(Shared(shop): Shared<Arc<Shop>>) -> String {
///     format!("This is {}.", shop.name)
/// }
///
/// let by_sms = Router::new().on(text("about"), about).otherwise("We like WhatsApp better.");
/// let bot = Router::new()
///     .nest(channel(Channel::Sms), by_sms)
///     .on(text("about"), about)
///     .with_state(Arc::new(Shop { name: "Ana's" }));
/// # fn is_handler(_: impl replyhook::Handler) {}
/// # is_handler(bot);
/// ```
pub struct Router<S = ()> {
    routes: Vec<RouteEntry<S>>,
    otherwise: Option<Box<RouteEntry<S>>>,
    /// Store reads that these routes, or those of nested routers, need before matching.
    store_reads: StoreReads,
}

#[derive(Default, Clone, Copy)]
struct StoreReads {
    /// The form that is in progress, if any.
    form_progress: bool,
    /// The check whether this is the first message of the conversation.
    first_contact: bool,
}

struct RouteEntry<S> {
    filter: Filter,
    target: RouteTarget<S>,
    description: String,
}

enum RouteTarget<S> {
    RouteHandler(Arc<dyn ErasedHandler<S>>),
    Handler(Arc<dyn Handler>),
    Form(Arc<Form>),
    Router(Router<S>),
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// Creates a router without routes, which never replies.
    pub fn new() -> Self {
        Self {
            routes: Vec::new(),
            otherwise: None,
            store_reads: StoreReads::default(),
        }
    }

    /// Adds a route that replies to messages that the filter matches.
    #[must_use]
    pub fn on<Arguments: 'static>(
        self,
        filter: Filter,
        handler: impl RouteHandler<Arguments, S>,
    ) -> Self {
        let description = handler.shown();
        self.add_route(
            filter,
            RouteTarget::RouteHandler(erase(handler)),
            description,
        )
    }

    /// Adds a route that passes messages to a [`Handler`], such as [`Forward`](crate::forward::Forward).
    #[must_use]
    pub fn on_handler(self, filter: Filter, handler: impl Handler) -> Self {
        self.add_route(
            filter,
            RouteTarget::Handler(Arc::new(handler)),
            "a handler".to_owned(),
        )
    }

    #[cfg(feature = "rules")]
    pub(crate) fn on_shared_handler(self, filter: Filter, handler: Arc<dyn Handler>) -> Self {
        self.add_route(filter, RouteTarget::Handler(handler), "forwards".to_owned())
    }

    /// Adds a route that starts a form. Until the form is done, canceled or has expired, it gets every message of the
    /// conversation, before any route is tried.
    #[must_use]
    pub fn form(self, filter: Filter, form: Form) -> Self {
        let description = format!("asks {}", form.name());
        self.add_route(filter, RouteTarget::Form(Arc::new(form)), description)
    }

    /// Adds the routes of another router for messages that the filter matches. If none of them matches, the routes
    /// after this one are tried.
    #[must_use]
    pub fn nest(self, filter: Filter, router: Self) -> Self {
        self.add_route(filter, RouteTarget::Router(router), String::new())
    }

    /// Sets the reply to messages that no route matches.
    #[must_use]
    pub fn otherwise<Arguments: 'static>(
        mut self,
        handler: impl RouteHandler<Arguments, S>,
    ) -> Self {
        self.otherwise = Some(Box::new(RouteEntry {
            filter: anything(),
            description: handler.shown(),
            target: RouteTarget::RouteHandler(erase(handler)),
        }));
        self
    }

    /// Provides the state that route handlers take as [`Shared<S>`](Shared). The result may be nested in a router with
    /// another state type, or used as a [`Handler`].
    #[must_use]
    pub fn with_state<T>(self, state: S) -> Router<T> {
        let bind = |route: RouteEntry<S>| route.with_state(&state);
        Router {
            routes: self.routes.into_iter().map(bind).collect(),
            otherwise: self.otherwise.map(|route| Box::new(bind(*route))),
            store_reads: self.store_reads,
        }
    }

    fn add_route(mut self, filter: Filter, target: RouteTarget<S>, description: String) -> Self {
        // Collected while building, so that a router without forms and `first_contact` reads nothing from the store.
        self.store_reads.first_contact |= filter.needs_first_contact();
        match &target {
            RouteTarget::Form(_) => self.store_reads.form_progress = true,
            RouteTarget::Router(router) => {
                self.store_reads.form_progress |= router.store_reads.form_progress;
                self.store_reads.first_contact |= router.store_reads.first_contact;
            }
            RouteTarget::RouteHandler(_) | RouteTarget::Handler(_) => {}
        }
        self.routes.push(RouteEntry {
            filter,
            target,
            description,
        });
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> RouteEntry<S> {
    fn with_state<T>(self, state: &S) -> RouteEntry<T> {
        let target = match self.target {
            RouteTarget::RouteHandler(handler) => RouteTarget::RouteHandler(Arc::new(Bound {
                handler,
                state: state.clone(),
            })
                as Arc<dyn ErasedHandler<T>>),
            RouteTarget::Handler(handler) => RouteTarget::Handler(handler),
            RouteTarget::Form(form) => RouteTarget::Form(form),
            RouteTarget::Router(router) => RouteTarget::Router(router.with_state(state.clone())),
        };
        RouteEntry {
            filter: self.filter,
            target,
            description: self.description,
        }
    }
}

impl<S> Router<S> {
    fn all_routes(&self) -> impl Iterator<Item = &RouteEntry<S>> {
        self.routes.iter().chain(self.otherwise.as_deref())
    }

    fn find_form(&self, name: &str) -> Option<Arc<Form>> {
        self.all_routes().find_map(|route| match &route.target {
            RouteTarget::Form(form) if form.name() == name => Some(form.clone()),
            RouteTarget::Router(router) => router.find_form(name),
            _ => None,
        })
    }

    /// Returns the reply future of the first route whose filter matches and whose arguments are available.
    fn find_reply(&self, cx: &Context, subject: &Subject<'_>, shared: &S) -> RouteFuture {
        // Every `None` below falls through to the next route: a filter that does not match, an argument that is not
        // available, or a nested router without a matching route.
        self.all_routes().find_map(|route| {
            let captures = route.filter.matches(subject)?;
            let message = subject.message;
            match &route.target {
                RouteTarget::RouteHandler(handler) => handler.ask(&RouteRequest {
                    cx,
                    message,
                    captures: &captures,
                    shared,
                }),
                RouteTarget::Handler(handler) => {
                    let (handler, cx, message) = (handler.clone(), cx.clone(), message.clone());
                    Some(Box::pin(async move { handler.handle(cx, message).await }))
                }
                RouteTarget::Form(form) => {
                    let (form, cx, message) = (form.clone(), cx.clone(), message.clone());
                    Some(Box::pin(async move { form.start(&cx, &message).await }))
                }
                RouteTarget::Router(router) => router.find_reply(cx, subject, shared),
            }
        })
    }
}

impl Handler for Router {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        Box::pin(async move {
            // A form in progress comes before all routes, since an answer to its question may also match a route. If
            // the bot no longer has that form, `find_form` returns `None` and the routes are tried.
            if self.store_reads.form_progress
                && let Some(progress) = dialogue::load_progress(&cx).await?
                && let Some(form) = self.find_form(progress.form_name())
            {
                return form.handle_answer(&cx, &message, progress).await;
            }
            let is_first = self.store_reads.first_contact && cx.is_first_contact().await?;
            let reply = {
                let subject = Subject::new(&message, is_first);
                let reply = self.find_reply(&cx, &subject, &());
                // A pattern that was skipped for taking too long looks like one that did not match, or, below `!`, like
                // one that did. So any skipped pattern fails the message, and `reply` is dropped before it is polled.
                subject.effort.finish().map_err(HandlerError::new)?;
                reply
            };
            match reply {
                Some(reply) => reply.await,
                None => Ok(Reply::none()),
            }
        })
    }
}

/// Table of routes with the columns number, filter and reply.
impl<S> fmt::Display for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        self.collect_rows("", &mut rows);
        let width = |column: fn(&[String; 3]) -> &str| {
            rows.iter()
                .map(|row| column(row).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (numbers, filters) = (width(|row| &row[0]), width(|row| &row[1]));
        let mut lines = rows.iter().map(|[number, filter, answer]| {
            let line = format!("{number:numbers$}  {filter:filters$}  {answer}");
            line.trim_end().to_owned()
        });
        if let Some(first) = lines.next() {
            f.write_str(&first)?;
        }
        lines.try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl<S> Router<S> {
    fn collect_rows(&self, prefix: &str, rows: &mut Vec<[String; 3]>) {
        for (index, route) in self.routes.iter().enumerate() {
            let number = format!("{prefix}{}", index + 1);
            rows.push([
                number.clone(),
                truncate_cell(route.filter.to_string()),
                truncate_cell(route.description.clone()),
            ]);
            if let RouteTarget::Router(router) = &route.target {
                router.collect_rows(&format!("{number}."), rows);
            }
        }
        if let Some(route) = &self.otherwise {
            rows.push([
                prefix.to_owned(),
                "otherwise".to_owned(),
                truncate_cell(route.description.clone()),
            ]);
        }
    }
}

/// Shortens a text to the first 120 characters, for a cell of the table.
fn truncate_cell(mut text: String) -> String {
    const MAX: usize = 120;
    if let Some((end, _)) = text.char_indices().nth(MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}
