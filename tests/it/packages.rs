//! Packages that `scripts/package` builds, installed as users do, with a PATH without Rust.
//! `./scripts/test` builds them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::support::{installed, output_of, read, report_skipped};

/// The files of a build, and a folder to install them in.
struct Packages {
    files: Vec<PathBuf>,
    home: tempfile::TempDir,
}

impl Packages {
    /// Returns `None` if no packages were built for this run.
    fn open(what: &str) -> Option<Self> {
        let Some(dir) = installed("REPLYHOOK_TEST_PACKAGES") else {
            report_skipped(what);
            return None;
        };
        let files = fs::read_dir(dir)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        let home = tempfile::tempdir().unwrap();
        Some(Self { files, home })
    }

    /// Returns the one file whose name begins and ends with these texts.
    fn file(&self, start: &str, end: &str) -> &Path {
        let is_it = |file: &&PathBuf| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.starts_with(start) && name.ends_with(end)
        };
        let mut found = self.files.iter().filter(is_it);
        let file = found
            .next()
            .unwrap_or_else(|| panic!("no file {start}…{end}"));
        assert_eq!(found.next(), None, "{start}…{end}");
        file
    }

    /// Creates a command with nothing of this process's environment but how to reach package registries.
    fn command(&self, program: &str, path: &[&Path]) -> Command {
        let folders = path
            .iter()
            .copied()
            .chain([Path::new("/usr/bin"), Path::new("/bin")]);
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("HOME", self.home.path())
            .current_dir(self.home.path());
        for name in [
            "PIP_INDEX_URL",
            "PIP_CONFIG_FILE",
            "NPM_CONFIG_REGISTRY",
            "NPM_CONFIG_USERCONFIG",
            "NODE_EXTRA_CA_CERTS",
            "SSL_CERT_FILE",
            "HTTPS_PROXY",
            "https_proxy",
        ] {
            if let Some(value) = installed(name) {
                command.env(name, value);
            }
        }
        command
    }
}

/// The folder of a program that is on this process's PATH.
fn folder_of(program: &str) -> PathBuf {
    let found = output_of(
        Command::new("sh").args(["-c", &format!("command -v {program}")]),
        "",
    );
    Path::new(found.trim()).parent().unwrap().to_owned()
}

#[test]
fn wheel_installs_command_that_chats_without_rust() {
    let Some(packages) = Packages::open("the Python package") else {
        return;
    };
    let venv = packages.home.path().join("venv");
    output_of(Command::new("python3").args(["-m", "venv"]).arg(&venv), "");
    let bin = venv.join("bin");
    let wheel = packages.file("replyhook-", ".whl");
    // Without an index: the package depends on nothing.
    output_of(
        packages
            .command(bin.join("pip").to_str().unwrap(), &[&bin])
            .args(["install", "--quiet", "--no-index"])
            .arg(wheel),
        "",
    );
    let mut chat = packages.command("sh", &[&bin]);
    chat.args(["-c", "! command -v cargo && replyhook chat"]);
    assert_eq!(output_of(&mut chat, "hi\n"), "bot: hi\n");
    // The module for bots, with its types.
    let script = "import os, replyhook; \
        from replyhook import Client, ForwardedMessage, bot, serve; \
        print(bot(secret='whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX').handle({}, b''), \
        os.path.exists(os.path.join(os.path.dirname(replyhook.__file__), 'py.typed')))";
    let mut module = packages.command(bin.join("python").to_str().unwrap(), &[&bin]);
    let found = output_of(module.args(["-c", script]), "");
    assert_eq!(found, "(401, b'') True\n");
}

