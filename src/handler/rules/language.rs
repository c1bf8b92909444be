//! What a template may be made of: less than Jinja, so that none can run, grow or nest without end.
//!
//! Fuel bounds steps and bytes of a rendering, and not what lists cost that are put into each other or multiplied. So there is
//! nothing here to make or keep a list with: no `set`, no macros, no lists in brackets, no functions, and of the filters those
//! that give texts and numbers. The one list there is, `media`, has ten entries at most, and can be walked, counted and
//! indexed. How long a tag and how many of them there may be is bounded, too: reading them takes stack.

use super::expression::{look_at_tokens, parts};
use super::reader::nearest;
use super::tags::{Placed, Tag, Token, Wrong, next_mark, tokens};

/// In one template.
const MOST_TAGS: usize = 200;

/// Bytes of a template: more than ten messages of 1600 characters hold.
pub(super) const MOST_BYTES: usize = 32 * 1024;

/// Statements.
const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// Looks at all tags of a template: what is wrong with each is told.
pub(super) fn look(source: &str) -> Result<(), Vec<Wrong>> {
    let mut wrongs = Vec::new();
    let mut blocks = Blocks::default();
    let mut rest = 0;
    let mut tags = 0;
    while let Some((at, mark)) = next_mark(source, rest) {
        let inside = at + 2;
        tags += 1;
        if tags > MOST_TAGS {
            let what = format!("over {MOST_TAGS} tags and comments: a template is shorter");
            wrongs.push(Wrong { at, what });
            return Err(wrongs);
        }
        let tag = match mark {
            b'{' => Tag::Output,
            b'%' => Tag::Statement,
            _ => {
                let Some(end) = source[inside..].find("#}") else {
                    let what = "this comment has no end: write #}".to_owned();
                    wrongs.push(Wrong { at, what });
                    return Err(wrongs);
                };
                rest = inside + end + 2;
                continue;
            }
        };
        // `{{-` takes the space before it away.
        let signed = source[inside..].starts_with(['-', '+']);
        match tokens(source, inside + usize::from(signed), Some(tag)) {
            Ok((tokens, end)) => {
                let looked = look_at(tag, at, &tokens, &blocks.files);
                let looked = looked.and_then(|()| blocks.pass(tag, &tokens));
                wrongs.extend(looked.err());
                rest = end;
            }
            // Where it ends nobody knows.
            Err(what) => {
                wrongs.push(Wrong {
                    at: what.at.max(at),
                    ..what
                });
                return Err(wrongs);
            }
        }
    }
    if wrongs.is_empty() {
        wrongs.extend(blocks.open.pop().map(|(kind, at)| Wrong {
            at,
            what: format!("this {kind} has no end: write {{% end{kind} %}}"),
        }));
    }
    if wrongs.is_empty() {
        Ok(())
    } else {
        Err(wrongs)
    }
}

/// Statements that wait for their end.
#[derive(Default)]
struct Blocks<'t> {
    open: Vec<(&'static str, usize)>,
    /// What files are called in those that walk through them.
    files: Vec<&'t str>,
}

