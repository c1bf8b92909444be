//! Client of the Content API with the credentials of the settings.

use anyhow::anyhow;
use replyhook::config::SendSettings;
use replyhook::twilio::{Client, Credentials};

use crate::settings_args::SettingsArgs;

pub(super) fn content_api(settings: &SettingsArgs) -> anyhow::Result<(Client, Credentials)> {
    let settings = SendSettings::load(&settings.sources())?;
    let credentials = settings.credentials.ok_or_else(|| {
        anyhow!("no credentials for Twilio; set TWILIO_AUTH_TOKEN, or twilio.api_key_sid and twilio.api_key_secret")
    })?;
    Ok((Client::new(settings.content_url), credentials))
}
