//! How an agent's run ends.

/// How an agent's run ends, and what it has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub(super) succeeded: bool,
    pub(super) at_once: bool,
    pub(super) exit_code: i32,
    pub(super) log: String,
}

impl Outcome {
    /// Exit code 0: the Job succeeds.
    pub fn succeeded() -> Self {
        Self {
            succeeded: true,
            at_once: false,
            exit_code: 0,
            log: String::new(),
        }
    }

    /// Exit code 1. Kelos' Jobs try twice (kelos T6), the second time after the job controller's 10 s; the
    /// second pod ends like the first.
    pub fn failed() -> Self {
        Self {
            succeeded: false,
            exit_code: 1,
            ..Self::succeeded()
        }
    }

    /// As [`Self::failed`], but the Job fails after the first pod: with the reason it would have had in
    /// the end, `BackoffLimitExceeded`. For tests that have no 10 s to spend.
    pub fn failed_at_once() -> Self {
        Self {
            at_once: true,
            ..Self::failed()
        }
    }

    /// Whether the agent succeeds.
    pub fn is_success(&self) -> bool {
        self.succeeded
    }

    /// The agent's exit code, for `podFailurePolicy`.
    #[must_use]
    pub fn with_exit_code(mut self, code: i32) -> Self {
        self.exit_code = code;
        self
    }

    /// What the agent has printed.
    #[must_use]
    pub fn with_log(mut self, log: &str) -> Self {
        self.log.push_str(log);
        self
    }

    /// Appends a block of outputs as Kelos' entry point prints it; `key: value` lines become results.
    #[must_use]
    pub fn with_outputs<const N: usize>(self, lines: [&str; N]) -> Self {
        let lines = lines.join("\n");
        let block = format!("---KELOS_OUTPUTS_START---\n{lines}\n---KELOS_OUTPUTS_END---\n");
        self.with_log(&block)
    }

    /// Appends a block that tells the usage.
    #[must_use]
    pub fn with_usage(self, cost_usd: &str, input_tokens: u64, output_tokens: u64) -> Self {
        self.with_outputs([
            &format!("cost-usd: {cost_usd}"),
            &format!("input-tokens: {input_tokens}"),
            &format!("output-tokens: {output_tokens}"),
        ])
    }
}
