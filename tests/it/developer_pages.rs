//! The bots and tests on the pages for Python and Node.js developers, run as these say.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::markdown::blocks;
use crate::support::{installed, report_skipped};

/// Writes the blocks of a page whose first line names their file, and runs a command in their folder.
fn run_tests(page: &str, names: [&str; 2], command: &mut Command, modules: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let mut written = Vec::new();
    for block in blocks(page) {
        let first = block.text.lines().next().unwrap_or_default();
        let name = first.trim_start_matches(['#', '/', ' ']);
        if let Some(name) = names.iter().find(|listed| **listed == name) {
            fs::write(folder.path().join(name), &block.text).unwrap();
            written.push(*name);
        }
    }
    assert_eq!(written, names, "{page}");
    if let Some(modules) = modules {
        std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_replyhook"));
    let path = installed("PATH").unwrap();
    let output = command
        .current_dir(folder.path())
        .env(
            "PATH",
            format!("{}:{path}", program.parent().unwrap().display()),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let passed = ["3 passed", "pass 3"];
    assert!(
        passed.iter().any(|summary| text.contains(summary)),
        "{text}"
    );
}

#[test]
fn python_page_tests_its_bot_with_pytest() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        report_skipped("the page for Python developers");
        return;
    };
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    run_tests(
        "docs/src/how-to/python.md",
        ["app.py", "test_app.py"],
        &mut pytest,
        None,
    );
}

#[test]
fn node_page_tests_its_bot_with_node_test() {
    let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") else {
        report_skipped("the page for Node.js developers");
        return;
    };
    let mut node = Command::new("node");
    node.arg("--test");
    let names = ["app.mjs", "app.test.mjs"];
    run_tests("docs/src/how-to/node.md", names, &mut node, Some(&modules));
}
