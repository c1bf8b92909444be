//! What a benchmark prints, and whether its limits hold.

use std::process::ExitCode;

/// How a benchmark was started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// `cargo bench`.
    Measure,
    /// `cargo bench -- --check`: a missed limit is an error.
    Check,
    /// `cargo test --benches`: does it still run?
    Test,
    /// A test runner asks for the names of tests; there are none.
    List,
}

impl Run {
    pub(crate) fn from_args() -> Self {
        let given = |argument: &str| std::env::args().any(|given| given == argument);
        if given("--list") {
            Self::List
        } else if given("--test") || !given("--bench") {
            Self::Test
        } else if given("--check") {
            Self::Check
        } else {
            Self::Measure
        }
    }
}

/// A table, printed row by row.
pub(crate) struct Figures {
    run: Run,
    missed: bool,
}

impl Figures {
    pub(crate) fn new(run: Run) -> Self {
        Self { run, missed: false }
    }

    pub(crate) fn show(&self, what: &str, value: f64, unit: &str) {
        self.row(what, value, unit, "");
    }

    /// A figure that must not exceed `limit`.
    pub(crate) fn limit(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let held = value <= limit;
        self.missed |= !held;
        let verdict = if held { "ok" } else { "MISS" };
        self.row(what, value, unit, &format!("  limit {limit:>6}  {verdict}"));
    }

    #[expect(clippy::print_stdout, reason = "this is what a benchmark is for")]
    fn row(&self, what: &str, value: f64, unit: &str, verdict: &str) {
        // One iteration measures nothing.
        if self.run != Run::Test {
            println!("{what:<56} {value:>9.2} {unit:<2}{verdict}");
        }
    }

    pub(crate) fn end(self) -> ExitCode {
        ExitCode::from(u8::from(self.missed && self.run == Run::Check))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
