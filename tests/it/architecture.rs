//! Architecture rules, each with its reason: the layers of modules, the modules that may use a crate, and the words of
//! comments and pages.

mod impls;
mod imports;
mod levels;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use replyhook::telemetry::metrics::TABLE;

use crate::support::{read, root};

/// Folders of the packages' sources. A package may not exist yet.
const FOLDERS: [&str; 3] = ["src", "crates/core/src", "crates/emulator/src"];

/// Returns name and source of each file of the packages.
fn package_sources() -> Vec<(String, String)> {
    FOLDERS.into_iter().flat_map(sources).collect()
}

/// Returns the place that a file of another package would have in `src`, where the rules name it.
fn place(file: &str) -> String {
    let of_core = file.strip_prefix("crates/core/");
    let of_emulator = || file.strip_prefix("crates/emulator/src/");
    of_core
        .map(str::to_owned)
        .or_else(|| of_emulator().map(|rest| format!("src/emulator/{rest}")))
        .unwrap_or_else(|| file.to_owned())
}

/// Returns name and source of each file in a folder, which need not exist.
fn sources(under: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(under), &mut files);
    let named = files.into_iter().map(|path| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, std::fs::read_to_string(path).unwrap())
    });
    named.collect()
}

/// Returns the code of a file without its tests and comments, which may use every module.
fn code(source: &str) -> String {
    let source = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that may use a crate or a part of std, and the reason.
const ALLOWED: [(&str, &[&str], &str); 10] = [
    (
        "std::env",
        // The name of the command is not a setting.
        &["src/config/", "src/bin/replyhook/serve_runtime.rs"],
        "every setting is documented and checked in one module",
    ),
    (
        "SystemTime",
        &["src/clock.rs"],
        "tests and the emulator move the clock",
    ),
    (
        "Timestamp::now",
        &["src/clock.rs"],
        "tests and the emulator move the clock",
    ),
    (
        "reqwest",
        &["src/emulator/", "src/twilio/", "src/forward/"],
        "outgoing HTTP requests are made in few modules, each with its limits",
    ),
    (
        "sqlx",
        &["src/store/postgres/"],
        "databases belong to the store",
    ),
    (
        "rusqlite",
        &["src/store/sqlite/"],
        "databases belong to the store",
    ),
    (
        "use axum",
        &[
            "src/webhook/",
            "src/admin/",
            "src/api/",
            "src/signature/layer.rs",
            "src/app/",
            "src/server/",
            "src/emulator/",
        ],
        "HTTP ends at the edge",
    ),
    ("use hyper", &["src/server/"], "one accept loop"),
    (
        "tokio::",
        &[
            "src/webhook/",
            "src/signature/layer.rs",
            "src/app/",
            "src/server/",
            "src/dispatch/",
            "src/delivery/",
            "src/events/",
            "src/media/",
            // The HTTP client calls the resolver with an async function.
            "src/twilio/media/resolver.rs",
            "src/outbound/",
            "src/store/sqlite/",
            "src/store/postgres/",
            "src/worker.rs",
            "src/supervisor.rs",
            "src/admin/",
            "src/api/",
            "src/clock.rs",
            "src/emulator/",
            "src/testing/",
            "src/bin/",
        ],
        "types and traits must not need a runtime",
    ),
    ("clap", &["src/bin/"], "the library has no command line"),
];

#[test]
fn restricted_api_is_used_only_in_allowed_modules() {
    for (file, source) in package_sources() {
        let (place, code) = (place(&file), code(&source));
        for (name, modules, reason) in ALLOWED {
            if modules.iter().any(|module| place.starts_with(module)) {
                continue;
            }
            assert!(!code.contains(name), "{file} names {name}: {reason}");
        }
    }
}

// The library prints nothing, files have at most 600 lines, and no name is as vague as `utils`.
#[test]
fn source_files_follow_print_size_and_name_rules() {
    for (file, source) in package_sources() {
        let code = code(&source);
        if !file.starts_with("src/bin/") {
            for macro_name in [
                "println!",
                "eprintln!",
                "print!(",
                "dbg!",
                "todo!",
                "unimplemented!",
            ] {
                assert!(!code.contains(macro_name), "{file} has {macro_name}");
            }
        }
        assert!(
            source.lines().count() <= 600,
            "{file} has over 600 lines; split it in two"
        );
        for name in ["utils", "helpers", "common", "manager"] {
            assert!(!file.contains(name), "{file} has the vague name {name}");
        }
        assert!(
            !code.replace("fn get_unique(", "").contains("fn get_"),
            "{file} has a get_: name a getter after its value"
        );
    }
}

/// The time of a comparison must not reveal how many bytes of a forged signature are right.
#[test]
fn signatures_are_compared_in_constant_time() {
    let sources = package_sources();
    let source = |name: &str| {
        let expected = format!("src/signature/{name}.rs");
        let found = sources.iter().find(|(file, _)| place(file) == expected);
        found.map_or_else(
            || panic!("{expected} is missing"),
            |(_, source)| source.clone(),
        )
    };
    let comparing = source("token") + &source("verifier");
    assert_eq!(
        comparing.matches(".verify_slice(").count(),
        1,
        "Mac::verify_slice must be the only comparison of a signature"
    );
    let comparisons = [
        "signature ==",
        "== signature",
        "signature.eq(",
        "finalize().into_bytes() ==",
        "signature !=",
        "!= signature",
    ];
    for name in [
        "token", "verifier", "diagnose", "headers", "layer", "readings",
    ] {
        for comparison in comparisons {
            assert!(
                !source(name).contains(comparison),
                "{name} compares a signature with {comparison}"
            );
        }
    }
}

/// A name stands for one type in all packages, so that a reader who has seen it once knows it.
#[test]
fn type_name_is_defined_once() {
    const KINDS: [&str; 5] = ["struct ", "enum ", "trait ", "union ", "type "];
    let mut defined: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, source) in package_sources() {
        for line in code(&source).lines() {
            let indented = line.starts_with(' ');
            let line = line.trim_start();
            let line = match line.strip_prefix("pub") {
                // `pub(super) struct`
                Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |r| r.1),
                Some(rest) => rest.trim_start(),
                None => line,
            };
            let Some(rest) = KINDS.iter().find_map(|kind| line.strip_prefix(kind)) else {
                continue;
            };
            // An associated type is named by its trait.
            if indented && line.starts_with("type ") {
                continue;
            }
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            // A macro's `struct $name`.
            if name.is_empty() {
                continue;
            }
            assert!(
                defined
                    .entry(name.to_owned())
                    .or_default()
                    .insert(file.clone()),
                "{file} defines two types with the name {name}"
            );
        }
    }
    assert!(defined.contains_key("InboundMessage"), "no types are found");
    defined.retain(|_, files| files.len() > 1);
    assert!(defined.is_empty(), "names with several types: {defined:#?}");
}

