//! Allow-list of expressions, over minijinja's syntax tree, for the limits of [`super::language`].

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Filter, GetAttr};

use crate::spelling::nearest;

/// A problem of a template.
pub(super) struct TemplateProblem {
    /// The byte of the template at which it is.
    pub(super) at: usize,
    pub(super) message: String,
}

/// A name of a value that a template uses, with the byte at which it begins.
pub(super) type NameUse<'t> = (&'t str, usize);

/// The filters, minijinja's and our own, with their minimum and maximum number of arguments.
// None of them returns a list, as `list`, `split` or `map` would.
pub(super) const FILTERS: [(&str, usize, usize); 20] = [
    ("abs", 0, 0),
    ("capitalize", 0, 0),
    ("count", 0, 0),
    ("default", 0, 2),
    ("escape_markup", 0, 0),
    ("first", 0, 0),
    ("float", 0, 1),
    ("format", 0, usize::MAX),
    ("int", 0, 2),
    ("last", 0, 0),
    ("length", 0, 0),
    ("lower", 0, 0),
    ("markdown", 0, 0),
    ("replace", 2, 3),
    ("round", 0, 2),
    ("string", 0, 0),
    ("title", 0, 0),
    ("trim", 0, 1),
    ("upper", 0, 0),
    ("urlencode", 0, 0),
];
/// The tests after `is`, all of them minijinja's.
pub(super) const TESTS: [&str; 14] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "false",
    "float",
    "in",
    "integer",
    "none",
    "number",
    "odd",
    "startingwith",
    "string",
    "true",
];
/// Values that have parts, with the names of their parts.
const VALUE_PARTS: [(&str, &[&str]); 7] = [
    ("choice", &["id", "title", "via", "key", "current"]),
    ("media", MEDIA_PARTS),
    ("location", &["latitude", "longitude", "address", "label"]),
    ("button", &["text", "payload"]),
    ("list", &["id", "title", "description"]),
    // Any: the Flow's author chooses the names of its fields.
    ("flow", &[]),
    (
        "loop",
        &[
            "index",
            "index0",
            "first",
            "last",
            "length",
            "revindex",
            "revindex0",
        ],
    ),
];
const MEDIA_PARTS: &[&str] = &["url", "content_type"];
/// Values that are texts, and have no parts.
const TEXT_VALUES: [&str; 14] = [
    "args",
    "body",
    "channel",
    "country",
    "date",
    "from",
    "message_sid",
    "profile_name",
    "replied_to",
    "text",
    "time",
    "to",
    "user",
    "weekday",
];
pub(super) const NO_LISTS: &str =
    "lists are not supported: compare with one value after the other, with or";
const NO_FUNCTIONS: &str = "functions are not supported: write a filter, as in {{ name | upper }}";
const NO_OBJECTS: &str = "objects in { } are not supported";

/// A check of the expressions of one template.
#[derive(Default)]
pub(super) struct ExpressionChecker<'t> {
    /// The variables of the loops around the current expression, which are files.
    pub(super) loop_vars: Vec<&'t str>,
    /// The names of all expressions so far, without those of loops.
    pub(super) names: Vec<NameUse<'t>>,
}

