//! A bot that finds the shop nearest to the location that a user shares.

use replyhook::route::{Router, location};
use replyhook::{App, AppError, Handler, InboundMessage};

/// Address, latitude and longitude of each shop, in degrees north and east.
const SHOPS: [(&str, f64, f64); 3] = [
    ("Gran Vía 1, Madrid", 40.4193, -3.6970),
    ("Rambla 7, Barcelona", 41.3809, 2.1730),
    ("Calle Larios 3, Málaga", 36.7196, -4.4213),
];

async fn nearest(message: InboundMessage) -> Option<String> {
    // Always present, because `location()` matched. `None` would be an empty reply.
    let here = message.location?;
    let distances = SHOPS.map(|(address, north, east)| (here.km_to(north, east), address));
    // `total_cmp`, because `f64` has no `Ord`.
    let nearest = distances.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
    nearest.map(|(km, address)| format!("{address}: {km:.0} km from you."))
}

pub(crate) fn bot() -> impl Handler {
    Router::new()
        .on(location(), nearest)
        .otherwise("Share your location, and I find the nearest shop.")
}

#[tokio::main]
async fn main() -> Result<(), AppError> {
    App::builder().handler(bot()).build()?.run().await
}
