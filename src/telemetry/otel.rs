//! The same spans by OTLP over HTTP.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

use super::logs::Flush;
use crate::config::TelemetrySettings;

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The layer, if a receiver is configured. Spans of ours only, whatever the log's level is.
pub(super) fn layer(settings: &TelemetrySettings) -> (Option<BoxedLayer>, Flush) {
    let Some(endpoint) = &settings.otlp_endpoint else {
        return (None, Flush { provider: None });
    };
    crate::tls::install_provider();
    // The batch processor exports from a thread of its own, and so with a blocking client.
    let exporter = match SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build()
    {
        Ok(exporter) => exporter,
        Err(error) => {
            tracing::error!(%error, "traces cannot be exported");
            return (None, Flush { provider: None });
        }
    };
    let resource = Resource::builder().with_service_name("replyhook").build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("replyhook"));
    let ours = Targets::new().with_target("replyhook", tracing::Level::DEBUG);
    (
        Some(spans.with_filter(ours).boxed()),
        Flush {
            provider: Some(provider),
        },
    )
}
