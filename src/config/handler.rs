//! The sections `[handler]` and `[handoff]`.

use std::time::Duration;

use super::reader::SettingsReader;
use crate::forward::{ForwardSetupError, ForwardTarget};
#[cfg(feature = "rules")]
use crate::rules::RulesFile;

/// The settings of the `[handler]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandlerSettings {
    /// The built-in handler, for apps without one in code.
    pub kind: HandlerKind,
    /// The service that [`HandlerKind::Forward`], or a rule that forwards, posts messages to.
    pub forward: Option<ForwardTarget>,
    /// The service that gets events.
    pub events: Option<ForwardTarget>,
    /// The rules of [`HandlerKind::Rules`].
    #[cfg(feature = "rules")]
    pub rules: Option<RulesFile>,
    /// Time after which a handler is canceled.
    pub timeout: Duration,
    /// Maximum number of running handlers, late ones included.
    pub max_concurrent: usize,
    /// Maximum number of attempts for one message.
    pub max_attempts: u32,
    /// Action for a message whose handler was running when the process died.
    pub on_crash: OnCrash,
}

/// The settings of the `[handoff]` section; part of [`Settings`](super::Settings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandoffSettings {
    /// Time without a message from the user after which a handoff ends.
    pub ttl: Duration,
}

/// Action for a message whose handler was running when the process died; part of [`Settings`](super::Settings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCrash {
    /// The handler runs again.
    Retry,
    /// The message is `dead` until the operator retries it.
    Fail,
}

/// The built-in handlers; part of [`Settings`](super::Settings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerKind {
    /// Replies with the text of the message.
    Echo,
    /// Posts the message to an HTTP service, which replies.
    Forward,
    /// Replies by the rules of a file.
    #[cfg(feature = "rules")]
    Rules,
}

pub(super) fn handler(reader: &mut SettingsReader<'_>) -> Option<HandlerSettings> {
    let kinds = [
        ("echo", HandlerKind::Echo),
        ("forward", HandlerKind::Forward),
        #[cfg(feature = "rules")]
        ("rules", HandlerKind::Rules),
    ];
    let kind = reader.choice("handler.kind", &kinds);
    if let Some(kind) = kind {
        warn_about_unused_settings(reader, kind);
    }
    // Rules may forward, so a URL is optional for them. With an invalid `kind`, a URL that is set is still checked.
    let may_forward = kind != Some(HandlerKind::Echo) && !reader.text(FORWARD_URL).is_empty();
    let forward = forward(reader, kind == Some(HandlerKind::Forward) || may_forward);
    #[cfg(feature = "rules")]
    let rules = match kind {
        // `Err`: the URL is set but invalid. Reporting it as missing too would be wrong.
        Some(HandlerKind::Rules) => rules(reader, matches!(forward, Ok(None))),
        _ => Ok(None),
    };
    let events = events(reader, forward.is_err());
    let timeout = reader.millis("handler.timeout_ms", 1..=86_400_000);
    let max_concurrent = reader.count("handler.max_concurrent", 1..=1_000_000);
    let attempts = reader.number("handler.max_attempts", 1..=100);
    let on_crash = [("retry", OnCrash::Retry), ("fail", OnCrash::Fail)];
    let on_crash = reader.choice("handler.on_crash", &on_crash);
    Some(HandlerSettings {
        kind: kind?,
        forward: forward.ok()?,
        events: events.ok()?,
        #[cfg(feature = "rules")]
        rules: rules.ok()?,
        timeout: timeout?,
        max_concurrent: max_concurrent?,
        max_attempts: u32::try_from(attempts?).ok()?,
        on_crash: on_crash?,
    })
}

pub(super) fn handoff(reader: &mut SettingsReader<'_>) -> Option<HandoffSettings> {
    let ttl = reader.time("handoff.ttl")?;
    Some(HandoffSettings { ttl })
}

const FORWARD_URL: &str = "handler.forward_url";
pub(super) const EVENTS_URL: &str = "handler.events_url";
const RULES: &str = "handler.rules";
const FORWARD_SECRET: &str = "handler.forward_secret";
const NO_FORWARD_SECRET: &str = "is missing: make one with  echo whsec_$(openssl rand -base64 32)  and give it to your service too";

