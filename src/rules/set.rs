//! A whole rules file: reads and checks it, and builds a router from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toml::de::DeTable;

use super::example::{self, Example, ExampleResult};
use super::example_question::ExampleSettings;
use super::form::{self, FormDef};
use super::keyword_warnings::AnswerWord;
use super::opt_out::{OptOutTexts, read_opt_out};
use super::problem::{RulesError, RulesProblem};
use super::reader::{Fields, Located, RulesReader, Span};
use super::reply::{self, ReplyTemplate};
use super::template::{RulesTemplates, TemplateInput};
use super::when::{self, RuleCondition, TimeSettings};
use crate::address::Channel;
use crate::consent::Keywords;
use crate::handler::{Handler, HandlerError};
use crate::reply::{Reply, is_web_url};
use crate::route::{Filter, RouteFuture, RouteHandler, RouteRequest, Router, anything};
use crate::spelling::nearest;

/// The rules of a file, parsed and checked.
///
/// ```
/// use replyhook::rules::RuleSet;
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
/// let failure = rules.run_examples().remove(0).failure.expect("the reply is another one");
/// assert!(failure.found.contains("Hello!"));
/// # Ok::<(), replyhook::rules::RulesError>(())
/// ```
pub struct RuleSet {
    rules: Vec<Rule>,
    otherwise: Option<Action>,
    forms: Vec<FormDef>,
    templates: RulesTemplates,
    examples: Vec<Example>,
    opt_out: OptOutTexts,
    answers: Vec<AnswerWord>,
}

struct Rule {
    filter: Filter,
    action: Action,
}

/// The action of a rule.
enum Action {
    /// Messages, and the names that the rule's condition captures for their templates.
    Reply(Vec<ReplyTemplate>, Vec<String>),
    /// The name of a form.
    Ask(Located<String>),
    /// Line and column of the rule.
    Forward((usize, usize)),
    /// A URL.
    Handoff(String),
}

