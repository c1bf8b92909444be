//! Use of the library in another axum server: the router with its worker, or the signature layer alone.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, post};
use replyhook::signature::{
    PublicUrl, RejectionReason, SignatureLayer, SignatureVerifier, SignedForm,
};
use replyhook::{App, Secret};

use crate::support::{ORIGIN, TOKEN, TestApp, Webhook, app, twiml_message};

fn layer() -> SignatureLayer {
    let url = PublicUrl::parse(ORIGIN).unwrap().0;
    SignatureLayer::new(Arc::new(
        SignatureVerifier::new(url, [Secret::new(TOKEN)]).unwrap(),
    ))
}

// The response body names the missing call of worker.run.
#[tokio::test]
async fn router_without_worker_responds_503() {
    let app = App::builder().sources(app::sources(&[])).build().unwrap();
    let (router, worker) = app.into_parts();
    for path in ["/webhook", "/webhook/fallback", "/webhook/status"] {
        let answer = app::call_router(&router, Webhook::message(1, "hi").to(path).request()).await;
        assert!(
            answer.assert_rejected(503).contains("worker.run(shutdown)"),
            "{}",
            answer.body
        );
    }
    drop(worker);
}

#[tokio::test]
async fn router_merged_or_nested_handles_webhooks() {
    let test = TestApp::build(
        &[("PUBLIC_URL", "https://hooks.example.test/bots/a")],
        |app| app,
    );
    let own = Router::new().route("/own", any(|| async { "own" }));
    let merged = own.clone().merge(test.router.clone());
    let nested = own.nest("/bots/a", test.router.clone());
    test.wait_until_ready().await;
    let url = "https://hooks.example.test/bots/a/webhook";
    for router in [&merged, &nested] {
        let answer = app::call_router(
            router,
            Webhook::message(1, "hi")
                .to("/bots/a/webhook")
                .signed_for(url)
                .request(),
        )
        .await;
        assert_eq!(answer.twiml(), twiml_message("hi"));
        let response = app::call_router(
            router,
            http::Request::get("/own")
                .body(axum::body::Body::empty())
                .unwrap(),
        )
        .await;
        assert_eq!(response.body, "own");
    }
}

// The route gets the verified form; the rejection hook gets the explanation.
#[tokio::test]
async fn signature_layer_protects_custom_route() {
    async fn hook(form: SignedForm) -> String {
        form.params().get("Body").unwrap_or_default().to_owned()
    }
    let reported = Arc::new(std::sync::Mutex::new(Vec::new()));
    let report = reported.clone();
    let layer = layer().on_rejection(move |rejection| {
        report.lock().unwrap().push(
            rejection
                .explain()
                .map(|explanation| explanation.to_string()),
        );
        None
    });
    let router = Router::new().route("/mine", post(hook)).layer(layer);
    let good = app::call_router(&router, Webhook::message(1, "hi").to("/mine").request()).await;
    assert_eq!((good.status, good.body.as_str()), (200, "hi"));
    let bad = app::call_router(
        &router,
        Webhook::message(1, "hi")
            .to("/mine")
            .signed_for(&format!("{ORIGIN}/mine/"))
            .request(),
    )
    .await;
    bad.assert_rejected(403);
    assert_eq!(
        reported.lock().unwrap()[0].as_deref().unwrap(),
        format!(
            "signed for {ORIGIN}/mine/ and verified for {ORIGIN}/mine: enter {ORIGIN}/mine in Twilio's console"
        )
    );
}

#[tokio::test]
async fn rejection_reason_is_in_response_extensions() {
    use tower::ServiceExt;
    let router = Router::new()
        .route("/mine", post(|_: SignedForm| async {}))
        .layer(layer());
    let response = router
        .oneshot(
            Webhook::message(1, "hi")
                .to("/mine")
                .signature("")
                .request(),
        )
        .await
        .unwrap();
    let cause = response.extensions().get::<RejectionReason>().unwrap();
    assert_eq!(
        cause.to_string(),
        "the X-Twilio-Signature header is missing"
    );
}

#[tokio::test]
async fn signed_form_without_layer_responds_500() {
    let router = Router::new().route("/mine", post(|_: SignedForm| async {}));
    let answer = app::call_router(&router, Webhook::message(1, "hi").to("/mine").request()).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (500, "internal error\n")
    );
}
