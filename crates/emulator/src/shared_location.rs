//! [`SharedLocation`]: a location in a message, in either direction.

use serde::{Deserialize, Serialize};

/// Location in a message.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SharedLocation {
    /// Degrees north.
    pub(super) latitude: f64,
    /// Degrees east.
    pub(super) longitude: f64,
    /// Street and city.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
    /// Name of the location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
}

impl SharedLocation {
    /// Returns an explanation if the point is not on Earth.
    pub(super) fn problem(&self) -> Option<String> {
        let is_on_earth =
            (-90.0..=90.0).contains(&self.latitude) && (-180.0..=180.0).contains(&self.longitude);
        (!is_on_earth).then(|| "latitude: -90 to 90, and longitude: -180 to 180 degrees".to_owned())
    }
}
