//! The paths of the public listener: `server.paths` and `server.health_path`.

use super::layers::{Layers, quoted};
use super::problem::Problems;
use super::reader::SettingsReader;
use super::sources::Sources;
use crate::signature::{PublicUrl, RoutePath, WebhookPaths};

const HEALTH_KEY: &str = "server.health_path";

/// Reads only `server.paths`, for a server whose URL is not known yet. Returns `None` if they are invalid.
// Without the problems: the caller loads all settings afterwards, which reports all of them together.
#[cfg_attr(
    not(all(feature = "server", feature = "emulator")),
    expect(dead_code, reason = "only the dev server uses it")
)]
pub(crate) fn load_webhook_paths(sources: &Sources) -> Option<WebhookPaths> {
    let mut problems = Problems::default();
    let layers = Layers::read(sources, &mut problems);
    webhook_paths(&mut SettingsReader::new(&layers, problems))
}

/// Returns the paths of the webhooks, or records the problems of each.
pub(super) fn webhook_paths(reader: &mut SettingsReader<'_>) -> Option<WebhookPaths> {
    let [primary, fallback, status] = [
        "server.paths.primary",
        "server.paths.fallback",
        "server.paths.status",
    ]
    .map(|key| path(reader, key));
    match WebhookPaths::new(primary?, fallback?, status?) {
        Ok(paths) => Some(paths),
        Err(equal) => {
            let text = format!(
                "is the same path as server.paths.{}: give each webhook a path of its own",
                equal.first
            );
            reader.problem(&format!("server.paths.{}", equal.second), text);
            None
        }
    }
}

/// Returns the path of the health check if there is one, or records a problem.
pub(super) fn health_path(reader: &mut SettingsReader<'_>) -> Option<RoutePath> {
    let is_set = !reader.text(HEALTH_KEY).trim().is_empty();
    is_set.then(|| path(reader, HEALTH_KEY)).flatten()
}

fn path(reader: &mut SettingsReader<'_>, key: &str) -> Option<RoutePath> {
    let text = reader.text(key);
    match RoutePath::parse(text) {
        Ok(path) => Some(path),
        Err(error) => {
            reader.problem(key, format!("is {}, and {error}", quoted(text)));
            None
        }
    }
}

/// Records a problem for each path that another one, or the prefix of `PUBLIC_URL`, makes ambiguous.
pub(super) fn check_routes(
    reader: &mut SettingsReader<'_>,
    url: &PublicUrl,
    health_path: Option<&RoutePath>,
) {
    let webhooks = url.paths().named();
    let webhooks = webhooks.map(|(name, path)| (format!("server.paths.{name}"), path));
    let health_path = health_path.map(|path| (HEALTH_KEY.to_owned(), path.as_str()));
    for (key, path) in &webhooks {
        // A received path that begins with the prefix is verified as it is, so one without it could never verify.
        if !url.prefix().is_empty() && is_at_or_below(path, url.prefix()) {
            let text = format!(
                "is {path}, which begins with the path of PUBLIC_URL, to which it is added: leave {} out of one of them",
                url.prefix()
            );
            reader.problem(key, text);
        }
    }
    let all: Vec<_> = webhooks.into_iter().chain(health_path).collect();
    for (index, (key, path)) in all.iter().enumerate() {
        let routes = url.routes(path);
        let clash = all[..index]
            .iter()
            .find(|(_, other)| url.routes(other).iter().any(|route| routes.contains(route)));
        if let Some((other_key, other)) = clash {
            let text = format!(
                "is {path}, which has an address in common with {other_key} ({other}): write another path"
            );
            reader.problem(key, text);
        }
    }
}

fn is_at_or_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
