//! The rules of the house, each with its reason: who may know whom, and where the outside may be touched.

use std::path::{Path, PathBuf};

use replyhook::telemetry::metrics::TABLE;

use crate::support::{read, root};

fn sources(under: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
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

/// A file's code without its tests and comments, which may know everyone.
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

/// The level of a room: it may import rooms of lower levels, and its own files.
const LEVELS: [(&str, u8); 48] = [
    ("address", 0),
    ("clock", 0),
    ("error", 0),
    ("error_code", 0),
    ("form", 0),
    ("message", 0),
    ("probe", 0),
    ("redact", 0),
    ("reply", 0),
    ("secret", 0),
    ("sid", 0),
    ("signature", 0),
    ("twiml", 0),
    ("handler", 1),
    ("handler/forward", 2),
    ("handler/route", 2),
    ("handler/dialogue", 2),
    ("handler/rules", 3),
    ("lifecycle", 1),
    ("connection", 1),
    ("descriptors", 1),
    ("core_dumps", 1),
    ("start_error", 2),
    ("tls", 1),
    ("telemetry", 2),
    ("twilio", 2),
    ("consent", 2),
    ("crash_point", 0),
    ("store", 1),
    ("store/sqlite", 2),
    ("store/postgres", 2),
    ("dispatch", 3),
    ("delivery", 3),
    ("media", 3),
    ("reconcile", 3),
    ("sending", 3),
    ("admin", 4),
    ("emulator", 4),
    ("webhook", 4),
    ("config", 5),
    ("app", 7),
    ("server", 6),
    ("worker", 6),
    ("testing", 8),
    ("lib", 9),
    // Logs are set up from settings, and so is the exporter of traces.
    ("telemetry/logs", 6),
    ("telemetry/otel", 6),
    // The layer speaks axum, and reports through a callback.
    ("signature/layer", 2),
];

fn level(file: &str) -> u8 {
    let room = file
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .trim_end_matches("/mod");
    let find = |room: &str| {
        LEVELS
            .iter()
            .find(|(known, _)| *known == room)
            .map(|(_, level)| *level)
    };
    let parent = room.rsplit_once('/').map_or(room, |(parent, _)| parent);
    find(room)
        .or_else(|| find(parent))
        .or_else(|| find(room.split('/').next().unwrap()))
        .unwrap_or_else(|| panic!("{file} has no level"))
}

/// Rooms of level 0 know each other where one is made of the other.
fn room(file: &str) -> &str {
    file.trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/')
        .next()
        .unwrap()
}

#[test]
fn imports_point_downwards() {
    for (file, source) in sources("src")
        .into_iter()
        .filter(|(file, _)| !file.starts_with("src/bin/") && file != "src/lib.rs")
    {
        for line in code(&source).lines() {
            for import in line.split("crate::").skip(1) {
                let target = import
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .next()
                    .unwrap();
                if !LEVELS.iter().any(|(known, _)| *known == target) || target == room(&file) {
                    continue;
                }
                let target_level = if import.starts_with("telemetry::logs") {
                    6
                } else {
                    level(&format!("src/{target}.rs"))
                };
                let (own, theirs) = (level(&file), target_level);
                assert!(
                    theirs < own || (own == 0 && theirs == 0),
                    "{file} (level {own}) imports {target} (level {theirs}): {line}"
                );
            }
        }
    }
}

/// Where a crate or a part of std may be named, and why only there.
const ROOMS: [(&str, &[&str], &str); 10] = [
    (
        "std::env",
        &["src/config/"],
        "every setting is documented and checked in one room",
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
        &["src/emulator/", "src/twilio/", "src/handler/forward/"],
        "outgoing HTTP has few doors, each with its limits",
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
            "src/media/",
            // The one who connects is asked where to.
            "src/twilio/media/resolver.rs",
            "src/sending/",
            "src/store/sqlite/",
            "src/store/postgres/",
            "src/worker.rs",
            "src/admin/",
            "src/clock.rs",
            "src/emulator/",
            "src/testing/",
            "src/bin/",
        ],
        "the vocabulary needs no runtime",
    ),
    ("clap", &["src/bin/"], "the library has no command line"),
];

#[test]
fn the_outside_is_touched_only_where_it_may_be() {
    for (file, source) in sources("src") {
        let code = code(&source);
        for (name, rooms, reason) in ROOMS {
            if rooms.iter().any(|room| file.starts_with(room)) {
                continue;
            }
            assert!(!code.contains(name), "{file} names {name}: {reason}");
        }
    }
}

#[test]
fn the_library_prints_nothing_and_rooms_are_small_and_named_for_what_they_hold() {
    for (file, source) in sources("src") {
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
            "{file} has over 600 lines: it wants to be two rooms"
        );
        for name in ["utils", "helpers", "common", "manager"] {
            assert!(
                !file.contains(name),
                "{file} is named {name}, which says nothing"
            );
        }
        assert!(
            !code.contains("fn get_"),
            "{file} has a get_: a getter is named after what it gives"
        );
    }
}

#[test]
fn a_panic_is_never_turned_into_an_abort() {
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
fn every_metric_is_documented_and_named_alike() {
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

#[test]
fn every_row_of_the_threat_list_that_is_promised_has_a_test_of_its_name() {
    let tests: String = sources("tests")
        .into_iter()
        .map(|(_, source)| source)
        .collect();
    let rows = 1..=75;
    for row in rows {
        assert!(
            tests.contains(&format!("fn threat_{row:02}_")),
            "row {row} has no test"
        );
    }
}

#[test]
fn threat_74_every_dependency_is_locked_and_comes_from_the_registry() {
    let lock = read("Cargo.lock");
    let lock: toml::Table = lock.parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name == env!("CARGO_PKG_NAME") {
            continue;
        }
        let source = package
            .get("source")
            .and_then(toml::Value::as_str)
            .unwrap_or("a path");
        assert!(
            source.starts_with("registry+"),
            "{name} comes from {source}"
        );
        assert!(package.get("checksum").is_some(), "{name} has no checksum");
    }
    for file in [".ci/run", "scripts/test", "Dockerfile"] {
        for line in read(file).lines().filter(|line| {
            line.contains("cargo build")
                || line.contains("cargo test")
                || line.contains("cargo clippy")
        }) {
            assert!(
                line.trim_start().starts_with('#') || line.contains("--locked"),
                "{file} does not build what is locked: {line}"
            );
        }
    }
    let deny = read("deny.toml");
    for rule in [
        "unknown-registry = \"deny\"",
        "unknown-git = \"deny\"",
        "wildcards = \"deny\"",
    ] {
        assert!(deny.contains(rule), "deny.toml lacks {rule}");
    }
}

#[test]
fn documents_name_each_other_and_what_is_there() {
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
                "src/signature",
                "src/dispatch/",
                "tests/it/architecture.rs",
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
    // Every room of the house is on its plan.
    let plan = read("ARCHITECTURE.md");
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(plan.contains(&name), "ARCHITECTURE.md does not show {name}");
    }
}
