//! Compile errors for invalid handlers and replies.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the folder of the dependencies, and the library that this test was built with.
fn library() -> (PathBuf, PathBuf) {
    let folder = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let mut libraries: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_library = path
                .extension()
                .is_some_and(|extension| extension == "rlib");
            is_library && name.starts_with("libreplyhook-")
        })
        .collect();
    libraries.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
    // The folder may contain libraries that were built with other features.
    let compiles = |library: &PathBuf| compile(&folder, library, GOOD).is_ok();
    let library = libraries.into_iter().find(compiles);
    (
        folder.clone(),
        library.expect("one of them is what this test was built with"),
    )
}

/// Compiles code.
///
/// # Errors
/// The output of the compiler, if the code does not compile.
fn compile(folder: &Path, library: &Path, code: &str) -> Result<(), String> {
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("bot.rs");
    std::fs::write(&file, format!("{USE}{code}")).unwrap();
    let output = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
        ])
        .arg("--out-dir")
        .arg(source.path())
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg("--extern")
        .arg(format!("replyhook={}", library.display()))
        .arg(&file)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

const USE: &str = "#![allow(unused)]\nuse replyhook::route::*;\nuse replyhook::*;\n";

const GOOD: &str = "pub fn bot() -> Router { Router::new().on(text(\"hi\"), async |message: InboundMessage| message.body) }";

/// Invalid code, and texts of its compile error.
const WRONG: [(&str, &[&str]); 9] = [
    (
        "async fn bot(name: u32) -> String { String::new() }\npub fn make() -> Router { Router::new().on(text(\"hi\"), bot) }",
        &[
            "cannot answer a route",
            "its arguments may be, in any order: `InboundMessage`, `Context`, `Captures<T>`",
        ],
    ),
    (
        "async fn bot(message: InboundMessage) -> u32 { 1 }\npub fn make() -> Router { Router::new().on(text(\"hi\"), bot) }",
        &[
            "cannot answer a route",
            "it returns what a bot can say: a text, `()`, a `Reply`",
        ],
    ),
    (
        "struct Order { id: u32 }\nasync fn bot(Captures(order): Captures<Order>) -> String { String::new() }\npub fn make() -> Router { Router::new().on(regex(r\"(\\d+)\"), bot) }",
        &[
            "cannot answer a route",
            "the `T` of `Captures<T>` must implement `serde::Deserialize`",
            "#[derive(serde::Deserialize)]",
        ],
    ),
    (
        "fn bot(message: InboundMessage) -> String { String::new() }\npub fn make() -> Router { Router::new().on(text(\"hi\"), bot) }",
        &["cannot answer a route", "async function"],
    ),
    (
        "pub fn make() -> Router { Router::new().on(text(\"hi\"), Echo) }",
        &[
            "`replyhook::Echo` cannot answer a route",
            "`.on_handler(filter, handler)`",
        ],
    ),
    (
        "pub fn make() -> impl Handler { \"hi\" }",
        &[
            "`&str` is not a handler",
            "expected an async function `(Context, InboundMessage) -> impl IntoReply`",
        ],
    ),
    (
        "async fn bot(_: Context, message: InboundMessage) -> u32 { 1 }\npub fn make() -> impl Handler { bot }",
        &[
            "`u32` is not something a bot can say",
            "turn it into a text with `.to_string()`",
        ],
    ),
    // A crate cannot replace the compiler's error for a wrong number of arguments. It names the trait and the method.
    (
        "async fn bot(message: InboundMessage) -> String { String::new() }\npub fn make() -> AppBuilder { App::builder().handler(bot) }",
        &[
            "2 arguments",
            "to implement `Handler`",
            "AppBuilder::handler",
        ],
    ),
    (
        "async fn bot(Shared(shop): Shared<String>) -> String { shop }\npub fn make() -> impl Handler { Router::new().on(text(\"hi\"), bot) }",
        &["is not a handler", "`.with_state(…)`"],
    ),
];

// The compiler error explains which handlers and return types are possible.
#[test]
fn invalid_handler_gets_custom_compile_error() {
    let (folder, library) = library();
    for (code, texts) in WRONG {
        let error = compile(&folder, &library, code).expect_err(code);
        for text in texts {
            assert!(error.contains(text), "{text}\n{code}\n{error}");
        }
    }
}
