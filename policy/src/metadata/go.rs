//! Go templates, as seed 004 writes them: `{{.Title}}`, `{{index .Labels 0}}`.

use taskgate_gotemplate::{Cause as GoCause, Limits, Template as Parsed, Unprintable};

use super::{
    context::Context,
    engine::{Cause, Failure, Template},
};

/// A compiled Go template.
#[derive(Debug)]
pub(super) struct GoTemplate(Parsed);

impl GoTemplate {
    pub(super) fn compile(source: &str) -> Result<Self, String> {
        Parsed::parse(source).map(Self).map_err(|error| error.to_string())
    }
}

impl Template for GoTemplate {
    fn render(&self, context: &Context, max: usize) -> Result<String, Failure> {
        let limits = Limits {
            bytes: max,
            ..Limits::default()
        };
        match self.0.render(context.json(), limits, Unprintable::Refuse) {
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
