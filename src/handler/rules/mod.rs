//! A bot without code: rules in a TOML file, read anew when it changes.
//!
//! ```
//! use replyhook::handler::RuleSet;
//!
//! let rules = RuleSet::parse(r#"
//! [[rule]]
//! when.regex = '^order (?<id>\d+)$'
//! reply = "Order {{ id }} is on its way, {{ profile_name or 'friend' }}!"
//!
//! [otherwise]
//! reply = "Write: order 42"
//! "#)?;
//! assert_eq!(rules.examples(), 0);
//! # Ok::<(), replyhook::handler::RulesError>(())
//! ```
//!
//! `docs/src/reference/rules.md` has the whole format. A file that cannot be used is told with all its problems, each with line and column, and
//! what was read before stays in use.

mod asking;
mod example;
mod expression;
mod flow;
mod language;
mod matching;
mod pattern;
mod problem;
mod reader;
mod saying;
mod set;
mod tags;
mod template;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures_util::future::BoxFuture;

pub use example::{ExampleFailure, ExampleResult};
pub use problem::{RulesError, RulesProblem};
pub use set::{OptOutTexts, RuleSet};

use self::problem::Lines;
use super::route::Router;
use super::{Context, Handler, HandlerError};
use crate::message::InboundMessage;
use crate::reply::Reply;

/// A file over this is none of rules.
const MOST_BYTES: u64 = 1024 * 1024;

/// Rules as they stand in a file.
///
/// Obeyed: see [`Rules`].
#[derive(Clone, PartialEq, Eq)]
pub struct RulesFile {
    path: PathBuf,
    text: String,
    first_forward: Option<(usize, usize)>,
}

/// Obeys the rules of a file, as they are now.
///
/// ```no_run
/// use replyhook::App;
/// use replyhook::handler::{Rules, RulesFile};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let file = RulesFile::read("bot.toml")?;
/// let rules = Rules::new(&file, None)?;
/// App::builder().handler(rules).build()?.run().await?;
/// # Ok(()) }
/// ```
pub struct Rules {
    path: PathBuf,
    forward: Option<Arc<dyn Handler>>,
    obeyed: RwLock<Arc<Obeyed>>,
    /// What the file said when it was looked at last.
    seen: Mutex<Result<String, RulesError>>,
}

/// What a file's rules come to.
struct Obeyed {
    router: Router,
    opt_out: OptOutTexts,
}

impl RulesFile {
    /// Reads a file; what it says is checked, too.
    ///
    /// # Errors
    /// [`RulesError`]: it cannot be read, is larger than 1 MiB, or has problems, all of which are told.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, RulesError> {
        let path = path.into();
        let text = text_of(&path)?;
        let first_forward = RuleSet::parse(&text)?.first_forward();
        Ok(Self {
            path,
            text,
            first_forward,
        })
    }

    /// The rules in it.
    ///
    /// # Errors
    /// [`RulesError`]; not for a file that was just read.
    pub fn set(&self) -> Result<RuleSet, RulesError> {
        RuleSet::parse(&self.text)
    }

    /// Line and column of the first rule that forwards to `handler.forward_url`, if one does.
    pub fn first_forward(&self) -> Option<(usize, usize)> {
        self.first_forward
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn text_of(path: &Path) -> Result<String, RulesError> {
    let whole = |what: &str| RulesError::whole(format!("{} {what}", path.display()));
    let unreadable = |error: std::io::Error| whole(&format!("cannot be read: {error}"));
    // Whoever opens a pipe waits for its other end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(whole("is no file"));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(MOST_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(whole("is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let valid = String::from_utf8_lossy(&bytes[..error.utf8_error().valid_up_to()]);
        let place = Lines::new(&valid).place(valid.len());
        RulesError::at(place, "this is no UTF-8: save the file as UTF-8")
    })
}

impl Rules {
    /// A handler that obeys a file's rules, and forwards to `forward` what they say so of.
    ///
    /// # Errors
    /// [`RulesError`]: a rule forwards, and there is nothing to forward to.
    pub fn new(file: &RulesFile, forward: Option<Arc<dyn Handler>>) -> Result<Self, RulesError> {
        let obeyed = Obeyed::new(file.set()?, forward.as_ref())?;
        Ok(Self {
            path: file.path.clone(),
            forward,
            obeyed: RwLock::new(Arc::new(obeyed)),
            seen: Mutex::new(Ok(file.text.clone())),
        })
    }

    /// Looks at the file, and obeys what it says if that has changed and can be obeyed. Blocks for as long as reading takes.
    ///
    /// Returns `None` if nothing has changed since it was looked at last.
    ///
    /// # Errors
    /// [`RulesError`]: what it says now has problems, and the rules from before stay in use.
    pub fn look(&self) -> Option<Result<(), RulesError>> {
        let now = text_of(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        seen.clone_from(&now);
        drop(seen);
        let set = now.and_then(|text| RuleSet::parse(&text));
        Some(set.and_then(|set| {
            let obeyed = Arc::new(Obeyed::new(set, self.forward.as_ref())?);
            *self.obeyed.write().unwrap_or_else(PoisonError::into_inner) = obeyed;
            Ok(())
        }))
    }

    /// What somebody who opts out, or in again, is told now.
    pub fn opt_out(&self) -> OptOutTexts {
        self.obeyed().opt_out.clone()
    }

    fn obeyed(&self) -> Arc<Obeyed> {
        let obeyed = self.obeyed.read().unwrap_or_else(PoisonError::into_inner);
        obeyed.clone()
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Obeyed {
    fn new(set: RuleSet, forward: Option<&Arc<dyn Handler>>) -> Result<Self, RulesError> {
        if let (Some(place), None) = (set.first_forward(), forward) {
            let text =
                "this forwards, and handler.forward_url and handler.forward_secret are not set";
            return Err(RulesError::at(place, text));
        }
        Ok(Self {
            opt_out: set.opt_out().clone(),
            router: set.router(forward),
        })
    }
}

impl Handler for Rules {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        let obeyed = self.obeyed();
        Box::pin(async move { obeyed.router.handle(cx, message).await })
    }
}

impl fmt::Debug for RulesFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RulesFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
