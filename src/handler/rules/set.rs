//! A rules file as a whole: read, checked, and made into a router.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml::de::DeTable;

use super::asking::{self, Asking};
use super::example::{self, Example, ExampleResult};
use super::matching::{self, Match, Times};
use super::problem::RulesError;
use super::reader::{At, Fields, Reader, Span, nearest};
use super::saying::{self, Say};
use super::template::{Said, Templates};
use crate::handler::route::{Answer, Asked, Call, Filter, Router, anything};
use crate::handler::{Handler, HandlerError};
use crate::reply::{Reply, is_web_url};

/// In characters, of one message.
const MOST_OPT_OUT: usize = 1600;

/// The rules of a file, read and checked.
///
/// ```
/// use replyhook::handler::RuleSet;
///
/// let rules = RuleSet::parse(r#"
/// [[rule]]
/// when.text = "hi"
/// reply = "Hello!"
///
/// [[example]]
/// says = "Hi"
/// gets = "Hello, you!"
/// "#)?;
/// let failure = rules.run_examples().remove(0).failure.expect("it says something else");
/// assert!(failure.found.contains("Hello!"));
/// # Ok::<(), replyhook::handler::RulesError>(())
/// ```
pub struct RuleSet {
    rules: Vec<Rule>,
    otherwise: Option<Action>,
    forms: Vec<Asking>,
    templates: Templates,
    examples: Vec<Example>,
    opt_out: OptOutTexts,
}

/// What somebody who opts out, or in again, is told, where the rules say so.
///
/// ```
/// use replyhook::handler::RuleSet;
///
/// let rules = RuleSet::parse("[opt_out]\nstop_reply = 'Bye.'\n[otherwise]\nreply = 'Hi.'")?;
/// assert_eq!(rules.opt_out().stop.as_deref(), Some("Bye."));
/// # Ok::<(), replyhook::handler::RulesError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OptOutTexts {
    /// `opt_out.stop_reply`
    pub stop: Option<String>,
    /// `opt_out.start_reply`
    pub start: Option<String>,
}

struct Rule {
    filter: Filter,
    action: Action,
}

/// What a rule does.
enum Action {
    /// And the names that what it says may use.
    Say(Vec<Say>, Vec<String>),
    Ask(At<String>),
    /// With its line and column.
    Forward((usize, usize)),
    HandOver(String),
}

impl RuleSet {
    /// Reads rules.
    ///
    /// # Errors
    /// [`RulesError`]: all problems at once, each with its line and column.
    pub fn parse(source: &str) -> Result<Self, RulesError> {
        let mut reader = Reader::new(source);
        let (table, errors) = DeTable::parse_recoverable(source);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let hint = toml_hint(source, span.start, error.message());
            let text = format!("this is no TOML: {}{hint}", error.message());
            reader.problem(&span, text);
        }
        let set = if errors.is_empty() {
            let fields = Fields::new(table.get_ref(), table.span());
            Some(read(&mut reader, fields))
        } else {
            None
        };
        let problems = reader.finish();
        match set {
            Some(set) if problems.is_empty() => Ok(set),
            _ => Err(RulesError::new(problems)),
        }
    }

    /// Line and column of the first rule that forwards to `handler.forward_url`, if one does.
    pub fn first_forward(&self) -> Option<(usize, usize)> {
        let actions = self.rules.iter().map(|rule| &rule.action);
        actions
            .chain(&self.otherwise)
            .find_map(|action| match action {
                Action::Forward(place) => Some(*place),
                _ => None,
            })
    }

    /// What somebody who opts out or in is told.
    pub fn opt_out(&self) -> &OptOutTexts {
        &self.opt_out
    }

    /// How many examples it has.
    pub fn examples(&self) -> usize {
        self.examples.len()
    }

    /// The table of its routes: number, what is looked for, what is done.
    pub fn table(self) -> String {
        let (forward, _) = example::stand_in();
        self.router(Some(&forward)).to_string()
    }

    /// A bot that obeys the rules; `forward` is what they hand over to.
    pub(crate) fn router(self, forward: Option<&Arc<dyn Handler>>) -> Router {
        self.into_parts(forward).0
    }

    /// Runs the examples that the file has.
    pub fn run_examples(self) -> Vec<ExampleResult> {
        let (forward, has_forwarded) = example::stand_in();
        let opt_out = self.opt_out.clone();
        let (router, examples) = self.into_parts(Some(&forward));
        let run = |example: &Example| example.run(&router, &opt_out, &has_forwarded);
        examples.iter().map(run).collect()
    }

    fn into_parts(self, forward: Option<&Arc<dyn Handler>>) -> (Router, Vec<Example>) {
        let templates = Arc::new(self.templates);
        let forms: Vec<_> = self
            .forms
            .into_iter()
            .map(|form| form.form(&templates))
            .collect();
        let mut router = Router::new();
        let otherwise = self.otherwise.map(|action| Rule {
            filter: anything(),
            action,
        });
        for Rule { filter, action } in self.rules.into_iter().chain(otherwise) {
            router = match action {
                Action::Say(says, names) => router.on(filter, Says::new(says, names, &templates)),
                Action::Ask(name) => {
                    let form = forms.iter().find(|form| form.name() == name.value);
                    router.form(filter, form.expect("every form was looked for").clone())
                }
                Action::HandOver(url) => router.on(filter, HandsOver(url)),
                Action::Forward(_) => match forward {
                    Some(forward) => router.hand_to_shared(filter, forward.clone()),
                    None => router.on(filter, Says::new(Vec::new(), Vec::new(), &templates)),
                },
            };
        }
        (router, self.examples)
    }
}

