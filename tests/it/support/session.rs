//! Shell that runs the commands of a page, in a temporary folder and with the built binary in its `PATH`.

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
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);
/// Ports in pages: those of the server, the emulator, the private listener, and another bot.
const PORTS: [u16; 4] = [8080, 8081, 9090, 3000];
/// Output that shows that a server is ready.
const READY: [&str; 2] = ["ready: enter these URLs", "Ctrl-C ends it"];
/// Any template SID: the emulator treats each as approved.
pub const TEMPLATE: &str = "HX00000000000000000000000000000001";
/// Line that marks the end of a command's output.
const END: &str = "@@ end";

pub struct Session {
    shell: Child,
    input: ChildStdin,
    output: Receiver<String>,
    folder: TempDir,
    /// Reserved ports, in the order of [`PORTS`].
    ports: [TcpSocket; 4],
    /// Process groups of background jobs, which are killed with the session.
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
            .expect("bash must be installed");
        let (send, output) = channel();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut input = shell.stdin.take().unwrap();
        // `set -m` makes each job a process group, so that all of its processes can be killed.
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

    /// Writes a TOML block to the session's folder, if its first line is the name of a file.
    pub fn write_file(&self, block: &Block) {
        let name = block
            .text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# "));
        if let Some(name) = name.filter(|name| block.kind == "toml" && !name.contains([' ', '/'])) {
            std::fs::write(self.folder.path().join(name), self.to_local(&block.text)).unwrap();
        }
    }

