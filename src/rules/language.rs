//! The template language: a subset of Jinja, in which no template can run, grow or nest without limit.
//!
//! minijinja's fuel limits the steps and the bytes of a rendering. It does not limit the cost of lists that are nested
//! or multiplied. So templates cannot create or store a list: `set`, macros, lists in brackets and functions are rejected,
//! and all filters return texts or numbers. The only list, `media`, has at most ten entries. It can be looped
//! over, counted and indexed. The length and the number of tags are limited too, because parsing them takes stack.

use super::expression::{check_tokens, find_parts};
use super::reader::nearest;
use super::tags::{PlacedToken, Tag, TagToken, TemplateProblem, next_mark, tokenize};

/// Maximum number of tags and comments in one template. It limits the nesting of blocks too.
const MAX_TAGS: usize = 200;

/// Maximum size of a template in bytes: more than ten messages of 1600 characters take.
pub(super) const MAX_BYTES: usize = 32 * 1024;

/// All statements of the language.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// Checks all tags of a template.
///
/// # Errors
/// The problems of all tags, or those up to a tag without an end.
pub(super) fn check_template(source: &str) -> Result<(), Vec<TemplateProblem>> {
    let mut problems = Vec::new();
    let mut blocks = Blocks::default();
    let mut position = 0;
    let mut tags = 0;
    while let Some((at, mark)) = next_mark(source, position) {
        let inside = at + 2;
        tags += 1;
        if tags > MAX_TAGS {
            let message = format!("over {MAX_TAGS} tags and comments in one template: shorten it");
            problems.push(TemplateProblem { at, message });
            return Err(problems);
        }
        let tag = match mark {
            b'{' => Tag::Output,
            b'%' => Tag::Statement,
            _ => {
                let Some(end) = source[inside..].find("#}") else {
                    let message = "this comment has no end: write #}".to_owned();
                    problems.push(TemplateProblem { at, message });
                    return Err(problems);
                };
                position = inside + end + 2;
                continue;
            }
        };
        // In `{{-` and `{%+` the sign belongs to the start of the tag: it controls the white space before it.
        let has_trim_sign = source[inside..].starts_with(['-', '+']);
        match tokenize(source, inside + usize::from(has_trim_sign), Some(tag)) {
            Ok((tokens, end)) => {
                let checked = check_tag(tag, at, &tokens, &blocks.loop_vars);
                let checked = checked.and_then(|()| blocks.track_tag(tag, &tokens));
                problems.extend(checked.err());
                position = end;
            }
            // Stop here: the end of this tag is unknown, and so is the start of the next one.
            Err(problem) => {
                problems.push(TemplateProblem {
                    at: problem.at.max(at),
                    ..problem
                });
                return Err(problems);
            }
        }
    }
    // Not after another problem: an unknown statement may be the misspelt end of this block.
    if problems.is_empty() {
        problems.extend(blocks.open.pop().map(|(kind, at)| TemplateProblem {
            at,
            message: format!("this {kind} has no end: write {{% end{kind} %}}"),
        }));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// The blocks that are open at a tag.
#[derive(Default)]
struct Blocks<'t> {
    open: Vec<(&'static str, usize)>,
    /// The loop variables of the open `for` blocks, which are files.
    loop_vars: Vec<&'t str>,
}

impl<'t> Blocks<'t> {
    fn track_tag(&mut self, tag: Tag, tokens: &[PlacedToken<'t>]) -> Result<(), TemplateProblem> {
        let (Tag::Statement, Some((at, TagToken::Name(name)))) = (tag, tokens.first().copied())
        else {
            return Ok(());
        };
        let kind = match name {
            "if" | "elif" | "endif" => "if",
            // `else` belongs to an `if` or to a `for`, whichever is open. Without either it is reported as one of `if`.
            "else" => match self.open.last() {
                Some((kind, _)) => kind,
                None => "if",
            },
            _ => "for",
        };
        if name == kind {
            self.open.push((kind, at));
            if let (true, Some((_, TagToken::Name(file)))) = (kind == "for", tokens.get(1)) {
                self.loop_vars.push(file);
            }
            return Ok(());
        }
        match self.open.last() {
            Some((open, _)) if *open == kind => {}
            Some((open, _)) => {
                let message = format!("the {open} before it has no end: write {{% end{open} %}}");
                return Err(TemplateProblem { at, message });
            }
            None => {
                let message = format!("this {name} has no {kind} before it");
                return Err(TemplateProblem { at, message });
            }
        }
        if name.starts_with("end") {
            self.open.pop();
            if kind == "for" {
                self.loop_vars.pop();
            }
        }
        Ok(())
    }
}

/// Checks an expression that stands alone, such as the condition of a question.
pub(super) fn check_expression(source: &str) -> Result<(), TemplateProblem> {
    let (tokens, _) = tokenize(source, 0, None)?;
    // The expression is put between `{% if` and `%}`. One that ends the tag itself could add tags that are not checked.
    for (number, (at, token)) in tokens.iter().enumerate() {
        let next = tokens.get(number + 1);
        let ends_tag = matches!(
            (token, next),
            (TagToken::Sign('%' | '}'), Some((next, TagToken::Sign('}')))) if *next == at + 1
        );
        if ends_tag {
            let message = "write only what stands between {% if and %}".to_owned();
            return Err(TemplateProblem { at: *at, message });
        }
    }
    check_tokens(&tokens, &[])
}

fn check_tag(
    tag: Tag,
    at: usize,
    tokens: &[PlacedToken<'_>],
    loop_vars: &[&str],
) -> Result<(), TemplateProblem> {
    if tag == Tag::Output {
        // A tag of nothing but an object would fail at run time, when it is printed.
        if let [(at, TagToken::Name(name))] = tokens
            && let Some(parts) = find_parts(name, loop_vars)
        {
            let index = if *name == "media" { "[0]" } else { "" };
            let part = parts.first().unwrap_or(&"field");
            let message = format!("{name} is not a text: write {name}{index}.{part}");
            return Err(TemplateProblem { at: *at, message });
        }
        return check_tokens(tokens, loop_vars);
    }
    let Some((at, TagToken::Name(statement))) = tokens.first().copied() else {
        let message = format!("a statement is one of {}", STATEMENTS.join(", "));
        return Err(TemplateProblem { at, message });
    };
    if !STATEMENTS.contains(&statement) {
        let message = match nearest(statement, STATEMENTS.into_iter()) {
            Some(known) => format!("unknown statement {statement}: did you mean {known}?"),
            None => format!(
                "unknown statement {statement}: write one of {}",
                STATEMENTS.join(", ")
            ),
        };
        return Err(TemplateProblem { at, message });
    }
    if statement != "for" {
        return check_tokens(&tokens[1..], loop_vars);
    }
    // Only over `media`, which has at most ten entries: nested loops over it run out of fuel before they take long.
    let loops_over_media = matches!(
        tokens[1..],
        [
            (_, TagToken::Name(_)),
            (_, TagToken::Name("in")),
            (_, TagToken::Name("media"))
        ]
    );
    if !loops_over_media {
        let message = "for loops over media only: write {% for file in media %}".to_owned();
        return Err(TemplateProblem { at, message });
    }
    Ok(())
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
        assert!(check_expression("guests | int > 2 and name != '%}'").is_ok());
    }

    // Constructs that could run or grow without limit are rejected with their position and a fix.
    #[test]
    fn unsupported_template_is_rejected_with_position() {
        for (source, at, message) in [
            ("a {% set x = 1 %}", 5, "unknown statement set"),
            ("{% macro m() %}", 3, "unknown statement macro"),
            ("{%- raw %}", 4, "unknown statement raw"),
            ("{% fro x in media %}", 3, "did you mean for?"),
            ("{% for x in text %}", 3, "for loops over media only"),
            ("{% for x in media recursive %}", 3, "for loops over media"),
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
            ("a {% if x %}b", 5, "this if has no end: write {% endif %}"),
            (
                "{% for f in media %}a{% endif %}",
                24,
                "the for before it has no end",
            ),
            ("{% endif %}", 3, "this endif has no if before it"),
            ("{% else %}", 3, "this else has no if before it"),
            ("{% if a = 1 %}", 8, "write =="),
            ("{{ a && b }}", 5, "write and"),
            ("{{ a || b }}", 5, "write or"),
            ("{{ !a }}", 3, "write not"),
            ("{{ a ? b : c }}", 5, "write a if b else c"),
            ("{{ name }", 0, "write }}"),
            ("{{ name", 0, "this tag has no end: write }}"),
            ("{# name", 0, "this comment has no end"),
        ] {
            let (found, text) = wrong(source).unwrap_or_else(|| panic!("{source} is accepted"));
            assert!(text.contains(message), "{source}: {text}");
            assert_eq!(found, at, "{source}: {text}");
        }
        // Expressions that would end the tag around them.
        for source in ["1 %}{% endif %}{% if 1", "x }}{{ x"] {
            assert!(check_expression(source).is_err(), "{source}");
        }
        // The limits: 200 tokens in a tag, 20 nested brackets, 200 tags or comments.
        let long = |part: &str, times| format!("{{{{ x {} }}}}", part.repeat(times));
        assert!(wrong(&long("| upper ", 90)).is_none());
        assert!(wrong(&long("| upper ", 110)).is_some());
        let within = |times| format!("{{{{ {}x{} }}}}", "(".repeat(times), ")".repeat(times));
        assert!(wrong(&within(20)).is_none());
        assert!(wrong(&within(21)).is_some());
        assert!(wrong(&"{{ x }}".repeat(201)).is_some());
        assert!(wrong(&"{##}".repeat(201)).is_some());
        let problems =
            check_template("{{ x | uper }} {{ [1] }} {{ x }} {{ media.url }}").unwrap_err();
        assert_eq!(problems.len(), 3);
    }
}
