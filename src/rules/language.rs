//! The template language: a subset of Jinja, in which no template can run, grow or nest without limit.
//!
//! minijinja's fuel limits the steps and the bytes of a rendering. It does not limit the cost of lists that are nested
//! or multiplied. So templates cannot create or store a list: `set`, macros, lists in brackets and functions are rejected,
//! and all filters return texts or numbers. The only list, `media`, has at most ten entries. It can be looped
//! over, counted and indexed.
//!
//! minijinja's lexer and parser read a template. Its parser, its compiler and the renderer recurse, so the numbers of
//! tags, tokens and open brackets are limited before it is parsed. Then its syntax tree is checked.

use minijinja::Error;
use minijinja::machinery::ast::{Expr, ForLoop, Stmt};
use minijinja::machinery::{Span, Token, parse, parse_expr, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::expression::{ExpressionChecker, NO_LISTS, NameUse, TemplateProblem, problem};
use crate::spelling::nearest;

/// Maximum number of tags in one template. It limits the nesting of blocks too.
const MAX_TAGS: usize = 200;
/// Maximum number of tokens in one tag. It limits the nesting of operators too.
const MAX_TOKENS: usize = 200;
/// Maximum depth of brackets in one tag.
// minijinja's parser takes some 20 KiB of stack for each bracket.
const MAX_OPEN_BRACKETS: usize = 20;

/// Maximum size of a template in bytes: more than ten messages of 1600 characters take.
pub(super) const MAX_BYTES: usize = 32 * 1024;

/// All statements of the language.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// The first word of a tag, with the byte at which it begins.
type Statement<'t> = (usize, &'t str);

/// Names that a template uses, or its problems.
pub(super) type Checked<'t> = Result<Vec<NameUse<'t>>, Vec<TemplateProblem>>;

/// Checks all tags of a template.
///
/// # Errors
/// The problems of all tags. After a syntax error only that one.
pub(super) fn check_template(source: &str) -> Checked<'_> {
    let scan = check_tokens(source, false).map_err(|problem| vec![problem])?;
    let unknown: Vec<_> = scan
        .statements
        .iter()
        .filter_map(unknown_statement)
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    if let Some(problem) = find_unbalanced(&scan.statements).filter(|_| scan.is_complete) {
        return Err(vec![problem]);
    }
    let parsed = parse(source, "", SyntaxConfig::default());
    let template = parsed.map_err(|error| vec![syntax_problem(source, &error, false)])?;
    let mut checker = TemplateChecker::default();
    checker.check_statement(&template);
    if checker.problems.is_empty() {
        Ok(checker.expressions.names)
    } else {
        Err(checker.problems)
    }
}

/// Checks an expression that stands alone, such as the condition of a question.
///
/// # Errors
/// The first problem.
// The expression is put between `{% if` and `%}`. It cannot end that tag: a `%` before a `}` is a syntax error here.
pub(super) fn check_expression(source: &str) -> Checked<'_> {
    let check = || {
        check_tokens(source, true)?;
        let expr = parse_expr(source).map_err(|error| syntax_problem(source, &error, true))?;
        let mut checker = ExpressionChecker::default();
        checker.check(&expr).map(|()| checker.names)
    };
    check().map_err(|problem| vec![problem])
}

/// The result of reading a template's tokens.
struct Scan<'t> {
    statements: Vec<Statement<'t>>,
    /// False after a wrong token, which the parser reports: it may find an earlier problem.
    is_complete: bool,
}

/// A tag whose end is not read yet.
struct OpenTag {
    at: usize,
    end: &'static str,
    tokens: usize,
    brackets: usize,
    has_object: bool,
}

