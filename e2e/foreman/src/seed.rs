//! Outcomes out of a file, for the tour.

use crate::outcome::Outcome;
use crate::types::AgenticTask;
use kube::ResourceExt;
use serde::Deserialize;
use std::time::Duration;

/// What a seed file says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// How tasks end: the first rule that fits counts; none, and it runs for ever.
    pub tasks: Vec<Rule>,
}

/// How some tasks end.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The kind; without it any.
    #[serde(default)]
    pub kind: Option<String>,
    /// How the name begins.
    #[serde(default)]
    pub prefix: String,
    /// Text that the prompt, or what is put before it, must hold.
    #[serde(default)]
    pub prompt: String,
    /// Seconds that it runs.
    pub seconds: u64,
    /// How it ends.
    pub outcome: Outcome,
}

impl Seed {
    /// Reads YAML.
    ///
    /// # Errors
    /// When it is no seed.
    pub fn read(text: &str) -> Result<Self, serde_saphyr::Error> {
        serde_saphyr::from_str(text)
    }

    pub(crate) fn decide(&self, task: &AgenticTask) -> Option<(Duration, Outcome)> {
        let rule = self.tasks.iter().find(|rule| rule.fits(task))?;
        Some((Duration::from_secs(rule.seconds), rule.outcome.clone()))
    }
}

impl Rule {
    fn fits(&self, task: &AgenticTask) -> bool {
        let prompts = ["prompt", "promptPrefix"].map(|field| task.spec.payload[field].as_str().unwrap_or_default());
        self.kind.as_ref().is_none_or(|kind| *kind == task.spec.kind)
            && task.name_any().starts_with(&self.prefix)
            && (self.prompt.is_empty() || prompts.iter().any(|prompt| prompt.contains(&self.prompt)))
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;
    use crate::types::{AgenticTask, AgenticTaskSpec};
    use serde_json::json;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let seed = "tasks:\n\
            - {kind: review, seconds: 1, outcome: {verdict: GO}}\n\
            - {prefix: wl-a, prompt: again, seconds: 2, outcome: {verdict: GO}}\n\
            - {prefix: wl-a, seconds: 3, outcome: {verdict: NO-GO, extra: {outcome: STUCK}}}\n";
        let seed = Seed::read(seed).expect("a seed");
        let decide = |name: &str, kind: &str, prompt: &str| {
            let (kind, payload) = (kind.to_owned(), json!({"promptPrefix": prompt}));
            let spec = AgenticTaskSpec {
                kind,
                payload,
                ..AgenticTaskSpec::default()
            };
            let decided = seed.decide(&AgenticTask::new(name, spec));
            decided.map(|(runs, outcome)| (runs.as_secs(), outcome.verdict))
        };
        assert_eq!(decide("wl-b", "review", ""), Some((1, "GO".to_owned())));
        assert_eq!(decide("wl-a-1", "issue-fix", "once again"), Some((2, "GO".to_owned())));
        assert_eq!(decide("wl-a-1", "issue-fix", ""), Some((3, "NO-GO".to_owned())));
        assert_eq!(decide("wl-b", "issue-fix", ""), None);
    }
}
