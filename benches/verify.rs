//! Processor time of the signature verification of a webhook, relative to its unavoidable work.
//!
//! That is one HMAC-SHA1 over the signed bytes, and one decoding of the form with the crate `form_urlencoded`.
//!
//! `cargo bench --bench verify` prints the figures. With `-- --check` it exits with 1 if a limit is missed.

mod figures;
mod webhook;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use figures::{Figures, Run, median};
use hmac::{Hmac, KeyInit, Mac};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use replyhook::signature::{
    PublicUrl, SIGNATURE_HEADER, SIGNATURE_SETTINGS_HEADER, SharedKeyId, SignatureAlgorithm,
    SignatureVerifier, UnverifiedRequest, sign_with,
};
use replyhook::twiml::Document;
use replyhook::{AccountSid, Channel, FormParams, InboundMessage, Reply, Secret, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use sha1::Sha1;
use webhook::{PUBLIC_URL, TARGET, TEXT, TOKEN, Webhook};

/// Limit: time of a verification, divided by the time of one HMAC-SHA1 and one decoding.
const MAX: f64 = 0.6;
/// Limit: time of a verification with a shared key and HMAC-SHA1, divided by the time with the auth token.
// The named key is looked up in addition, which takes less than the figures vary.
const MAX_SHARED_SHA1: f64 = 1.05;
/// Limit: time of a verification with a shared key and HMAC-SHA256, divided by the time with the auth token.
const MAX_SHARED_SHA256: f64 = 1.5;
const ROUNDS: usize = 15;
/// Time of each measured function in each round.
const TIME: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let run = Run::from_args();
    let (rounds, time) = match run {
        Run::List => return ExitCode::SUCCESS,
        Run::Test => (1, Duration::ZERO),
        Run::Measure | Run::Check => (ROUNDS, TIME),
    };
    let webhook = Webhook::numbered(1);
    let body = webhook.body.as_bytes();
    let form = FormParams::parse(body, 512).expect("the body is a form");

    let verifier = verifier(&form);
    // Both signatures are well-formed, so that a forgery is compared like a valid one and not rejected by its shape.
    let good = headers(&webhook);
    let forged = headers(&Webhook::numbered(2));
    let verify = |headers| {
        verifier.verify(&UnverifiedRequest {
            method: &Method::POST,
            target: TARGET,
            headers,
            body,
        })
    };
    assert!(verify(&good).is_ok() && verify(&forged).is_err());
    let shared_sha1 = shared_key_headers(SignatureAlgorithm::HmacSha1, &form);
    let shared_sha256 = shared_key_headers(SignatureAlgorithm::HmacSha256, &form);
    assert!(verify(&shared_sha1).is_ok() && verify(&shared_sha256).is_ok());

    // Created once, like the verifier's keys.
    let key = Hmac::<Sha1>::new_from_slice(TOKEN.as_bytes()).expect("a key of any length");
    let signed = signed_bytes(&form);
    let reply = Reply::text(TEXT);

    // `black_box` on inputs and results: the compiler must neither compute them once for all runs nor leave them out.
    let taken = nanoseconds(
        rounds,
        time,
        &mut [
            &mut || drop(black_box(verify(black_box(&good)))),
            &mut || {
                let mut mac = key.clone();
                mac.update(black_box(&signed));
                black_box(mac.finalize());
                for pair in form_urlencoded::parse(black_box(body)) {
                    black_box(pair);
                }
            },
            &mut || drop(black_box(verify(black_box(&forged)))),
            &mut || {
                // `parse` consumes the form, so the figure includes a copy.
                let form = black_box(&form).clone();
                drop(black_box(InboundMessage::parse(
                    form,
                    Timestamp::UNIX_EPOCH,
                )));
            },
            &mut || {
                drop(black_box(Document::render(
                    black_box(&reply),
                    &Channel::WhatsApp,
                    None,
                )));
            },
            &mut || drop(black_box(verify(black_box(&shared_sha1)))),
            &mut || drop(black_box(verify(black_box(&shared_sha256)))),
        ],
    );
    let mut figures = Figures::new(run);
    figures.show(
        "verification, from the raw body to the result",
        taken[0],
        "ns",
    );
    figures.show("one HMAC-SHA1 and one form decoding", taken[1], "ns");
    figures.limit(
        "verification / (HMAC-SHA1 + decoding)",
        taken[0] / taken[1],
        "×",
        MAX,
    );
    figures.limit(
        "verification with a shared key, HMAC-SHA1 / auth token",
        taken[5] / taken[0],
        "×",
        MAX_SHARED_SHA1,
    );
    figures.limit(
        "verification with a shared key, HMAC-SHA256 / auth token",
        taken[6] / taken[0],
        "×",
        MAX_SHARED_SHA256,
    );
    figures.show("verification of a forgery", taken[2], "ns");
    figures.show(
        "InboundMessage::parse, with a copy of the form",
        taken[3],
        "ns",
    );
    figures.show("Document::render", taken[4], "ns");
    figures.end()
}

