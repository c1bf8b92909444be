//! Export of trace spans by OTLP over HTTP.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

use super::boxed_layer::BoxedLayer;
use crate::config::TelemetrySettings;

/// Guard that exports the remaining spans when it is dropped.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        // An unreachable receiver must not delay the end of the process by more than this.
        let _ = self.0.shutdown_with_timeout(Duration::from_secs(2));
    }
}

/// Creates the tracing layer, if a receiver is configured.
pub(super) fn layer(settings: &TelemetrySettings) -> Option<(BoxedLayer, Traces)> {
    let endpoint = settings.otlp_endpoint.as_ref()?;
    // The exporter's HTTP client may use TLS, which needs the process's default provider.
    crate::tls::install_provider();
    // A blocking HTTP client is correct here: the batch processor exports from a thread of its own.
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .build();
    // Fails only for an invalid URL, which the settings have already rejected. The server runs without traces then.
    let exporter = exporter
        .inspect_err(|error| tracing::error!(%error, "could not set up the export of traces"))
        .ok()?;
    let resource = Resource::builder().with_service_name("replyhook").build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("replyhook"));
    // Only this crate's spans, independent of `log.level`: traces should not lose spans when logs are made quieter.
    let crate_spans = Targets::new().with_target("replyhook", tracing::Level::DEBUG);
    Some((spans.with_filter(crate_spans).boxed(), Traces(provider)))
}