#[test]
fn build_profile_never_aborts_on_panic() {
    let manifest = read("Cargo.toml");
    let settings = manifest
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    assert!(
        !settings.collect::<String>().contains("panic ="),
        "a handler's panic must be caught where its task is joined"
    );
    assert!(manifest.contains("unsafe_code = \"forbid\""));
}

#[test]
fn metrics_are_documented_and_named_consistently() {
    let readme = read("docs/src/reference/metrics.md");
    for metric in TABLE {
        assert!(metric.name.starts_with("replyhook_"), "{}", metric.name);
        assert!(
            readme.contains(&format!("`{}`", metric.name)),
            "{} is not in docs/src/reference/metrics.md",
            metric.name
        );
        for label in metric.labels {
            assert!(
                readme.contains(&format!("`{label}`")),
                "label {label} is not in docs/src/reference/metrics.md"
            );
        }
        assert!(metric.help.ends_with('.'));
    }
    let listed = readme
        .lines()
        .filter(|line| line.starts_with("| `replyhook_"))
        .count();
    assert_eq!(
        listed,
        TABLE.len(),
        "docs/src/reference/metrics.md lists a metric that does not exist"
    );
}

/// On SMS Twilio blocks all messages to a user who sends one of these. A bot that is made after an example must not ask
/// for them.
#[test]
fn examples_and_documents_use_no_opt_out_keyword() {
    const KEYWORDS: [&str; 8] = [
        "stop",
        "stopall",
        "unsubscribe",
        "cancel",
        "end",
        "quit",
        "optout",
        "revoke",
    ];
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let mut files = vec![root().join("README.md")];
    for folder in ["examples", "docs"] {
        walk(&root().join(folder), &mut files);
    }
    for file in files {
        // Pictures are not text.
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let found: Vec<_> = text
            .lines()
            .flat_map(|line| line.split(['"', '\'']))
            .filter(|word| KEYWORDS.contains(word))
            .collect();
        assert!(found.is_empty(), "{} has {found:?}", file.display());
    }
}

