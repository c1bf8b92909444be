//! A reader who types the commands of a page: one shell, in a folder of its own, with the built binary on its path.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::markdown::Block;
use super::server::reserve_port;

/// Longer than any command of a page takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// The ports that pages name: our server's, the emulator's, the private one, and that of a bot elsewhere.
const PORTS: [u16; 4] = [8080, 8081, 9090, 3000];
/// What a server has written when it can be called.
const READY: [&str; 2] = ["ready: enter these URLs", "Ctrl-C ends it"];
/// Any template: the emulator takes each for approved.
pub const TEMPLATE: &str = "HX00000000000000000000000000000001";
/// What stands alone in a line where a command's output has ended.
const END: &str = "@@ end";

pub struct Session {
    shell: Child,
    input: ChildStdin,
    output: Receiver<String>,
    folder: TempDir,
    /// In the order of [`PORTS`]. Nobody else is given them.
    ports: [TcpSocket; 4],
    /// What runs beside the commands: process groups, each ended with the session.
    jobs: Vec<Pid>,
}

impl Session {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [(); 4].map(|()| reserve_port());
        let port = |at: usize| ports[at].local_addr().unwrap().port().to_string();
        let binary = Path::new(env!("CARGO_BIN_EXE_replyhook")).parent().unwrap();
        let mut shell = Command::new("bash")
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
            .env("HOME", folder.path())
            .env("PORT", port(0))
            .env("REPLYHOOK__ADMIN__LISTEN", format!("127.0.0.1:{}", port(2)))
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("there is a bash");
        let (send, output) = channel();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut input = shell.stdin.take().unwrap();
        // Each job is a process group, so that all of it can be ended.
        writeln!(input, "set -m; exec 2>&1; status=0").unwrap();
        Self {
            shell,
            input,
            output,
            folder,
            ports,
            jobs: Vec::new(),
        }
    }

    /// Puts a file of the page where its commands are run, if the block's first line names one.
    pub fn keep(&self, block: &Block) {
        let name = block
            .text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# "));
        if let Some(name) = name.filter(|name| block.kind == "toml" && !name.contains([' ', '/'])) {
            std::fs::write(self.folder.path().join(name), self.inward(&block.text)).unwrap();
        }
    }

    /// Types the commands of a block, and compares what they print with what is shown.
    ///
    /// # Errors
    /// What differs.
    pub fn follow(&mut self, block: &Block) -> Result<(), String> {
        let mut commands = Vec::new();
        for line in block.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command, Vec::new())),
                (None, Some((_, shown))) => shown.push(line),
                (None, None) => return Err("it begins with no command".to_owned()),
            }
        }
        for (command, shown) in commands {
            self.run(command, trimmed(&shown))?;
        }
        Ok(())
    }

    fn run(&mut self, command: &str, shown: &[&str]) -> Result<(), String> {
        let typed = self.copied(&self.inward(command))?;
        if let Some(typed) = typed.strip_suffix('&') {
            let is_ready = |lines: &[&str], log: &str| {
                let written = lines.concat() + log;
                READY.iter().any(|ready| written.contains(ready))
            };
            self.beside(typed, shown, is_ready)?;
            return Ok(());
        }
        if serves(command) {
            // It would not end by itself: what is shown is how it begins.
            let job = self.beside(&typed, shown, |lines, _| lines.len() >= shown.len())?;
            let _ = kill_process_group(job, Signal::TERM);
            self.typed(&format!("wait {}", job.as_raw_nonzero()));
            return Ok(());
        }
        let printed = self.typed(&typed);
        let printed: Vec<_> = printed.iter().map(String::as_str).collect();
        if fits(shown, trimmed(&printed)) {
            return Ok(());
        }
        Err(difference(command, shown, &printed))
    }

    /// Where a command has `…` a reader copies it from what is printed by what runs beside.
    fn copied(&self, command: &str) -> Result<String, String> {
        let command = command.replace("HX…", TEMPLATE);
        if !command.contains('…') {
            return Ok(command);
        }
        let printed = |job| {
            let printed = std::fs::read_to_string(self.folder.path().join(format!("job-{job}")));
            let printed = printed.unwrap_or_default();
            let mut lines = printed.lines().map(str::trim);
            lines
                .find(|line| line_fits(&command, line))
                .map(str::to_owned)
        };
        let mut jobs = 0..self.jobs.len();
        let found = jobs.find_map(printed);
        found.ok_or_else(|| format!("$ {command}\nis printed nowhere"))
    }

    /// Runs a command to its end.
    fn typed(&mut self, command: &str) -> Vec<String> {
        // A command sees how the one before it ended, and reads nothing of what is typed after it.
        let line =
            format!("(exit $status); {{ {command}\n}} </dev/null; status=$?; echo; echo '{END}'");
        writeln!(self.input, "{line}").unwrap();
        let mut printed = Vec::new();
        loop {
            let line = self.output.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("{command}: no end after {printed:#?}"));
            if line == END {
                return printed;
            }
            printed.push(self.outward(&line));
        }
    }

    /// Starts what does not end, and waits until it has written enough, of which the beginning is shown.
    fn beside(
        &mut self,
        command: &str,
        shown: &[&str],
        is_enough: impl Fn(&[&str], &str) -> bool,
    ) -> Result<Pid, String> {
        let name = format!("job-{}", self.jobs.len());
        let told = self.typed(&format!("{{ {command}\n}} >{name} 2>{name}.log & echo $!"));
        let job = told[0].parse().unwrap();
        let job = Pid::from_raw(job).unwrap();
        self.jobs.push(job);
        let patience = Instant::now() + PATIENCE;
        loop {
            let read = |name: &str| {
                let written = std::fs::read_to_string(self.folder.path().join(name));
                self.outward(&written.unwrap_or_default())
            };
            // Its log goes to standard error, and is not what a page shows.
            let (written, log) = (read(&name), read(&format!("{name}.log")));
            let whole = written.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines: Vec<_> = whole.lines().collect();
            let lines = trimmed(&lines);
            if is_enough(lines, &log) {
                let begins = &lines[..shown.len().min(lines.len())];
                return if fits(shown, begins) {
                    Ok(job)
                } else {
                    Err(difference(command, shown, begins))
                };
            }
            if Instant::now() > patience {
                return Err(difference(command, shown, lines));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A page's text as it is typed here: with the ports that are free, and without cargo.
    fn inward(&self, text: &str) -> String {
        let mut text = text.replace("cargo run -- ", "replyhook ").replace(
            "replyhook dev",
            "replyhook dev --port :8080 --emulator-port :8081",
        );
        let hello = example("hello");
        text = text.replace("cargo run --example hello", hello.to_str().unwrap());
        for (shown, port) in PORTS.iter().zip(&self.ports) {
            let port = port.local_addr().unwrap().port();
            text = text.replace(&format!(":{shown}"), &format!(":{port}"));
        }
        text.replace("port :", "port ")
    }

    fn outward(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (shown, port) in PORTS.iter().zip(&self.ports) {
            let port = port.local_addr().unwrap().port();
            text = text.replace(&format!(":{port}"), &format!(":{shown}"));
        }
        text
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for job in &self.jobs {
            let _ = kill_process_group(*job, Signal::KILL);
        }
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Cargo builds examples beside the tests.
pub fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().nth(2).unwrap();
    target.join("examples").join(name)
}

/// Whether a command runs until it is ended.
fn serves(command: &str) -> bool {
    let mut words = command.split(' ').skip_while(|word| word.contains('='));
    let first: Vec<_> = words.by_ref().take(4).collect();
    matches!(
        first[..],
        ["replyhook", "dev" | "serve", ..] | ["cargo", "run", "--", "dev" | "serve"]
    )
}

fn trimmed<'a, 't>(lines: &'a [&'t str]) -> &'a [&'t str] {
    let is_text = |line: &&str| !line.trim().is_empty();
    let begin = lines.iter().position(is_text).unwrap_or(lines.len());
    let end = lines.iter().rposition(is_text).map_or(begin, |at| at + 1);
    &lines[begin..end]
}

/// Whether lines are what is shown, where `…` stands for anything: in a line for some of it, alone for any lines.
fn fits(shown: &[&str], printed: &[&str]) -> bool {
    match shown {
        [] => printed.is_empty(),
        ["…", rest @ ..] => (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..])),
        [first, rest @ ..] => printed
            .split_first()
            .is_some_and(|(line, further)| line_fits(first, line) && fits(rest, further)),
    }
}

