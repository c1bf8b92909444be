//! Type of the layers of the tracing subscriber.

use tracing_subscriber::{Layer, Registry};

/// Layer of the tracing subscriber: the log output, or the export of spans.
pub(super) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;
