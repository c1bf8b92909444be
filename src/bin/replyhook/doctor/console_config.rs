//! Check of the webhooks at Twilio: which numbers, WhatsApp senders and Messaging Services of the account call
//! `PUBLIC_URL`, and which have a URL that is almost right.

use replyhook::config::Settings;
use replyhook::signature::PublicUrl;
use replyhook::twilio::{
    Client, ConfiguredWebhooks, MessagingService, PhoneNumber, RestError, RestErrorKind,
    WhatsAppSender,
};

use super::accepted_account::AcceptedAccount;
use super::webhook_url::{EndpointKind, UrlMismatch, UrlTarget, without_secrets};
use crate::finding::{Finding, Report, Severity};
use crate::opt_out_advice::opt_out_advice;

const CHECK: &str = "twilio";
const NUMBER_CONSOLE_PATH: &str =
    "Twilio's console, Phone Numbers › Active numbers › the number › Messaging";
const SERVICE_CONSOLE_PATH: &str =
    "Twilio's console, Messaging › Services › the service › Integration";
const SENDER_CONSOLE_PATH: &str =
    "Twilio's console, Messaging › Senders › WhatsApp senders › the sender";

/// A number, WhatsApp sender or Messaging Service with its webhooks.
struct CheckedSender {
    /// Description, with a masked address.
    description: String,
    webhooks: ConfiguredWebhooks,
    /// True if the status callback is that of messages. The one of a number is for calls.
    reports_message_status: bool,
    /// Place in Twilio's console where the URLs are configured.
    console: &'static str,
    /// Command that sets all three URLs.
    command: Option<String>,
}

impl From<PhoneNumber> for CheckedSender {
    fn from(number: PhoneNumber) -> Self {
        Self {
            description: format!("number {} ({:?})", number.sid, number.number),
            webhooks: number.webhooks,
            reports_message_status: false,
            console: NUMBER_CONSOLE_PATH,
            command: Some(format!("replyhook sender set {} --from-config", number.sid)),
        }
    }
}

impl From<WhatsAppSender> for CheckedSender {
    fn from(sender: WhatsAppSender) -> Self {
        Self {
            description: format!("sender {} ({:?})", sender.sid, sender.address),
            webhooks: sender.webhooks,
            reports_message_status: true,
            console: SENDER_CONSOLE_PATH,
            command: Some(format!("replyhook sender set {} --from-config", sender.sid)),
        }
    }
}

impl From<MessagingService> for CheckedSender {
    fn from(service: MessagingService) -> Self {
        Self {
            description: format!("Messaging Service {}", service.sid),
            webhooks: service.webhooks,
            reports_message_status: true,
            console: SERVICE_CONSOLE_PATH,
            command: Some(format!(
                "replyhook sender set {} --from-config",
                service.sid
            )),
        }
    }
}

impl CheckedSender {
    /// Describes how to change the URLs.
    fn change_instructions(&self) -> String {
        match &self.command {
            Some(command) => format!("{}; or `{command}`, which enters them", self.console),
            None => self.console.to_owned(),
        }
    }
}