/// Checks the limits of a template, or of an expression, and that its tags have an end. Returns its statements.
fn check_tokens(source: &str, is_expression: bool) -> Result<Scan<'_>, TemplateProblem> {
    let open_tag = |at, end| OpenTag {
        at,
        end,
        tokens: 0,
        brackets: 0,
        has_object: false,
    };
    let mut open = is_expression.then(|| open_tag(0, ""));
    let mut statements = Vec::new();
    let mut is_complete = true;
    let mut tags = 0;
    let mut last_end = 0;
    for token in tokenize(source, is_expression, SyntaxConfig::default()) {
        let (token, span) = match (token, &open) {
            (Ok(found), _) => found,
            (Err(_), None) => return Err(problem_between_tags(source, last_end)),
            (Err(error), Some(_)) => {
                is_complete = false;
                // A quoted text without an end takes the rest of the source. Its tag has no end either.
                if !is_at_end(source, &error) {
                    open = None;
                }
                break;
            }
        };
        let at = span.start_offset as usize;
        match (&token, &mut open) {
            (Token::VariableEnd | Token::BlockEnd, _) if is_expression => {
                return Err(problem(at, ONLY_EXPRESSION));
            }
            (Token::VariableEnd | Token::BlockEnd, _) => open = None,
            // The parser stops here, where no `{` is open. To the lexer all the rest may be one tag.
            (Token::BraceClose, Some(tag)) if !tag.has_object => {
                is_complete = false;
                open = None;
                break;
            }
            (_, Some(tag)) => {
                if let (Token::Ident(name), "%}", 0) = (&token, tag.end, tag.tokens) {
                    statements.push((at, *name));
                }
                check_limits(tag, &token, &span)?;
            }
            (Token::TemplateData(_), None) => check_not_raw(source, last_end, at)?,
            (_, None) => {
                tags += 1;
                if tags > MAX_TAGS {
                    let message = format!("over {MAX_TAGS} tags in one template: shorten it");
                    return Err(problem(at, message));
                }
                let is_output = matches!(token, Token::VariableStart);
                open = Some(open_tag(at, if is_output { "}}" } else { "%}" }));
            }
        }
        last_end = span.end_offset as usize;
    }
    match open {
        Some(OpenTag { at, end, .. }) if !is_expression => {
            Err(problem(at, format!("this tag has no end: write {end}")))
        }
        _ => Ok(Scan {
            statements,
            is_complete,
        }),
    }
}

/// Counts a token of a tag.
fn check_limits(tag: &mut OpenTag, token: &Token<'_>, span: &Span) -> Result<(), TemplateProblem> {
    tag.tokens += 1;
    tag.has_object |= matches!(token, Token::BraceOpen);
    match token {
        Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => tag.brackets += 1,
        Token::ParenClose | Token::BracketClose | Token::BraceClose => {
            tag.brackets = tag.brackets.saturating_sub(1);
        }
        _ => {}
    }
    let message = if tag.tokens > MAX_TOKENS {
        format!("over {MAX_TOKENS} words and signs in one tag: use several tags")
    } else if tag.brackets > MAX_OPEN_BRACKETS {
        format!("over {MAX_OPEN_BRACKETS} nested brackets: use several tags")
    } else {
        return Ok(());
    };
    Err(problem(span.start_offset as usize, message))
}

fn is_at_end(source: &str, error: &Error) -> bool {
    let rest = error.range().and_then(|range| source.get(range.start..));
    rest.is_some_and(|rest| rest.trim().is_empty())
}

/// Returns the problem of a source that minijinja's lexer cannot read after the end of a tag or of a text: a comment or
/// a `raw` block without an end.
fn problem_between_tags(source: &str, last_end: usize) -> TemplateProblem {
    let at = skip_comments(source, last_end);
    match raw_statement(source, at) {
        Some(problem) => problem,
        None => problem(at, "this comment has no end: write #}"),
    }
}

/// Rejects the text of a `raw` block, which is a text to minijinja's lexer as any other.
fn check_not_raw(source: &str, last_end: usize, at: usize) -> Result<(), TemplateProblem> {
    // Between the last token and this one. Without the text itself, which would be searched once for each token.
    let before = &source[..at];
    raw_statement(before, skip_comments(before, last_end)).map_or(Ok(()), Err)
}

/// Returns the byte after white space and comments.
fn skip_comments(source: &str, from: usize) -> usize {
    let mut rest = source[from..].trim_start();
    while let Some((_, after)) = rest
        .strip_prefix("{#")
        .and_then(|rest| rest.split_once("#}"))
    {
        rest = after.trim_start();
    }
    source.len() - rest.len()
}

/// Returns the problem of a `raw` statement at a byte; `None` if no statement begins there.
fn raw_statement(source: &str, at: usize) -> Option<TemplateProblem> {
    let inside = source[at..].strip_prefix("{%")?;
    let word = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    unknown_statement(&(source.len() - word.trim_start().len(), "raw"))
}

