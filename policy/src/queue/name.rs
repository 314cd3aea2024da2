//! A queue's or a priority class' name, as a policy gives it.

use serde_json::Value;
use taskgate_api::kelos::Task;

use crate::{
    identity::Surroundings,
    item_key::ItemKey,
    names::{clip, is_subdomain},
};

/// The longest name. Kueue's objects may have longer ones, but a Job names them by label, and a label value ends here.
const MAX_NAME: usize = 63;

/// A name: as it is written, or as a template gives it for a Task.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    /// The name itself, a legal one.
    Literal(String),
    /// What gives the name.
    Template(Box<ItemKey>),
}

impl Name {
    /// Reads `text`. Errors with what is wrong with it, in one line.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        if text.contains("{{") || text.contains("{%") {
            return ItemKey::compile(text).map(Box::new).map(Self::Template);
        }
        legal(text).map(|()| Self::Literal(text.to_owned()))
    }

    /// The name for `task`, whose whole object is `object`. Errors with why there is none, in one line.
    pub(crate) fn render(&self, task: Task<'_>, object: &Value, known: &Surroundings<'_>) -> Result<String, String> {
        match self {
            Self::Literal(name) => Ok(name.clone()),
            Self::Template(template) => {
                let name = template.render(task, object, known)?;
                legal(&name).map(|()| name)
            }
        }
    }
}

/// Whether `name` may be the name of a queue or a priority class. Kueue refuses a Job with any other (kueue §2), and a
/// Job that is refused keeps Kelos' branch lock.
pub(crate) fn legal(name: &str) -> Result<(), String> {
    if is_subdomain(name) && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(format!(
        "{:?} is not a DNS-1123 subdomain of at most {MAX_NAME} characters, which Kueue demands",
        clip(name, 64)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_names_are_checked_when_they_are_read() {
        for good in ["agents", "a.b-c", "7", &"q".repeat(63)] {
            assert!(
                matches!(Name::compile(good), Ok(Name::Literal(name)) if name == good),
                "{good}"
            );
        }
        for bad in [
            "",
            "two words",
            "Agents",
            "-a",
            &"q".repeat(64),
            &"q".repeat(300),
            "{{ open",
            "{{ nobody }}",
        ] {
            assert!(Name::compile(bad).is_err(), "{bad}");
        }
    }
}
