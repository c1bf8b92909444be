//! placeholder
pub mod address; pub mod clock; mod error; pub mod error_code; pub mod form; pub mod handler; pub mod message; pub mod reply; mod secret; pub mod sid; pub mod signature; pub mod twiml;
#[cfg(feature="axum")] mod dispatch; #[cfg(feature="axum")] mod lifecycle; #[cfg(feature="axum")] mod webhook; #[cfg(feature="axum")] pub mod telemetry;
pub use address::{Address, Channel}; pub use clock::{Clock, Timestamp}; pub use error::*; pub use form::Form; pub use handler::{Handler, Context, handler_fn}; pub use message::{InboundMessage}; pub use reply::{Reply, IntoReply}; pub use secret::Secret;
