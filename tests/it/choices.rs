//! Questions with choices: how they are asked, delivered and answered.

mod answers;
mod asking;
mod delivery;
mod forward;
