//! Purpose for which a store is opened.

/// Purpose for which a store is opened. See [`StoreHandle`](super::handle::StoreHandle) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Handle messages: the store is owned if only one server can own it, and its schema is updated.
    Owner,
    /// Run an operator's command alongside a server: the schema must be up to date.
    Operator,
    /// Update the schema and do nothing else.
    Migrate,
}
