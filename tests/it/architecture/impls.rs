//! Files with the methods of one type.

use std::collections::{BTreeMap, BTreeSet};

use super::package_sources;
use super::tokens::tokens;

/// Maximum number of files.
const MAX_FILES: usize = 2;

/// Returns the types to which a file gives methods. The implementation of a trait does not count.
fn types_with_methods(source: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let begins_item = |at: usize| at == 0 || ["}", "{", ";", "]"].contains(&&*tokens[at - 1]);
    let found = tokens.iter().enumerate();
    let found = found.filter(|(at, token)| *token == "impl" && begins_item(*at));
    found
        .filter_map(|(at, _)| inherent_type(&tokens[at + 1..]))
        .collect()
}

/// Returns the type of the `impl` block whose first tokens follow; `None` for that of a trait, or of a macro's type.
fn inherent_type(tokens: &[String]) -> Option<String> {
    let mut depth = 0;
    let mut name = None;
    for (at, token) in tokens.iter().enumerate() {
        match &**token {
            "<" => depth += 1,
            // Not the end of generic parameters: `->`.
            ">" if tokens[at - 1] != "-" => depth -= 1,
            _ if depth > 0 => {}
            "for" | "$" => return None,
            "{" | "where" => break,
            "::" | ">" => {}
            token => name = Some(token.to_owned()),
        }
    }
    name
}

/// A type whose methods are in many files owns what belongs to several: each of them should be a type of its own.
#[test]
fn methods_of_type_are_in_two_files_at_most() {
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, source) in package_sources() {
        for name in types_with_methods(&source) {
            files.entry(name).or_default().insert(file.clone());
        }
    }
    assert!(files.contains_key("Dispatcher"), "no methods are found");
    files.retain(|_, files| files.len() > MAX_FILES);
    assert!(
        files.is_empty(),
        "types with methods in more than {MAX_FILES} files: {files:#?}"
    );
}

#[test]
fn types_with_methods_are_found() {
    let source = "use a::B;\nimpl One {}\n#[cfg(x)]\nimpl<'a, F: Fn() -> u8> a::Two<'a, F> where F: Send {}\n\
                  mod inner { impl<T> Three<T> { fn f(x: impl Four) -> impl Five {} } }\n\
                  impl Six for Seven {}\nimpl<T> From<Vec<T>> for Eight {}\nimpl $name {}\n\
                  #[cfg(test)]\nimpl Nine {}\nimpl Ten\nwhere\n    for<'a> u8: Fn(&'a u8) {}";
    let found: Vec<_> = types_with_methods(source).into_iter().collect();
    assert_eq!(found, ["One", "Ten", "Three", "Two"]);
}
