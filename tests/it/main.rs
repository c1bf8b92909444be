//! Integration tests, one file per feature. Tests that need more than Rust report that they are skipped;
//! `./scripts/test` installs what they need.

#![expect(unreachable_pub, reason = "a test binary has no outside")]
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and a table is as long as it has rows"
)]
#![expect(
    clippy::float_cmp,
    reason = "counters are whole numbers that Prometheus writes as floats"
)]
#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "tests are read more often than they are slow"
)]

#[cfg(feature = "failpoints")]
mod supervision;
mod support;

#[cfg(not(feature = "failpoints"))]
#[test]
fn crash_tests_without_failpoints_are_skipped() {
    support::report_skipped("crashes and kills: built without the feature failpoints");
}

#[cfg(not(feature = "testing"))]
#[test]
fn test_kit_without_testing_feature_is_skipped() {
    support::report_skipped("the test kit: built without the feature testing");
}

mod access_lists;
#[cfg(feature = "testing")]
mod appointment_bots;
mod architecture;
mod audit;
mod choices;
mod command_line;
mod configuration;
mod connections;
mod consent_import;
mod consent_keywords;
mod conversation_events;
mod conversations;
mod core_dumps;
#[cfg(feature = "failpoints")]
mod crash;
mod dead_messages;
mod debounce;
mod deploy_files;
mod dev;
mod dev_bot;
mod developer_pages;

mod diagnostics;
#[cfg(feature = "testing")]
mod dialogues;
mod disk;
mod doctor;
mod embedding;
mod emulator;
mod emulator_access;
mod emulator_sdks;
#[cfg(feature = "postgres")]
mod event_service;
mod events;
#[cfg(feature = "testing")]
mod examples;
mod explanations;
mod fake_twilio;
mod fallback;
mod forward;
mod forward_faults;
mod guards;
mod guide;
mod handlers;
mod handoff;
mod http_api;
mod http_bots;
mod identity_model;
#[cfg(feature = "failpoints")]
mod kill_loop;
mod late_replies;
mod lifecycle;
mod limits;
mod links;
#[cfg(feature = "testing")]
mod llm;
#[cfg(all(feature = "failpoints", feature = "postgres"))]
mod machines;
mod manual;
mod media_flood;
mod media_in;
mod media_out;
mod messages;
mod missing_permission;
mod operations;
mod outage;
#[cfg(feature = "postgres")]
mod outage_elsewhere;
mod ownership;
mod packages;
mod page;
mod payload_types;
mod privacy;
mod readiness;
mod readme;
mod reconcile;
mod reload;
mod replies;
mod reply_length;
mod reply_markdown;
mod reply_order;
mod reply_path;
mod request_heads;
mod reshaped_requests;
mod rest;
mod restoring;
mod routing;
#[cfg(feature = "testing")]
mod rules;
#[cfg(feature = "testing")]
mod saved_tests;
mod sdk;
mod second_sends;
mod senders;
mod sending;
mod shared_keys;
#[cfg(feature = "testing")]
mod shop;
mod signatures;
mod status;
mod store_contract;
mod template_files;
#[cfg(feature = "testing")]
mod test_kit;
mod traces;
mod unverified_bytes;
mod users;
mod wall_clock;
mod webhook_paths;
mod without_token;
