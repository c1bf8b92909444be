use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail};
use replyhook::config::SigningSettings;
use replyhook::signature::{CapturedRequest, Explanation, PublicUrl};

use crate::exit::ExitStatus;
use crate::print::print;
use crate::request::RequestArgs;
use crate::settings_args::SettingsArgs;

#[derive(clap::Args)]
#[command(after_help = "\
Verifies the request for PUBLIC_URL if it is set, otherwise for the request's own URL.

Exit codes:
  0  the request verifies
  1  the request does not verify
  2  usage or configuration error, or the input cannot be read

Examples:
  replyhook explain request.har
  pbpaste | replyhook explain -
  replyhook explain --url https://bot.example.com/webhook --body-file body.txt \\
      --header 'X-Twilio-Signature: …' --header 'X-Forwarded-Host: x.ngrok.app'")]
pub(crate) struct Explain {
    /// File with a curl command, a HAR or a raw HTTP request; - is standard input
    file: Option<PathBuf>,
    /// URL as the server received it
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Explain {
    pub(crate) fn run(self) -> anyhow::Result<ExitStatus> {
        let settings = SigningSettings::load(&self.settings.sources())?;
        let mut request = self.request()?;
        request.add_host();
        let public_url = match settings.public_url {
            Some(public_url) => public_url,
            None => origin(&request.url)?,
        };
        let verifier = settings.twilio.signature_verifier(public_url)?;
        let explanation = verifier.explain(&request.unverified());
        print(&format!("{explanation}\n"))?;
        Ok(if explanation == Explanation::Verifies {
            ExitStatus::Yes
        } else {
            ExitStatus::No
        })
    }

    fn request(&self) -> anyhow::Result<CapturedRequest> {
        let file = match (&self.file, &self.url) {
            (Some(file), _) => file.clone(),
            (None, Some(url)) => return self.request.to_captured_request(url.clone()),
            (None, None) if self.request.is_empty() => "-".into(),
            // Other options describe a request, which needs a URL.
            (None, None) => bail!("--url is missing; set it to the URL as the server received it"),
        };
        let mut text = String::new();
        if file.as_os_str() == "-" {
            std::io::stdin()
                .read_to_string(&mut text)
                .context("standard input")?;
        } else {
            text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        }
        // The options below override single parts of the file.
        let mut request =
            CapturedRequest::parse(&text).with_context(|| file.display().to_string())?;
        if let Some(url) = &self.url {
            request.url.clone_from(url);
        }
        if let Some(method) = self.request.method()? {
            request.method = method;
        }
        self.request.add_headers_to(&mut request)?;
        Ok(request)
    }
}

/// Returns the scheme and authority of a URL.
fn origin(url: &str) -> anyhow::Result<PublicUrl> {
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!(
            "the request has no complete URL; set PUBLIC_URL to the URL that Twilio calls, or use --url"
        );
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    Ok(PublicUrl::parse(&format!("{scheme}://{authority}"))
        .context("--url")?
        .0)
}
