//! Go templates, as the proposal for labels writes them: `{{.Title}}`, `{{index .Labels 0}}`.

use taskgate_gotemplate::{Cause as GoCause, Limits, Template as Parsed, Unprintable};

use super::{BASE_COST, Budget, Cause, Failure, context::Context};

/// A compiled Go template.
#[derive(Debug)]
pub(crate) struct GoTemplate(Parsed);

impl GoTemplate {
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        Parsed::parse(source).map(Self).map_err(|error| error.to_string())
    }

    /// The text that the template gives over `context`: at most `max` bytes.
    pub(super) fn render(&self, context: &Context, max: usize, budget: &mut Budget) -> Result<String, Failure> {
        budget.take(BASE_COST)?;
        let own = Limits::default().steps;
        let limits = Limits {
            bytes: max,
            steps: own.min(budget.left),
        };
        let (result, steps) = self.0.render_counting(context.json(), limits, Unprintable::Refuse);
        if steps > limits.steps && limits.steps < own {
            return Err(budget.exhaust());
        }
        budget.take(steps.min(limits.steps))?;
        match result {
            // A character that was cut in half is stored as U+FFFD, as Kubernetes would from Go.
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(Failure {
                cause: match error.cause {
                    GoCause::Missing => Cause::Missing,
                    GoCause::Limit => Cause::Limit,
                    GoCause::Misuse => Cause::Misuse,
                },
                message: error.to_string(),
            }),
        }
    }
}
