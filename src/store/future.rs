//! Future of a store operation.

use futures_util::future::BoxFuture;

use super::error::StoreError;

/// Future that a store's methods return.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;
