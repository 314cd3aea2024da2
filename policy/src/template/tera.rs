//! Tera templates: `{{ item.url }}`.
//!
//! Tera has no access to files, network, environment, clock or randomness: those are in crates that are not used here. It does
//! not count its work while it runs; [`dialect`] explains why it need not.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Write},
    sync::{Arc, LazyLock},
};

use tera::{ErrorKind, Tera};

use super::{
    Budget, Cause, Failure,
    context::{Context, ITEM_FIELDS},
    dialect, filters,
};
use crate::kubernetes::clip;

/// The engine without templates: those of each policy begin with it, and share its filters.
static ENGINE: LazyLock<Tera> = LazyLock::new(|| {
    let mut engine = Tera::new();
    filters::register(&mut engine);
    engine
});
/// The names that a template may begin with, besides those of the item's fields.
const ROOTS: [&str; 6] = ["item", "task", "spawner", "workspace", "namespace", "user"];
/// Those that `itemKey` may begin with: what names an item must not depend on the item.
const ITEM_KEY_ROOTS: [&str; 3] = ["task", "spawner", "namespace"];

/// Which names a template may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// All that a [`Context`] has.
    All,
    /// Those that name an item.
    ItemKey,
}

impl Roots {
    fn have(self, name: &str) -> bool {
        match self {
            Self::All => ROOTS.contains(&name) || ITEM_FIELDS.iter().any(|(_, field)| *field == name),
            Self::ItemKey => ITEM_KEY_ROOTS.contains(&name),
        }
    }

    fn list(self) -> String {
        match self {
            Self::All => ROOTS.join(", "),
            Self::ItemKey => ITEM_KEY_ROOTS.join(", "),
        }
    }
}

/// A compiled Tera template.
pub(crate) struct TeraTemplate {
    /// Holds all templates of the policy.
    engine: Arc<Tera>,
    name: String,
    cost: u32,
}

impl std::fmt::Debug for TeraTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TeraTemplate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Compiles the templates of one policy, into one engine. For each source the template, or what is wrong and where, in one
/// line.
pub(super) fn compile<'s>(
    sources: impl Iterator<Item = &'s str>,
) -> HashMap<String, Result<Arc<TeraTemplate>, String>> {
    let sources: BTreeSet<_> = sources.collect();
    if sources.is_empty() {
        return HashMap::new();
    }
    let mut engine = ENGINE.clone();
    let mut results = Vec::new();
    let mut accepted = Vec::new();
    for (index, source) in sources.into_iter().enumerate() {
        let result = dialect::check(source).map(|cost| (index.to_string(), cost));
        if let Ok((name, _)) = &result {
            accepted.push((name.clone(), source));
        }
        results.push((source, result));
    }
    // Together it is one pass over all of them; when one is wrong, which one has to be found out.
    if engine
        .add_raw_templates(accepted.iter().map(|(name, source)| (name, source)))
        .is_err()
    {
        for (source, result) in &mut results {
            if let Ok((name, _)) = result
                && let Err(error) = engine.add_raw_template(name, source)
            {
                *result = Err(failure(&error).message);
            }
        }
    }
    let engine = Arc::new(engine);
    let template = |(name, cost)| {
        let engine = Arc::clone(&engine);
        Arc::new(TeraTemplate { engine, name, cost })
    };
    let results = results.into_iter();
    results
        .map(|(source, result)| (source.to_owned(), result.map(template)))
        .collect()
}

impl TeraTemplate {
    /// Errors when the template reads a name that `roots` does not have.
    pub(super) fn check_names(&self, roots: Roots) -> Result<(), String> {
        let names = self.engine.get_template_variables(&self.name);
        let names = names.map_err(|error| failure(&error).message)?;
        match names.into_iter().filter(|name| !roots.have(name)).min() {
            Some(unknown) => Err(format!("{unknown} is not known; there are {}", roots.list())),
            None => Ok(()),
        }
    }

    /// The text that the template gives over `context`: at most `max` bytes.
    pub(super) fn render(&self, context: &Context, max: usize, budget: &mut Budget) -> Result<String, Failure> {
        budget.take(self.cost)?;
        let mut output = Bounded::new(max);
        match self.engine.render_to(&self.name, context.tera(), &mut output) {
            Ok(()) => Ok(output.into_text()),
            Err(_) if output.is_full() => Err(Failure {
                cause: Cause::Limit,
                message: format!("the output is longer than {max} bytes"),
            }),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// Tera's error in one line, with line and column.
fn failure(error: &tera::Error) -> Failure {
    let (ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report)) = error.kind() else {
        let message = error.to_string();
        let message = message.lines().next().unwrap_or_default();
        return Failure {
            cause: Cause::Misuse,
            message: clip(message.trim_start_matches("error: "), 160),
        };
    };
    // "Field `x` is not defined. Available fields: …": the list would tell a creator what others keep in their labels.
    let message = report.message();
    let message = message.split(" Available ").next().unwrap_or(message);
    // Tera's filters `first`, `last` and `nth` give none for an entry that a list does not have.
    let missing = ["is not defined", filters::ABSENT, "got `none`"]
        .iter()
        .any(|sign| message.contains(sign));
    let limit = message.contains(filters::TOO_LARGE);
    let span = report.span();
    let message = message.lines().next().unwrap_or_default().trim_end_matches('.');
    Failure {
        cause: match (missing, limit) {
            (true, _) => Cause::Missing,
            (_, true) => Cause::Limit,
            _ => Cause::Misuse,
        },
        message: format!(
            "line {}, column {}: {}",
            span.start_line,
            span.start_col + 1,
            clip(message, 200)
        ),
    }
}

/// A writer of text of a bounded length, so that no template fills the memory.
#[derive(Debug)]
pub(crate) struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    full: bool,
}

impl Bounded {
    /// Takes at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max,
            full: false,
        }
    }

    /// Whether something did not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// What was written.
    pub(crate) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max - self.bytes.len() {
            self.full = true;
            return Err(io::Error::other(format!("the text is longer than {} bytes", self.max)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
