//! Questions with choices: how they are asked, delivered and answered.

mod answers;
mod asking;
mod delivery;
mod dialogue;
mod forward;
mod outbound;
#[cfg(feature = "testing")]
mod phone;
mod rules;
#[cfg(feature = "testing")]
mod templates;
