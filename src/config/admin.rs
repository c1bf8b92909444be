//! The section `[admin]`: the private listener and the token of its HTTP API.

use std::net::SocketAddr;

use super::reader::SettingsReader;
use super::sections::ServerSettings;
use replyhook_core::Secret;

/// Minimum number of characters of the token: those of 128 random bits in hexadecimal.
const MIN_TOKEN_CHARS: usize = 32;

/// The settings of the `[admin]` section.
///
/// Loaded in the same way as [`StoreSettings`](super::StoreSettings), which has an example.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdminSettings {
    /// Address of the private listener, if there is one.
    pub listen: Option<SocketAddr>,
    /// Token of the HTTP API; without it the listener has no API.
    pub token: Option<Secret>,
}

/// Reads the whole section for a server.
pub(super) fn admin(
    reader: &mut SettingsReader<'_>,
    server: Option<&ServerSettings>,
) -> Option<AdminSettings> {
    let listen = listen(reader, server);
    let problems_before = reader.problem_count();
    let mut token = token(reader);
    let has_invalid_token = reader.problem_count() > problems_before;
    let allow_remote = reader.flag("admin.allow_remote")?;
    let listen = listen?;
    let is_remote = listen.is_none_or(|address| !address.ip().is_loopback()) && !allow_remote;
    // The token that `replyhook dev` makes for a bot opens no API where the operator has not asked for one.
    if is_remote && reader.is_default("admin.token") && reader.is_default("admin.token_file") {
        token = None;
    }
    if let (Some(address), Some(_)) = (listen, &token)
        && !address.ip().is_loopback()
        && !allow_remote
    {
        reader.problem(
            "admin.allow_remote",
            format!(
                "is false, and admin.listen is {address}, which other machines may reach, while admin.token opens the HTTP API: \
                 listen on 127.0.0.1, or set admin.allow_remote = true if only your own services can connect"
            ),
        );
        return None;
    }
    if token.is_some() && listen.is_none() {
        reader.warn(
            "admin.token",
            "has no effect: the HTTP API is on the private listener, which is disabled; set admin.listen",
        );
    }
    (!has_invalid_token).then_some(AdminSettings { listen, token })
}

/// Reads only the address, for a health check.
pub(super) fn admin_address(reader: &mut SettingsReader<'_>) -> Option<AdminSettings> {
    let listen = listen(reader, None)?;
    Some(AdminSettings {
        listen,
        token: None,
    })
}

/// Returns the address, which may be missing, unless it is invalid.
#[expect(
    clippy::option_option,
    reason = "a missing address is valid, and an invalid one has been reported"
)]
fn listen(
    reader: &mut SettingsReader<'_>,
    server: Option<&ServerSettings>,
) -> Option<Option<SocketAddr>> {
    const KEY: &str = "admin.listen";
    if reader.text(KEY).is_empty() {
        return Some(None);
    }
    let listen = reader.address(KEY)?;
    // Port 0 is any free port, so two of them do not clash.
    if listen.port() != 0 && server.is_some_and(|server| server.listen.port() == listen.port()) {
        reader.problem(
            KEY,
            "has the port of server.listen: the private listener needs one of its own",
        );
        return None;
    }
    Some(Some(listen))
}

fn token(reader: &mut SettingsReader<'_>) -> Option<Secret> {
    const KEY: &str = "admin.token";
    let token = reader.secret(KEY)?;
    let chars = token.expose().chars().count();
    if chars < MIN_TOKEN_CHARS {
        reader.problem(
            KEY,
            format!(
                "has {chars} characters, and needs at least {MIN_TOKEN_CHARS}: make one with  openssl rand -hex 32"
            ),
        );
        return None;
    }
    // A header carries only these, and a blank would end the token there.
    if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.problem(
            KEY,
            "has a blank or a character outside of ASCII, which a header cannot carry: make one with  openssl rand -hex 32",
        );
        return None;
    }
    Some(token)
}
