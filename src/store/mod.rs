//! The store: the durable record of messages, conversations and REST calls, in SQLite or PostgreSQL.
//!
//! It exists so that no acknowledged message is lost and no user receives two replies. An app gets its store from
//! `DATABASE_URL`, or from [`AppBuilder::store`](crate::AppBuilder::store): a
//! [`SqliteStore`](sqlite::SqliteStore), which is a file for one server, or a
//! [`PostgresStore`](postgres::PostgresStore), which several servers share. [`StoreHandle`] is for your program: it
//! records consents, ends handoffs, and returns customer service windows.
//!
//! ```
//! use replyhook::store::StoreUrl;
//!
//! let url: StoreUrl = "sqlite:replyhook.db".parse()?;
//! assert_eq!(url.to_string(), "sqlite:replyhook.db");
//! assert!("mysql://localhost".parse::<StoreUrl>().is_err());
//! # Ok::<(), replyhook::store::StoreUrlError>(())
//! ```

mod access;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod check;
mod conversations;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod decisions;
mod error;
mod event_data;
mod events;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod expiry;
mod future;
#[cfg(feature = "app")]
mod handle;
mod handoff;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod identity;
mod identity_kind;
#[cfg(feature = "app")]
#[cfg_attr(
    not(feature = "internals"),
    expect(unused_imports, reason = "the library itself needs most of the names")
)]
pub(crate) mod internals;
mod journal;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod link_rows;
mod media;
mod new_inbound;
mod operator;
mod outbound_message;
mod outbox;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod owner;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod packing;
mod redacted_params;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod shared;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod states;
mod store_trait;
mod submission;
mod url;
mod users;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod versions;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use access::Access;
pub use conversations::{
    ConsentAction, ConsentRecord, ConsentScope, ConsentSource, OpenWindow, WINDOW,
};
pub use error::{StoreError, StoreErrorKind};
#[cfg(feature = "app")]
pub use handle::StoreHandle;
#[cfg(feature = "app")]
pub(crate) use internals::*;
#[cfg(feature = "rules")]
pub(crate) use new_inbound::ConsentEffect;
pub use outbound_message::OutboundState;
pub use url::{StoreUrl, StoreUrlError};
