//! The composition root: builds a router and a worker, or a running server, from settings and your handler.

#[cfg(all(feature = "server", feature = "emulator"))]
mod app_inspector;
mod bot;
mod builder;
mod confirmations;
#[cfg(all(feature = "server", feature = "emulator"))]
mod dev_server;
#[cfg(all(feature = "server", feature = "emulator"))]
mod dev_server_options;
mod files;
mod outbound;
mod parts;
mod reload;
mod rules_file;
#[cfg(feature = "server")]
mod run;
#[cfg(all(feature = "server", feature = "emulator"))]
mod running_app;
mod snapshot;
mod tunnel;

pub use builder::{App, AppBuilder};
#[cfg(all(feature = "server", feature = "emulator"))]
pub use dev_server::DevServer;
#[cfg(all(feature = "server", feature = "emulator"))]
pub use dev_server_options::DevServerOptions;
pub use parts::store_from_url;
pub use reload::ReloadHandle;
