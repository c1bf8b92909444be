//! [`Reloadable`]: a value that a reload of the settings replaces.

use std::sync::Arc;

/// Access to a value that a reload of the settings replaces.
///
/// A caller keeps the value that it has loaded: a call in progress ends with the credentials with which it began.
// A function and not a lock around the value: a reload replaces several values together, as parts of one snapshot. The
// type of that snapshot is in `app`, above the modules that read its parts.
pub(crate) struct Reloadable<T>(Arc<dyn Fn() -> Arc<T> + Send + Sync>);

impl<T> Reloadable<T> {
    /// Creates access to the value that `load` returns at each call.
    pub(crate) fn new(load: impl Fn() -> Arc<T> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// Returns the value as it is now.
    pub(crate) fn load(&self) -> Arc<T> {
        (self.0)()
    }
}

impl<T: Send + Sync + 'static> Reloadable<T> {
    /// Creates access to a value that is never replaced.
    pub(crate) fn fixed(value: T) -> Self {
        let value = Arc::new(value);
        Self::new(move || value.clone())
    }
}

// Not derived: that would require `T: Clone`.
impl<T> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