pub(super) async fn check(
    settings: &Settings,
    accepted_accounts: &[&AcceptedAccount],
    report: &mut Report,
) -> anyhow::Result<()> {
    let public_url = &settings.server.public_url;
    let api = Client::new(settings.rest.api_url.clone());
    let messaging = Client::new(settings.rest.messaging_url.clone());
    let (mut total, mut matching, mut is_incomplete) = (0, 0, false);
    let mut number_addresses = Vec::new();
    for accepted in accepted_accounts {
        let credentials = accepted.rest_credentials();
        let mut senders = Vec::new();
        let numbers = api.incoming_phone_numbers(accepted.account, &credentials);
        match numbers.list().await {
            Ok(numbers) => {
                number_addresses.extend(numbers.iter().map(|number| number.number.clone()));
                for number in numbers {
                    // Twilio calls the application's URLs, and ignores the number's own.
                    if let Some(application) = number.application_sid.clone() {
                        if let Some(finding) = override_finding(public_url, &number, &application) {
                            report.add(finding)?;
                        }
                        continue;
                    }
                    senders.push(CheckedSender::from(number));
                }
            }
            Err(error) => {
                is_incomplete = true;
                report.add(unreadable_finding("numbers", accepted, &error))?;
            }
        }
        match messaging.channels_senders(&credentials).list().await {
            Ok(whatsapp_senders) => {
                for sender in whatsapp_senders {
                    let found = [
                        offline_finding(public_url, &sender),
                        quality_finding(public_url, &sender),
                    ];
                    senders.push(CheckedSender::from(sender));
                    for finding in found.into_iter().flatten() {
                        report.add(finding)?;
                    }
                }
            }
            Err(error) => {
                is_incomplete = true;
                report.add(unreadable_finding("WhatsApp senders", accepted, &error))?;
            }
        }
        match messaging.services(&credentials).list().await {
            Ok(services) => senders.extend(called_services(public_url, services, report)?),
            Err(error) => {
                is_incomplete = true;
                report.add(unreadable_finding("Messaging Services", accepted, &error))?;
            }
        }
        total += senders.len();
        for sender in &senders {
            let findings = check_sender(public_url, sender);
            matching += usize::from(!findings.is_empty());
            for finding in findings {
                report.add(finding)?;
            }
        }
    }
    for advice in opt_out_advice(settings, number_addresses.iter()) {
        report.add(Finding::note("consent", advice.found, advice.remedy))?;
    }
    // With an incomplete list, "none calls" could be wrong.
    if accepted_accounts.is_empty() || is_incomplete && matching == 0 {
        return Ok(());
    }
    if matching == 0 {
        report.add(Finding::warn(
            CHECK,
            format!("of the numbers, WhatsApp senders and Messaging Services ({total}) none calls {public_url}"),
            format!(
                "enter {} as the webhook for incoming messages, {} as its fallback, {} as the status callback: \
                 `replyhook sender set SENDER --from-config`, or {SENDER_CONSOLE_PATH}, or {NUMBER_CONSOLE_PATH}. The \
                 webhooks of the sandbox cannot be read from here: compare them by eye",
                EndpointKind::Primary.url(public_url),
                EndpointKind::Fallback.url(public_url),
                EndpointKind::Status.url(public_url)
            ),
        ))?;
    } else if total > matching {
        report.add(Finding::note(
            CHECK,
            format!(
                "further numbers, WhatsApp senders and Messaging Services that call other servers: {}",
                total - matching
            ),
            "nothing to do, unless this server should handle their messages too",
        ))?;
    }
    Ok(())
}

/// Returns the services whose own webhooks are called, and reports others that have this server's URL.
fn called_services(
    public_url: &PublicUrl,
    services: Vec<MessagingService>,
    report: &mut Report,
) -> anyhow::Result<Vec<CheckedSender>> {
    let mut called = Vec::new();
    for service in services {
        if !service.uses_inbound_webhook_on_number {
            called.push(CheckedSender::from(service));
        } else if let Some(finding) = unused_service_finding(public_url, &service) {
            report.add(finding)?;
        }
    }
    Ok(called)
}

fn unreadable_finding(what: &str, accepted: &AcceptedAccount, error: &RestError) -> Finding {
    // The key has been used before, so it is valid: a restricted one lacks the permission.
    let is_rejected = matches!(
        error.kind(),
        RestErrorKind::Rejected {
            status: 401 | 403,
            ..
        }
    );
    if is_rejected && accepted.keys.api_key().is_some() {
        return Finding::note(
            CHECK,
            format!(
                "not checkable with the API key of {}: the webhooks of its {what}: {error}",
                accepted.account
            ),
            "nothing to do: compare them by eye in Twilio's console, or run this command with a key that may read them",
        );
    }
    Finding::warn(
        CHECK,
        format!("could not read the {what} of {}: {error}", accepted.account),
        "try again in a moment; an API key needs the permission to read them, and WhatsApp senders are read from \
         twilio.messaging_url",
    )
}

