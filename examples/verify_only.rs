//! The signature alone: a layer that lets nobody but Twilio through, and the rest is yours. Nothing is kept here, so a
//! repeat is answered again.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::post;
use http::header::CONTENT_TYPE;
use replyhook::signature::{PublicUrl, SignatureVerifier};
use replyhook::twiml::{self, Document};
use replyhook::{Channel, Reply, Secret, SignatureLayer, SignedForm};

async fn sms(form: SignedForm) -> impl IntoResponse {
    let said = form.params().get("Body").unwrap_or_default();
    let reply = Reply::text(format!("You said: {said}"));
    let twiml = Document::render(&reply, &Channel::Sms, None).unwrap_or(Document::empty());
    ([(CONTENT_TYPE, twiml::CONTENT_TYPE)], twiml.into_xml())
}

pub(crate) fn app(public_url: &str, token: &str) -> Result<Router, Box<dyn std::error::Error>> {
    let (url, _) = PublicUrl::parse(public_url)?;
    let verifier = SignatureVerifier::new(url, [Secret::new(token)])?;
    let layer = SignatureLayer::new(Arc::new(verifier));
    Ok(Router::new().route("/sms", post(sms)).layer(layer))
}

#[tokio::main]
#[expect(
    clippy::disallowed_methods,
    reason = "an example has its settings where they are seen"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PUBLIC_URL")?;
    let token = std::env::var("TWILIO_AUTH_TOKEN")?;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    axum::serve(listener, app(&url, &token)?).await?;
    Ok(())
}
