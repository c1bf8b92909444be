//! Future of a store operation.

use futures_util::future::BoxFuture;

use super::error::StoreError;

/// Future that a store's methods return.
///
/// ```
/// use replyhook::store::StoreFuture;
///
/// struct NullStore;
///
/// impl NullStore {
///     /// Has the signature of `Store::check`.
///     fn check(&self) -> StoreFuture<'_, ()> {
///         Box::pin(async move { Ok(()) })
///     }
/// }
/// # let _ = NullStore.check();
/// ```
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;
