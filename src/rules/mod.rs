//! The rules handler: a bot in a TOML file, which is reloaded when it changes (hot reload).
//!
//! ```
//! use replyhook::rules::RuleSet;
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
//! # Ok::<(), replyhook::rules::RulesError>(())
//! ```
//!
//! `docs/src/reference/rules.md` describes the format. All problems of an invalid file are reported together, each with
//! line and column, and the rules that were loaded before stay active.

mod choices;
mod example;
mod example_question;
mod expression;
mod flow;
mod form;
mod keyword_warnings;
mod language;
mod opt_out;
mod other_content;
mod pattern;
mod problem;
mod reader;
mod reply;
mod set;
mod template;
mod when;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use futures_util::future::BoxFuture;

pub use example::{ExampleFailure, ExampleResult};
pub use example_question::ExampleSettings;
pub use opt_out::OptOutTexts;
pub use problem::{RulesError, RulesProblem};
pub use set::RuleSet;

use self::problem::LineStarts;
use crate::handler::{Context, Handler, HandlerError};
use crate::lock::IgnorePoison;
use crate::message::InboundMessage;
use crate::reply::Reply;
use crate::route::Router;

/// Maximum size of a rules file in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A rules file that was read and checked.
///
/// See [`Rules`] for an example.
#[derive(Clone, PartialEq, Eq)]
pub struct RulesFile {
    path: PathBuf,
    text: String,
    first_forward: Option<(usize, usize)>,
}

/// A handler that replies by the rules of a file, and reloads them with [`Rules::reload_if_changed`].
///
/// ```no_run
/// use replyhook::App;
/// use replyhook::rules::{Rules, RulesFile};
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
    // Behind an `Arc`, so that a message being handled keeps its rules while they are replaced.
    current: RwLock<Arc<LoadedRules>>,
    /// The file's content, or the error of reading it, at the last check.
    last_read: Mutex<Result<String, RulesError>>,
}

/// Rules in the form in which messages are handled.
struct LoadedRules {
    /// Text of the file, to detect that it has not changed.
    text: String,
    router: Router,
    opt_out: OptOutTexts,
}

/// Rules that [`Rules::activate`] makes the current ones.
pub(crate) struct PreparedRules(LoadedRules);

impl RulesFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`RulesError`] if the file cannot be read, is larger than 1 MiB, or has problems. It contains all problems.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, RulesError> {
        let path = path.into();
        let text = read_text(&path)?;
        let first_forward = RuleSet::parse(&text)?.first_forward();
        Ok(Self {
            path,
            text,
            first_forward,
        })
    }

    /// Returns the rules of the file.
    ///
    /// # Errors
    /// [`RulesError`] if the rules have problems, which [`read`](Self::read) has already ruled out.
    pub fn set(&self) -> Result<RuleSet, RulesError> {
        RuleSet::parse(&self.text)
    }

    /// Returns line and column of the first rule that forwards to `handler.forward_url`, if there is one.
    pub fn first_forward(&self) -> Option<(usize, usize)> {
        self.first_forward
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn read_text(path: &Path) -> Result<String, RulesError> {
    let file_error =
        |problem: &str| RulesError::whole_file(format!("{} {problem}", path.display()));
    let unreadable = |error: std::io::Error| file_error(&format!("cannot be read: {error}"));
    // Before opening: opening a pipe blocks until its other end is opened, and a device may never end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(file_error("is not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than the limit, to notice a larger file without trusting its metadata.
    let mut limited = file.take(MAX_FILE_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(file_error("is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let valid = String::from_utf8_lossy(&bytes[..error.utf8_error().valid_up_to()]);
        let position = LineStarts::new(&valid).position(valid.len());
        RulesError::at(position, "invalid UTF-8; save the file as UTF-8")
    })
}

impl Rules {
    /// Creates a handler for a file's rules. `forward` gets the messages of rules with `forward = true`.
    ///
    /// # Errors
    /// [`RulesError`] if a rule forwards and `forward` is `None`.
    pub fn new(file: &RulesFile, forward: Option<Arc<dyn Handler>>) -> Result<Self, RulesError> {
        let loaded = LoadedRules::new(file.text.clone(), forward.as_ref())?;
        Ok(Self {
            path: file.path.clone(),
            forward,
            current: RwLock::new(Arc::new(loaded)),
            last_read: Mutex::new(Ok(file.text.clone())),
        })
    }

    /// Reads the file, and activates its rules if it has changed and has no problems.
    ///
    /// Returns `None` if the file has not changed since the last call. Blocks while the file is read.
    ///
    /// # Errors
    /// [`RulesError`] if the changed file cannot be read or has problems. The previous rules stay active.
    pub fn reload_if_changed(&self) -> Option<Result<(), RulesError>> {
        let content = read_text(&self.path);
        let mut last_read = self.last_read.lock().ignore_poison();
        if *last_read == content {
            return None;
        }
        // Also remember an invalid file and an error, so that each is reported once and not at every check.
        last_read.clone_from(&content);
        // The lock protects only the comparison. Concurrent calls could activate an older file last, but the app calls
        // this from one loop only.
        drop(last_read);
        Some(content.and_then(|text| {
            let loaded = LoadedRules::new(text, self.forward.as_ref())?;
            *self.current.write().ignore_poison() = Arc::new(loaded);
            Ok(())
        }))
    }

    /// Prepares the rules of a file that was read, without activating them. Returns `None` if they are active already,
    /// or if `file` is another one.
    ///
    /// # Errors
    /// [`RulesError`] if a rule forwards and this handler has no service to forward to.
    pub(crate) fn prepare(&self, file: &RulesFile) -> Result<Option<PreparedRules>, RulesError> {
        if file.path != self.path || file.text == self.current().text {
            return Ok(None);
        }
        let loaded = LoadedRules::new(file.text.clone(), self.forward.as_ref())?;
        Ok(Some(PreparedRules(loaded)))
    }

    /// Activates prepared rules.
    pub(crate) fn activate(&self, prepared: PreparedRules) {
        // So that the next check of the file does not report the same rules again.
        *self.last_read.lock().ignore_poison() = Ok(prepared.0.text.clone());
        *self.current.write().ignore_poison() = Arc::new(prepared.0);
    }

    /// Returns the current texts for users who opt out or in.
    pub fn opt_out(&self) -> OptOutTexts {
        self.current().opt_out.clone()
    }

    fn current(&self) -> Arc<LoadedRules> {
        let current = self.current.read().ignore_poison();
        current.clone()
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl PreparedRules {
    /// Returns the texts for users who opt out or in.
    pub(crate) fn opt_out(&self) -> &OptOutTexts {
        &self.0.opt_out
    }
}

impl LoadedRules {
    fn new(text: String, forward: Option<&Arc<dyn Handler>>) -> Result<Self, RulesError> {
        let set = RuleSet::parse(&text)?;
        if let (Some(position), None) = (set.first_forward(), forward) {
            let text = "this rule forwards; set handler.forward_url and handler.forward_secret";
            return Err(RulesError::at(position, text));
        }
        Ok(Self {
            opt_out: set.opt_out().clone(),
            router: set.router(forward),
            text,
        })
    }
}

impl Handler for Rules {
    fn handle(
        &self,
        cx: Context,
        message: InboundMessage,
    ) -> BoxFuture<'_, Result<Reply, HandlerError>> {
        let rules = self.current();
        Box::pin(async move { rules.router.handle(cx, message).await })
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
