//! What is entered at Twilio: which of the account's numbers and WhatsApp senders call `PUBLIC_URL`, and which of them
//! nearly do.

use replyhook::config::Settings;
use replyhook::signature::PublicUrl;
use replyhook::twilio::{Client, ConfiguredWebhooks, PhoneNumber, RestError, Sender};

use super::Caller;
use super::finding::{Ending, Finding, Report};
use super::pointing::{End, Flaw, Pointing, without_secrets};

const CHECK: &str = "twilio";
const NUMBER: &str = "Twilio's console, Phone Numbers › Active numbers › the number › Messaging";
const SENDER: &str = "Twilio's console, Messaging › Senders › WhatsApp senders › the sender";

/// A number or sender with its webhooks.
struct Place {
    /// What it is, with a number that is masked.
    what: String,
    webhooks: ConfiguredWebhooks,
    /// Whether its status callback is that of messages.
    tells_status: bool,
    /// Where its URLs are entered.
    console: &'static str,
    /// What enters them all.
    command: Option<String>,
}

impl From<PhoneNumber> for Place {
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

impl From<Sender> for Place {
    fn from(sender: Sender) -> Self {
        Self {
            what: format!("sender {} ({:?})", sender.sid, sender.address),
            webhooks: sender.webhooks,
            tells_status: true,
            console: SENDER,
            command: Some(format!("replyhook sender set {} --from-config", sender.sid)),
        }
    }
}

impl Place {
    /// Where, or how, its URLs are entered.
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
        let mut places = Vec::new();
        match api.phone_numbers(caller.account, &credentials).await {
            Ok(numbers) => {
                for number in numbers {
                    // Its own URLs do not count.
                    if let Some(application) = number.application_sid.clone() {
                        if let Some(finding) = overridden(public_url, &number, &application) {
                            report.add(finding)?;
                        }
                        continue;
                    }
                    places.push(Place::from(number));
                }
            }
            Err(error) => {
                unread = true;
                report.add(unreadable("numbers", caller, &error))?;
            }
        }
        match messaging.whatsapp_senders(&credentials).await {
            Ok(senders) => {
                for sender in senders {
                    let offline = offline(public_url, &sender);
                    places.push(Place::from(sender));
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
        seen += places.len();
        for place in &places {
            let findings = judge(public_url, place);
            ours += usize::from(!findings.is_empty());
            for finding in findings {
                report.add(finding)?;
            }
        }
    }
    if callers.is_empty() || unread && ours == 0 {
        return Ok(());
    }
    if ours == 0 {
        report.add(Finding::warn(
            CHECK,
            format!("of the numbers and WhatsApp senders ({seen}) none calls {public_url}"),
            format!(
                "enter {} as the webhook for incoming messages, {} as its fallback, {} as the status callback: {SENDER} (or \
                 `replyhook sender set SENDER --from-config`), or {NUMBER}. What is entered for the sandbox, and for a Messaging Service, which counts before its senders, \
                 cannot be seen from here: compare it by eye",
                End::Primary.url(public_url),
                End::Fallback.url(public_url),
                End::Status.url(public_url)
            ),
        ))?;
    } else if seen > ours {
        report.add(Finding::note(
            CHECK,
            format!(
                "further numbers and WhatsApp senders that call others: {}",
                seen - ours
            ),
            "nothing, unless this server should answer for them too",
        ))?;
    }
    Ok(())
}

fn unreadable(what: &str, caller: &Caller, error: &RestError) -> Finding {
    Finding::warn(
        CHECK,
        format!("the {what} of {} cannot be read: {error}", caller.account),
        "try again in a moment; an API key needs the right to read them, and twilio.messaging_url is where senders are",
    )
}

fn overridden(public_url: &PublicUrl, number: &PhoneNumber, application: &str) -> Option<Finding> {
    let inbound = Pointing::of(public_url, number.webhooks.inbound.as_deref());
    inbound.is_ours().then(|| {
        Finding::warn(
            CHECK,
            format!(
                "number {} ({:?}) has our URL, and an application ({application}) whose URLs are called instead",
                number.sid, number.number
            ),
            format!("take the application out: {NUMBER}; or enter our URLs in it"),
        )
    })
}

fn offline(public_url: &PublicUrl, sender: &Sender) -> Option<Finding> {
    let inbound = Pointing::of(public_url, sender.webhooks.inbound.as_deref());
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

/// What is to be said of a place; nothing where it is no concern of ours.
fn judge(public_url: &PublicUrl, place: &Place) -> Vec<Finding> {
    let webhooks = &place.webhooks;
    let pointing = |url: &Option<String>| Pointing::of(public_url, url.as_deref());
    let inbound = pointing(&webhooks.inbound);
    let fallback = pointing(&webhooks.fallback);
    let status = pointing(&webhooks.status);
    if !inbound.is_ours() && !fallback.is_ours() {
        return Vec::new();
    }
    let judged = Judged { public_url, place };
    let mut findings = Vec::new();
    if (inbound.end(), fallback.end()) == (Some(End::Fallback), Some(End::Primary)) {
        findings.push(Finding::fail(
            CHECK,
            format!(
                "{} has primary and fallback the wrong way round",
                place.what
            ),
            format!(
                "enter {} as the webhook for incoming messages and {} as its fallback: {}",
                End::Primary.url(public_url),
                End::Fallback.url(public_url),
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

/// A place, and what its URLs should be.
struct Judged<'a> {
    public_url: &'a PublicUrl,
    place: &'a Place,
}

impl Judged<'_> {
    fn inbound(&self, pointing: Pointing) -> Option<Finding> {
        match pointing {
            Pointing::At(End::Primary) | Pointing::Elsewhere => None,
            Pointing::Nowhere => Some(self.wrong(
                End::Primary,
                Ending::Fail,
                "has a fallback and no webhook for incoming messages",
            )),
            other => self.crooked(End::Primary, other),
        }
    }

    fn fallback(&self, pointing: Pointing, inbound: Pointing) -> Option<Finding> {
        match pointing {
            Pointing::At(End::Fallback) | Pointing::Elsewhere => None,
            Pointing::Nowhere if !inbound.is_ours() => None,
            Pointing::Nowhere => Some(self.wrong(
                End::Fallback,
                Ending::Warn,
                "has no fallback: a message that the primary cannot answer is lost",
            )),
            Pointing::At(End::Primary) | Pointing::Nearly(End::Primary, _)
                if inbound.end() == Some(End::Primary) =>
            {
                Some(self.wrong(
                    End::Fallback,
                    Ending::Fail,
                    "has the primary as its fallback too, which then fails the same way",
                ))
            }
            other => self.crooked(End::Fallback, other),
        }
    }

    fn status(&self, pointing: Pointing) -> Option<Finding> {
        let finding = match pointing {
            Pointing::At(End::Status) | Pointing::Elsewhere => None,
            Pointing::Nowhere if !self.place.tells_status => None,
            Pointing::Nowhere => Some(self.wrong(
                End::Status,
                Ending::Warn,
                "has no status callback: what becomes of answers by TwiML is not told",
            )),
            other => self.crooked(End::Status, other),
        };
        // No message is lost by it.
        finding.map(|finding| Finding {
            ending: Ending::Warn,
            ..finding
        })
    }

    /// One that is ours and does not stand where it should.
    fn crooked(&self, should: End, pointing: Pointing) -> Option<Finding> {
        let webhooks = &self.place.webhooks;
        let url = match should {
            End::Primary => &webhooks.inbound,
            End::Fallback => &webhooks.fallback,
            End::Status => &webhooks.status,
        };
        let url = without_secrets(url.as_deref().unwrap_or_default());
        let name = should.name();
        let (ending, found) = match pointing {
            Pointing::At(end) | Pointing::Nearly(end, _) if end != should => (
                Ending::Fail,
                format!("has the endpoint `{}` as its {name}", end.name()),
            ),
            Pointing::Nearly(_, flaw) => {
                let ending = if flaw == Flaw::Slash {
                    Ending::Warn
                } else {
                    Ending::Fail
                };
                (
                    ending,
                    format!("has {url} as its {name}, which {}", flaw.text()),
                )
            }
            Pointing::OtherPath => (
                Ending::Fail,
                format!("has {url} as its {name}, which is no endpoint"),
            ),
            Pointing::At(_) | Pointing::Nowhere | Pointing::Elsewhere => return None,
        };
        Some(self.wrong(should, ending, &found))
    }

    fn wrong(&self, should: End, ending: Ending, found: &str) -> Finding {
        let what = match should {
            End::Primary => "the webhook for incoming messages",
            End::Fallback => "its fallback",
            End::Status => "its status callback",
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

    /// Endings and what is found, without what the place is.
    fn found(urls: [&str; 3]) -> Vec<String> {
        let (public_url, _) = PublicUrl::parse("https://h.test/a").expect("a public URL");
        let mut webhooks = ConfiguredWebhooks::default();
        let set = |url: &str| (!url.is_empty()).then(|| url.to_owned());
        let [inbound, fallback, status] = urls.map(set);
        (webhooks.inbound, webhooks.fallback, webhooks.status) = (inbound, fallback, status);
        let place = Place {
            what: "it".to_owned(),
            webhooks,
            tells_status: true,
            console: "the console",
            command: None,
        };
        let findings = judge(&public_url, &place);
        for finding in &findings {
            assert_eq!(finding.ending == Ending::Ok, finding.remedy.is_none());
        }
        findings
            .iter()
            .map(|finding| format!("{:?} {}", finding.ending, finding.found))
            .collect()
    }

    #[test]
    fn what_is_entered_rightly_is_right_and_what_is_not_ours_is_no_concern() {
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
    fn each_way_to_enter_it_wrongly_is_told() {
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
                    "Warn it has no status callback: what becomes of answers by TwiML is not told",
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
                     long as nothing on the way cuts it",
                    "Fail it has https://h.test/a/sms as its fallback, which is no endpoint",
                ],
            ),
        ] {
            assert_eq!(found(urls), expected);
        }
    }
}