fn line_fits(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (shown.trim_end(), printed.trim_end());
    let Some((begin, rest)) = shown.split_once('…') else {
        return shown == printed;
    };
    let Some(printed) = printed.strip_prefix(begin) else {
        return false;
    };
    let ends = printed
        .char_indices()
        .map(|(at, _)| at)
        .chain([printed.len()]);
    ends.into_iter().any(|at| line_fits(rest, &printed[at..]))
}

fn difference(command: &str, shown: &[&str], printed: &[&str]) -> String {
    let (shown, printed) = (shown.join("\n"), printed.join("\n"));
    format!("$ {command}\nis shown with\n{shown}\nand printed\n{printed}")
}

#[test]
fn output_comparison_ignores_only_ellipsis() {
    assert!(fits(
        &["200 … ms", "…", "end"],
        &["200 text 7 ms", "a", "b", "end"]
    ));
    assert!(fits(&["…"], &[]));
    for (shown, printed) in [
        (&["200 … ms"][..], &["403 text 7 ms"][..]),
        (&["200 … ms"], &["200 text 7 s"]),
        (&["a"], &["a", "b"]),
        (&["a", "b"], &["a"]),
        (&[], &["a"]),
        (&["…", "end"], &["a"]),
    ] {
        assert!(!fits(shown, printed), "{shown:?} {printed:?}");
    }
}