/// Returns a finding for a number with this server's URL if an application overrides it.
fn override_finding(
    public_url: &PublicUrl,
    number: &PhoneNumber,
    application: &str,
) -> Option<Finding> {
    let inbound = UrlTarget::classify(public_url, number.webhooks.inbound.as_deref());
    inbound.is_ours().then(|| {
        Finding::warn(
            CHECK,
            format!(
                "number {} ({:?}) has this server's URL, and an application ({application}) whose URLs are called instead",
                number.sid, number.number
            ),
            format!("remove the application: {NUMBER_CONSOLE_PATH}; or enter this server's URLs in it"),
        )
    })
}

/// Returns a finding for an offline sender that has this server's URL.
fn offline_finding(public_url: &PublicUrl, sender: &WhatsAppSender) -> Option<Finding> {
    let inbound = UrlTarget::classify(public_url, sender.webhooks.inbound.as_deref());
    // The status is empty if Twilio did not report one.
    let online = sender.status.is_empty() || sender.status.starts_with("ONLINE");
    (inbound.is_ours() && !online).then(|| {
        let reasons = sender.offline_reasons.iter();
        let reasons: Vec<_> = reasons
            .map(|reason| format!("; {} ({})", reason.message, reason.code))
            .collect();
        let reasons = reasons.concat();
        Finding::warn(
            CHECK,
            format!(
                "sender {} ({:?}) is {}: it neither gets nor sends messages{reasons}",
                sender.sid, sender.address, sender.status
            ),
            format!("see why: {SENDER_CONSOLE_PATH}"),
        )
    })
}

/// Returns a finding about WhatsApp's quality rating and limit of a sender that has this server's URL.
fn quality_finding(public_url: &PublicUrl, sender: &WhatsAppSender) -> Option<Finding> {
    let inbound = UrlTarget::classify(public_url, sender.webhooks.inbound.as_deref());
    let rating = sender
        .quality_rating
        .as_deref()
        .filter(|_| inbound.is_ours())?;
    let limit = sender.messaging_limit.as_deref().unwrap_or("not reported");
    let found = format!(
        "sender {} ({:?}) has the quality rating {rating}; its limit is {limit}",
        sender.sid, sender.address
    );
    Some(if rating.eq_ignore_ascii_case("low") {
        Finding::warn(
            CHECK,
            found,
            "users block or report its messages, and WhatsApp may lower its limit: send fewer templates, and only to \
             users who opted in",
        )
    } else {
        Finding::ok(CHECK, found)
    })
}

/// Returns a finding for a Messaging Service with this server's URL that uses those of its numbers instead.
fn unused_service_finding(public_url: &PublicUrl, service: &MessagingService) -> Option<Finding> {
    let inbound = UrlTarget::classify(public_url, service.webhooks.inbound.as_deref());
    inbound.is_ours().then(|| {
        Finding::note(
            CHECK,
            format!(
                "Messaging Service {} has this server's URL, and the webhooks of its numbers are called instead",
                service.sid
            ),
            format!(
                "nothing to do if its numbers call this server; otherwise `replyhook sender set {} --from-config`",
                service.sid
            ),
        )
    })
}

/// Returns the findings for a sender, or none if it does not use this server for its messages.
fn check_sender(public_url: &PublicUrl, sender: &CheckedSender) -> Vec<Finding> {
    let webhooks = &sender.webhooks;
    let target = |url: &Option<String>| UrlTarget::classify(public_url, url.as_deref());
    let inbound = target(&webhooks.inbound);
    let fallback = target(&webhooks.fallback);
    let status = target(&webhooks.status);
    if !inbound.is_ours() && !fallback.is_ours() {
        return Vec::new();
    }
    let check = WebhookCheck { public_url, sender };
    let mut findings = Vec::new();
    // One finding for swapped URLs, instead of one for each.
    if (inbound.endpoint(), fallback.endpoint())
        == (Some(EndpointKind::Fallback), Some(EndpointKind::Primary))
    {
        findings.push(Finding::fail(
            CHECK,
            format!(
                "{} has primary and fallback the wrong way round",
                sender.description
            ),
            format!(
                "enter {} as the webhook for incoming messages and {} as its fallback: {}",
                EndpointKind::Primary.url(public_url),
                EndpointKind::Fallback.url(public_url),
                sender.change_instructions()
            ),
        ));
    } else {
        findings.extend(check.inbound(inbound));
        findings.extend(check.fallback(fallback, inbound));
    }
    findings.extend(check.status(status));
    if findings.is_empty() {
        let role = if inbound.is_ours() {
            "calls this server"
        } else {
            "has this server as its fallback"
        };
        findings.push(Finding::ok(CHECK, format!("{} {role}", sender.description)));
    }
    findings
}

