//! Signature validation alone: a tower layer rejects requests that Twilio did not sign, and your code does the rest.
//!
//! The program stores nothing, so a redelivery gets a second reply.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::post;
use http::header::CONTENT_TYPE;
use replyhook::signature::{PublicUrl, SignatureVerifier};
use replyhook::twiml::{self, Document};
use replyhook::{Channel, Reply, Secret, SignatureLayer, SignedForm};

async fn sms(form: SignedForm) -> impl IntoResponse {
    // The parameters that the signature covers. `SignedForm` exists only behind `SignatureLayer`.
    let body = form.params().get("Body").unwrap_or_default();
    let reply = Reply::text(format!("You said: {body}"));
    // A reply that does not fit into TwiML becomes the empty response: this program cannot send via the REST API.
    let twiml = Document::render(&reply, &Channel::Sms, None).unwrap_or(Document::empty());
    ([(CONTENT_TYPE, twiml::CONTENT_TYPE)], twiml.into_xml())
}

pub(crate) fn app(public_url: &str, token: &str) -> Result<Router, Box<dyn std::error::Error>> {
    // Twilio signs the URL that it calls. Behind a proxy that is not the URL that this server receives.
    let (url, _) = PublicUrl::parse(public_url)?;
    let verifier = SignatureVerifier::new(url, [Secret::new(token)])?;
    // Add middleware that rewrites the URI or reads the body inside this layer: the signature covers both.
    let layer = SignatureLayer::new(Arc::new(verifier));
    Ok(Router::new().route("/sms", post(sms)).layer(layer))
}

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    reason = "the example shows which settings it reads"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PUBLIC_URL")?;
    let token = std::env::var("TWILIO_AUTH_TOKEN")?;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    axum::serve(listener, app(&url, &token)?).await?;
    Ok(())
}
