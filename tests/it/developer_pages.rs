//! The bots and tests on the pages for Python and Node.js developers, run as these say.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::markdown::blocks;
use crate::support::{installed, report_skipped, root};

const PYTHON_PAGE: &str = "docs/src/how-to/python.md";
const NODE_PAGE: &str = "docs/src/how-to/node.md";

/// Writes the blocks of a page whose first line names their file into a new folder.
fn write_files(page: &str, names: [&str; 2]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let has_name = |text: &str| {
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches(['#', '/', ' ']) == name
        };
        let mut found = blocks(page)
            .into_iter()
            .filter(|block| has_name(&block.text));
        let block = found
            .next()
            .unwrap_or_else(|| panic!("{name} is not on {page}"));
        fs::write(folder.path().join(name), &block.text).unwrap();
        assert!(found.next().is_none(), "{name} is twice on {page}");
    }
    folder
}

/// Makes the test start the other bot of the page: by the command in the comment after the one of this bot.
fn test_other_bot(file: &Path, comment: &str) {
    let text = fs::read_to_string(file).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let line = lines.iter_mut().find(|line| line.contains(comment));
    let line = line.unwrap_or_else(|| panic!("{comment} is not in\n{text}"));
    let (command, other) = line.split_once(comment).unwrap();
    let (assigned, _) = command.split_once("= ").unwrap();
    *line = format!("{assigned}= {other}");
    fs::write(file, lines.join("\n")).unwrap();
}

fn assert_three_pass(command: &mut Command, folder: &TempDir) {
    let program = Path::new(env!("CARGO_BIN_EXE_replyhook"));
    let path = installed("PATH").unwrap();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let output = command
        .current_dir(folder.path())
        .env("PATH", path)
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
fn python_page_tests_its_bots_with_pytest() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        report_skipped("the page for Python developers");
        return;
    };
    for bot in ["app.py", "bot.py"] {
        let folder = write_files(PYTHON_PAGE, [bot, "test_app.py"]);
        if bot == "bot.py" {
            test_other_bot(&folder.path().join("test_app.py"), "  # or ");
        }
        let mut pytest = Command::new(&python);
        pytest
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
            .env("PYTHONPATH", root().join("packaging/pypi/python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        assert_three_pass(&mut pytest, &folder);
    }
}

#[test]
fn node_page_tests_its_bots_with_node_test() {
    let Some(modules) = installed("REPLYHOOK_TEST_NODE_MODULES") else {
        report_skipped("the page for Node.js developers");
        return;
    };
    for bot in ["app.mjs", "bot.mjs"] {
        let folder = write_files(NODE_PAGE, [bot, "app.test.mjs"]);
        let found = folder.path().join("node_modules");
        if bot == "bot.mjs" {
            test_other_bot(&folder.path().join("app.test.mjs"), " // or ");
            fs::create_dir(&found).unwrap();
            let package = root().join("packaging/npm");
            std::os::unix::fs::symlink(package, found.join("replyhook")).unwrap();
        } else {
            std::os::unix::fs::symlink(&modules, found).unwrap();
        }
        let mut node = Command::new("node");
        node.arg("--test");
        assert_three_pass(&mut node, &folder);
    }
}