impl RuleSet {
    /// Parses and checks the text of a rules file.
    ///
    /// # Errors
    /// [`RulesError`] with all problems, each with its line and column.
    pub fn parse(source: &str) -> Result<Self, RulesError> {
        let mut reader = RulesReader::new(source);
        let (table, errors) = DeTable::parse_recoverable(source);
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let hint = toml_hint(source, span.start, error.message());
            let text = format!("invalid TOML: {}{hint}", error.message());
            reader.add_problem(&span, text);
        }
        // Only a part of an invalid text is parsed. Checking that part would report problems that do not exist.
        let set = if errors.is_empty() {
            let fields = Fields::new(table.get_ref(), table.span());
            Some(read(&mut reader, fields))
        } else {
            None
        };
        let problems = reader.into_problems();
        match set {
            Some(set) if problems.is_empty() => Ok(set),
            _ => Err(RulesError::new(problems)),
        }
    }

    /// Returns line and column of the first rule that forwards to `handler.forward_url`, if there is one.
    pub fn first_forward(&self) -> Option<(usize, usize)> {
        let actions = self.rules.iter().map(|rule| &rule.action);
        actions
            .chain(&self.otherwise)
            .find_map(|action| match action {
                Action::Forward(position) => Some(*position),
                _ => None,
            })
    }

    /// Returns the texts for users who opt out or in.
    pub fn opt_out(&self) -> &OptOutTexts {
        &self.opt_out
    }

    /// Returns findings that do not make the file unusable: choices and words of a form that are keywords on SMS and RCS,
    /// or one of these words, `consent.stop_words` and `consent.start_words`, on other channels.
    pub fn warnings<S: AsRef<str>>(
        &self,
        stop_words: &[S],
        start_words: &[S],
    ) -> Vec<RulesProblem> {
        let keywords = Keywords::new(stop_words, start_words);
        let warnings = self.answers.iter().map(|answer| answer.warning(&keywords));
        warnings.flatten().collect()
    }

    /// Returns the number of examples.
    pub fn examples(&self) -> usize {
        self.examples.len()
    }

    /// Returns the table of its routes: number, condition, action.
    pub fn table(self) -> String {
        let (forward, _) = example::stub_service();
        self.router(Some(&forward)).to_string()
    }

    /// Builds a router. `forward` gets the messages of rules with `forward = true`.
    pub(crate) fn router(self, forward: Option<&Arc<dyn Handler>>) -> Router {
        self.into_parts(forward).0
    }

    /// Runs the examples of the file, in order, by a user of WhatsApp.
    pub fn run_examples(self) -> Vec<ExampleResult> {
        self.run_examples_on(&Channel::WhatsApp)
    }

    /// Runs the examples by a user of this channel. An example with its own `from` keeps it.
    pub fn run_examples_on(self, channel: &Channel) -> Vec<ExampleResult> {
        self.run_examples_with(channel, &ExampleSettings::default())
    }

    /// Runs the examples by a user of this channel, with these settings of the server.
    pub fn run_examples_with(
        self,
        channel: &Channel,
        settings: &ExampleSettings,
    ) -> Vec<ExampleResult> {
        let (forward, has_forwarded) = example::stub_service();
        let opt_out = self.opt_out.clone();
        let (router, examples) = self.into_parts(Some(&forward));
        let run =
            |example: &Example| example.run(&router, &opt_out, &has_forwarded, channel, settings);
        examples.iter().map(run).collect()
    }

    fn into_parts(self, forward: Option<&Arc<dyn Handler>>) -> (Router, Vec<Example>) {
        // Forms are built only now: they share the templates, and later parts of the file may add further templates.
        let templates = Arc::new(self.templates);
        let forms: Vec<_> = self
            .forms
            .into_iter()
            .map(|form| form.build(&templates))
            .collect();
        let mut router = Router::new();
        // A last route that matches everything, and not `Router::otherwise`, which cannot start a form or forward.
        let otherwise = self.otherwise.map(|action| Rule {
            filter: anything(),
            action,
        });
        for Rule { filter, action } in self.rules.into_iter().chain(otherwise) {
            router = match action {
                Action::Reply(messages, names) => {
                    router.on(filter, TemplateReply::new(messages, names, &templates))
                }
                Action::Ask(name) => {
                    let form = forms.iter().find(|form| form.name() == name.value);
                    router.form(filter, form.expect("`read` checks every form").clone())
                }
                Action::Handoff(url) => router.on(filter, HandoffReply(url)),
                Action::Forward(_) => match forward {
                    Some(forward) => router.on_shared_handler(filter, forward.clone()),
                    // `LoadedRules::new` rejects such rules, and the other callers pass a stand-in: no reply.
                    None => router.on(
                        filter,
                        TemplateReply::new(Vec::new(), Vec::new(), &templates),
                    ),
                },
            };
        }
        (router, self.examples)
    }
}

/// The action `reply`: renders the messages of a rule.
struct TemplateReply {
    messages: Vec<ReplyTemplate>,
    names: Vec<String>,
    templates: Arc<RulesTemplates>,
}

impl TemplateReply {
    fn new(
        messages: Vec<ReplyTemplate>,
        names: Vec<String>,
        templates: &Arc<RulesTemplates>,
    ) -> Self {
        Self {
            messages,
            names,
            templates: templates.clone(),
        }
    }
}

/// The `Arguments` marker of the route handlers in this file.
// `RouteHandler` has one, so that functions of different arguments do not overlap. Uninhabited: it is only a type.
enum RuleArguments {}

impl RouteHandler<RuleArguments, ()> for TemplateReply {
    fn ask(&self, call: &RouteRequest<'_, ()>) -> RouteFuture {
        let input = TemplateInput {
            message: call.message(),
            captures: Some(call.captures),
            names: &self.names,
            fields: &[],
            answers: None,
        };
        let reply = self.templates.reply(&self.messages, &input);
        Some(Box::pin(std::future::ready(reply)))
    }

    fn shown(&self) -> String {
        let messages: Vec<_> = self.messages.iter().map(ReplyTemplate::describe).collect();
        if messages.is_empty() {
            return "sends no reply".to_owned();
        }
        format!("replies {}", messages.join(", "))
    }
}

