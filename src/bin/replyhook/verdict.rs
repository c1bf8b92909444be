//! The verdict of `user show`: does a user get replies, and why not?

use replyhook::config::GuardSettings;
use replyhook::internals::{AddressConsent, UserConversation, UserDetails};
use replyhook::store::ConsentScope;
use replyhook::{Address, Channel, Timestamp};
use replyhook_core::address_key::ConsentKey;

use crate::opt_out::describe_opt_out;

/// Sender or scope, and what a user gets from it.
struct ReplySource {
    /// The sender; for an opt-out without a conversation, its scope.
    name: String,
    /// Reason why the user gets nothing; `None` if the user gets replies.
    silence: Option<Silence>,
    /// True if the command names an address that writes to it.
    is_asked: bool,
}

/// Reason why a user gets no replies.
struct Silence {
    reason: String,
    /// True if the reason names the sender.
    names_source: bool,
}

/// Returns the answer to "does this user get replies?", in one line. `user` has the addresses and consents of one user, of
/// which the first address is the one that the command names.
///
/// It begins with `gets replies` or `gets no replies: `, by the senders of the named address, if it has any.
pub(crate) fn verdict(user: &UserDetails, guard: &GuardSettings, now: Timestamp) -> String {
    let sources = sources(user, guard, now);
    let replies = sources.iter().filter(|source| source.silence.is_none());
    let mut replies: Vec<&str> = replies.map(|source| source.name.as_str()).collect();
    replies.dedup();
    let is_mixed = !replies.is_empty();
    let mut reasons: Vec<String> = Vec::new();
    for source in &sources {
        let Some(silence) = &source.silence else {
            continue;
        };
        let reason = if is_mixed && !silence.names_source {
            format!("{} on {}", silence.reason, source.name)
        } else {
            silence.reason.clone()
        };
        // The same opt-out applies to several addresses.
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    let (reasons, replies) = (reasons.join("; "), replies.join(", "));
    let mut asked = sources.iter().filter(|source| source.is_asked);
    match (reasons.is_empty(), is_mixed) {
        (true, _) => "gets replies".to_owned(),
        (false, false) => format!("gets no replies: {reasons}"),
        (false, true) if asked.any(|source| source.silence.is_some()) => {
            format!("gets no replies: {reasons}; gets replies on {replies}")
        }
        (false, true) => format!("gets replies on {replies}; gets none: {reasons}"),
    }
}

/// Returns why a user gets no replies apart from consents, on the senders of `scope` or on all: an entry of the guard, or a
/// handoff.
pub(crate) fn other_silences(
    user: &UserDetails,
    guard: &GuardSettings,
    scope: Option<&ConsentScope>,
    now: Timestamp,
) -> Vec<String> {
    let conversations = user.conversations.iter();
    let in_scope = conversations
        .filter(|conversation| scope.is_none_or(|scope| is_in_scope(scope, conversation)));
    let mut reasons: Vec<String> = Vec::new();
    let mut has_conversation = false;
    for conversation in in_scope {
        has_conversation = true;
        let denial = denial(&conversation.addresses, guard).map(|silence| silence.reason);
        // In the order in which the server checks them.
        let reason = denial.or_else(|| {
            let reason = handoff(conversation, now)?.reason;
            Some(format!("{reason} on {}", conversation.sender.as_str()))
        });
        reasons.extend(reason);
    }
    if !has_conversation && let Some(asked) = user.addresses.first() {
        // A user who has not written yet can be blocked as well.
        let denial = denial(std::slice::from_ref(asked), guard);
        reasons.extend(denial.map(|silence| silence.reason));
    }
    reasons.sort_unstable();
    reasons.dedup();
    reasons
}

fn sources(user: &UserDetails, guard: &GuardSettings, now: Timestamp) -> Vec<ReplySource> {
    let asked = user.addresses.first();
    let asked_key = asked.map(ConsentKey::of);
    let is_asked = |address: &Address| asked_key == Some(ConsentKey::of(address));
    let mut sources: Vec<ReplySource> = Vec::new();
    for conversation in &user.conversations {
        let opted_out = user
            .consents
            .iter()
            .filter(|consent| applies_to(consent, conversation))
            .find_map(|consent| describe_opt_out(consent, now));
        // In the order in which the server checks them.
        let silence = opted_out
            .map(|reason| Silence {
                reason,
                names_source: true,
            })
            .or_else(|| denial(&conversation.addresses, guard))
            .or_else(|| handoff(conversation, now));
        sources.push(ReplySource {
            name: conversation.sender.as_str().to_owned(),
            silence,
            is_asked: conversation.addresses.iter().any(is_asked),
        });
    }
    let is_shown = |consent: &&AddressConsent| {
        !user
            .conversations
            .iter()
            .any(|known| applies_to(consent, known))
    };
    // One opt-out per scope and channel: it applies to the user's other addresses there too.
    let mut named: Vec<(&ConsentScope, &Channel)> = Vec::new();
    for consent in user.consents.iter().filter(is_shown) {
        let place = (&consent.scope, consent.address.channel());
        if named.contains(&place) {
            continue;
        }
        if let Some(reason) = describe_opt_out(consent, now) {
            named.push(place);
            sources.push(ReplySource {
                name: consent.scope.as_str().to_owned(),
                silence: Some(Silence {
                    reason,
                    names_source: true,
                }),
                is_asked: is_asked(&consent.address),
            });
        }
    }
    // A user who has not written yet can be blocked as well.
    if user.conversations.is_empty()
        && let Some(asked) = asked
        && let Some(silence) = denial(std::slice::from_ref(asked), guard)
    {
        sources.push(ReplySource {
            name: asked.as_str().to_owned(),
            silence: Some(silence),
            is_asked: true,
        });
    }
    // Stable: otherwise the newest conversation first.
    sources.sort_by_key(|source| !source.is_asked);
    sources
}

/// Returns whether a consent counts for the messages of a conversation.
fn applies_to(consent: &AddressConsent, conversation: &UserConversation) -> bool {
    let key = ConsentKey::of(&consent.address);
    let mut addresses = conversation.addresses.iter();
    is_in_scope(&consent.scope, conversation)
        && addresses.any(|address| ConsentKey::of(address) == key)
}

fn is_in_scope(scope: &ConsentScope, conversation: &UserConversation) -> bool {
    match scope {
        ConsentScope::Sender(sender) => *sender == conversation.sender,
        ConsentScope::Service(service) => Some(*service) == conversation.service,
        ConsentScope::Account(_) => false,
    }
}

/// Returns why `guard.block` or `guard.allow` keeps the messages of these addresses, which one message can name, from the
/// bot.
fn denial(addresses: &[Address], guard: &GuardSettings) -> Option<Silence> {
    let matching =
        |entry: &&replyhook::AddressPattern| addresses.iter().any(|address| entry.matches(address));
    let reason = match guard.block.iter().find(matching) {
        Some(entry) => format!("blocked by guard.block ({:?})", entry.as_str()),
        None if guard.allow.is_empty() || guard.allow.iter().any(|entry| matching(&entry)) => {
            return None;
        }
        None => "not in guard.allow".to_owned(),
    };
    Some(Silence {
        reason,
        names_source: false,
    })
}

fn handoff(conversation: &UserConversation, now: Timestamp) -> Option<Silence> {
    let until = conversation.handed_off_until.filter(|until| *until > now)?;
    let to = conversation.handed_off_to.as_deref();
    let to = to.map(|url| format!(" to {url}")).unwrap_or_default();
    Some(Silence {
        reason: format!("handed off{to} until {until:.0}"),
        names_source: false,
    })
}