impl<'t> ExpressionChecker<'t> {
    /// Checks an expression, and collects the names that it uses.
    ///
    /// # Errors
    /// [`TemplateProblem`] of the first part that is not allowed.
    pub(super) fn check(&mut self, expr: &Expr<'t>) -> Result<(), TemplateProblem> {
        match expr {
            Expr::List(_) => return Err(problem(start(expr), NO_LISTS)),
            Expr::Tuple(tuple) => {
                // At the comma, where the list begins: the bracket alone would be allowed.
                let comma = tuple.items.first().map_or(start(expr), end);
                return Err(problem(comma, NO_LISTS));
            }
            Expr::Call(call) => return Err(problem(end(&call.expr), NO_FUNCTIONS)),
            _ => {}
        }
        let Some(operands) = operands(expr) else {
            return Err(problem(start(expr), NO_OBJECTS));
        };
        for operand in operands {
            self.check(operand)?;
        }
        match expr {
            Expr::Var(var) => self.add_name(var.id, start(expr)),
            Expr::BinOp(op) if matches!(op.op, BinOpKind::Mul) => {
                if let Some(at) = find_list(&op.left).or_else(|| find_list(&op.right)) {
                    let text = "media cannot be multiplied: count it, as in {{ media | length }}";
                    return Err(problem(at, text));
                }
            }
            Expr::Filter(filter) => check_filter(filter, start(expr))?,
            Expr::Test(test) => check_known("test", test.name, &TESTS, start(expr))?,
            Expr::GetAttr(part) => {
                // minijinja has no position of the name alone. It ends where the expression ends.
                self.check_part(part, end(expr) - part.name.len())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the expression of a tag that prints it.
    ///
    /// # Errors
    /// As [`check`](Self::check), and for an object, which would fail when it is printed.
    pub(super) fn check_output(&mut self, expr: &Expr<'t>) -> Result<(), TemplateProblem> {
        if let Expr::Var(var) = expr
            && let Some(parts) = self.find_parts(var.id)
        {
            let name = var.id;
            let index = if name == "media" { "[0]" } else { "" };
            let part = parts.first().unwrap_or(&"field");
            let message = format!("{name} is not a text: write {name}{index}.{part}");
            return Err(problem(start(expr), message));
        }
        self.check(expr)
    }

    /// Adds a name, unless a loop defines it.
    fn add_name(&mut self, name: &'t str, at: usize) {
        let is_of_loop =
            self.loop_vars.contains(&name) || name == "loop" && !self.loop_vars.is_empty();
        if !is_of_loop {
            self.names.push((name, at));
        }
    }

    /// Returns the names of a value's parts, if it has any.
    fn find_parts(&self, name: &str) -> Option<&'static [&'static str]> {
        if self.loop_vars.contains(&name) {
            return Some(MEDIA_PARTS);
        }
        let known = VALUE_PARTS.iter().find(|(known, _)| *known == name);
        known.map(|(_, parts)| *parts)
    }

    fn check_part(&self, part: &GetAttr<'_>, at: usize) -> Result<(), TemplateProblem> {
        let name = part.name;
        let value = match &part.expr {
            Expr::Var(value) if value.id == "media" => {
                return Err(problem(
                    at,
                    format!("media is a list: write media[0].{name}"),
                ));
            }
            Expr::Var(value) => value.id,
            Expr::GetItem(item) if matches!(&item.expr, Expr::Var(list) if list.id == "media") => {
                "media"
            }
            _ => return Ok(()),
        };
        // A loop variable may have the name of a text, and hides it.
        if TEXT_VALUES.contains(&value) && !self.loop_vars.contains(&value) {
            return Err(problem(at, format!("{value} is a text, and has no parts")));
        }
        match self.find_parts(value) {
            Some(parts) if !parts.is_empty() && !parts.contains(&name) => Err(problem(
                at,
                format!("{value} has no {name}: it has {}", parts.join(", ")),
            )),
            _ => Ok(()),
        }
    }
}

/// Returns the operands of an expression in the order of the source; `None` for an expression that is not allowed.
// An allow-list: an expression that a later version of minijinja adds is rejected.
fn operands<'e, 't>(expr: &'e Expr<'t>) -> Option<Vec<&'e Expr<'t>>> {
    let operands = match expr {
        Expr::Var(_) | Expr::Const(_) => Vec::new(),
        Expr::Slice(slice) => {
            let bounds = [&slice.start, &slice.stop, &slice.step];
            let bounds = bounds.into_iter().flatten();
            std::iter::once(&slice.expr).chain(bounds).collect()
        }
        Expr::UnaryOp(op) => vec![&op.expr],
        Expr::BinOp(op) => vec![&op.left, &op.right],
        Expr::Compare(compare) => {
            let others = compare.ops.iter().map(|op| &op.expr);
            std::iter::once(&compare.expr).chain(others).collect()
        }
        Expr::IfExpr(choice) => {
            let written = [&choice.true_expr, &choice.test_expr];
            written.into_iter().chain(&choice.false_expr).collect()
        }
        Expr::Filter(filter) => {
            let arguments = filter.args.iter().map(argument);
            filter.expr.iter().chain(arguments).collect()
        }
        Expr::Test(test) => {
            let arguments = test.args.iter().map(argument);
            std::iter::once(&test.expr).chain(arguments).collect()
        }
        Expr::GetAttr(part) => vec![&part.expr],
        Expr::GetItem(item) => vec![&item.expr, &item.subscript_expr],
        _ => return None,
    };
    Some(operands)
}

fn argument<'e, 't>(argument: &'e CallArg<'t>) -> &'e Expr<'t> {
    match argument {
        CallArg::Pos(expr)
        | CallArg::Kwarg(_, expr)
        | CallArg::PosSplat(expr)
        | CallArg::KwargSplat(expr) => expr,
    }
}

/// Returns the byte of `media` in an expression whose value may be that list.
// `media` is the only list. A number or a part is not one, and other operators and filters may return their operand.
fn find_list(expr: &Expr<'_>) -> Option<usize> {
    match expr {
        Expr::Var(var) => (var.id == "media").then(|| start(expr)),
        Expr::Filter(filter) if COUNTING_FILTERS.contains(&filter.name) => None,
        Expr::GetAttr(_) | Expr::GetItem(_) => None,
        _ => operands(expr)?.into_iter().find_map(find_list),
    }
}

/// Filters whose value is a number for a list.
const COUNTING_FILTERS: [&str; 2] = ["count", "length"];

// Only the arguments of filters are counted: minijinja checks those of a test when it is rendered.
fn check_filter(filter: &Filter<'_>, at: usize) -> Result<(), TemplateProblem> {
    let name = filter.name;
    check_known("filter", name, &FILTERS.map(|(name, ..)| name), at)?;
    for argument in &filter.args {
        // `*` before an argument takes the arguments from a list.
        if let CallArg::PosSplat(expr) | CallArg::KwargSplat(expr) = argument {
            return Err(problem(start(expr), NO_LISTS));
        }
    }
    let found = filter.args.len();
    let Some((_, min, max)) = FILTERS.iter().find(|(known, ..)| *known == name) else {
        return Ok(());
    };
    if (*min..=*max).contains(&found) {
        return Ok(());
    }
    let accepted = match (min, max) {
        (_, 0) => "nothing".to_owned(),
        (0, max) => format!("{max} at most"),
        (min, max) => format!("{min} to {max}"),
    };
    let message = format!("{name} takes {accepted} in its brackets, not {found}");
    Err(problem(at, message))
}

fn check_known(kind: &str, name: &str, known: &[&str], at: usize) -> Result<(), TemplateProblem> {
    if known.contains(&name) {
        return Ok(());
    }
    let message = match nearest(name, known.iter().copied()) {
        Some(known) => format!("unknown {kind} {name}: did you mean {known}?"),
        None => format!("unknown {kind} {name}: write one of {}", known.join(", ")),
    };
    Err(problem(at, message))
}

pub(super) fn problem(at: usize, message: impl Into<String>) -> TemplateProblem {
    let message = message.into();
    TemplateProblem { at, message }
}

fn start(expr: &Expr<'_>) -> usize {
    expr.span().start_offset as usize
}

fn end(expr: &Expr<'_>) -> usize {
    expr.span().end_offset as usize
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, ErrorKind};

    use super::*;

    #[test]
    fn minijinja_has_every_filter_and_test() {
        let mut env = Environment::new();
        // The only filters that minijinja does not have.
        env.add_filter("escape_markup", |text: &str| text.to_owned());
        env.add_filter("markdown", |text: &str| text.to_owned());
        let render = |source: &str| env.render_str(source, minijinja::context! { x => "1" });
        for (filter, ..) in FILTERS {
            let error = render(&format!("{{{{ x | {filter} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownFilter), "{filter}");
        }
        // One argument more than the maximum must fail. `format` takes any number, and is left out.
        for (filter, _, max) in FILTERS.iter().filter(|(.., max)| *max < 5) {
            let things = vec!["1"; max + 1].join(", ");
            let error = render(&format!("{{{{ x | {filter}({things}) }}}}")).unwrap_err();
            let kinds = [ErrorKind::TooManyArguments, ErrorKind::InvalidOperation];
            assert!(
                kinds.contains(&error.kind()),
                "{filter} takes more than {max}: {error}"
            );
        }
        for test in TESTS {
            let error = render(&format!("{{{{ x is {test} }}}}")).err();
            let kind = error.map(|error| error.kind());
            assert_ne!(kind, Some(ErrorKind::UnknownTest), "{test}");
        }
    }
}
