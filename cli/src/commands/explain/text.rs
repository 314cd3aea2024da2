//! The story for people.

use super::story::Story;
use crate::output::Style;

/// A line each, and beneath it what can be done.
pub(super) fn text(story: &Story, style: Style) -> String {
    let state = paint(&story.state, style);
    let mut lines = vec![format!("{} in namespace {}: {state}", story.object, story.namespace)];
    for line in &story.lines {
        let topic = format!("{:<9}", format!("{:?}", line.topic));
        lines.push(format!("  {}  {}", style.faint(topic), line.text));
        let beneath = |text: String| format!("  {:<9}  → {text}", "");
        lines.extend(line.advice.clone().map(beneath));
        lines.extend(line.command.as_ref().map(|command| {
            let needs = line.needs.map(|needs| style.faint(format!("  (needs {needs})")));
            beneath(format!("{}{}", style.good(command), needs.unwrap_or_default()))
        }));
    }
    lines.join("\n") + "\n"
}

fn paint(state: &str, style: Style) -> String {
    match state {
        "CircuitBroken" | "Failed" | "Open" | "ItemsStopped" => style.bad(state),
        "Succeeded" | "Completed" | "Running" | "Closed" | "NoItemStopped" => style.good(state),
        _ => style.warning(state),
    }
}