/// Answers with what a rule says.
struct Says {
    messages: Vec<Say>,
    names: Vec<String>,
    templates: Arc<Templates>,
}

impl Says {
    fn new(messages: Vec<Say>, names: Vec<String>, templates: &Arc<Templates>) -> Self {
        Self {
            messages,
            names,
            templates: templates.clone(),
        }
    }
}

/// Marks [`Says`].
enum ByRule {}

impl Answer<ByRule, ()> for Says {
    fn ask(&self, call: &Call<'_, ()>) -> Asked {
        let said = Said {
            message: call.message(),
            taken: Some(call.taken),
            names: &self.names,
            fields: &[],
            answers: None,
        };
        let reply = self.templates.reply(&self.messages, &said);
        Some(Box::pin(std::future::ready(reply)))
    }

    fn shown(&self) -> String {
        let says: Vec<_> = self.messages.iter().map(Say::shown).collect();
        if says.is_empty() {
            return "says nothing".to_owned();
        }
        format!("says {}", says.join(", "))
    }
}

/// What people meant who wrote what is no TOML.
fn toml_hint(source: &str, at: usize, message: &str) -> &'static str {
    let found = source.get(at..).and_then(|rest| rest.chars().next());
    if message.contains("escape") {
        "; write a pattern in single quotes, and \\\\ for a backslash in double ones"
    } else if found.is_some_and(|c| ['“', '”', '„', '‘', '’', '«', '»'].contains(&c)) {
        "; write straight quotes, \" or '"
    } else {
        ""
    }
}

/// Lets somebody else answer, from here on.
struct HandsOver(String);

impl Answer<ByRule, ()> for HandsOver {
    fn ask(&self, _: &Call<'_, ()>) -> Asked {
        let reply = Reply::hand_over(&self.0).map_err(HandlerError::new);
        Some(Box::pin(std::future::ready(reply)))
    }

    fn shown(&self) -> String {
        format!("hands over to {}", self.0)
    }
}

fn read(reader: &mut Reader<'_>, mut fields: Fields<'_>) -> RuleSet {
    let times = matching::times(reader, &mut fields);
    let mut templates = Templates::new(&times.zone);
    if let Some(vars) = reader.table(&mut fields, "vars") {
        templates.read_vars(reader, &vars);
    }
    let opt_out = opt_out(reader, &mut fields);
    let forms: Vec<_> = reader.tables(&mut fields, "form", "[[form]] above each one");
    // Those with problems, too: that they are there is none.
    let form_names: BTreeSet<_> = forms.iter().filter_map(|form| form.peek("name")).collect();
    let forms: Vec<_> = forms
        .into_iter()
        .filter_map(|form| asking::read(reader, &mut templates, form))
        .collect();
    let mut seen = BTreeSet::new();
    for Asking { name, .. } in &forms {
        if !seen.insert(&name.value) {
            let text = format!("there is a form {:?} already", name.value);
            reader.problem(&name.span, text);
        }
    }
    let mut rules = Vec::new();
    // The line of a rule behind which there is none.
    let mut taken_by = None;
    // Of rules with a `when`, as it is compared: their lines.
    let mut lines = BTreeMap::new();
    let tables = reader.tables(&mut fields, "rule", "[[rule]] above each one");
    let has_rules = fields.has("rule") || fields.has("otherwise");
    for table in tables {
        let line = reader.line(table.span.start);
        let (span, takes_all) = (table.span.clone(), !table.has("when"));
        if let Some(line) = taken_by.filter(|_| reader.problem_count() == 0) {
            let text =
                format!("no message gets here: the rule at line {line} has no when, and takes all");
            reader.problem(&span, text);
        }
        let Some(rule) = rule(reader, &mut templates, table, &times) else {
            continue;
        };
        if takes_all {
            taken_by = taken_by.or(Some(line));
        } else {
            let first = *lines.entry(format!("{:#}", rule.filter)).or_insert(line);
            if first != line && reader.problem_count() == 0 {
                let text =
                    format!("no message gets here: the rule at line {first} has the same when");
                reader.problem(&span, text);
            }
        }
        rules.push(rule);
    }
    let otherwise = reader
        .table(&mut fields, "otherwise")
        .and_then(|mut table| action(reader, &mut templates, &mut table, &[]));
    let mut asked = BTreeSet::new();
    for action in rules.iter().map(|rule| &rule.action).chain(&otherwise) {
        if let Action::Ask(name) = action {
            asked.insert(name.value.as_str());
            is_form(reader, &form_names, name);
        }
    }
    // A rule with problems might be what asks it.
    if reader.problem_count() == 0 {
        for Asking { name, .. } in &forms {
            if !asked.contains(name.value.as_str()) {
                let text = format!(
                    "no rule begins this form: write ask = {:?} in one",
                    name.value
                );
                reader.problem(&name.span, text);
            }
        }
    }
    let tables = reader.tables(&mut fields, "example", "[[example]] above each one");
    let examples = tables
        .into_iter()
        .filter_map(|table| example::read(reader, table))
        .collect();
    if !has_rules {
        let text = "there is no rule: write [[rule]] with when and reply";
        reader.problem(&(0..0), text);
    }
    reader.end(&fields);
    RuleSet {
        rules,
        otherwise,
        forms,
        templates,
        examples,
        opt_out,
    }
}

