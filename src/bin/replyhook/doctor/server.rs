//! The server beside which this runs, by its private listener: is it ready, does its store take writes, which one is it.

use std::time::Duration;

use replyhook::admin::{Heard, Readiness, Unheard, readiness};
use replyhook::config::Settings;
use replyhook::probe::Instance;
use replyhook::store::StoreUrl;
use replyhook::store::sqlite::file_warnings;

use super::finding::{Finding, Report};

/// What is known of the server beside which this runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// There is no private listener to ask.
    NotAsked,
    /// Nobody answered, or somebody else.
    Unknown,
    /// This one.
    Known(Instance),
}

pub(super) fn look(
    settings: &Settings,
    patience: Duration,
    report: &mut Report,
) -> anyhow::Result<Here> {
    if let StoreUrl::Sqlite(path) = &settings.store.url {
        for warning in file_warnings(path) {
            let found = format!("the database file {}", path.display());
            report.add(Finding::warn("store", found, warning))?;
        }
    }
    let Some(listen) = settings.admin.listen else {
        report.add(Finding::note(
            "server",
            "admin.listen is empty: whether PUBLIC_URL leads to this very process cannot be told, and its store is not \
             looked at",
            "set admin.listen to 127.0.0.1:9090 for both, and restart the server",
        ))?;
        return Ok(Here::NotAsked);
    };
    let heard = match readiness(listen, patience) {
        Ok(heard) => heard,
        Err(unheard) => {
            report.add(not_heard(&unheard))?;
            return Ok(Here::Unknown);
        }
    };
    let Some(state) = &heard.readiness else {
        report.add(Finding::fail(
            "server",
            format!("what answers at {listen} (admin.listen) is no private listener of replyhook"),
            "another program has that address: stop it, or set admin.listen to a free one, and restart the server",
        ))?;
        return Ok(Here::Unknown);
    };
    for finding in told(&heard, state, &listen.to_string()) {
        report.add(finding)?;
    }
    Ok(heard.instance.map_or(Here::Unknown, Here::Known))
}

fn not_heard(unheard: &Unheard) -> Finding {
    let remedy = match unheard {
        Unheard::Silent(_) => {
            "it is stopped, starved of CPU or hangs: look at its log and restart it"
        }
        _ => {
            "start `replyhook serve`, or run this where it runs (same machine, same container) and with its settings"
        }
    };
    Finding::fail("server", format!("{unheard} (admin.listen)"), remedy)
}

fn told(heard: &Heard, state: &Readiness, listen: &str) -> Vec<Finding> {
    let parts = &state.checks;
    let mut findings = Vec::new();
    findings.push(match heard.instance {
        _ if parts.draining => Finding::fail(
            "server",
            "it is shutting down and takes no more messages",
            "start it again, or wait for the one that takes its place",
        ),
        None => Finding::fail(
            "server",
            format!("what runs at {listen} is an older replyhook, which does not say who it is"),
            "restart it with this version",
        ),
        Some(instance) => Finding::ok("server", format!("{instance} runs, asked at {listen}")),
    });
    findings.push(if parts.store.ok {
        Finding::ok("store", "it takes writes")
    } else {
        let reason = parts.store.reason.as_deref().unwrap_or("no reason given");
        Finding::fail(
            "store",
            format!("it does not take writes: {reason}; messages get 503 until it does"),
            "look at DATABASE_URL's disk (space, rights, a program that locks the file) or at PostgreSQL (is it up, does \
             something hold locks); the server goes on by itself, so do not restart it: what it said meanwhile is in its memory",
        )
    });
    if parts.rest == "failing" {
        findings.push(Finding::warn(
            "outbox",
            "the server's last call of Twilio's REST API failed: late replies do not go out",
            "see what is said of the credentials below, and the server's log",
        ));
    }
    if parts.messages.dead > 0 {
        findings.push(Finding::warn(
            "messages",
            format!(
                "messages that nobody answers any more: {}",
                parts.messages.dead
            ),
            "look at them with `replyhook messages list --state dead`; `replyhook messages retry` has one handled again, and \
             `replyhook purge --user` deletes what is not to be answered",
        ));
    }
    if parts.outbox.held > 0 {
        findings.push(Finding::warn(
            "outbox",
            format!(
                "replies that wait for you, because it is not known whether Twilio has them: {}",
                parts.outbox.held
            ),
            "look at them with `replyhook messages list --state held`, and `replyhook messages release` what should go out",
        ));
    }
    findings
}