#[test]
fn npm_packages_install_command_that_chats_and_passes_on_signals() {
    let Some(packages) = Packages::open("the npm packages") else {
        return;
    };
    let node = folder_of("node");
    let platform = packages.file("replyhook-linux-", ".tgz");
    let version = read("Cargo.toml")
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("version = \"")?
                    .trim_end_matches('"')
                    .to_owned(),
            )
        })
        .unwrap();
    let main = packages.file(&format!("replyhook-{version}"), ".tgz");
    let mut npx = packages.command("npx", &[&node]);
    npx.args(["--yes", "--package"])
        .arg(main)
        .arg("--package")
        .arg(platform);
    npx.args(["replyhook", "chat"]);
    assert_eq!(output_of(&mut npx, "hi\n"), "bot: hi\n");

    // Installed, the launcher passes on exit codes, and SIGTERM, which ends `dev` gracefully.
    let folder = packages.home.path().join("node");
    fs::create_dir(&folder).unwrap();
    output_of(
        packages
            .command("npm", &[&node])
            .args([
                "install",
                "--no-audit",
                "--no-fund",
                "--omit=optional",
                "--prefix",
            ])
            .arg(&folder)
            .arg(main)
            .arg(platform),
        "",
    );
    let launcher = folder.join("node_modules/.bin/replyhook");
    let mut wrong = packages.command(launcher.to_str().unwrap(), &[&node]);
    assert_eq!(
        wrong.arg("--wrong").output().unwrap().status.code(),
        Some(2)
    );
    let script = "\"$0\" dev --port 0 --emulator-port 0 > out & pid=$!
        until grep -q 'Chat with your bot' out; do sleep 0.05; kill -0 $pid || exit 9; done
        kill -TERM $pid; wait $pid";
    let mut dev = packages.command("sh", &[&node]);
    output_of(dev.args(["-c", script]).arg(&launcher), "");

    // The module for bots, for `require` and `import`, with its types.
    let script = "import { Client, bot, serve } from 'replyhook'; import { createRequire } from 'node:module'; \
        const require = createRequire(import.meta.url); const same = require('replyhook').bot === bot; \
        const service = bot(null, { secret: 'whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX' }); \
        console.log((await service.handle({}, Buffer.from(''))).status, same, typeof Client, typeof serve);";
    fs::write(folder.join("module.mjs"), script).unwrap();
    let mut module = packages.command("node", &[&node]);
    let found = output_of(module.arg(folder.join("module.mjs")), "");
    assert_eq!(found, "401 true function function\n");
    for file in ["index.d.ts", "payloads.d.ts"] {
        assert!(folder.join("node_modules/replyhook").join(file).exists());
    }

    // Without the package of the platform there is an explanation.
    fs::remove_dir_all(folder.join("node_modules/@replyhook")).unwrap();
    let mut alone = packages.command(launcher.to_str().unwrap(), &[&node]);
    let alone = alone.arg("chat").output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    let text = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(
        text.contains("@replyhook/linux-") && text.contains("--omit=optional"),
        "{text}"
    );
}

#[test]
fn archive_has_program_manual_page_and_licenses_and_checksums_match() {
    let Some(packages) = Packages::open("the archive") else {
        return;
    };
    let archive = packages.file("replyhook-", ".tar.gz");
    output_of(
        Command::new("tar")
            .arg("-xzf")
            .arg(archive)
            .arg("-C")
            .arg(packages.home.path()),
        "",
    );
    let name = archive.file_name().unwrap().to_str().unwrap();
    let folder = packages.home.path().join(name.trim_end_matches(".tar.gz"));
    let files: BTreeSet<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    for file in [
        "replyhook",
        "replyhook.1",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
    ] {
        assert!(files.contains(file), "{file} is missing: {files:?}");
    }
    // `cargo binstall` finds the program by this name.
    let manifest = read("Cargo.toml");
    assert!(
        manifest.contains(r#"bin-dir = "{ name }-{ version }-{ target }/{ bin }{ binary-ext }""#)
    );
    let mut chat = packages.command(folder.join("replyhook").to_str().unwrap(), &[]);
    assert_eq!(output_of(chat.arg("chat"), "hi\n"), "bot: hi\n");

    let sums = fs::read_to_string(packages.file("SHA256SUMS", "")).unwrap();
    let listed: BTreeSet<_> = sums
        .lines()
        .map(|line| {
            let (sum, name) = line.split_once("  ").unwrap();
            let bytes = fs::read(archive.with_file_name(name)).unwrap();
            let actual: String = Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(sum, actual, "{name}");
            name
        })
        .collect();
    assert_eq!(listed.len() + 1, packages.files.len(), "{listed:?}");
}
