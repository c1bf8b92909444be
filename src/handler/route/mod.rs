//! A bot out of routes: what a message must have, and what answers it.
//!
//! The first route that matches answers. What none matches goes to [`Router::otherwise`], or has no answer.
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
//!     .on(words(["refund", "money back"]), || async { Reply::text("Somebody will call you.") })
//!     .otherwise("Write *order 42*, or send a picture.");
//! println!("{bot}");
//! # fn is_handler(_: impl replyhook::Handler) {}
//! # is_handler(bot);
//! ```
//!
//! Texts are compared as people and their phones write them: case, accents (`é` is `e`), width (NFKC), white space, bent quotes and
//! marks that cannot be seen do not matter, to all filters but [`regex()`], for which accents and quotes do, and to what a program
//! made, as a button's payload, all of it does.
//!
//! A follow-up question is a [`Form`], by [`Router::form`], or a [`Context::state`] of yours.

mod answer;
mod captures;
mod country;
mod filter;
mod filters;
mod hours;
mod pattern;
mod weight;

use std::fmt;
use std::sync::Arc;

pub use answer::{Answer, Asked, Call, FromMessage, Shared};
use answer::{Answering, Bound, erased};
pub use captures::Captures;
#[cfg(feature = "rules")]
pub(crate) use captures::Taken;
#[cfg(feature = "rules")]
pub(crate) use country::country as country_of;
pub use filter::Filter;
use filter::Subject;
pub use filters::{
    Texts, all, any_button, any_list_item, any_media, anything, audio, button, channel, command,
    country, document, during, first_contact, flow_answer, forwarded, hours, image, list_item,
    location, media, near, one_of, regex, reply_to_us, text, try_regex, video, when, words,
};
#[cfg(feature = "rules")]
pub(crate) use filters::{has_word, of_pattern};
use futures_util::future::BoxFuture;
pub use hours::{Hours, HoursError};
pub use pattern::PatternError;
#[cfg(feature = "rules")]
pub(crate) use pattern::{PATTERN_BYTES, Pattern};

use super::dialogue::{self, Form};
use super::{Context, Handler, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;

/// Routes in order. Printed, it is their table.
///
/// A router whose answers take a [`Shared<S>`](Shared) is a `Router<S>` until it has its state, and a [`Handler`] then:
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
    routes: Vec<Route<S>>,
    otherwise: Option<Box<Route<S>>>,
    /// What has to be known before a message is looked at, by these routes and those within.
    needs: Needs,
}

#[derive(Default, Clone, Copy)]
struct Needs {
    /// Whether the conversation is in a form.
    forms: bool,
    /// Whether anything came before.
    journal: bool,
}

struct Route<S> {
    filter: Filter,
    to: To<S>,
    shown: String,
}

enum To<S> {
    Answer(Arc<dyn Answering<S>>),
    Handler(Arc<dyn Handler>),
    Form(Arc<Form>),
    Router(Router<S>),
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    /// Without routes: it answers nothing.
    pub fn new() -> Self {
        Self {
            routes: Vec::new(),
            otherwise: None,
            needs: Needs::default(),
        }
    }

