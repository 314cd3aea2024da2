//! What became of a wish to cancel a Task.

use serde_json::Value;
use taskgate_api::{keys, metadata::Metadata};
use taskgate_policy::{CancelState, Cancellation, announcement, conclusion, requester};

use super::{
    command::command,
    scene::Scene,
    story::{Line, Topic},
};

/// Nothing where nobody asked for it.
pub(super) fn line(scene: &Scene<'_>, task: &Value) -> Option<Line> {
    let cancellation = Cancellation::of(task);
    if cancellation.is_none() {
        return None;
    }
    let name = Metadata::of(task).name().unwrap_or_default();
    let by = requester(&cancellation);
    let Some(stamp) = &cancellation.stamp else {
        let text = "somebody asks for its cancellation, but admission took no note of it: nothing is done";
        let take_back = format!("{}-", keys::CANCEL);
        let command = command([
            "kubectl",
            "-n",
            scene.namespace,
            "annotate",
            "tasks.kelos.dev",
            name,
            &take_back,
        ]);
        return Some(Line::waits(text).command(command, "patch on tasks.kelos.dev"));
    };
    Some(match cancellation.progress {
        None | Some(CancelState::Announced) if cancellation.is_pending() => {
            let withdraw = command(["taskgate", "cancel", name, "--withdraw", "-n", scene.namespace]);
            Line::waits(format!("for its end: it {}", announcement(stamp, &cancellation)))
                .advice("until then the request can be taken back")
                .command(withdraw, "patch and delete on tasks.kelos.dev")
        }
        None | Some(CancelState::Announced) => Line::new(
            Topic::State,
            format!("the cancellation that {by} asked for was taken back"),
        ),
        Some(CancelState::Cancelling) => Line::waits(format!(
            "for its end: the cancellation that {by} asked for is being carried out, and there is no way back"
        )),
        Some(CancelState::Cancelled) => Line::new(
            Topic::State,
            format!(
                "{}: neither a failure nor a success of its item",
                conclusion(&cancellation)
            ),
        ),
        Some(CancelState::TooLate) => Line::new(
            Topic::State,
            format!("it ended by itself before the cancellation that {by} asked for"),
        ),
        Some(CancelState::Refused) => Line::new(
            Topic::State,
            "a cancellation was asked for and refused, as nobody knows by whom",
        ),
    })
}