fn unknown_statement((at, name): &Statement<'_>) -> Option<TemplateProblem> {
    if STATEMENTS.contains(name) {
        return None;
    }
    let message = match nearest(name, STATEMENTS.into_iter()) {
        Some(known) => format!("unknown statement {name}: did you mean {known}?"),
        None => format!(
            "unknown statement {name}: write one of {}",
            STATEMENTS.join(", ")
        ),
    };
    Some(problem(*at, message))
}

/// Returns the problem of the first statement that ends a block which is not open, or of a block without an end.
// minijinja's parser rejects these too, but at the end of the template, or as an unknown statement.
fn find_unbalanced(statements: &[Statement<'_>]) -> Option<TemplateProblem> {
    let mut open: Vec<Statement<'_>> = Vec::new();
    for (at, name) in statements.iter().copied() {
        let kind = match name {
            "if" | "for" => {
                open.push((at, name));
                continue;
            }
            "elif" | "endif" => "if",
            // `else` belongs to an `if` or to a `for`, whichever is open. Without either it is reported as one of `if`.
            "else" => open.last().map_or("if", |(_, kind)| kind),
            _ => "for",
        };
        let message = match open.last() {
            Some((_, last)) if *last == kind => {
                if name.starts_with("end") {
                    open.pop();
                }
                continue;
            }
            Some((_, last)) => {
                format!("the {last} before it has no end: write {{% end{last} %}}")
            }
            None => format!("this {name} has no {kind} before it"),
        };
        return Some(problem(at, message));
    }
    let (at, kind) = open.pop()?;
    let message = format!("this {kind} has no end: write {{% end{kind} %}}");
    Some(problem(at, message))
}

const ONLY_EXPRESSION: &str = "write only what stands between {% if and %}";

/// Returns the problem of a syntax error of minijinja. Names the operator that is meant by one of another language.
fn syntax_problem(source: &str, error: &Error, is_expression: bool) -> TemplateProblem {
    let at = error.range().map_or(0, |range| range.start);
    let before = source.get(..at).unwrap_or_default();
    let rest = source.get(at..).unwrap_or_default();
    let mut signs = rest.chars();
    let (sign, next) = (signs.next().unwrap_or(' '), signs.next());
    let replacement = match sign {
        ',' => return problem(at, NO_LISTS),
        '}' if is_expression => return problem(at, ONLY_EXPRESSION),
        // `==` and `!=` are operators of the language.
        '=' | '!' if next == Some('=') => None,
        '=' => Some("=="),
        '&' => Some("and"),
        '!' => Some("not"),
        '?' => Some("a if b else c"),
        '}' => Some("}}"),
        '|' if before.ends_with('|') => return problem(at - 1, "| is not supported: write or"),
        _ => None,
    };
    if let Some(replacement) = replacement {
        let message = format!("{sign} is not supported: write {replacement}");
        return problem(at, message);
    }
    problem(at, error.detail().unwrap_or("it cannot be read"))
}

/// A check of a template's syntax tree.
#[derive(Default)]
struct TemplateChecker<'t> {
    expressions: ExpressionChecker<'t>,
    problems: Vec<TemplateProblem>,
}

impl<'t> TemplateChecker<'t> {
    fn check_statement(&mut self, statement: &Stmt<'t>) {
        match statement {
            Stmt::Template(template) => self.check_body(&template.children),
            Stmt::EmitRaw(_) => {}
            Stmt::EmitExpr(output) => {
                let checked = self.expressions.check_output(&output.expr);
                self.problems.extend(checked.err());
            }
            Stmt::IfCond(condition) => {
                let checked = self.expressions.check(&condition.expr);
                self.problems.extend(checked.err());
                self.check_body(&condition.true_body);
                self.check_body(&condition.false_body);
            }
            Stmt::ForLoop(block) => self.check_loop(block, block.span().start_offset as usize),
            // An allow-list: a statement of a later version of minijinja is rejected. `check_tokens` has found the
            // others by their names.
            _ => {
                let message = format!("a statement is one of {}", STATEMENTS.join(", "));
                self.problems.push(problem(0, message));
            }
        }
    }