/// A sender and the public URL that its webhooks are compared with.
struct WebhookCheck<'a> {
    public_url: &'a PublicUrl,
    sender: &'a CheckedSender,
}

impl WebhookCheck<'_> {
    fn inbound(&self, target: UrlTarget) -> Option<Finding> {
        match target {
            UrlTarget::Endpoint(EndpointKind::Primary) | UrlTarget::OtherServer => None,
            UrlTarget::NotSet => Some(self.url_finding(
                EndpointKind::Primary,
                Severity::Fail,
                "has a fallback and no webhook for incoming messages",
            )),
            other => self.mismatch_finding(EndpointKind::Primary, other),
        }
    }

    fn fallback(&self, target: UrlTarget, inbound: UrlTarget) -> Option<Finding> {
        match target {
            UrlTarget::Endpoint(EndpointKind::Fallback) | UrlTarget::OtherServer => None,
            UrlTarget::NotSet if !inbound.is_ours() => None,
            UrlTarget::NotSet => Some(self.url_finding(
                EndpointKind::Fallback,
                Severity::Warn,
                "has no fallback: a message that the primary cannot answer is lost",
            )),
            UrlTarget::Endpoint(EndpointKind::Primary)
            | UrlTarget::Mismatch(EndpointKind::Primary, _)
                if inbound.endpoint() == Some(EndpointKind::Primary) =>
            {
                Some(self.url_finding(
                    EndpointKind::Fallback,
                    Severity::Fail,
                    "has the primary as its fallback too, which then fails the same way",
                ))
            }
            other => self.mismatch_finding(EndpointKind::Fallback, other),
        }
    }

    fn status(&self, target: UrlTarget) -> Option<Finding> {
        let finding = match target {
            UrlTarget::Endpoint(EndpointKind::Status) | UrlTarget::OtherServer => None,
            UrlTarget::NotSet if !self.sender.reports_message_status => None,
            UrlTarget::NotSet => Some(self.url_finding(
                EndpointKind::Status,
                Severity::Warn,
                "has no status callback: the delivery of TwiML replies is not reported",
            )),
            other => self.mismatch_finding(EndpointKind::Status, other),
        };
        // At most a warning: no message is lost without status callbacks.
        finding.map(|finding| Finding {
            severity: Severity::Warn,
            ..finding
        })
    }

    /// Returns the finding for a URL of this server that is not exactly the one of endpoint `expected`.
    fn mismatch_finding(&self, expected: EndpointKind, target: UrlTarget) -> Option<Finding> {
        let webhooks = &self.sender.webhooks;
        let url = match expected {
            EndpointKind::Primary => &webhooks.inbound,
            EndpointKind::Fallback => &webhooks.fallback,
            EndpointKind::Status => &webhooks.status,
        };
        let url = without_secrets(url.as_deref().unwrap_or_default());
        let name = expected.name();
        let (severity, found) = match target {
            UrlTarget::Endpoint(endpoint) | UrlTarget::Mismatch(endpoint, _)
                if endpoint != expected =>
            {
                (
                    Severity::Fail,
                    format!("has the endpoint `{}` as its {name}", endpoint.name()),
                )
            }
            UrlTarget::Mismatch(_, mismatch) => {
                // The server accepts a trailing slash.
                let severity = if mismatch == UrlMismatch::Slash {
                    Severity::Warn
                } else {
                    Severity::Fail
                };
                (
                    severity,
                    format!("has {url} as its {name}, which {}", mismatch.text()),
                )
            }
            UrlTarget::OtherPath => (
                Severity::Fail,
                format!("has {url} as its {name}, which is not an endpoint"),
            ),
            UrlTarget::Endpoint(_) | UrlTarget::NotSet | UrlTarget::OtherServer => return None,
        };
        Some(self.url_finding(expected, severity, &found))
    }

    fn url_finding(&self, expected: EndpointKind, severity: Severity, found: &str) -> Finding {
        let what = match expected {
            EndpointKind::Primary => "the webhook for incoming messages",
            EndpointKind::Fallback => "its fallback",
            EndpointKind::Status => "its status callback",
        };
        Finding {
            check: CHECK,
            severity,
            found: format!("{} {found}", self.sender.description),
            remedy: Some(format!(
                "enter {} as {what}: {}",
                expected.url(self.public_url),
                self.sender.change_instructions()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: [&str; 3] = [
        "https://h.test/a/webhook",
        "https://h.test/a/webhook/fallback",
        "https://h.test/a/webhook/status",
    ];

    /// Returns the severity and text of each finding for a sender called "it".
    fn check_urls(urls: [&str; 3]) -> Vec<String> {
        let (public_url, _) = PublicUrl::parse("https://h.test/a").expect("a public URL");
        let mut webhooks = ConfiguredWebhooks::default();
        let set = |url: &str| (!url.is_empty()).then(|| url.to_owned());
        let [inbound, fallback, status] = urls.map(set);
        (webhooks.inbound, webhooks.fallback, webhooks.status) = (inbound, fallback, status);
        let sender = CheckedSender {
            description: "it".to_owned(),
            webhooks,
            reports_message_status: true,
            console: "the console",
            command: None,
        };
        let findings = check_sender(&public_url, &sender);
        for finding in &findings {
            assert_eq!(finding.severity == Severity::Ok, finding.remedy.is_none());
        }
        findings
            .iter()
            .map(|finding| format!("{:?} {}", finding.severity, finding.found))
            .collect()
    }

    // URLs that all point to other servers give no finding.
    #[test]
    fn correct_or_foreign_webhook_urls_raise_no_warning() {
        let [primary, fallback, status] = URLS;
        assert_eq!(check_urls(URLS), ["Ok it calls this server"]);
        let elsewhere = "https://other.test/sorry";
        assert_eq!(
            check_urls([primary, elsewhere, status]),
            ["Ok it calls this server"]
        );
        assert_eq!(
            check_urls([elsewhere, fallback, status]),
            ["Ok it has this server as its fallback"]
        );
        assert_eq!(check_urls([elsewhere, elsewhere, status]), [""; 0]);
        assert_eq!(check_urls(["", "", ""]), [""; 0]);
    }

    #[test]
    fn misconfigured_webhook_urls_are_each_reported() {
        let [primary, fallback, status] = URLS;
        for (urls, expected) in [
            (
                [fallback, primary, status],
                &["Fail it has primary and fallback the wrong way round"][..],
            ),
            (
                [primary, "", ""],
                &[
                    "Warn it has no fallback: a message that the primary cannot answer is lost",
                    "Warn it has no status callback: the delivery of TwiML replies is not reported",
                ],
            ),
            (
                [primary, "https://h.test/a/webhook#rc=2", status],
                &["Fail it has the primary as its fallback too, which then fails the same way"],
            ),
            (
                ["", fallback, status],
                &["Fail it has a fallback and no webhook for incoming messages"],
            ),
            (
                [status, fallback, primary],
                &[
                    "Fail it has the endpoint `status` as its primary",
                    "Warn it has the endpoint `primary` as its status",
                ],
            ),
            (
                ["http://h.test/a/webhook", fallback, status],
                &[
                    "Fail it has http://h.test/a/webhook as its primary, which has the other one of http and https, and is \
                   signed for that",
                ],
            ),
            (
                ["https://h.test/webhook?key=x", fallback, status],
                &[
                    "Fail it has https://h.test/webhook as its primary, which lacks the path prefix of PUBLIC_URL, and is \
                   signed for that",
                ],
            ),
            (
                ["https://h.test/a/webhook/", "https://h.test/a/sms", status],
                &[
                    "Warn it has https://h.test/a/webhook/ as its primary, which has a slash at its end, which works as \
                     long as no proxy removes it",
                    "Fail it has https://h.test/a/sms as its fallback, which is not an endpoint",
                ],
            ),
        ] {
            assert_eq!(check_urls(urls), expected);
        }
    }
}
