//! The webhooks beside the pages of an axum server of your own.

use axum::Router;
use axum::routing::get;
use replyhook::{App, Context, InboundMessage};

pub(crate) async fn bot(_cx: Context, message: InboundMessage) -> String {
    format!("You said: {}", message.body)
}

pub(crate) fn site(webhooks: Router) -> Router {
    Router::new()
        .route("/", get(|| async { "Ana's bicycles" }))
        .merge(webhooks)
}

async fn ctrl_c() {
    let _ = tokio::signal::ctrl_c().await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (webhooks, mut worker) = App::builder().handler(bot).build()?.into_parts();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    worker.open().await?;
    let worker = tokio::spawn(worker.run(ctrl_c()));
    axum::serve(listener, site(webhooks))
        .with_graceful_shutdown(ctrl_c())
        .await?;
    worker.await??;
    Ok(())
}