impl<'t> Blocks<'t> {
    fn pass(&mut self, tag: Tag, tokens: &[Placed<'t>]) -> Result<(), Wrong> {
        let (Tag::Statement, Some((at, Token::Name(name)))) = (tag, tokens.first().copied()) else {
            return Ok(());
        };
        let kind = match name {
            "if" | "elif" | "endif" => "if",
            "else" => match self.open.last() {
                Some((kind, _)) => kind,
                None => "if",
            },
            _ => "for",
        };
        if name == kind {
            self.open.push((kind, at));
            if let (true, Some((_, Token::Name(file)))) = (kind == "for", tokens.get(1)) {
                self.files.push(file);
            }
            return Ok(());
        }
        match self.open.last() {
            Some((open, _)) if *open == kind => {}
            Some((open, _)) => {
                let what = format!("the {open} before it has no end: write {{% end{open} %}}");
                return Err(Wrong { at, what });
            }
            None => {
                let what = format!("there is no {kind} before this {name}");
                return Err(Wrong { at, what });
            }
        }
        if name.starts_with("end") {
            self.open.pop();
            if kind == "for" {
                self.files.pop();
            }
        }
        Ok(())
    }
}

/// Looks at an expression that stands alone.
pub(super) fn look_at_expression(source: &str) -> Result<(), Wrong> {
    let (tokens, _) = tokens(source, 0, None)?;
    for (number, (at, token)) in tokens.iter().enumerate() {
        let next = tokens.get(number + 1);
        let closes = matches!(
            (token, next),
            (Token::Sign('%' | '}'), Some((next, Token::Sign('}')))) if *next == at + 1
        );
        if closes {
            let what = "write what stands between {% if and %}, and no more".to_owned();
            return Err(Wrong { at: *at, what });
        }
    }
    look_at_tokens(&tokens, &[])
}

fn look_at(tag: Tag, at: usize, tokens: &[Placed<'_>], files: &[&str]) -> Result<(), Wrong> {
    if tag == Tag::Output {
        if let [(at, Token::Name(name))] = tokens
            && let Some(parts) = parts(name, files)
        {
            let index = if *name == "media" { "[0]" } else { "" };
            let part = parts.first().unwrap_or(&"field");
            let what = format!("{name} is no text: write {name}{index}.{part}");
            return Err(Wrong { at: *at, what });
        }
        return look_at_tokens(tokens, files);
    }
    let Some((at, Token::Name(statement))) = tokens.first().copied() else {
        let what = format!("a statement is one of {}", STATEMENTS.join(", "));
        return Err(Wrong { at, what });
    };
    if !STATEMENTS.contains(&statement) {
        let what = match nearest(statement, STATEMENTS.into_iter()) {
            Some(known) => format!("there is no {statement}: did you mean {known}?"),
            None => format!("there is no {statement} here: {}", STATEMENTS.join(", ")),
        };
        return Err(Wrong { at, what });
    }
    if statement != "for" {
        return look_at_tokens(&tokens[1..], files);
    }
    let walks = matches!(
        tokens[1..],
        [
            (_, Token::Name(_)),
            (_, Token::Name("in")),
            (_, Token::Name("media"))
        ]
    );
    if !walks {
        let what = "for walks through the files: {% for file in media %}".to_owned();
        return Err(Wrong { at, what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(source: &str) -> Option<(usize, String)> {
        let wrongs = look(source).err()?;
        wrongs
            .into_iter()
            .next()
            .map(|wrong| (wrong.at, wrong.what))
    }

    #[test]
    fn what_people_write_is_taken() {
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
        assert!(look_at_expression("guests | int > 2 and name != '%}'").is_ok());
    }

    #[test]
    fn what_could_run_or_grow_without_end_is_refused_where_it_stands() {
        for (source, at, what) in [
            ("a {% set x = 1 %}", 5, "there is no set here"),
            ("{% macro m() %}", 3, "there is no macro here"),
            ("{%- raw %}", 4, "there is no raw here"),
            ("{% fro x in media %}", 3, "did you mean for?"),
            ("{% for x in text %}", 3, "for walks through the files"),
            ("{% for x in media recursive %}", 3, "for walks"),
            ("{{ [1, 2] }}", 3, "no lists"),
            ("{{ x in (1, 2) }}", 10, "no lists"),
            ("{{ x or [1] }}", 8, "no lists"),
            ("{{ ([x] | length)[[1]] }}", 4, "no lists"),
            ("{{ {'a': 1} }}", 3, "nothing in { }"),
            ("{{ range(9) }}", 8, "no functions"),
            ("{{ x.upper() }}", 10, "no functions"),
            ("{{ x | join }}", 7, "no filter join"),
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
            ("{{ x is not sequence }}", 12, "no test sequence"),
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
            ("{% endif %}", 3, "no if before this endif"),
            ("{% else %}", 3, "no if before this else"),
            ("{% if a = 1 %}", 8, "write =="),
            ("{{ a && b }}", 5, "write and"),
            ("{{ a || b }}", 5, "write or"),
            ("{{ !a }}", 3, "write not"),
            ("{{ a ? b : c }}", 5, "write a if b else c"),
            ("{{ name }", 0, "write }}"),
            ("{{ name", 0, "this tag has no end: write }}"),
            ("{# name", 0, "this comment has no end"),
        ] {
            let (found, said) = wrong(source).unwrap_or_else(|| panic!("{source} is taken"));
            assert!(said.contains(what), "{source}: {said}");
            assert_eq!(found, at, "{source}: {said}");
        }
        for source in ["1 %}{% endif %}{% if 1", "x }}{{ x"] {
            assert!(look_at_expression(source).is_err(), "{source}");
        }
        let long = |part: &str, times| format!("{{{{ x {} }}}}", part.repeat(times));
        assert!(wrong(&long("| upper ", 90)).is_none());
        assert!(wrong(&long("| upper ", 110)).is_some());
        let within = |times| format!("{{{{ {}x{} }}}}", "(".repeat(times), ")".repeat(times));
        assert!(wrong(&within(20)).is_none());
        assert!(wrong(&within(21)).is_some());
        assert!(wrong(&"{{ x }}".repeat(201)).is_some());
        assert!(wrong(&"{##}".repeat(201)).is_some());
        // Each tag is told.
        let wrongs = look("{{ x | uper }} {{ [1] }} {{ x }} {{ media.url }}").unwrap_err();
        assert_eq!(wrongs.len(), 3);
    }
}
