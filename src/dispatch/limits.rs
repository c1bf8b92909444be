//! Timeouts and limits of a message.

use std::time::Duration;

use crate::reply::Reply;
use crate::store::CrashPolicy;

/// Timeouts, limits, and the path of replies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchLimits {
    /// Time from receiving a message to the response.
    pub(crate) deadline: Duration,
    /// Time from receiving a fallback call to the response.
    pub(crate) fallback_deadline: Duration,
    /// Pause that separates messages of a burst from the next one. Zero: no messages are merged.
    pub(crate) debounce: Duration,
    /// True if the parts of a long text are numbered.
    pub(crate) numbered: bool,
    /// True if the texts of all replies are Markdown.
    pub(crate) markdown: bool,
    /// Maximum number of messages of a reply, after splitting for the channel.
    pub(crate) max_messages: usize,
    /// True if no response has a `<Message>`: every message goes via the REST API.
    pub(crate) is_rest_only: bool,
    /// Time from the start of a handler to the typing indicator, if one is sent.
    pub(crate) typing_after: Option<Duration>,
    /// Time from the last message of a handoff to its end.
    pub(crate) handoff_ttl: Duration,
    /// Maximum run time of a handler, late ones included.
    pub(crate) handler: Duration,
    /// Maximum number of concurrent handlers, late ones included.
    pub(crate) running: usize,
    /// Maximum number of attempts, and whether an attempt may follow a crash.
    pub(crate) crashes: CrashPolicy,
}

impl DispatchLimits {
    /// Applies `reply.numbered` and `reply.markdown` to a reply.
    pub(super) fn formatted(&self, reply: Reply) -> Reply {
        let reply = if self.numbered {
            reply.numbered()
        } else {
            reply
        };
        if self.markdown {
            reply.markdown()
        } else {
            reply
        }
    }
}
