//! Levels of modules, and imports between files.

use super::imports::{ImportGraph, Source};
use super::tokens::tokens;
use super::{package_sources, sources};

/// The crates of this repository.
const CRATES: [Source; 4] = [
    Source {
        name: "replyhook",
        folder: "src",
        entry: "lib.rs",
    },
    Source {
        name: "",
        folder: "src/bin/replyhook",
        entry: "main.rs",
    },
    Source {
        name: "replyhook_core",
        folder: "crates/core/src",
        entry: "lib.rs",
    },
    Source {
        name: "replyhook_emulator",
        folder: "crates/emulator/src",
        entry: "lib.rs",
    },
];

/// The level of each module of the package replyhook. A module may import modules of lower levels, and its own files.
/// Modules of level 0 may import each other.
const LEVELS: [(&str, u8); 40] = [
    ("probe", 0),
    ("retry_delay", 0),
    ("lock", 0),
    ("reloadable", 0),
    ("spelling", 0),
    ("handler", 1),
    ("address_pattern", 0),
    ("dialogue", 2),
    ("forward", 2),
    ("route", 3),
    ("rules", 4),
    ("lifecycle", 1),
    ("connection", 1),
    ("descriptors", 1),
    ("core_dumps", 1),
    ("app_error", 2),
    ("supervisor", 3),
    ("telemetry", 2),
    ("twilio", 2),
    ("consent", 2),
    ("crash_point", 0),
    ("store", 1),
    ("store/sqlite", 2),
    ("store/postgres", 2),
    ("dispatch", 3),
    ("delivery", 3),
    ("events", 3),
    ("media", 3),
    ("reconcile", 3),
    ("outbound", 3),
    ("admin", 4),
    ("api", 4),
    ("webhook", 4),
    ("config", 5),
    ("app", 7),
    // Logs are set up from settings, and so is the exporter of traces.
    ("logs", 6),
    ("server", 6),
    ("worker", 6),
    ("testing", 8),
    ("lib", 9),
];

/// The level of each module of the package replyhook-core.
const CORE_LEVELS: [(&str, u8); 19] = [
    ("address", 0),
    ("address_key", 0),
    ("choice", 0),
    ("clock", 0),
    ("error", 0),
    ("error_code", 0),
    ("folding", 0),
    ("form", 0),
    ("message", 0),
    ("redact", 0),
    ("reply", 0),
    ("secret", 0),
    ("sid", 0),
    ("signature", 0),
    ("sms_keywords", 0),
    ("template", 0),
    ("tls", 0),
    ("twiml", 0),
    // The layer speaks axum, and reports through a callback.
    ("signature/layer", 1),
];

/// The packages whose modules have levels: folder and table.
// Within replyhook-emulator, only cycles are forbidden.
const LEVELED: [(&str, &[(&str, u8)]); 2] = [("src/", &LEVELS), ("crates/core/src/", &CORE_LEVELS)];

/// Returns the top-level module of a file and its level; `None` for a file without a level.
fn level<'a>(file: &'a str, folder: &str, table: &[(&str, u8)]) -> Option<(&'a str, u8)> {
    let path = file.strip_prefix(folder)?;
    if path.starts_with("bin/") || path == "lib.rs" {
        return None;
    }
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let find = |module: &str| table.iter().find(|(known, _)| *known == module);
    let parent = path.rsplit_once('/').map_or(path, |(parent, _)| parent);
    let module = path.split('/').next().unwrap();
    let found = find(path).or_else(|| find(parent)).or_else(|| find(module));
    let (_, level) = found.unwrap_or_else(|| panic!("{file} has no level"));
    Some((module, *level))
}

#[test]
fn imports_point_downwards() {
    let graph = ImportGraph::new(&CRATES, &package_sources());
    let mut checked = 0;
    for (file, target, path) in graph.all() {
        for (folder, table) in LEVELED {
            let (own, theirs) = (level(file, folder, table), level(target, folder, table));
            let (Some((own, own_level)), Some((theirs, their_level))) = (own, theirs) else {
                continue;
            };
            checked += 1;
            assert!(
                own == theirs || their_level < own_level || (own_level == 0 && their_level == 0),
                "{file} (level {own_level}) imports {target} (level {their_level}): {path}"
            );
        }
    }
    assert!(checked > 1000, "only {checked} imports are found");
}

/// A cycle has no file that can be understood before the others.
#[test]
fn files_do_not_import_each_other() {
    let cycles = ImportGraph::new(&CRATES, &package_sources()).cycles();
    assert!(
        cycles.is_empty(),
        "files import each other; move what they share to a file below both:\n\n{}",
        cycles.join("\n\n")
    );
}

/// A file that declares others assembles them. If they imported items from it, each would depend on all others.
#[test]
fn file_is_not_imported_by_files_that_it_declares() {
    let imports = ImportGraph::new(&CRATES, &package_sources()).imports_from_above();
    assert!(
        imports.is_empty(),
        "files import items from the file that declares them; import each from the file that defines it:\n{}",
        imports.join("\n")
    );
}

#[test]
fn entry_file_of_library_only_declares_and_reexports() {
    const ITEMS: [&str; 8] = [
        "fn", "struct", "enum", "trait", "impl", "type", "const", "static",
    ];
    for (file, source) in package_sources() {
        if !CRATES
            .iter()
            .any(|source| file == format!("{}/lib.rs", source.folder))
        {
            continue;
        }
        let mut depth = 0;
        for token in tokens(&source) {
            match &*token {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                item if depth == 0 => assert!(!ITEMS.contains(&item), "{file} defines a {item}"),
                _ => {}
            }
        }
    }
}

#[test]
fn crate_has_one_folder() {
    // A further package has to be added to the tables above.
    let of_crates: Vec<_> = sources("crates")
        .into_iter()
        .map(|(file, _)| file)
        .collect();
    for file in of_crates.iter().filter(|file| file.contains("/src/")) {
        let is_known = CRATES.iter().any(|source| file.starts_with(source.folder));
        assert!(is_known, "{file} is in a package without rules");
    }
}
