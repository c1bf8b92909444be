use std::io;
use std::pin::pin;

use futures_util::FutureExt;
use replyhook::App;

use crate::exit::ExitStatus;
use crate::handler_args::HandlerArgs;
use crate::serve_runtime::ServeRuntime;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Needs PUBLIC_URL, and TWILIO_AUTH_TOKEN or else a shared key and an API key. Reports all problems of the settings.
SIGHUP reloads the settings without a restart; invalid ones change nothing.

Exit codes:
  0         SIGTERM or SIGINT ended the server, and all work in progress was finished
  1         a background task kept failing, which is a bug
  2         usage or configuration error, or the store or an address cannot be used
  74        the disk failed; nothing was acknowledged since
  130, 143  SIGINT or SIGTERM ended the server before all work in progress was finished

Examples:
  TWILIO_AUTH_TOKEN=… PUBLIC_URL=https://bot.example.com replyhook serve
  replyhook serve --config bot.toml --port 3000
  replyhook serve --rules rules.toml")]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    handler: HandlerArgs,
    /// Port of the public listener; overrides PORT and the port of server.listen
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Allow signature.mode = "report" on a listener that is not on loopback
    #[arg(long)]
    allow_public_diagnostics: bool,
}

impl Serve {
    /// Runs the server. `runtime` was started before the command line was read; `None` if the command line hid `serve`.
    pub(crate) fn run(
        self,
        runtime: Option<io::Result<ServeRuntime>>,
    ) -> anyhow::Result<ExitStatus> {
        let mut sources = self.settings.sources();
        sources.allow_public_diagnostics = self.allow_public_diagnostics;
        self.handler.apply(&mut sources);
        if let Some(port) = self.port {
            sources.env.insert("PORT".to_owned(), port.to_string());
        }
        let runtime = runtime.unwrap_or_else(ServeRuntime::start)?;
        let (runtime, mut hangup) = (runtime.runtime, runtime.hangup);
        let result = runtime.block_on(async {
            let app = App::builder().sources(sources).build()?;
            let reload = app.reload_handle();
            let mut run = pin!(app.run());
            // The first poll: from then on `run` watches for SIGHUP itself. A signal before that may have come after the
            // settings were read.
            if let Some(ended) = run.as_mut().now_or_never() {
                return ended.map_err(anyhow::Error::from);
            }
            if hangup.recv().now_or_never().is_some() {
                reload.request();
            }
            run.await.map_err(anyhow::Error::from)
        });
        if result.is_err() {
            // Dropping the runtime would wait for blocking work, such as a handler that never ends.
            runtime.shutdown_background();
        }
        result?;
        Ok(ExitStatus::Yes)
    }
}
