//! Figures of a benchmark: printed as a table, and compared with their limits.

use std::process::ExitCode;

/// Mode in which a benchmark was started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// `cargo bench`: measures, and only reports a missed limit.
    Measure,
    /// `cargo bench -- --check`: measures, and exits with 1 if a limit is missed.
    Check,
    /// `cargo test --benches`: runs everything once with small numbers, to see that it works.
    Test,
    /// `--list`: prints nothing, because a benchmark has no tests.
    List,
}

impl Run {
    /// Reads the mode from the command line.
    pub(crate) fn from_args() -> Self {
        let given = |argument: &str| std::env::args().any(|given| given == argument);
        if given("--list") {
            Self::List
        // Cargo passes `--bench` with `cargo bench` only.
        } else if given("--test") || !given("--bench") {
            Self::Test
        } else if given("--check") {
            Self::Check
        } else {
            Self::Measure
        }
    }
}

/// A table, printed row by row while the benchmark runs.
pub(crate) struct Figures {
    run: Run,
    missed: bool,
}

impl Figures {
    pub(crate) fn new(run: Run) -> Self {
        Self { run, missed: false }
    }

    /// Prints a figure without a limit.
    pub(crate) fn show(&self, what: &str, value: f64, unit: &str) {
        self.row(what, value, unit, "");
    }

    /// Prints a figure that must not exceed `limit`.
    pub(crate) fn limit(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let held = value <= limit;
        self.missed |= !held;
        let verdict = if held { "ok" } else { "MISS" };
        self.row(what, value, unit, &format!("  limit {limit:>6}  {verdict}"));
    }

    #[expect(
        clippy::print_stdout,
        reason = "the table is the output of a benchmark"
    )]
    fn row(&self, what: &str, value: f64, unit: &str, verdict: &str) {
        // A test run measures too little for a figure to mean anything.
        if self.run != Run::Test {
            println!("{what:<56} {value:>9.2} {unit:<2}{verdict}");
        }
    }

    /// Returns the exit code: 1 if a limit was missed with `--check`.
    // Other runs ignore missed limits: in a test run the figures mean nothing, and on a busy machine they vary.
    pub(crate) fn end(self) -> ExitCode {
        ExitCode::from(u8::from(self.missed && self.run == Run::Check))
    }
}

/// Returns the median; of an even number of values the larger middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
