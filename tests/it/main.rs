//! Promises of the whole, one file each. What needs more than Rust says so when it is left out; `./scripts/test` brings it.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod support;

mod command_line;
mod configuration;
mod deploy_files;
mod explanations;
mod fallback;
mod handlers;
mod house_rules;
mod lifecycle;
mod limits;
mod messages;
mod parts;
mod privacy;
mod readme;
mod replies;
mod sdk;
mod signatures;
mod status;
mod traces;
