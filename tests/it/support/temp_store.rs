use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{ACCOUNT, FakeTwilio, Server, TOKEN, TestApp, replyhook};

/// Limit for conditions that must become true.
const WAIT_TIMEOUT: Duration = Duration::from_mins(1);

/// Store in a temporary file, for servers, apps in this process, and commands.
pub struct TempStore {
    dir: TempDir,
    url: String,
    api_url: String,
}

impl TempStore {
    /// Creates a store for programs that cannot reach Twilio: nothing listens on port 9.
    pub fn new() -> Self {
        Self::with_api_url("http://127.0.0.1:9".to_owned())
    }

    pub fn with(twilio: &FakeTwilio) -> Self {
        Self::with_api_url(twilio.url())
    }

    /// A store in this database, for programs that reach the fake Twilio.
    #[cfg(feature = "postgres")]
    pub fn in_database(url: &str, twilio: &FakeTwilio) -> Self {
        Self {
            url: url.to_owned(),
            ..Self::with(twilio)
        }
    }

    fn with_api_url(api_url: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("kept.db").display());
        Self { dir, url, api_url }
    }

    fn env(&self) -> [(&str, &str); 2] {
        [
            ("DATABASE_URL", &self.url),
            ("REPLYHOOK__TWILIO__API_URL", &self.api_url),
        ]
    }

    pub fn server(&self) -> Server {
        self.server_with(&[])
    }

    /// Starts a server with further settings.
    pub fn server_with(&self, env: &[(&str, &str)]) -> Server {
        Server::start(&[&self.env()[..], env].concat())
    }

    /// Runs `work` with an app in this process. The app is then dropped, which releases the file.
    pub fn app<T>(
        &self,
        configure: impl FnOnce(replyhook::AppBuilder) -> replyhook::AppBuilder,
        work: impl AsyncFnOnce(&TestApp) -> T,
    ) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let app = TestApp::build(&self.env(), configure);
            work(&app).await
        })
    }

    /// Runs a command with the settings of this store only.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String, String) {
        replyhook(args, &[&self.env()[..], env].concat(), "")
    }

    /// Runs a command with the account's SID and auth token, for calls of Twilio.
    pub fn run_for_account(&self, args: &[&str]) -> (i32, String, String) {
        let account = [
            ("TWILIO_ACCOUNT_SID", ACCOUNT),
            ("TWILIO_AUTH_TOKEN", TOKEN),
        ];
        self.run_with(args, &account)
    }

    /// Sends a text from the SMS sender of the tests to a user, with these further options.
    pub fn send_text(&self, to: &str, options: &[&str]) -> (i32, String, String) {
        let send = ["send", "--to", to, "--from", "+15550002222", "--body", "hi"];
        self.run_for_account(&[&send, options].concat())
    }

    /// Runs a command that must succeed, and returns its output.
    #[track_caller]
    pub fn run_ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
        out
    }

    /// Runs a command that must succeed, and parses its lines as JSON.
    #[track_caller]
    pub fn run_json(&self, args: &[&str]) -> Vec<serde_json::Value> {
        json_lines(&self.run_ok(args))
    }

    /// Repeats a command until it prints something.
    #[track_caller]
    pub fn wait_for(&self, args: &[&str]) -> String {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let out = self.run_ok(args);
            if !out.is_empty() {
                return out;
            }
            assert!(Instant::now() < deadline, "{args:?} prints nothing");
        }
    }

    /// Returns the first canary that is in the database file or in a file next to it.
    pub fn find_canary<'a>(&self, canaries: &[&'a str]) -> Option<&'a str> {
        let bytes = self.files().into_iter().flat_map(|name| {
            let path = self.dir.path().join(name);
            std::fs::read(path).unwrap()
        });
        let bytes: Vec<u8> = bytes.collect();
        let found = |canary: &&&str| memchr::memmem::find(&bytes, canary.as_bytes()).is_some();
        canaries.iter().find(found).copied()
    }

    /// Names of the database file and the files next to it.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("kept.db")
    }
}

/// Parses lines of JSON.
#[track_caller]
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}
