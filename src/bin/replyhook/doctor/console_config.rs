//! Check of the webhooks at Twilio: which numbers and WhatsApp senders of the account call `PUBLIC_URL`, and which have
//! a URL that is almost right.

use replyhook::config::Settings;
use replyhook::signature::PublicUrl;
use replyhook::twilio::{Client, ConfiguredWebhooks, PhoneNumber, RestError, WhatsAppSender};

use super::Caller;
use super::finding::{Finding, Report, Severity};
use super::webhook_url::{EndpointKind, UrlMismatch, UrlTarget, without_secrets};

const CHECK: &str = "twilio";
const NUMBER: &str = "Twilio's console, Phone Numbers › Active numbers › the number › Messaging";
const SENDER: &str = "Twilio's console, Messaging › Senders › WhatsApp senders › the sender";

/// A number or WhatsApp sender with its webhooks.
struct ConfiguredSender {
    /// Description, with a masked address.
    what: String,
    webhooks: ConfiguredWebhooks,
    /// True if the status callback is that of messages. The one of a number is for calls.
    tells_status: bool,
    /// Place in Twilio's console where the URLs are configured.
    console: &'static str,
    /// Command that sets all three URLs.
    command: Option<String>,
}

impl From<PhoneNumber> for ConfiguredSender {
    fn from(number: PhoneNumber) -> Self {
        Self {
            what: format!("number {} ({:?})", number.sid, number.number),
            webhooks: number.webhooks,
            tells_status: false,
            console: NUMBER,
            command: None,
        }
    }
}

impl From<WhatsAppSender> for ConfiguredSender {
    fn from(sender: WhatsAppSender) -> Self {
        Self {
            what: format!("sender {} ({:?})", sender.sid, sender.address),
            webhooks: sender.webhooks,
            tells_status: true,
            console: SENDER,
            command: Some(format!("replyhook sender set {} --from-config", sender.sid)),
        }
    }
}

impl ConfiguredSender {
    /// Describes how to change the URLs.
    fn way(&self) -> String {
        match &self.command {
            Some(command) => format!("{}; or `{command}`, which enters all three", self.console),
            None => self.console.to_owned(),
        }
    }
}

pub(super) async fn look(
    settings: &Settings,
    callers: &[&Caller],
    report: &mut Report,
) -> anyhow::Result<()> {
    let public_url = &settings.server.public_url;
    let api = Client::new(settings.rest.api_url.clone());
    let messaging = Client::new(settings.rest.messaging_url.clone());
    let (mut seen, mut ours, mut unread) = (0, 0, false);
    for caller in callers {
        let credentials = caller.by_rest();
        let mut senders = Vec::new();
        match api.phone_numbers(caller.account, &credentials).await {
            Ok(numbers) => {
                for number in numbers {
                    // Twilio calls the application's URLs, and ignores the number's own.
                    if let Some(application) = number.application_sid.clone() {
                        if let Some(finding) = overridden(public_url, &number, &application) {
                            report.add(finding)?;
                        }
                        continue;
                    }
                    senders.push(ConfiguredSender::from(number));
                }
            }
            Err(error) => {
                unread = true;
                report.add(unreadable("numbers", caller, &error))?;
            }
        }
        match messaging.whatsapp_senders(&credentials).await {
            Ok(whatsapp_senders) => {
                for sender in whatsapp_senders {
                    let offline = offline(public_url, &sender);
                    senders.push(ConfiguredSender::from(sender));
                    if let Some(finding) = offline {
                        report.add(finding)?;
                    }
                }
            }
            Err(error) => {
                unread = true;
                report.add(unreadable("WhatsApp senders", caller, &error))?;
            }
        }
        seen += senders.len();
        for sender in &senders {
            let findings = judge(public_url, sender);
            ours += usize::from(!findings.is_empty());
            for finding in findings {
                report.add(finding)?;
            }
        }
    }
    // With an incomplete list, "none calls" could be wrong.
    if callers.is_empty() || unread && ours == 0 {
        return Ok(());
    }
    if ours == 0 {
        report.add(Finding::warn(
            CHECK,
            format!("of the numbers and WhatsApp senders ({seen}) none calls {public_url}"),
            format!(
                "enter {} as the webhook for incoming messages, {} as its fallback, {} as the status callback: {SENDER} (or \
                 `replyhook sender set SENDER --from-config`), or {NUMBER}. The webhooks of the sandbox, and of a Messaging \
                 Service, which override those of its senders, cannot be read from here: compare them by eye",
                EndpointKind::Primary.url(public_url),
                EndpointKind::Fallback.url(public_url),
                EndpointKind::Status.url(public_url)
            ),
        ))?;
    } else if seen > ours {
        report.add(Finding::note(
            CHECK,
            format!(
                "further numbers and WhatsApp senders that call other servers: {}",
                seen - ours
            ),
            "nothing to do, unless this server should handle their messages too",
        ))?;
    }
    Ok(())
}

