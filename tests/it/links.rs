//! Links in the documentation: each leads to an existing file and heading.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::support::markdown::{pages, prose};
use crate::support::root;

fn documents() -> Vec<String> {
    let root_pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ];
    root_pages
        .map(str::to_owned)
        .into_iter()
        .chain(pages("docs"))
        .collect()
}

/// Removes the code between backticks from a line.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// Returns the targets of a page's links and pictures.
fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(page) {
        for rest in without_code(&line).split("](").skip(1) {
            let (target, _) = rest
                .split_once(')')
                .unwrap_or_else(|| panic!("{page}: {line}"));
            links.push(target.to_owned());
        }
    }
    links
}

/// Returns the anchors of a page's headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).into_iter().filter(|line| line.starts_with('#'));
    let anchor = |heading: String| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Resolves each `..` in a path relative to the repository.
fn normalize(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{} leaves the root", path.display()),
            part => plain.push(part),
        }
    }
    plain
}

/// Returns the problem of a link, or `None` if it resolves.
fn find_problem(page: &str, link: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"]
        .iter()
        .any(|scheme| link.starts_with(scheme))
    {
        return None;
    }
    let (file, anchor) = link
        .split_once('#')
        .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file {
        "" => PathBuf::from(page),
        file => normalize(&Path::new(page).parent().unwrap().join(file)),
    };
    if !root().join(&path).exists() {
        return Some(format!("{page}: {link} leads to no file"));
    }
    let anchors = || anchors(path.to_str().unwrap());
    let anchor = anchor.filter(|anchor| !anchors().contains(*anchor));
    anchor.map(|anchor| format!("{page}: {link} leads to no heading {anchor}"))
}

#[test]
fn every_document_link_resolves() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for page in documents() {
        let links = links(&page);
        count += links.len();
        wrong.extend(links.iter().filter_map(|link| find_problem(&page, link)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} links were seen");
}

#[test]
fn broken_link_is_detected() {
    for (link, is_broken) in [
        ("../glossary.md", false),
        ("../how-to/handoff.md#limits", false),
        ("../../../README.md#a-bot-in-ten-lines", false),
        ("https://example.com/x.md#y", false),
        ("../../page.png", false),
        ("handoff.md", true),
        ("../../no-such.png", true),
        ("../how-to/handoff.md#no-such-heading", true),
        ("#no-such-heading", true),
    ] {
        let found = find_problem("docs/src/tutorial/quick-start.md", link);
        assert_eq!(found.is_some(), is_broken, "{link}: {found:?}");
    }
}

/// Returns alternative text and target of each picture of a page.
fn pictures(page: &str) -> Vec<(String, String)> {
    let text = prose(page).join("\n");
    let picture = |rest: &str| {
        let (alt, rest) = rest.split_once("](")?;
        let (target, _) = rest.split_once(')')?;
        Some((alt.to_owned(), target.to_owned()))
    };
    text.split("![").skip(1).filter_map(picture).collect()
}

#[test]
fn picture_is_small_png_with_alternative_text() {
    const MAX_BYTES: usize = 60_000;
    let mut shown = BTreeSet::new();
    for page in documents() {
        for (alt, target) in pictures(&page) {
            let path = normalize(&Path::new(&page).parent().unwrap().join(&target));
            let picture = std::fs::read(root().join(&path));
            let picture = picture.unwrap_or_else(|error| panic!("{page}: {target}: {error}"));
            assert!(picture.starts_with(b"\x89PNG\r\n"), "{page}: {target}");
            assert!(alt.split_whitespace().count() >= 5, "{page}: {target}");
            if path.starts_with("docs/src/images") {
                assert!(picture.len() <= MAX_BYTES, "{target}: {}", picture.len());
            }
            shown.insert(path);
        }
    }
    assert!(shown.len() >= 5, "{shown:?}");
    for file in std::fs::read_dir(root().join("docs/src/images")).unwrap() {
        let path = Path::new("docs/src/images").join(file.unwrap().file_name());
        assert!(shown.contains(&path), "{} is on no page", path.display());
    }
}
