//! A conversation as a Rust test.
use super::engine::Engine;
impl Engine {
    pub(super) fn write_test(&self, _user: &str) -> String {
        String::new()
    }
}
