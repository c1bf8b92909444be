//! The same spans by OTLP over HTTP.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

use crate::config::TelemetrySettings;

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Traces that may still be waiting; dropped, they are sent.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        // A receiver that is gone must not hold up the end.
        let _ = self.0.shutdown_with_timeout(Duration::from_secs(2));
    }
}

/// The layer, if a receiver is configured. Spans of ours only, whatever the log's level is.
pub(super) fn layer(settings: &TelemetrySettings) -> Option<(BoxedLayer, Traces)> {
    let endpoint = settings.otlp_endpoint.as_ref()?;
    crate::tls::install_provider();
    // The batch processor exports from a thread of its own, and so with a blocking client.
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build();
    // Only a URL that is none fails here, and the settings have checked it.
    let exporter = exporter
        .inspect_err(|error| tracing::error!(%error, "traces cannot be exported"))
        .ok()?;
    let resource = Resource::builder().with_service_name("replyhook").build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("replyhook"));
    let ours = Targets::new().with_target("replyhook", tracing::Level::DEBUG);
    Some((spans.with_filter(ours).boxed(), Traces(provider)))
}