/// Warns about settings of a handler that `handler.kind` does not select.
///
/// The operator may expect that handler's replies, and users would get others.
fn warn_about_unused_settings(reader: &mut SettingsReader<'_>, kind: HandlerKind) {
    let (name, reads_rules, reads_forward_url) = match kind {
        HandlerKind::Echo => ("echo", false, false),
        HandlerKind::Forward => ("forward", false, true),
        #[cfg(feature = "rules")]
        HandlerKind::Rules => ("rules", true, true),
    };
    let effect = match kind {
        HandlerKind::Echo => ", which sends users their own words back",
        _ => "",
    };
    for (key, other, is_read) in [
        (RULES, "rules", reads_rules),
        (FORWARD_URL, "forward", reads_forward_url),
    ] {
        if !is_read && !reader.text(key).trim().is_empty() {
            reader.warn(
                key,
                format!(
                    "is not used, because handler.kind is \"{name}\"{effect}; set handler.kind = \"{other}\", or leave {key} out"
                ),
            );
        }
    }
}

/// Marks an invalid value whose problem has been recorded.
struct AlreadyReported;

/// Reads the service to forward to. With `is_required`, a missing URL or secret is a problem.
fn forward(
    reader: &mut SettingsReader<'_>,
    is_required: bool,
) -> Result<Option<ForwardTarget>, AlreadyReported> {
    let problems_before = reader.problem_count();
    let url = reader.text(FORWARD_URL).trim().to_owned();
    let secret = reader.secret(FORWARD_SECRET);
    let has_problem = reader.problem_count() > problems_before;
    // A secret that nothing uses is still read above: one that is empty or unreadable is a mistake.
    if !is_required {
        return if has_problem {
            Err(AlreadyReported)
        } else {
            Ok(None)
        };
    }
    if url.is_empty() {
        reader.problem(
            FORWARD_URL,
            "is missing: handler.kind is \"forward\", and needs the URL of your service",
        );
    }
    if secret.is_none() && !has_problem {
        reader.problem(FORWARD_SECRET, NO_FORWARD_SECRET);
    }
    let secret = secret.filter(|_| !url.is_empty()).ok_or(AlreadyReported)?;
    match ForwardTarget::parse(&url, &secret) {
        Ok(target) => Ok(Some(target)),
        Err(error) => {
            let key = match error {
                ForwardSetupError::Secret => FORWARD_SECRET,
                _ => FORWARD_URL,
            };
            reader.problem(key, error);
            Err(AlreadyReported)
        }
    }
}

/// Reads the service that gets events. It shares the secret with the forward handler.
fn events(
    reader: &mut SettingsReader<'_>,
    is_forward_invalid: bool,
) -> Result<Option<ForwardTarget>, AlreadyReported> {
    let url = reader.text(EVENTS_URL).trim().to_owned();
    if url.is_empty() {
        return Ok(None);
    }
    // Its secret is reported already.
    if is_forward_invalid {
        return Err(AlreadyReported);
    }
    let Some(secret) = reader.secret(FORWARD_SECRET) else {
        reader.problem(FORWARD_SECRET, NO_FORWARD_SECRET);
        return Err(AlreadyReported);
    };
    match ForwardTarget::parse(&url, &secret) {
        Ok(target) => Ok(Some(target)),
        Err(error) => {
            let key = match error {
                ForwardSetupError::Secret => FORWARD_SECRET,
                _ => EVENTS_URL,
            };
            reader.problem(key, error);
            Err(AlreadyReported)
        }
    }
}

/// Reads and validates the rules file. With `is_forward_url_missing`, a rule that forwards is a problem.
#[cfg(feature = "rules")]
fn rules(
    reader: &mut SettingsReader<'_>,
    is_forward_url_missing: bool,
) -> Result<Option<RulesFile>, AlreadyReported> {
    let text = reader.text(RULES).trim().to_owned();
    if text.is_empty() {
        reader.problem(
            RULES,
            "is missing: handler.kind is \"rules\", and needs the name of a file, as in \"bot.toml\"",
        );
        return Err(AlreadyReported);
    }
    let path = reader.layers.directory.join(&text);
    let file = RulesFile::read(&path).map_err(|error| {
        // One problem per line, indented below this problem.
        let lines = error.to_string().replace('\n', "\n    ");
        reader.problem(
            RULES,
            format!(
                "names {}, which has problems:\n    {lines}",
                super::sources::display_path(&path)
            ),
        );
        AlreadyReported
    })?;
    if let Some((line, column)) = file.first_forward().filter(|_| is_forward_url_missing) {
        reader.problem(
            FORWARD_URL,
            format!(
                "is missing: {}, line {line}, column {column}, forwards to it",
                super::sources::display_path(&path)
            ),
        );
        if reader.secret(FORWARD_SECRET).is_none() {
            reader.problem(FORWARD_SECRET, NO_FORWARD_SECRET);
        }
        return Err(AlreadyReported);
    }
    Ok(Some(file))
}
