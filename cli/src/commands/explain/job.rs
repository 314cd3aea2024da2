//! A Job that is explained by no Task.

use serde_json::Value;
use taskgate_api::{job::Job, metadata::Metadata};

use super::{
    scene::Scene,
    story::{Line, Story, Topic},
};

pub(super) fn story(scene: &Scene<'_>, job: &Value) -> Story {
    let name = Metadata::of(job).name().unwrap_or_default();
    let (state, line) = if let Some(owner) = Job::of(job).task() {
        let text = format!("it runs for Task {}, which is not there any more", owner.name);
        let line = Line::new(Topic::State, text);
        ("Orphaned", line.advice("Kubernetes deletes it with its Task"))
    } else {
        let text = "no Kelos Task owns it, so that the API server never shows it to taskgate";
        ("NotGoverned", Line::new(Topic::Policy, text))
    };
    Story::new(scene, &format!("Job {name}"), state, vec![line])
}
