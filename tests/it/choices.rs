//! Questions with choices: how they are asked, delivered and answered.

mod answers;
mod asking;
mod delivery;
mod dialogue;
mod forward;
#[cfg(feature = "testing")]
mod phone;
mod rules;
