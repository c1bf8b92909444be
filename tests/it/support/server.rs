use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tokio::net::TcpSocket;

use super::output_file::OutputFile;
use super::{HttpResponse, ORIGIN, TOKEN, UNSET, Wait, Webhook, wire};

/// Running `replyhook serve`, on free ports. It is killed on drop.
pub struct Server {
    child: Child,
    /// Log of the server.
    log: OutputFile,
    pub public: SocketAddr,
    pub private: SocketAddr,
    /// Reserves the private port for the server.
    _reserved: TcpSocket,
}

impl Server {
    pub fn start(env: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_replyhook")), env)
    }

    /// Starts through another program, such as `prlimit`, whose last argument is the binary.
    pub fn start_by(command: Command, env: &[(&str, &str)]) -> Self {
        let mut server = Self::launch(command, env);
        let ready = server.wait_for("ready: enter these URLs");
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        server.public = ready["listen"].as_str().unwrap().parse().unwrap();
        server
    }

    /// Starts a server that may exit before it is ready, so its public address is not known.
    pub fn launch(mut command: Command, env: &[(&str, &str)]) -> Self {
        let reserved = reserve_port();
        let private = reserved.local_addr().unwrap();
        let mut all = BTreeMap::from([
            ("TWILIO_AUTH_TOKEN", TOKEN.to_owned()),
            ("PUBLIC_URL", ORIGIN.to_owned()),
            ("REPLYHOOK__SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("REPLYHOOK__ADMIN__LISTEN", private.to_string()),
            ("REPLYHOOK__LOG__FORMAT", "json".to_owned()),
            ("DATABASE_URL", "sqlite::memory:".to_owned()),
            (
                "REPLYHOOK__TWILIO__API_URL",
                "http://127.0.0.1:9".to_owned(),
            ),
        ]);
        all.extend(env.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all.retain(|_, value| value != UNSET);
        let log = OutputFile::new();
        let child = command
            .arg("serve")
            .env_clear()
            .envs(all)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.stdio())
            .spawn()
            .unwrap();
        Self {
            child,
            log,
            public: private,
            private,
            _reserved: reserved,
        }
    }

    /// Waits for a log line that contains a text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let lines = self.wait_for_new(0, |line| line.contains(text));
        let line = lines.into_iter().find(|line| line.contains(text));
        line.unwrap()
    }

    /// Waits for a line that `is_awaited`, after the first `skip` lines of the log. Returns all lines after those.
    #[track_caller]
    pub fn wait_for_new(&self, skip: usize, is_awaited: impl Fn(&str) -> bool) -> Vec<String> {
        let wait = Wait::until("the awaited line is logged");
        loop {
            let log = self.log();
            let new = log.lines().skip(skip);
            if new.clone().any(&is_awaited) {
                return new.map(str::to_owned).collect();
            }
            wait.check_found(&log);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    pub fn send(&self, webhook: &Webhook) -> HttpResponse {
        self.exchange(&webhook.raw(ORIGIN))
            .expect("the server closed without an answer")
    }

    pub fn exchange(&self, bytes: &[u8]) -> Option<HttpResponse> {
        wire::exchange(self.public, bytes)
    }

    pub fn get(&self, path: &str) -> HttpResponse {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        wire::exchange(self.private, request.as_bytes())
            .expect("the private listener closed without an answer")
    }

    pub fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Waits until a metric's series has at least this value.
    pub fn wait_until(&self, series: &str, least: f64) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while self.metric(series) < least {
            assert!(
                std::time::Instant::now() < deadline,
                "{series} stays below {least}"
            );
        }
    }

    /// Waits until `/readyz` responds with this status.
    #[track_caller]
    pub fn wait_for_readiness(&self, status: u16) {
        let wait = Wait::until(format!("/readyz responds with {status}"));
        loop {
            let ready = self.get("/readyz");
            if ready.status == status {
                return;
            }
            wait.check_found(&(ready.body, self.log()));
        }
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Peak of the resident memory in KiB.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sets the open-file limit of the running server. Files that are already open stay open.
    pub fn set_descriptor_limit(&self, descriptors: u64) {
        // The server has inherited the hard limit of this process.
        let limit = Rlimit {
            current: Some(descriptors),
            ..getrlimit(Resource::Nofile)
        };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, limit).unwrap();
    }

    /// Waits until the process exits, and returns its status and its whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let log = self.log();
            assert!(std::time::Instant::now() < deadline, "no exit:\n{log}");
            std::thread::sleep(Duration::from_millis(2));
        };
        (status, self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds a port on which nothing listens while the socket is held.
pub fn silent_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    socket
}

/// Reserves a port: no other process gets it by chance, but a server can listen on it.
///
/// The socket is bound with `SO_REUSEADDR` and never listens. The public listener does not need this, because the
/// server logs the port that it got.
pub fn reserve_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    socket
}