/// Returns the fix of common mistakes in TOML, to append to the parser's message.
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

/// The action `handoff`: hands the conversation off to a URL.
struct HandoffReply(String);

impl RouteHandler<RuleArguments, ()> for HandoffReply {
    fn ask(&self, _: &RouteRequest<'_, ()>) -> RouteFuture {
        let reply = Reply::handoff(&self.0).map_err(HandlerError::new);
        Some(Box::pin(std::future::ready(reply)))
    }

    fn shown(&self) -> String {
        format!("hands off to {}", self.0)
    }
}

// The order of reading matters: conditions use the named hours, templates the variables, and rules the names of forms.
fn read(reader: &mut RulesReader<'_>, mut fields: Fields<'_>) -> RuleSet {
    let times = when::read_times(reader, &mut fields);
    let mut templates = RulesTemplates::new(&times.zone);
    if let Some(vars) = reader.table(&mut fields, "vars") {
        templates.read_vars(reader, &vars);
    }
    let opt_out = read_opt_out(reader, &mut fields);
    let forms: Vec<_> = reader.tables(&mut fields, "form", "[[form]] above each one");
    // Before forms with problems are dropped: a rule that asks one must not cause a second problem.
    let form_names: BTreeSet<_> = forms.iter().filter_map(|form| form.peek("name")).collect();
    let forms: Vec<_> = forms
        .into_iter()
        .filter_map(|form| form::read(reader, &mut templates, form))
        .collect();
    let mut seen = BTreeSet::new();
    for FormDef { name, .. } in &forms {
        if !seen.insert(&name.value) {
            let text = format!("there is a form {:?} already", name.value);
            reader.add_problem(&name.span, text);
        }
    }
    let mut rules = Vec::new();
    // The line of the first rule without `when`: later rules are unreachable.
    let mut catch_all_line = None;
    // The lines of rules with a `when`, by their condition in the form in which texts are compared.
    let mut first_lines = BTreeMap::new();
    let tables = reader.tables(&mut fields, "rule", "[[rule]] above each one");
    let has_rules = fields.has("rule") || fields.has("otherwise");
    for table in tables {
        let line = reader.line(table.span.start);
        let (span, matches_all) = (table.span.clone(), !table.has("when"));
        // Unreachable rules are reported only if nothing else is wrong: after a misspelt `when`, a rule seems to match
        // everything.
        if let Some(line) = catch_all_line.filter(|_| reader.problem_count() == 0) {
            let text = format!(
                "no message gets here: the rule at line {line} has no when, and matches every message"
            );
            reader.add_problem(&span, text);
        }
        let Some(rule) = read_rule(reader, &mut templates, table, &times) else {
            continue;
        };
        if matches_all {
            catch_all_line = catch_all_line.or(Some(line));
        } else {
            let first = *first_lines
                .entry(format!("{:#}", rule.filter))
                .or_insert(line);
            if first != line && reader.problem_count() == 0 {
                let text =
                    format!("no message gets here: the rule at line {first} has the same when");
                reader.add_problem(&span, text);
            }
        }
        rules.push(rule);
    }
    let otherwise = reader
        .table(&mut fields, "otherwise")
        .and_then(|mut table| read_action(reader, &mut templates, &mut table, &[]));
    let mut started_forms = BTreeSet::new();
    for action in rules.iter().map(|rule| &rule.action).chain(&otherwise) {
        if let Action::Ask(name) = action {
            started_forms.insert(name.value.as_str());
            check_form_name(reader, &form_names, name);
        }
    }
    // Only if nothing else is wrong: a rule that was dropped for a problem might be the one that asks the form.
    if reader.problem_count() == 0 {
        for FormDef { name, .. } in &forms {
            if !started_forms.contains(name.value.as_str()) {
                let text = format!(
                    "no rule begins this form: write ask = {:?} in one",
                    name.value
                );
                reader.add_problem(&name.span, text);
            }
        }
    }
    let tables = reader.tables(&mut fields, "example", "[[example]] above each one");
    let examples = tables
        .into_iter()
        .filter_map(|table| example::read(reader, table))
        .collect();
    if !has_rules {
        let text = "the file has no rules; write [[rule]] with when and reply";
        reader.add_problem(&(0..0), text);
    }
    reader.report_unknown_keys(&fields);
    RuleSet {
        rules,
        otherwise,
        forms,
        templates,
        examples,
        opt_out,
        answers: reader.take_answers(),
    }
}