    fn check_body(&mut self, body: &[Stmt<'t>]) {
        for statement in body {
            self.check_statement(statement);
        }
    }

    fn check_loop(&mut self, block: &ForLoop<'t>, at: usize) {
        // Only over `media`, which has at most ten entries: nested loops over it run out of fuel before they take long.
        let variable = match (&block.target, &block.iter) {
            (Expr::Var(variable), Expr::Var(list))
                if list.id == "media" && block.filter_expr.is_none() && !block.recursive =>
            {
                variable.id
            }
            _ => {
                let message = "for loops over media only: write {% for file in media %}";
                return self.problems.push(problem(at, message));
            }
        };
        self.expressions.loop_vars.push(variable);
        self.check_body(&block.body);
        self.expressions.loop_vars.pop();
        self.check_body(&block.else_body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(source: &str) -> Option<(usize, String)> {
        let problems = check_template(source).err()?;
        problems
            .into_iter()
            .next()
            .map(|wrong| (wrong.at, wrong.message))
    }

    #[track_caller]
    fn assert_rejected(source: &str, at: usize, message: &str) {
        let (found, text) = wrong(source).unwrap_or_else(|| panic!("{source} is accepted"));
        assert!(text.contains(message), "{source}: {text}");
        assert_eq!(found, at, "{source}: {text}");
    }

    #[test]
    fn common_template_is_accepted() {
        for source in [
            "*bold* 2+2 {} { } [x] (y)",
            "Hello {{ profile_name or 'there' }}!",
            "{{ number | int * price }} {{- '}}' ~ \"%}\" }}",
            "{% if args %}a{% elif media | length > 1 and not (a or b) %}b{% else %}c{% endif %}",
            "{%- for file in media -%} {{ loop.index }}: {{ file.url }} {% endfor %}",
            "{{ media[0].url }} {{ text[:20] }} {{ 'it' if media | length == 1 else 'them' }}",
            "{{ price | round(2) | default('?', true) }} {{ '%.2f' | format(price, 3) }}",
            "{{ x is defined }} {{ x is not none }} {{ x is divisibleby(3) }} {{ x is divisibleby 3 }}",
            "{{ media | count * 5 }} {{ -x }} {{ 'a' in text }} {{ 'abc'[0] }}",
            "{# a comment with {{ and {% set x %} in it #}",
            "{{ location.latitude }} {{ button.payload }} {{ flow.name }} {{ flow['Full name'] }}",
            "{{ a >= 1 and b != 2 or c <= 3 and not d }} {{ x | round(precision=2) }}",
            "{% for a in media %}{% if loop.last %}x{% else %}{{ a.url }}{% endif %}{% else %}none{% endfor %}",
        ] {
            assert_eq!(wrong(source), None, "{source}");
        }
        let used =
            check_template("{% for f in media %}{{ f.url ~ loop.index ~ x }}{% endfor %}{{ f }}");
        assert_eq!(used.ok(), Some(vec![("x", 44), ("f", 63)]));
        assert!(check_expression("guests | int > 2 and name != '%}'").is_ok());
    }

    // Constructs that could run or grow without limit are rejected with their position and a fix.
    #[test]
    fn unsupported_template_is_rejected_with_position() {
        for (source, at, message) in [
            ("a {% set x = 1 %}", 5, "unknown statement set"),
            ("{% macro m() %}", 3, "unknown statement macro"),
            ("{%- raw %}", 4, "unknown statement raw"),
            (
                "a{# {% raw %} #}{% raw %}{% endraw %}",
                19,
                "unknown statement raw",
            ),
            ("{{ x }} {#a#}\n{#b", 14, "this comment has no end"),
            ("{{ text & x }}{% if a %}", 8, "write and"),
            ("{{ 1, 2 }}", 4, "lists are not"),
            ("{{ x | format(*media) }}", 15, "lists are not"),
            ("{{ 'x }} y", 0, "this tag has no end"),
            ("{% fro x in media %}", 3, "did you mean for?"),
            (
                "{% for x in text %}{% endfor %}",
                3,
                "for loops over media only",
            ),
            (
                "{% for x in media recursive %}{% endfor %}",
                3,
                "for loops over media",
            ),
            ("{{ [1, 2] }}", 3, "lists are not"),
            ("{{ x in (1, 2) }}", 10, "lists are not"),
            ("{{ x or [1] }}", 8, "lists are not"),
            ("{{ ([x] | length)[[1]] }}", 4, "lists are not"),
            ("{{ {'a': 1} }}", 3, "objects in { } are not"),
            ("{{ range(9) }}", 8, "functions are not"),
            ("{{ x.upper() }}", 10, "functions are not"),
            ("{{ x | join }}", 7, "unknown filter join"),
            ("{{ x | uper }}", 7, "did you mean upper?"),
            (
                "{{ x | replace('a') }}",
                7,
                "replace takes 2 to 3 in its brackets, not 1",
            ),
            (
                "{{ x | upper(1) }}",
                7,
                "upper takes nothing in its brackets, not 1",
            ),
            (
                "{{ x | float(0, (1 + 2)) }}",
                7,
                "float takes 1 at most in its brackets, not 2",
            ),
            ("{{ x is not sequence }}", 12, "unknown test sequence"),
            ("{{ media * 9 }}", 3, "cannot be multiplied"),
            ("{{ (media or x) * 9 }}", 4, "cannot be multiplied"),
            ("{{ media[:] * 9 }}", 3, "cannot be multiplied"),
            ("{{ media }}", 3, "write media[0].url"),
            ("{{ location }}", 3, "write location.latitude"),
            ("{{ flow }}", 3, "write flow.field"),
            ("{{ media.url }}", 9, "write media[0].url"),
            (
                "{{ media[0].ur }}",
                12,
                "media has no ur: it has url, content_type",
            ),
            (
                "{{ button.id }}",
                10,
                "button has no id: it has text, payload",
            ),
            ("{{ ( }} [1] ) }}", 5, "write }}"),
            ("{{ user.name }}", 8, "user is a text, and has no parts"),
            (
                "{% for f in media %}{{ f.uri }}{% endfor %}",
                25,
                "f has no uri: it has url",
            ),
            ("{% for f in media %}{{ f }}{% endfor %}", 23, "write f.url"),
            (
                "{% for f in media %}{{ loop.foo }}{% endfor %}",
                28,
                "loop has no foo",
            ),
        ] {
            assert_rejected(source, at, message);
        }
    }

    #[test]
    fn tag_without_end_and_foreign_operator_are_rejected() {
        for (source, at, message) in [
            ("a {% if x %}b", 5, "this if has no end: write {% endif %}"),
            (
                "{% for f in media %}a{% endif %}",
                24,
                "the for before it has no end",
            ),
            ("{% endif %}", 3, "this endif has no if before it"),
            ("{% else %}", 3, "this else has no if before it"),
            ("{% if a = 1 %}{% endif %}", 8, "write =="),
            ("{{ a && b }}", 5, "write and"),
            ("{{ a || b }}", 5, "write or"),
            ("{{ !a }}", 3, "write not"),
            ("{{ a ? b : c }}", 5, "write a if b else c"),
            ("{{ name }", 8, "write }}"),
            ("{{ name } and {{ text }}", 8, "write }}"),
            ("{{ name", 0, "this tag has no end: write }}"),
            ("{# name", 0, "this comment has no end"),
        ] {
            assert_rejected(source, at, message);
        }
    }

    #[test]
    fn expression_that_ends_its_tag_is_rejected() {
        for source in ["1 %}{% endif %}{% if 1", "x }}{{ x", "{{ x }}"] {
            let problems = check_expression(source).unwrap_err();
            assert_eq!(problems[0].message, ONLY_EXPRESSION, "{source}");
        }
    }

    #[test]
    fn template_over_a_limit_is_rejected() {
        let long = |part: &str, times| format!("{{{{ x {} }}}}", part.repeat(times));
        assert!(wrong(&long("| upper ", 90)).is_none());
        assert!(wrong(&long("| upper ", 110)).is_some());
        let within = |times| format!("{{{{ {}x{} }}}}", "(".repeat(times), ")".repeat(times));
        assert!(wrong(&within(20)).is_none());
        assert!(wrong(&within(21)).is_some());
        assert!(wrong(&"{{ x }}".repeat(201)).is_some());
        let problems =
            check_template("{{ x | uper }} {{ [1] }} {{ x }} {{ media.url }}").unwrap_err();
        assert_eq!(problems.len(), 3);
    }
}