/// Threats to users with several addresses. The rows before them are in the first threat list.
const IDENTITY_THREATS: [(u32, &str); 4] = [
    (
        76,
        "any order of messages, STOP, START, merges, splits and number changes: after a STOP nothing goes to any address of \
         the user in its scope until START",
    ),
    (
        77,
        "STOP under one spelling of a number, and a message or a send under the other: nothing is sent",
    ),
    (
        78,
        "a recycled number: the new owner gets no history, state, handoff, window, opt-in or waiting message of the old one, \
         and an opt-out of the number stays",
    ),
    (
        79,
        "two machines that learn the same pair of addresses concurrently: both agree, and no deadlock",
    ),
];

#[test]
fn listed_threat_has_numbered_test() {
    let tests: String = sources("tests")
        .into_iter()
        .map(|(_, source)| source)
        .collect();
    let numbered = (1..=75).map(|row| (row, "of the first list"));
    for (row, text) in numbered.chain(IDENTITY_THREATS) {
        assert!(
            tests.contains(&format!("fn threat_{row:02}_")),
            "row {row} has no test: {text}"
        );
    }
}

/// Subcommands of cargo that resolve dependencies. `install` is not among them: it appears in hints for people only.
const RESOLVING: [&str; 10] = [
    "bench", "build", "check", "clippy", "doc", "package", "publish", "run", "test", "tree",
];

/// Returns whether a line of a script lets cargo choose versions that are not in Cargo.lock.
fn resolves_unlocked(line: &str) -> bool {
    if line.trim_start().starts_with('#') {
        return false;
    }
    // A line may have several commands. Each command's options extend to the next one.
    line.split("cargo ").skip(1).any(|command| {
        let mut words = command.split_whitespace();
        let subcommand = words.find(|word| !word.starts_with(['-', '+']));
        let resolves = subcommand.is_some_and(|word| RESOLVING.contains(&word));
        resolves && !command.split_whitespace().any(|word| word == "--locked")
    })
}

// Every build uses the locked versions, which come from crates.io with a checksum, and no banned crate is among them.
#[test]
fn threat_74_dependency_is_locked_and_from_registry() {
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    for (table, rule) in [
        ("sources", "unknown-registry"),
        ("sources", "unknown-git"),
        ("bans", "wildcards"),
        ("advisories", "yanked"),
    ] {
        assert_eq!(deny[table][rule].as_str(), Some("deny"), "{table}.{rule}");
    }
    let banned = deny["bans"]["deny"].as_array().unwrap().iter();
    let banned: Vec<_> = banned.map(|ban| ban["crate"].as_str().unwrap()).collect();
    assert!(banned.contains(&"openssl-sys"), "{banned:?}");
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock: toml::Table = read(file).parse().unwrap();
        let packages = lock["package"].as_array().unwrap();
        assert!(packages.len() > 50, "{file} has too few packages");
        for package in packages {
            let name = package["name"].as_str().unwrap();
            // The packages of this repository.
            if name.split('-').next() == Some("replyhook") {
                continue;
            }
            let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
            assert_eq!(
                text("source"),
                Some("registry+https://github.com/rust-lang/crates.io-index"),
                "{file}: {name}"
            );
            assert_eq!(text("checksum").map(str::len), Some(64), "{file}: {name}");
            assert!(!banned.contains(&name), "{file}: {name} is banned");
        }
    }
    for unlocked in ["cargo test", " && cargo +nightly -q build --release"] {
        assert!(resolves_unlocked(unlocked), "the check accepts {unlocked}");
    }
    let mut scripts = vec![".ci/run".to_owned(), "Dockerfile".to_owned()];
    for entry in std::fs::read_dir(root().join("scripts")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        scripts.push(format!("scripts/{name}"));
    }
    for file in scripts {
        for line in read(&file).lines() {
            assert!(
                !resolves_unlocked(line),
                "{file} does not build what is locked: {line}"
            );
        }
    }
}