fn opt_out(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> OptOutTexts {
    let Some(mut table) = reader.table(fields, "opt_out") else {
        return OptOutTexts::default();
    };
    let mut text = |key| {
        let text = reader.text(&mut table, key)?;
        if text.value.contains("{{") || text.value.contains("{%") {
            let what = format!("{key} is no template: write it as it is said");
            reader.problem(&text.span, what);
        } else if text.value.chars().count() > MOST_OPT_OUT {
            let what = format!("{key} has over {MOST_OPT_OUT} characters: Twilio takes no more");
            reader.problem(&text.span, what);
        }
        Some(text.value)
    };
    let texts = OptOutTexts {
        stop: text("stop_reply"),
        start: text("start_reply"),
    };
    reader.end(&table);
    texts
}

fn is_form(reader: &mut Reader<'_>, names: &BTreeSet<&str>, name: &At<String>) {
    if names.contains(name.value.as_str()) {
        return;
    }
    let text = match nearest(&name.value, names.iter().copied()) {
        Some(known) => format!("there is no form {:?}: did you mean {known:?}?", name.value),
        None => format!(
            "there is no form {:?}: write [[form]] with that name",
            name.value
        ),
    };
    reader.problem(&name.span, text);
}

fn rule(
    reader: &mut Reader<'_>,
    templates: &mut Templates,
    mut fields: Fields<'_>,
    times: &Times,
) -> Option<Rule> {
    // For the author alone.
    let _ = reader.text(&mut fields, "name");
    let found = match reader.table(&mut fields, "when") {
        Some(table) => matching::read(reader, table, times),
        None => Match {
            filter: anything(),
            names: Vec::new(),
        },
    };
    let action = action(reader, templates, &mut fields, &found.names);
    Some(Rule {
        filter: found.filter,
        action: action?,
    })
}

/// One of `reply`, `ask`, `forward` and `hand_over`, which are the last keys of their table.
fn action(
    reader: &mut Reader<'_>,
    templates: &mut Templates,
    fields: &mut Fields<'_>,
    names: &[String],
) -> Option<Action> {
    let span: Span = fields.span.clone();
    let reply = fields.take("reply");
    let ask = reader.text(fields, "ask");
    let forward = fields.take("forward");
    let forwards = forward.and_then(|value| {
        if value.get_ref().as_str().is_some() {
            let text = "forward is of type string: write true; where to is the setting handler.forward_url";
            reader.problem(&value.span(), text);
            return None;
        }
        reader.flag_of(value, "forward")
    });
    let hand_over = reader.text(fields, "hand_over");
    let knows_all = reader.end(fields);
    let is_forward = forward.is_some() && forwards != Some(false);
    let actions = [
        reply.is_some(),
        fields.has("ask"),
        is_forward,
        fields.has("hand_over"),
    ];
    match actions.iter().filter(|action| **action).count() {
        1 => {}
        0 if !knows_all => return None,
        0 => {
            let text = "a rule does something: write reply, ask, hand_over or forward = true (reply = [] says nothing)";
            reader.problem(&span, text);
            return None;
        }
        _ => {
            let text = "a rule does one thing: reply, ask, hand_over or forward";
            reader.problem(&span, text);
            return None;
        }
    }
    if let Some(reply) = reply {
        let says = saying::read(reader, templates, reply, names);
        return Some(Action::Say(says, names.to_vec()));
    }
    // What is of another type was told.
    if fields.has("ask") {
        return ask.map(Action::Ask);
    }
    if fields.has("hand_over") {
        let url = hand_over?;
        if !is_web_url(&url.value) {
            let text = "hand_over is no http or https URL, as in \"https://webhooks.twilio.com/v1/Accounts/AC…/Flows/FW…\"";
            reader.problem(&url.span, text);
        }
        return Some(Action::HandOver(url.value));
    }
    forwards?;
    forward.map(|value| Action::Forward(reader.place(value.span().start)))
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet")
            .field("rules", &self.rules.len())
            .field("forms", &self.forms.len())
            .field("examples", &self.examples.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OptOutTexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OptOutTexts").finish_non_exhaustive()
    }
}