    /// Answers what the filter matches, unless an earlier route does.
    #[must_use]
    pub fn on<Arguments: 'static>(self, filter: Filter, answer: impl Answer<Arguments, S>) -> Self {
        let shown = answer.shown();
        self.add(filter, To::Answer(erased(answer)), shown)
    }

    /// Hands what the filter matches to a [`Handler`], such as [`Forward`](super::Forward).
    #[must_use]
    pub fn hand_to(self, filter: Filter, handler: impl Handler) -> Self {
        self.add(
            filter,
            To::Handler(Arc::new(handler)),
            "a handler".to_owned(),
        )
    }

    #[cfg(feature = "rules")]
    pub(crate) fn hand_to_shared(self, filter: Filter, handler: Arc<dyn Handler>) -> Self {
        self.add(filter, To::Handler(handler), "forwards".to_owned())
    }

    /// Begins to ask where the filter matches. Until the form is done, cancelled or has expired, every message of the
    /// conversation is an answer to it, before any route is looked at.
    #[must_use]
    pub fn form(self, filter: Filter, form: Form) -> Self {
        let shown = format!("asks {}", form.name());
        self.add(filter, To::Form(Arc::new(form)), shown)
    }

    /// Looks at the routes of another router where the filter matches, and goes on here if none of those does.
    #[must_use]
    pub fn nest(self, filter: Filter, router: Self) -> Self {
        self.add(filter, To::Router(router), String::new())
    }

    /// Answers what no route matches.
    #[must_use]
    pub fn otherwise<Arguments: 'static>(mut self, answer: impl Answer<Arguments, S>) -> Self {
        self.otherwise = Some(Box::new(Route {
            filter: anything(),
            shown: answer.shown(),
            to: To::Answer(erased(answer)),
        }));
        self
    }

    /// Gives the answers what they share. What it makes shares something else, or nothing.
    #[must_use]
    pub fn with_state<T>(self, state: S) -> Router<T> {
        let bind = |route: Route<S>| route.with_state(&state);
        Router {
            routes: self.routes.into_iter().map(bind).collect(),
            otherwise: self.otherwise.map(|route| Box::new(bind(*route))),
            needs: self.needs,
        }
    }

    fn add(mut self, filter: Filter, to: To<S>, shown: String) -> Self {
        self.needs.journal |= filter.asks_the_journal();
        match &to {
            To::Form(_) => self.needs.forms = true,
            To::Router(router) => {
                self.needs.forms |= router.needs.forms;
                self.needs.journal |= router.needs.journal;
            }
            To::Answer(_) | To::Handler(_) => {}
        }
        self.routes.push(Route { filter, to, shown });
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    fn with_state<T>(self, state: &S) -> Route<T> {
        let to = match self.to {
            To::Answer(answer) => To::Answer(Arc::new(Bound {
                answer,
                state: state.clone(),
            }) as Arc<dyn Answering<T>>),
            To::Handler(handler) => To::Handler(handler),
            To::Form(form) => To::Form(form),
            To::Router(router) => To::Router(router.with_state(state.clone())),
        };
        Route {
            filter: self.filter,
            to,
            shown: self.shown,
        }
    }
}

impl<S> Router<S> {
    fn all(&self) -> impl Iterator<Item = &Route<S>> {
        self.routes.iter().chain(self.otherwise.as_deref())
    }

    fn form_named(&self, name: &str) -> Option<Arc<Form>> {
        self.all().find_map(|route| match &route.to {
            To::Form(form) if form.name() == name => Some(form.clone()),
            To::Router(router) => router.form_named(name),
            _ => None,
        })
    }

    /// The answer of the first route that matches and takes its arguments.
    fn ask(&self, cx: &Context, subject: &Subject<'_>, shared: &S) -> Asked {
        self.all().find_map(|route| {
            let taken = route.filter.matches(subject)?;
            let message = subject.message;
            match &route.to {
                To::Answer(answer) => answer.ask(&Call {
                    cx,
                    message,
                    taken: &taken,
                    shared,
                }),
                To::Handler(handler) => {
                    let (handler, cx, message) = (handler.clone(), cx.clone(), message.clone());
                    Some(Box::pin(async move { handler.handle(cx, message).await }))
                }
                To::Form(form) => {
                    let (form, cx, message) = (form.clone(), cx.clone(), message.clone());
                    Some(Box::pin(async move { form.begin(&cx, &message).await }))
                }
                To::Router(router) => router.ask(cx, subject, shared),
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
            if self.needs.forms
                && let Some(progress) = dialogue::running(&cx).await?
                && let Some(form) = self.form_named(progress.form())
            {
                return form.go_on(&cx, &message, progress).await;
            }
            let is_first = self.needs.journal && cx.is_first_contact().await?;
            let asked = {
                let subject = Subject::new(&message, is_first);
                let asked = self.ask(&cx, &subject, &());
                subject.effort.end().map_err(HandlerError::new)?;
                asked
            };
            match asked {
                Some(answer) => answer.await,
                None => Ok(Reply::none()),
            }
        })
    }
}

/// The table of routes: number, filter, answer.
impl<S> fmt::Display for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = Vec::new();
        self.rows("", &mut rows);
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
    fn rows(&self, before: &str, rows: &mut Vec<[String; 3]>) {
        for (at, route) in self.routes.iter().enumerate() {
            let number = format!("{before}{}", at + 1);
            rows.push([
                number.clone(),
                cell(route.filter.to_string()),
                cell(route.shown.clone()),
            ]);
            if let To::Router(router) = &route.to {
                router.rows(&format!("{number}."), rows);
            }
        }
        if let Some(route) = &self.otherwise {
            rows.push([
                before.to_owned(),
                "otherwise".to_owned(),
                cell(route.shown.clone()),
            ]);
        }
    }
}

/// As much of it as a table can show.
fn cell(mut text: String) -> String {
    const MOST: usize = 120;
    if let Some((end, _)) = text.char_indices().nth(MOST) {
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
