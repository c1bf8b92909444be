//! The tables `[signature.shared_keys.<ID>]`: keys with which Twilio signs webhooks in place of the auth token.

use super::layers::SHARED_KEYS_PREFIX;
use super::reader::SettingsReader;
use crate::sid::AccountSid;
use crate::signature::SharedKeyId;
use replyhook_core::Secret;

/// The settings of a section `[signature.shared_keys.<ID>]`; part of [`TwilioSettings`](super::TwilioSettings).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SharedKeySettings {
    /// ID that requests name.
    pub id: SharedKeyId,
    /// Its secret.
    pub secret: Secret,
    /// The only account whose requests it signs.
    pub account: AccountSid,
}

/// Returns the shared keys, without those that have a problem. A key without an account has the default account.
pub(super) fn shared_keys(
    reader: &mut SettingsReader<'_>,
    default_account: Option<AccountSid>,
) -> Vec<SharedKeySettings> {
    let names = reader.layers.names_below(SHARED_KEYS_PREFIX);
    names
        .iter()
        .filter_map(|name| shared_key(reader, name, default_account))
        .collect()
}

fn shared_key(
    reader: &mut SettingsReader<'_>,
    name: &str,
    default_account: Option<AccountSid>,
) -> Option<SharedKeySettings> {
    let key = |field: &str| format!("{SHARED_KEYS_PREFIX}{name}.{field}");
    let secret_key = key("secret");
    let problems_before = reader.problem_count();
    // Read all before the first `?`, so that the problems of all are reported.
    let secret = reader.secret(&secret_key);
    if secret.is_none() && reader.problem_count() == problems_before {
        reader.problem(
            &secret_key,
            "is missing: set it, or secret_file, to the secret that Twilio showed when the key was created",
        );
    }
    let account_key = key("account");
    let account = match reader.text(&account_key) {
        "" if default_account.is_none() => {
            reader.problem(
                &account_key,
                "is missing: set it, or TWILIO_ACCOUNT_SID, to the account whose webhooks the key signs",
            );
            None
        }
        "" => default_account,
        text => reader.account_sid(&account_key, text),
    };
    let id = SharedKeyId::parse(name);
    if let Err(error) = id {
        reader.problem(&secret_key, format!("has a name that is {error}"));
    }
    Some(SharedKeySettings {
        id: id.ok()?,
        secret: secret?,
        account: account?,
    })
}