#[test]
fn documents_reference_each_other_and_all_modules() {
    for (file, parts) in [
        (
            "README.md",
            &[
                "cargo run -- serve",
                "./scripts/test",
                "ARCHITECTURE.md",
                "CHANGELOG.md",
                "docs/src/reference/metrics.md",
            ][..],
        ),
        (
            "ARCHITECTURE.md",
            &[
                "src/webhook",
                "core/signature",
                "src/dispatch/",
                "tests/it/architecture/levels.rs",
            ],
        ),
        (
            "CONTRIBUTING.md",
            &["./scripts/test", ".ci/run", "scripts/bench"],
        ),
        (".ci/run", &["scripts/test"]),
    ] {
        let text = read(file);
        for part in parts {
            assert!(text.contains(part), "{file} does not mention {part}");
        }
    }
    // ARCHITECTURE.md shows every module.
    let plan = read("ARCHITECTURE.md");
    for file in package_sources() {
        let place = place(&file.0);
        let name = place.split('/').nth(1).unwrap();
        assert!(plan.contains(name), "ARCHITECTURE.md does not show {name}");
    }
}

/// The path of one message through the code stays short enough to read in one go.
#[test]
fn walkthrough_of_a_message_has_at_most_20_files() {
    let plan = read("ARCHITECTURE.md");
    let (_, walk) = plan
        .split_once("## Walkthrough: an inbound message")
        .expect("the walkthrough");
    let (walk, _) = walk.split_once("\n\n`Journal").expect("its end");
    let files: BTreeSet<_> = walk
        .split('`')
        .filter(|part| part.strip_suffix(".rs").is_some())
        .map(|file| match file.strip_prefix("core/") {
            Some(file) => format!("crates/core/src/{file}"),
            None => file.to_owned(),
        })
        .collect();
    for file in &files {
        assert!(root().join(file).is_file(), "{file} does not exist");
    }
    assert!((10..=20).contains(&files.len()), "{}", files.len());
}

/// Lines of a file that people read: comments and string literals of code, and all of a page.
fn readable_lines(file: &str, text: &str) -> Vec<String> {
    let is_code = Path::new(file)
        .extension()
        .is_some_and(|extension| extension == "rs");
    // String literals outside of `src` are mostly texts of users.
    let has_literals = FOLDERS.iter().any(|folder| file.starts_with(folder));
    let lines = text.lines().map(str::trim);
    let lines = lines
        .filter(|line| !is_code || line.starts_with("//") || has_literals && line.contains('"'));
    lines.map(str::to_owned).collect()
}

/// Words that a reader has to decipher. CONTRIBUTING.md has the style guide.
#[test]
fn comments_and_pages_use_plain_words() {
    const WORDS: [&str; 10] = [
        "anew",
        "thrice",
        "whoever",
        "somebody",
        "nobody",
        "mend",
        "mends",
        "mended",
        "beside",
        "meanwhile",
    ];
    // In comments and pages. An error may say that there is no header.
    const PHRASES: [&str; 4] = [" is no ", " are no ", ": see [", "belongs into"];
    const OPENERS: [&str; 5] = ["What ", "Who ", "Whether ", "Where ", "How "];
    let is_plain = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphabetic());
        let has_word = words.any(|word| WORDS.contains(&word.to_lowercase().as_str()));
        let doc = line.strip_prefix("/// ").or(line.strip_prefix("//! "));
        let opens = doc.is_some_and(|doc| OPENERS.iter().any(|opener| doc.starts_with(opener)));
        let is_literal = !line.starts_with("//") && line.contains('"');
        let has_phrase = !is_literal && PHRASES.iter().any(|phrase| line.contains(phrase));
        !has_word && !opens && !has_phrase
    };
    assert!(is_plain("/// Returns the saved response."));
    let words = WORDS.iter().map(|word| format!("// {word}"));
    let openers = OPENERS.iter().map(|opener| format!("/// {opener}"));
    let phrases = PHRASES.iter().map(|phrase| format!("//{phrase}"));
    for wrong in words.chain(openers).chain(phrases) {
        assert!(!is_plain(&wrong), "the check accepts {wrong:?}");
    }
    // All but this file, which has the words.
    let is_other = |file: &(String, String)| !file.0.ends_with("architecture.rs");
    let code = ["src", "crates", "tests", "examples", "benches"].map(sources);
    let mut files: Vec<_> = code.into_iter().flatten().filter(is_other).collect();
    let pages = crate::support::markdown::pages("docs").into_iter();
    let others = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(str::to_owned);
    for page in pages.chain(others) {
        let text = read(&page);
        files.push((page, text));
    }
    let mut found = Vec::new();
    for (file, text) in files {
        let lines = readable_lines(&file, &text).into_iter();
        found.extend(
            lines
                .filter(|line| !is_plain(line))
                .map(|line| format!("{file}: {line}")),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
