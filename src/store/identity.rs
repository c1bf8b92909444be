//! Decisions about users with several addresses, over plain rows. Both databases read the rows, decide here, and write.
//!
//! - A *user* is a set of addresses that links connect, whatever the evidence.
//! - The *class* of an address is the set of addresses that links within its channel connect with it. They share
//!   conversations, opt-ins and START. A class has one channel, because the sender of an SMS can be forged.
//! - The *reach* of an opt-out is the set of the user's addresses on the same channels, and of the Argentine spellings
//!   that are possibly the same number.

use std::collections::{BTreeMap, BTreeSet};

use replyhook_core::address_key::{AddressKey, ConsentKey};

use super::conversations::ConsentAction;
use super::identity_kind::LinkKind;
use crate::address::{Address, Identity};

/// Address of a user, with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) key: AddressKey,
    pub(super) address: Address,
}

impl Member {
    pub(super) fn of(address: &Address) -> Self {
        Self {
            key: AddressKey::of(address),
            address: address.clone(),
        }
    }

    pub(super) fn consent_key(&self) -> ConsentKey {
        ConsentKey::from(&self.key)
    }
}

/// Row of `identity_link`. `a` is before `b`.
#[derive(Clone)]
pub(super) struct LinkRow {
    pub(super) account: Vec<u8>,
    pub(super) a: Member,
    pub(super) b: Member,
    pub(super) kind: LinkKind,
    /// Sender whose webhook named both; empty for an operator's link.
    pub(super) sender: String,
    /// Message that proves it, packed.
    pub(super) evidence: Option<Vec<u8>>,
    pub(super) note: Option<String>,
    pub(super) at: i64,
}

impl LinkRow {
    /// Returns the end that is not `key`; `None` if neither is.
    pub(super) fn other(&self, key: &AddressKey) -> Option<&Member> {
        if self.a.key == *key {
            Some(&self.b)
        } else {
            (self.b.key == *key).then_some(&self.a)
        }
    }

    pub(super) fn connects(&self, one: &AddressKey, other: &AddressKey) -> bool {
        self.other(one).is_some_and(|end| end.key == *other)
    }

    /// Returns true if the ends share a conversation: the evidence is about both, and they are on one channel.
    fn is_strong(&self) -> bool {
        self.kind != LinkKind::SplitRemainder
            && self.a.address.channel() == self.b.address.channel()
    }
}

/// Addresses that one webhook or status callback names, which are therefore of one user.
#[derive(Debug, Clone)]
pub(super) struct NamedAddresses {
    /// `From` of a message, or `To` of a status callback.
    pub(super) user: Member,
    /// `ExternalUserId`, unless it is `user`.
    pub(super) external: Option<Member>,
    /// `ParentExternalUserId`.
    pub(super) parent: Option<Member>,
}

impl NamedAddresses {
    /// Sorts the addresses of a message, of which the first is `From`. Returns `None` without an address.
    ///
    /// Only business-scoped IDs are evidence: an empty `ExternalUserId`, or a number in it, would tie strangers together.
    pub(super) fn of(addresses: &[Address]) -> Option<Self> {
        let (user, others) = addresses.split_first()?;
        let user = Member::of(user);
        let mut named = Self {
            external: None,
            parent: None,
            user,
        };
        for other in others {
            let member = Member::of(other);
            if member.key == named.user.key || !is_evidence(&named.user.address, other) {
                continue;
            }
            let place = if is_parent_id(other) {
                &mut named.parent
            } else {
                &mut named.external
            };
            place.get_or_insert(member);
        }
        Some(named)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        [
            Some(&self.user),
            self.external.as_ref(),
            self.parent.as_ref(),
        ]
        .into_iter()
        .flatten()
    }

    /// Returns true if the addresses are those that a conversation's row of `user` has recorded.
    pub(super) fn are_recorded(&self, external: Option<&str>, parent: Option<&str>) -> bool {
        let is_known = |named: &Option<Member>, recorded: Option<&str>| match named {
            None => true,
            Some(member) => recorded == Some(member.key.as_str()),
        };
        is_known(&self.external, external) && is_known(&self.parent, parent)
    }

