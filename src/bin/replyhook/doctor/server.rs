//! Checks of the local server through its private listener: readiness, store, backlog and instance id.

use std::collections::BTreeSet;
use std::net::ToSocketAddrs;
use std::time::Duration;

use replyhook::admin::{Readiness, ReadinessError, ReadinessReport, check_readiness};
use replyhook::config::Settings;
use replyhook::probe::Instance;
use replyhook::store::StoreUrl;
use replyhook::store::sqlite::file_warnings;

use crate::finding::{Finding, Report};

/// The identity of the local server, which [`public_url`](super::public_url) compares with the public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalServer {
    /// No private listener is configured.
    NotConfigured,
    /// The private listener did not respond, or is not replyhook's.
    Unknown,
    /// The server's instance id.
    Known(Instance),
}

pub(super) fn check(
    settings: &Settings,
    timeout: Duration,
    report: &mut Report,
) -> anyhow::Result<LocalServer> {
    if let StoreUrl::Sqlite(path) = &settings.store.url {
        for warning in file_warnings(path) {
            let found = format!("the database file {}", path.display());
            report.add(Finding::warn("store", found, warning))?;
        }
    }
    if settings.store.is_local_on_fly()
        && let Some(app) = &settings.store.fly_app
    {
        report.add(fly_machines(app))?;
    }
    let Some(listen) = settings.admin.listen else {
        report.add(Finding::note(
            "server",
            "admin.listen is empty: whether PUBLIC_URL leads to this process is unknown, and its store is not checked",
            "set admin.listen to 127.0.0.1:9090 for both, and restart the server",
        ))?;
        return Ok(LocalServer::NotConfigured);
    };
    let response = match check_readiness(listen, timeout) {
        Ok(response) => response,
        Err(error) => {
            report.add(no_response(&error))?;
            return Ok(LocalServer::Unknown);
        }
    };
    let Some(readiness) = &response.readiness else {
        report.add(Finding::fail(
            "server",
            format!("the program at {listen} (admin.listen) is not a private listener of replyhook"),
            "another program has that address: stop it, or set admin.listen to a free one, and restart the server",
        ))?;
        return Ok(LocalServer::Unknown);
    };
    for finding in findings(&response, readiness, &listen.to_string()) {
        report.add(finding)?;
    }
    Ok(response
        .instance
        .map_or(LocalServer::Unknown, LocalServer::Known))
}

/// Returns the finding about SQLite on Fly, where each machine has a store of its own.
fn fly_machines(app: &str) -> Finding {
    // Fly's private DNS has an address for each started machine of the app. The port is not used.
    let machines = (format!("{app}.internal"), 0).to_socket_addrs();
    let machines = machines.map(|addresses| addresses.collect::<BTreeSet<_>>().len());
    let found = match machines {
        Ok(1) => return Finding::ok("store", "SQLite, on the only machine of this Fly app"),
        Ok(number) => format!("SQLite, and {number} machines of this Fly app, each with a store of its own"),
        Err(_) => "SQLite, in a machine of Fly: the number of machines is unknown, and each has a store of its own".to_owned(),
    };
    Finding::warn(
        "store",
        found,
        "run exactly one machine (fly scale count 1, and deploy with --ha=false), or share PostgreSQL: with two stores, \
         duplicates get two replies, and an opt-out holds on one machine only",
    )
}

fn no_response(error: &ReadinessError) -> Finding {
    let remedy = match error {
        ReadinessError::Timeout(_) => {
            "it is stopped, starved of CPU or hangs: look at its log and restart it"
        }
        _ => {
            "start `replyhook serve`, or run this where it runs (same machine, same container) and with its settings"
        }
    };
    Finding::fail("server", format!("{error} (admin.listen)"), remedy)
}

fn findings(response: &ReadinessReport, readiness: &Readiness, listen: &str) -> Vec<Finding> {
    let checks = &readiness.checks;
    let mut findings = Vec::new();
    findings.push(match response.instance {
        // Draining matters more than the version.
        _ if checks.draining => Finding::fail(
            "server",
            "it is shutting down and accepts no more messages",
            "start it again, or wait for the one that takes its place",
        ),
        None => Finding::fail(
            "server",
            format!("the server at {listen} is an older replyhook, which does not report its instance id"),
            "restart it with this version",
        ),
        Some(instance) => Finding::ok("server", format!("{instance} runs at {listen}")),
    });
    findings.push(if checks.store.ok {
        Finding::ok("store", "it accepts writes")
    } else {
        let reason = checks.store.reason.as_deref().unwrap_or("no reason given");
        Finding::fail(
            "store",
            format!("it does not accept writes: {reason}; messages get 503 until it does"),
            "check DATABASE_URL's disk (space, permissions, a program that locks the file) or PostgreSQL (is it up, does \
             something hold locks); the server recovers by itself, so do not restart it: fallback replies that it sent in \
             the meantime are only in its memory",
        )
    });
    if checks.rest == "failing" {
        findings.push(Finding::warn(
            "outbox",
            "the server's last call of Twilio's REST API failed: late replies are not sent",
            "see the credentials below, and the server's log",
        ));
    }
    if checks.messages.dead > 0 {
        findings.push(Finding::warn(
            "messages",
            format!(
                "dead messages, which are not retried and get no reply: {}",
                checks.messages.dead
            ),
            "list them with `replyhook messages list --state dead`; `replyhook messages retry` lets the handler run again, \
             and `replyhook purge --user` deletes messages that need no reply",
        ));
    }
    if checks.events.as_ref().is_some_and(|events| events.stopped) {
        findings.push(Finding::warn(
            "events",
            "the service at handler.events_url responded with 410: it gets no more events, and those that wait are dropped \
             after 24 hours",
            "correct the service or handler.events_url, and restart the server, or reload its settings with SIGHUP",
        ));
    }
    if checks.outbox.held > 0 {
        findings.push(Finding::warn(
            "outbox",
            format!(
                "replies that wait for your decision, because it is unknown whether Twilio has them: {}",
                checks.outbox.held
            ),
            "list them with `replyhook messages list --state held`, and send them with `replyhook messages release`",
        ));
    }
    findings
}
