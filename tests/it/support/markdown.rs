//! Parser of Markdown files: their fenced blocks, and the lines between them.

use std::path::Path;

use super::{read, root};

/// Fenced block.
pub struct Block {
    /// Text after the fence, such as `rust,no_run`.
    pub kind: String,
    pub text: String,
    /// Line of the fence, counted from 1.
    pub line: usize,
}

/// Markdown files in a folder and its subfolders, as paths relative to the root of the repository.
pub fn pages(folder: &str) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    found
}

pub fn blocks(file: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in read(file).lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(kind), None) => {
                open = Some(Block {
                    kind: kind.trim().to_owned(),
                    text: String::new(),
                    line: at + 1,
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{file} has a block without an end");
    blocks
}

/// Lines outside of blocks.
pub fn prose(file: &str) -> Vec<String> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in read(file).lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line.to_owned());
        }
    }
    lines
}