    /// Returns the pairs to link, with their evidence. `direct` is the evidence of a pair of `user` and `external`.
    pub(super) fn pairs(&self, direct: LinkKind) -> Vec<(&Member, &Member, LinkKind)> {
        let mut pairs = Vec::new();
        match (&self.external, &self.parent) {
            (Some(external), Some(parent)) => {
                // The parent ID first: it can show that two business-scoped IDs of a number are of one user. The number
                // itself is not linked with it.
                pairs.push((external, parent, LinkKind::ParentId));
                pairs.push((&self.user, external, direct));
            }
            (Some(external), None) => pairs.push((&self.user, external, direct)),
            (None, Some(parent)) => pairs.push((&self.user, parent, LinkKind::ParentId)),
            (None, None) => {}
        }
        pairs
    }
}

/// Returns true if a message or status callback of `user` that names `id` as an ID shows that both are of one user.
fn is_evidence(user: &Address, id: &Address) -> bool {
    // Several users can have an empty or unknown `From`.
    matches!(user.identity(), Identity::Phone | Identity::BusinessScopedId)
        && id.identity() == Identity::BusinessScopedId
        // A webhook never joins channels.
        && id.channel() == user.channel()
}

/// Returns true for the ID of a parent portfolio, which has `ENT.` after the country.
///
/// Source: Meta, "Business-scoped user IDs".
pub(super) fn is_parent_id(address: &Address) -> bool {
    address.identity() == Identity::BusinessScopedId
        && address
            .id()
            .split_once('.')
            .is_some_and(|(_, rest)| rest.starts_with("ENT."))
}

/// Returns the addresses of the class of `of`, itself included, by the links of one account.
pub(super) fn class_of(links: &[LinkRow], account: &[u8], of: &Member) -> Vec<Member> {
    let own = |link: &&LinkRow| link.account == account && link.is_strong();
    connected(&links.iter().filter(own), of)
}

/// Returns all addresses that the links of one account connect with `of`, itself included.
pub(super) fn user_of(links: &[LinkRow], account: &[u8], of: &Member) -> Vec<Member> {
    connected(&links.iter().filter(|link| link.account == account), of)
}

fn connected<'a>(links: &(impl Iterator<Item = &'a LinkRow> + Clone), of: &Member) -> Vec<Member> {
    let mut found = vec![of.clone()];
    let mut next = 0;
    while let Some(member) = found.get(next).cloned() {
        next += 1;
        for other in links.clone().filter_map(|link| link.other(&member.key)) {
            if !found.iter().any(|known| known.key == other.key) {
                found.push(other.clone());
            }
        }
    }
    found
}

/// Returns the links that show that a number has a new owner: on the same sender they tie it to an ID other than
/// `id`, and nothing ties the two IDs.
///
/// A number has one business-scoped ID per sender: a new number at Meta means a new ID.
///
/// Source: Meta, "Business-scoped user IDs".
pub(super) fn contradicted_by<'a>(
    links: &'a [LinkRow],
    account: &'a [u8],
    number: &'a Member,
    id: &'a Member,
    sender: &'a str,
) -> Vec<&'a LinkRow> {
    if number.address.identity() != Identity::Phone {
        return Vec::new();
    }
    let class = class_of(links, account, number);
    if class.iter().any(|member| member.key == id.key) {
        return Vec::new();
    }
    let contradicts = |link: &&LinkRow| {
        link.account == account
            && link.sender == sender
            && link.other(&number.key).is_some_and(|other| {
                other.address.identity() != Identity::Phone
                    && is_parent_id(&other.address) == is_parent_id(&id.address)
            })
    };
    links.iter().filter(contradicts).collect()
}

/// Row of `consent`: what the user did under one address in one scope, and what follows for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConsentRow {
    /// Last opt-out under this address, as an ID of the ledger.
    pub(super) opt_out: Option<i64>,
    /// First opt-out since the last START.
    pub(super) since: Option<i64>,
    /// Last START or opt-in under this address.
    pub(super) start: Option<i64>,
    /// Time of the opt-in under this address.
    pub(super) own_opt_in: Option<i64>,
    /// Opt-out that applies.
    pub(super) suppressed: Option<i64>,
    /// Time of the opt-in that applies.
    pub(super) opted_in: Option<i64>,
}

