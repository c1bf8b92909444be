//! "Where is my order?": a number is taken out of the text, and the order looked up.

use replyhook::route::{Captures, Router, command, regex};
use replyhook::{App, Handler, StartError};

/// Yours asks a database.
fn find(order: u32) -> Option<&'static str> {
    (order == 42).then_some("leaves today")
}

async fn status(Captures(order): Captures<u32>) -> String {
    match find(order) {
        Some(status) => format!("Order {order} {status}."),
        None => format!("There is no order {order}."),
    }
}

pub(crate) fn bot() -> impl Handler {
    Router::new()
        .on(regex(r"^(?:order )?#?(\d+)$") | command("order"), status)
        .otherwise("Write your order's number, such as: order 42")
}

#[tokio::main]
async fn main() -> Result<(), StartError> {
    App::builder().handler(bot()).build()?.run().await
}
