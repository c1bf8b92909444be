//! A bot that reports the status of an order, whose number it reads from the text.

use replyhook::route::{Captures, Router, command, regex};
use replyhook::{App, AppError, Handler};

// Stands for a database query.
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
        // A number that does not fit `u32` is not an error: the route does not match, and `otherwise` replies.
        .on(regex(r"^(?:order )?#?(\d+)$") | command("order"), status)
        .otherwise("Write your order's number, such as: order 42")
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    App::builder().handler(bot()).build()?.run().await
}