impl ConsentRow {
    /// Applies a change under the address itself, which is `entry` of the ledger and was made at `at`.
    pub(super) fn apply(&mut self, action: ConsentAction, entry: i64, at: i64) {
        match action {
            ConsentAction::OptOut => {
                // A repeated opt-out does not change `since`. The ledger has both.
                let is_in_force = self.opt_out > self.start;
                self.since = self.since.filter(|_| is_in_force).or(Some(entry));
                self.opt_out = Some(entry);
            }
            // An opt-in that was recorded before is valid again.
            ConsentAction::Resume => self.start = Some(entry),
            ConsentAction::OptIn => {
                self.start = Some(entry);
                self.own_opt_in = self.own_opt_in.or(Some(at));
            }
            ConsentAction::Merge | ConsentAction::Split => {}
        }
    }

    /// Clears everything except an active opt-out of the address itself: the number has a new owner.
    pub(super) fn after_new_owner(&self) -> Self {
        let in_force = self.opt_out.filter(|out| Some(*out) > self.start);
        Self {
            opt_out: in_force,
            since: self.since.filter(|_| in_force.is_some()),
            ..Self::default()
        }
    }
}

/// Consents by key and scope.
pub(super) type Consents = BTreeMap<(ConsentKey, String), ConsentRow>;

/// Facts of a class in one scope.
#[derive(Debug, Clone, Copy, Default)]
struct ClassFacts {
    opt_out: Option<i64>,
    since: Option<i64>,
    start: Option<i64>,
    opted_in: Option<i64>,
}

impl ClassFacts {
    fn is_opted_out(&self) -> bool {
        self.opt_out > self.start
    }
}

/// Last changes that count for an address in one scope, as IDs of the ledger.
pub(super) struct LastChanges {
    /// Last opt-out that applies.
    pub(super) opt_out: Option<i64>,
    /// Last START or opt-in of the class.
    pub(super) start: Option<i64>,
}

/// Sets of keys that are connected: the representative of each key.
struct Sets(BTreeMap<ConsentKey, ConsentKey>);

impl Sets {
    fn of(
        keys: &BTreeSet<ConsentKey>,
        edges: impl Iterator<Item = (ConsentKey, ConsentKey)>,
    ) -> Self {
        let mut sets = Self(keys.iter().map(|key| (key.clone(), key.clone())).collect());
        for (a, b) in edges {
            let (a, b) = (sets.find(&a), sets.find(&b));
            if a != b {
                sets.0.insert(a, b);
            }
        }
        sets
    }

    fn find(&self, key: &ConsentKey) -> ConsentKey {
        let mut key = key;
        while let Some(parent) = self.0.get(key)
            && parent != key
        {
            key = parent;
        }
        key.clone()
    }
}

/// Users and classes among the consent keys `keys`, by the links of one account, or of all accounts (`None`) if the
/// account of a scope is unknown.
pub(super) struct Reach {
    users: Sets,
    classes: Sets,
}

impl Reach {
    pub(super) fn of(
        keys: &BTreeSet<ConsentKey>,
        links: &[LinkRow],
        account: Option<&[u8]>,
    ) -> Self {
        let own = |link: &&LinkRow| account.is_none_or(|account| link.account == account);
        let edge = |link: &LinkRow| (ConsentKey::from(&link.a.key), ConsentKey::from(&link.b.key));
        let links = links.iter().filter(own);
        let strong = links.clone().filter(|link| link.is_strong());
        let classes = Sets::of(keys, strong.map(edge));
        // Possibly the same number: opt-outs are shared, and nothing else.
        let aliases = keys.iter().flat_map(|key| {
            let of_key = key.address_keys().into_iter();
            let aliases = of_key.filter_map(|address| address.possible_alias());
            aliases.map(|alias| (key.clone(), ConsentKey::from(&alias)))
        });
        let aliases = aliases.filter(|(_, alias)| keys.contains(alias));
        let users = Sets::of(keys, links.map(edge).chain(aliases));
        Self { users, classes }
    }