fn headers(webhook: &Webhook) -> HeaderMap {
    let signature =
        HeaderValue::from_str(&webhook.signature).expect("base64 is a valid header value");
    let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, form);
    headers.insert(SIGNATURE_HEADER, signature);
    headers
}

/// Returns a verifier with the token, and with a shared key that has the token as its secret.
// Both belong to an account, as in a server with `TWILIO_ACCOUNT_SID`: both kinds of requests are checked for it.
fn verifier(form: &FormParams) -> SignatureVerifier {
    let (url, _) = PublicUrl::parse(PUBLIC_URL).expect("the URL is valid");
    let account = form.get("AccountSid").map(AccountSid::parse);
    let account = account.and_then(Result::ok).expect("the form has one");
    SignatureVerifier::new(url, [Secret::new(TOKEN)])
        .map(|verifier| verifier.with_default_account(account))
        .and_then(|verifier| verifier.with_shared_key(shared_key(), account, &Secret::new(TOKEN)))
        .expect("the token is a key")
}

fn shared_key() -> SharedKeyId {
    SharedKeyId::parse("webhooks_sharedkey_01h455vb4pex5vsknk084sn02q").expect("an ID")
}

/// Returns the headers of the same request, signed with the shared key.
fn shared_key_headers(algorithm: SignatureAlgorithm, form: &FormParams) -> HeaderMap {
    let url = format!("{PUBLIC_URL}{TARGET}");
    let signature = sign_with(algorithm, &Secret::new(TOKEN), &url, Some(form));
    let webhook = Webhook {
        body: String::new(),
        signature: signature.expect("the token is a key"),
    };
    let settings = HeaderValue::from_str(&shared_key().settings_header(algorithm));
    let mut headers = headers(&webhook);
    headers.insert(SIGNATURE_SETTINGS_HEADER, settings.expect("an ID is ASCII"));
    headers
}

/// Returns the bytes that Twilio signs: the URL, then each name and value, sorted, without separators.
fn signed_bytes(form: &FormParams) -> Vec<u8> {
    let mut pairs: Vec<_> = form.iter().collect();
    pairs.sort_unstable();
    let pairs = pairs.iter().map(|(name, value)| format!("{name}{value}"));
    let text = format!("{PUBLIC_URL}{TARGET}{}", pairs.collect::<String>());
    text.into_bytes()
}

/// Returns the time of one call of each function, in nanoseconds: the median of all rounds.
// The functions take turns in each round, so that a disturbance of the machine affects all of them, and not one ratio.
fn nanoseconds(rounds: usize, time: Duration, pieces: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    // Calibrated once, so that all rounds of a function have the same number of calls.
    let counts: Vec<u32> = pieces
        .iter_mut()
        .map(|piece| repeats(time, piece))
        .collect();
    let mut taken = vec![Vec::new(); pieces.len()];
    for _ in 0..rounds {
        for ((piece, count), taken) in pieces.iter_mut().zip(&counts).zip(&mut taken) {
            taken.push(cpu_time(*count, piece).as_secs_f64() * 1e9 / f64::from(*count));
        }
    }
    taken.into_iter().map(median).collect()
}

/// Returns the number of calls that take at least `time`: a power of two.
fn repeats(time: Duration, piece: &mut dyn FnMut()) -> u32 {
    let mut count = 1;
    while cpu_time(count, piece) < time {
        count *= 2;
    }
    count
}

/// Returns the processor time of this thread for `count` calls.
// Not the wall clock: time in which other processes have the processor does not count.
fn cpu_time(count: u32, piece: &mut dyn FnMut()) -> Duration {
    let now =
        || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it starts at zero");
    let start = now();
    for _ in 0..count {
        piece();
    }
    now().saturating_sub(start)
}