fn unreadable(what: &str, caller: &Caller, error: &RestError) -> Finding {
    Finding::warn(
        CHECK,
        format!("could not read the {what} of {}: {error}", caller.account),
        "try again in a moment; an API key needs the permission to read them, and WhatsApp senders are read from \
         twilio.messaging_url",
    )
}

fn overridden(public_url: &PublicUrl, number: &PhoneNumber, application: &str) -> Option<Finding> {
    let inbound = UrlTarget::of(public_url, number.webhooks.inbound.as_deref());
    inbound.is_ours().then(|| {
        Finding::warn(
            CHECK,
            format!(
                "number {} ({:?}) has this server's URL, and an application ({application}) whose URLs are called instead",
                number.sid, number.number
            ),
            format!("remove the application: {NUMBER}; or enter this server's URLs in it"),
        )
    })
}

fn offline(public_url: &PublicUrl, sender: &WhatsAppSender) -> Option<Finding> {
    let inbound = UrlTarget::of(public_url, sender.webhooks.inbound.as_deref());
    // The status is empty if Twilio did not report one.
    let online = sender.status.is_empty() || sender.status.starts_with("ONLINE");
    (inbound.is_ours() && !online).then(|| {
        Finding::warn(
            CHECK,
            format!(
                "sender {} ({:?}) is {}: it neither gets nor sends messages",
                sender.sid, sender.address, sender.status
            ),
            format!("see why: {SENDER}"),
        )
    })
}

/// Returns the findings for a sender, or none if it does not use this server for its messages.
fn judge(public_url: &PublicUrl, place: &ConfiguredSender) -> Vec<Finding> {
    let webhooks = &place.webhooks;
    let pointing = |url: &Option<String>| UrlTarget::of(public_url, url.as_deref());
    let inbound = pointing(&webhooks.inbound);
    let fallback = pointing(&webhooks.fallback);
    let status = pointing(&webhooks.status);
    if !inbound.is_ours() && !fallback.is_ours() {
        return Vec::new();
    }
    let judged = Judged { public_url, place };
    let mut findings = Vec::new();
    // One finding for swapped URLs, instead of one for each.
    if (inbound.end(), fallback.end())
        == (Some(EndpointKind::Fallback), Some(EndpointKind::Primary))
    {
        findings.push(Finding::fail(
            CHECK,
            format!(
                "{} has primary and fallback the wrong way round",
                place.what
            ),
            format!(
                "enter {} as the webhook for incoming messages and {} as its fallback: {}",
                EndpointKind::Primary.url(public_url),
                EndpointKind::Fallback.url(public_url),
                place.way()
            ),
        ));
    } else {
        findings.extend(judged.inbound(inbound));
        findings.extend(judged.fallback(fallback, inbound));
    }
    findings.extend(judged.status(status));
    if findings.is_empty() {
        let role = if inbound.is_ours() {
            "calls this server"
        } else {
            "has this server as its fallback"
        };
        findings.push(Finding::ok(CHECK, format!("{} {role}", place.what)));
    }
    findings
}

/// A sender and the public URL that its webhooks are compared with.
struct Judged<'a> {
    public_url: &'a PublicUrl,
    place: &'a ConfiguredSender,
}

