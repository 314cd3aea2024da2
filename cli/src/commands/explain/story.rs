//! The story, as lines of data.

use jiff::Timestamp;
use serde::Serialize;
use taskgate_policy::clip;

use super::{item, job, object::Found, scene::Scene, spawner, task, workload};

/// The longest text of a line, in characters.
const MAX_TEXT: usize = 512;

/// What there is to say about an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Story {
    /// As `Task fixer-42`.
    pub(super) object: String,
    pub(super) namespace: String,
    /// In one word.
    pub(super) state: String,
    pub(super) lines: Vec<Line>,
}

/// One thing that there is to say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Line {
    pub(super) topic: Topic,
    pub(super) text: String,
    /// What helps, where no command does, or besides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
    /// What helps, to be run as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    /// Who can do that: the right that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) needs: Option<&'static str>,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Topic {
    /// Where the object stands.
    State,
    /// Which policy governs it, and why that one.
    Policy,
    /// What was changed as it was created, and since.
    Admission,
    /// What it waits for.
    Waits,
    /// What happens by itself.
    Next,
    /// Its item and its attempts.
    Item,
    /// What may not be read, and so is not told.
    Hidden,
}

impl Line {
    pub(super) fn new(topic: Topic, text: impl AsRef<str>) -> Self {
        Self {
            topic,
            text: clip(text.as_ref(), MAX_TEXT),
            advice: None,
            command: None,
            needs: None,
        }
    }

    pub(super) fn waits(text: impl AsRef<str>) -> Self {
        Self::new(Topic::Waits, text)
    }

    pub(super) fn advice(self, advice: impl AsRef<str>) -> Self {
        Self {
            advice: Some(clip(advice.as_ref(), MAX_TEXT)),
            ..self
        }
    }

    /// A command made by [`command`](super::command::command), and the right that it needs.
    pub(super) fn command(self, command: String, needs: &'static str) -> Self {
        Self {
            command: Some(command),
            needs: Some(needs),
            ..self
        }
    }
}

impl Story {
    /// The story of what was found in `scene`.
    pub(super) fn of(scene: &Scene<'_>, found: &Found<'_>, now: Timestamp) -> Self {
        let mut story = match found {
            Found::Task(task) => task::story(scene, task, now),
            Found::Job(job) => job::story(scene, job),
            Found::Item(item) => item::story(scene, item, now),
            Found::Spawner(spawner) => spawner::story(scene, spawner, now),
            Found::Workload(workload) => workload::story(scene, workload, now),
        };
        let hidden = scene.hidden();
        story
            .lines
            .extend(hidden.iter().map(|what| Line::new(Topic::Hidden, what)));
        story
    }

    pub(super) fn new(scene: &Scene<'_>, object: &str, state: &str, lines: Vec<Line>) -> Self {
        Self {
            object: clip(object, MAX_TEXT),
            namespace: clip(scene.namespace, MAX_TEXT),
            state: clip(state, MAX_TEXT),
            lines,
        }
    }
}