    /// Returns true if another opt-out under `key` would change nothing: the previous one is active, and suppresses
    /// every address of the user on these channels.
    pub(super) fn is_repeated(
        &self,
        keys: &BTreeSet<ConsentKey>,
        key: &ConsentKey,
        scope: &str,
        consents: &Consents,
    ) -> bool {
        let row = |key: &ConsentKey| consents.get(&(key.clone(), scope.to_owned()));
        let class = self.classes.find(key);
        let in_class = keys
            .iter()
            .filter(|other| self.classes.find(other) == class);
        // A START under another address of the class ends the opt-out of this one too.
        let start = in_class.filter_map(|other| row(other)?.start).max();
        let is_own = row(key).is_some_and(|row| row.opt_out > start);
        let mut reached = keys.iter().filter(|other| {
            other.group() == key.group() && self.users.find(other) == self.users.find(key)
        });
        is_own && reached.all(|other| row(other).is_some_and(|row| row.suppressed.is_some()))
    }

    /// Returns the facts of each class in one scope.
    fn facts(
        &self,
        keys: &BTreeSet<ConsentKey>,
        scope: &str,
        consents: &Consents,
    ) -> BTreeMap<ConsentKey, ClassFacts> {
        let mut facts: BTreeMap<ConsentKey, ClassFacts> = BTreeMap::new();
        for key in keys {
            let Some(row) = consents.get(&(key.clone(), scope.to_owned())) else {
                continue;
            };
            let class = facts.entry(self.classes.find(key)).or_default();
            class.opt_out = class.opt_out.max(row.opt_out);
            class.start = class.start.max(row.start);
            class.opted_in = earlier(class.opted_in, row.own_opt_in);
        }
        // Once the last START of the class is known: opt-outs before it do not count.
        for key in keys {
            if let Some(row) = consents.get(&(key.clone(), scope.to_owned()))
                && let Some(class) = facts.get_mut(&self.classes.find(key))
                && row.opt_out > class.start
            {
                let since = row.since.filter(|since| Some(*since) > class.start);
                class.since = earlier(class.since, since.or(row.opt_out));
            }
        }
        facts
    }

    /// Returns the facts of the other classes of the user whose opt-out applies to `key`, whose class has the facts `own`.
    fn others_opted_out<'a>(
        &'a self,
        key: &'a ConsentKey,
        own: &'a ClassFacts,
        facts: &'a BTreeMap<ConsentKey, ClassFacts>,
    ) -> impl Iterator<Item = &'a ClassFacts> {
        let others = facts.iter().filter(move |(class, facts)| {
            facts.is_opted_out()
                && facts.opt_out > own.start
                && class.group() == key.group()
                && self.users.find(class) == self.users.find(key)
        });
        others.map(|(_, facts)| facts)
    }

    /// Returns the last changes that count for `key` in one scope.
    pub(super) fn last_changes(
        &self,
        keys: &BTreeSet<ConsentKey>,
        key: &ConsentKey,
        scope: &str,
        consents: &Consents,
    ) -> LastChanges {
        let facts = self.facts(keys, scope, consents);
        let own = facts.get(&self.classes.find(key));
        let own = own.copied().unwrap_or_default();
        let by_others = self.others_opted_out(key, &own, &facts);
        let by_others = by_others.filter_map(|facts| facts.opt_out).max();
        LastChanges {
            opt_out: own.opt_out.filter(|_| own.is_opted_out()).max(by_others),
            start: own.start,
        }
    }

    /// Writes the derived columns of all keys in one scope.
    ///
    /// An address is suppressed if its class has opted out since its last START. It is also suppressed if another address of
    /// the user, on the same channels, has opted out and the class has no START after that.
    pub(super) fn derive(&self, keys: &BTreeSet<ConsentKey>, scope: &str, consents: &mut Consents) {
        let facts = self.facts(keys, scope, consents);
        if facts.is_empty() {
            return;
        }
        for key in keys {
            let own = facts
                .get(&self.classes.find(key))
                .copied()
                .unwrap_or_default();
            let by_others = self.others_opted_out(key, &own, &facts);
            let by_others = by_others.map(|facts| facts.since).min().flatten();
            let suppressed = own.since.filter(|_| own.is_opted_out()).or(by_others);
            if suppressed.is_none() && own.opted_in.is_none() {
                // An address without a row of its own needs none.
                if let Some(row) = consents.get_mut(&(key.clone(), scope.to_owned())) {
                    (row.suppressed, row.opted_in) = (None, None);
                }
                continue;
            }
            let row = consents.entry((key.clone(), scope.to_owned())).or_default();
            (row.suppressed, row.opted_in) = (suppressed, own.opted_in);
        }
    }
}

/// Returns the smaller value; `None` if both are `None`.
fn earlier(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