fn check_form_name(reader: &mut RulesReader<'_>, names: &BTreeSet<&str>, name: &Located<String>) {
    if names.contains(name.value.as_str()) {
        return;
    }
    let text = match nearest(&name.value, names.iter().copied()) {
        Some(known) => format!("unknown form {:?}: did you mean {known:?}?", name.value),
        None => format!(
            "unknown form {:?}; write [[form]] with that name",
            name.value
        ),
    };
    reader.add_problem(&name.span, text);
}

fn read_rule(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    mut fields: Fields<'_>,
    times: &TimeSettings,
) -> Option<Rule> {
    // A comment for the file's author: only its type is checked.
    let _ = reader.text(&mut fields, "name");
    let condition = match reader.table(&mut fields, "when") {
        Some(table) => when::read(reader, table, times),
        None => RuleCondition {
            filter: anything(),
            names: Vec::new(),
        },
    };
    let action = read_action(reader, templates, &mut fields, &condition.names);
    Some(Rule {
        filter: condition.filter,
        action: action?,
    })
}

/// Reads the action of a table: `reply`, `ask`, `forward` or `handoff`.
// Call it after all other keys of the table were read: it reports every key that was not, as unknown.
fn read_action(
    reader: &mut RulesReader<'_>,
    templates: &mut RulesTemplates,
    fields: &mut Fields<'_>,
    names: &[String],
) -> Option<Action> {
    let span: Span = fields.span.clone();
    let reply = fields.take("reply");
    let ask = reader.text(fields, "ask");
    let forward = fields.take("forward");
    let forwards = forward.and_then(|value| {
        if value.get_ref().as_str().is_some() {
            let text =
                "forward is of type string: write true; the URL is the setting handler.forward_url";
            reader.add_problem(&value.span(), text);
            return None;
        }
        reader.flag_of(value, "forward")
    });
    let handoff = reader.text(fields, "handoff");
    let has_only_known_keys = reader.report_unknown_keys(fields);
    // `forward = false` is the same as a missing key. A value of a wrong type counts as the action that was meant.
    let is_forward = forward.is_some() && forwards != Some(false);
    let actions = [
        reply.is_some(),
        fields.has("ask"),
        is_forward,
        fields.has("handoff"),
    ];
    match actions.iter().filter(|action| **action).count() {
        1 => {}
        // An unknown key was reported: it is probably the misspelt action.
        0 if !has_only_known_keys => return None,
        0 => {
            let text = "a rule needs an action: write reply, ask, handoff or forward = true (reply = [] sends no reply)";
            reader.add_problem(&span, text);
            return None;
        }
        _ => {
            let text = "a rule does one thing: reply, ask, handoff or forward";
            reader.add_problem(&span, text);
            return None;
        }
    }
    if let Some(reply) = reply {
        let messages = reply::read(reader, templates, reply, names);
        return Some(Action::Reply(messages, names.to_vec()));
    }
    // `None` for a value of a wrong type, which `reader.text` has reported.
    if fields.has("ask") {
        return ask.map(Action::Ask);
    }
    if fields.has("handoff") {
        let url = handoff?;
        if !is_web_url(&url.value) {
            let text = "handoff is not an http or https URL, as in \"https://webhooks.twilio.com/v1/Accounts/AC…/Flows/FW…\"";
            reader.add_problem(&url.span, text);
        }
        return Some(Action::Handoff(url.value));
    }
    forwards?;
    forward.map(|value| Action::Forward(reader.position(value.span().start)))
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
