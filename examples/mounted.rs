//! The webhook router, merged into the axum server of a website.

use axum::Router;
use axum::routing::get;
use replyhook::{App, Context, InboundMessage};

pub(crate) async fn bot(_cx: Context, message: InboundMessage) -> String {
    format!("You said: {}", message.body)
}

pub(crate) fn site(webhooks: Router) -> Router {
    Router::new()
        .route("/", get(|| async { "Ana's bicycles" }))
        // Middleware outside the webhook router must neither rewrite the URI nor read the body: Twilio signs both.
        .merge(webhooks)
}

// SIGINT alone. A deployment also needs SIGTERM, with which Docker, Kubernetes and systemd stop a process.
async fn ctrl_c() {
    let _ = tokio::signal::ctrl_c().await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (webhooks, mut worker) = App::builder().handler(bot).build()?.into_parts();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    // Opened before `serve`, so that an unusable store ends the program before it accepts a request.
    worker.open().await?;
    // Without a running worker the webhooks respond with 503.
    let worker = tokio::spawn(worker.run(ctrl_c()));
    axum::serve(listener, site(webhooks))
        .with_graceful_shutdown(ctrl_c())
        .await?;
    // Waits after the last request: its handler may still run, and a late reply may still have to be sent.
    worker.await??;
    Ok(())
}