    /// Runs the commands of a block, and compares their output with the output that the page shows.
    ///
    /// # Errors
    /// Description of the difference.
    pub fn run_block(&mut self, block: &Block) -> Result<(), String> {
        let mut commands = Vec::new();
        for line in block.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command, Vec::new())),
                (None, Some((_, shown))) => shown.push(line),
                (None, None) => return Err("the block does not begin with a command".to_owned()),
            }
        }
        for (command, shown) in commands {
            self.run_command(command, trimmed(&shown))?;
        }
        Ok(())
    }

    fn run_command(&mut self, command: &str, shown: &[&str]) -> Result<(), String> {
        let typed = self.fill_ellipsis(&self.to_local(command))?;
        if let Some(typed) = typed.strip_suffix('&') {
            let is_ready = |lines: &[&str], log: &str| {
                let written = lines.concat() + log;
                READY.iter().any(|ready| written.contains(ready))
            };
            self.run_in_background(typed, shown, is_ready)?;
            return Ok(());
        }
        if is_server(command) {
            // A server does not exit by itself, so compare the beginning of its output.
            let job =
                self.run_in_background(&typed, shown, |lines, _| lines.len() >= shown.len())?;
            let _ = kill_process_group(job, Signal::TERM);
            self.run_to_exit(&format!("wait {}", job.as_raw_nonzero()));
            return Ok(());
        }
        let printed = self.run_to_exit(&typed);
        let printed: Vec<_> = printed.iter().map(String::as_str).collect();
        if matches_page(shown, trimmed(&printed)) {
            return Ok(());
        }
        Err(difference(command, shown, &printed))
    }

    /// Replaces a command that contains `…` with the matching line of a job's output, which a reader would copy.
    fn fill_ellipsis(&self, command: &str) -> Result<String, String> {
        let command = command.replace("HX…", TEMPLATE);
        if !command.contains('…') {
            return Ok(command);
        }
        let printed = |job| {
            let printed = std::fs::read_to_string(self.folder.path().join(format!("job-{job}")));
            let printed = printed.unwrap_or_default();
            let mut lines = printed.lines().map(str::trim);
            lines
                .find(|line| line_matches_page(&command, line))
                .map(str::to_owned)
        };
        let mut jobs = 0..self.jobs.len();
        let found = jobs.find_map(printed);
        found.ok_or_else(|| format!("$ {command}\nis printed nowhere"))
    }

    /// Runs a command until it exits, and returns its output.
    fn run_to_exit(&mut self, command: &str) -> Vec<String> {
        // `$?` is the exit code of the command before. Empty input, so that a command does not read the ones after it.
        let line =
            format!("(exit $status); {{ {command}\n}} </dev/null; status=$?; echo; echo '{END}'");
        writeln!(self.input, "{line}").unwrap();
        let mut printed = Vec::new();
        loop {
            let line = self.output.recv_timeout(WAIT_TIMEOUT);
            let line = line.unwrap_or_else(|_| panic!("{command}: no end after {printed:#?}"));
            if line == END {
                return printed;
            }
            printed.push(self.to_page(&line));
        }
    }

    /// Starts a background job, waits until it has printed enough, and compares the beginning with the page.
    fn run_in_background(
        &mut self,
        command: &str,
        shown: &[&str],
        is_enough: impl Fn(&[&str], &str) -> bool,
    ) -> Result<Pid, String> {
        let name = format!("job-{}", self.jobs.len());
        let printed = self.run_to_exit(&format!("{{ {command}\n}} >{name} 2>{name}.log & echo $!"));
        let job = printed[0].parse().unwrap();
        let job = Pid::from_raw(job).unwrap();
        self.jobs.push(job);
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let read = |name: &str| {
                let written = std::fs::read_to_string(self.folder.path().join(name));
                self.to_page(&written.unwrap_or_default())
            };
            // The log goes to stderr. Pages do not show it.
            let (written, log) = (read(&name), read(&format!("{name}.log")));
            let complete = written
                .rsplit_once('\n')
                .map_or("", |(complete, _)| complete);
            let lines: Vec<_> = complete.lines().collect();
            let lines = trimmed(&lines);
            if is_enough(lines, &log) {
                let begins = &lines[..shown.len().min(lines.len())];
                return if matches_page(shown, begins) {
                    Ok(job)
                } else {
                    Err(difference(command, shown, begins))
                };
            }
            if Instant::now() > deadline {
                return Err(difference(command, shown, lines));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Converts a page's text to what runs here: with reserved ports, and without cargo.
    fn to_local(&self, text: &str) -> String {
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

    fn to_page(&self, text: &str) -> String {
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

/// Path of a built example, relative to this test's binary.
pub fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.ancestors().nth(2).unwrap();
    target.join("examples").join(name)
}

/// Returns true if a command runs until it is killed.
fn is_server(command: &str) -> bool {
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

/// Compares output with the lines of a page. `…` stands for any part of a line, or alone for any number of lines.
fn matches_page(shown: &[&str], printed: &[&str]) -> bool {
    match shown {
        [] => printed.is_empty(),
        ["…", rest @ ..] => {
            (0..=printed.len()).any(|skipped| matches_page(rest, &printed[skipped..]))
        }
        [first, rest @ ..] => printed.split_first().is_some_and(|(line, further)| {
            line_matches_page(first, line) && matches_page(rest, further)
        }),
    }
}

fn line_matches_page(shown: &str, printed: &str) -> bool {
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
    ends.into_iter()
        .any(|at| line_matches_page(rest, &printed[at..]))
}

fn difference(command: &str, shown: &[&str], printed: &[&str]) -> String {
    let (shown, printed) = (shown.join("\n"), printed.join("\n"));
    format!("$ {command}\nis shown with\n{shown}\nand printed\n{printed}")
}

#[test]
fn output_comparison_ignores_only_ellipsis() {
    assert!(matches_page(
        &["200 … ms", "…", "end"],
        &["200 text 7 ms", "a", "b", "end"]
    ));
    assert!(matches_page(&["…"], &[]));
    for (shown, printed) in [
        (&["200 … ms"][..], &["403 text 7 ms"][..]),
        (&["200 … ms"], &["200 text 7 s"]),
        (&["a"], &["a", "b"]),
        (&["a", "b"], &["a"]),
        (&[], &["a"]),
        (&["…", "end"], &["a"]),
    ] {
        assert!(!matches_page(shown, printed), "{shown:?} {printed:?}");
    }
}