impl Judged<'_> {
    fn inbound(&self, pointing: UrlTarget) -> Option<Finding> {
        match pointing {
            UrlTarget::At(EndpointKind::Primary) | UrlTarget::Elsewhere => None,
            UrlTarget::Nowhere => Some(self.wrong(
                EndpointKind::Primary,
                Severity::Fail,
                "has a fallback and no webhook for incoming messages",
            )),
            other => self.crooked(EndpointKind::Primary, other),
        }
    }

    fn fallback(&self, pointing: UrlTarget, inbound: UrlTarget) -> Option<Finding> {
        match pointing {
            UrlTarget::At(EndpointKind::Fallback) | UrlTarget::Elsewhere => None,
            UrlTarget::Nowhere if !inbound.is_ours() => None,
            UrlTarget::Nowhere => Some(self.wrong(
                EndpointKind::Fallback,
                Severity::Warn,
                "has no fallback: a message that the primary cannot answer is lost",
            )),
            UrlTarget::At(EndpointKind::Primary) | UrlTarget::Nearly(EndpointKind::Primary, _)
                if inbound.end() == Some(EndpointKind::Primary) =>
            {
                Some(self.wrong(
                    EndpointKind::Fallback,
                    Severity::Fail,
                    "has the primary as its fallback too, which then fails the same way",
                ))
            }
            other => self.crooked(EndpointKind::Fallback, other),
        }
    }

    fn status(&self, pointing: UrlTarget) -> Option<Finding> {
        let finding = match pointing {
            UrlTarget::At(EndpointKind::Status) | UrlTarget::Elsewhere => None,
            UrlTarget::Nowhere if !self.place.tells_status => None,
            UrlTarget::Nowhere => Some(self.wrong(
                EndpointKind::Status,
                Severity::Warn,
                "has no status callback: the delivery of TwiML replies is not reported",
            )),
            other => self.crooked(EndpointKind::Status, other),
        };
        // At most a warning: no message is lost without status callbacks.
        finding.map(|finding| Finding {
            ending: Severity::Warn,
            ..finding
        })
    }

    /// Returns the finding for a URL of this server that is not exactly the one of endpoint `should`.
    fn crooked(&self, should: EndpointKind, pointing: UrlTarget) -> Option<Finding> {
        let webhooks = &self.place.webhooks;
        let url = match should {
            EndpointKind::Primary => &webhooks.inbound,
            EndpointKind::Fallback => &webhooks.fallback,
            EndpointKind::Status => &webhooks.status,
        };
        let url = without_secrets(url.as_deref().unwrap_or_default());
        let name = should.name();
        let (ending, found) = match pointing {
            UrlTarget::At(end) | UrlTarget::Nearly(end, _) if end != should => (
                Severity::Fail,
                format!("has the endpoint `{}` as its {name}", end.name()),
            ),
            UrlTarget::Nearly(_, mismatch) => {
                // The server accepts a trailing slash.
                let ending = if mismatch == UrlMismatch::Slash {
                    Severity::Warn
                } else {
                    Severity::Fail
                };
                (
                    ending,
                    format!("has {url} as its {name}, which {}", mismatch.text()),
                )
            }
            UrlTarget::OtherPath => (
                Severity::Fail,
                format!("has {url} as its {name}, which is not an endpoint"),
            ),
            UrlTarget::At(_) | UrlTarget::Nowhere | UrlTarget::Elsewhere => return None,
        };
        Some(self.wrong(should, ending, &found))
    }

    fn wrong(&self, should: EndpointKind, ending: Severity, found: &str) -> Finding {
        let what = match should {
            EndpointKind::Primary => "the webhook for incoming messages",
            EndpointKind::Fallback => "its fallback",
            EndpointKind::Status => "its status callback",
        };
        Finding {
            check: CHECK,
            ending,
            found: format!("{} {found}", self.place.what),
            remedy: Some(format!(
                "enter {} as {what}: {}",
                should.url(self.public_url),
                self.place.way()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [&str; 3] = [
        "https://h.test/a/webhook",
        "https://h.test/a/webhook/fallback",
        "https://h.test/a/webhook/status",
    ];

    /// Returns the severity and text of each finding for a sender called "it".
    fn found(urls: [&str; 3]) -> Vec<String> {
        let (public_url, _) = PublicUrl::parse("https://h.test/a").expect("a public URL");
        let mut webhooks = ConfiguredWebhooks::default();
        let set = |url: &str| (!url.is_empty()).then(|| url.to_owned());
        let [inbound, fallback, status] = urls.map(set);
        (webhooks.inbound, webhooks.fallback, webhooks.status) = (inbound, fallback, status);
        let place = ConfiguredSender {
            what: "it".to_owned(),
            webhooks,
            tells_status: true,
            console: "the console",
            command: None,
        };
        let findings = judge(&public_url, &place);
        for finding in &findings {
            assert_eq!(finding.ending == Severity::Ok, finding.remedy.is_none());
        }
        findings
            .iter()
            .map(|finding| format!("{:?} {}", finding.ending, finding.found))
            .collect()
    }

    // URLs that all point to other servers give no finding.
    #[test]
    fn correct_or_foreign_webhook_urls_raise_no_warning() {
        let [primary, fallback, status] = ENDS;
        assert_eq!(found(ENDS), ["Ok it calls this server"]);
        let elsewhere = "https://other.test/sorry";
        assert_eq!(
            found([primary, elsewhere, status]),
            ["Ok it calls this server"]
        );
        assert_eq!(
            found([elsewhere, fallback, status]),
            ["Ok it has this server as its fallback"]
        );
        assert_eq!(found([elsewhere, elsewhere, status]), [""; 0]);
        assert_eq!(found(["", "", ""]), [""; 0]);
    }

    #[test]
    fn misconfigured_webhook_urls_are_each_reported() {
        let [primary, fallback, status] = ENDS;
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
            assert_eq!(found(urls), expected);
        }
    }
}
