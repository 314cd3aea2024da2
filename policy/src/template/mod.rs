//! Templates of policies: labels, annotations, queue names, priority classes and `itemKey`, all compiled and rendered in the same
//! way.
//!
//! ```text
//! when a policy is read:  Templates::of (dialect, tera) -> Templates::text -> Text, tried on a sample
//! when it is applied:     Context -> Text::render, within a Budget
//! ```
//!
//! The time and the output of a template are bounded: [`dialect`] explains how for Tera, and `taskgate-gotemplate` counts steps.
//!
//! Imports `kubernetes` and `issue_source`. Called by `matching` when a policy is compiled, and by `metadata`, `queueing`, `retry` and
//! `admission` when it is applied.

mod context;
mod dialect;
mod filters;
mod source_fields;
mod tera;

use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use serde_json::{Value, json};
use taskgate_api::{TaskPolicySpec, task_policy::TemplateEngine};
use taskgate_gotemplate::{Cause as GoCause, Limits, Template as Parsed, Unprintable};

pub(crate) use context::{Keys, Managed, Sees};
pub use context::{TEMPLATE_FIELDS, TemplateInput};
pub(crate) use source_fields::reads_source_fields;
pub(crate) use tera::Roots;

use self::{
    context::{Context, ITEM_FIELDS, MAX_ENTRIES, SOURCE_FIELDS},
    tera::TeraTemplate,
};
use crate::kubernetes::Problem;

/// How many labels and annotations a policy may set together.
pub(crate) const MAX_KEYS: usize = 64;
/// The longest template, in bytes.
pub(crate) const MAX_SOURCE: usize = 2048;
/// The largest sum of a policy's templates, in bytes: it bounds the memory of a compiled policy.
pub(crate) const MAX_SOURCES: usize = 16 * 1024;
/// What any render takes of the budget.
const BASE_COST: u32 = 50;

/// The work that the templates of one admission review may still take, over all policies: about one unit for a byte of a Tera
/// template, 32 for a filter, one for a step of a Go template, and 50 for each render.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    left: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: Self::REVIEW }
    }
}

impl Budget {
    /// What a review may take: hundreds of ordinary templates; the worst ones take less than a tenth of a second.
    pub(crate) const REVIEW: u32 = 100_000;

    /// Takes `cost`. Errors when there is not so much left; then there is nothing left for others either.
    fn take(&mut self, cost: u32) -> Result<(), Failure> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.exhaust()),
        }
    }

    fn exhaust(&mut self) -> Failure {
        self.left = 0;
        Failure {
            cause: Cause::Budget,
            message: "the templates of all policies for this object are too much work together".to_owned(),
        }
    }
}

/// Why a template gives nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// Where and why, in one line.
    pub(crate) message: String,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something that the template needs is not there.
    Missing,
    /// A limit of the template was reached.
    Limit,
    /// The budget of the review is used up.
    Budget,
    /// The template applies an operation to a value of the wrong type.
    Misuse,
}

/// A literal text, without whitespace around it, or a template; compiled once when the policy is read.
#[derive(Debug)]
pub(crate) enum Text {
    Literal(String),
    Tera(Arc<TeraTemplate>),
    Go(GoTemplate),
}

/// The object that templates are rendered over, and the work that they may still take.
#[derive(Debug)]
pub(crate) struct Rendering<'s> {
    input: TemplateInput<'s>,
    sees: Sees<'s>,
    context: OnceCell<Context>,
    budget: Budget,
}

impl<'s> Rendering<'s> {
    pub(crate) fn new(input: TemplateInput<'s>, sees: Sees<'s>, budget: Budget) -> Self {
        Self {
            input,
            sees,
            context: OnceCell::new(),
            budget,
        }
    }

    /// `text` over the object, of at most `max` bytes, without the whitespace around it. A literal costs nothing.
    pub(crate) fn render<'t>(&mut self, text: &'t Text, max: usize) -> Result<Cow<'t, str>, Failure> {
        let context = || self.context.get_or_init(|| Context::of(&self.input, self.sees));
        text.render(context, max, &mut self.budget)
    }

    /// The name that `text` gives. Errors with why there is none, in one line.
    pub(crate) fn name(&mut self, text: &Text) -> Result<String, String> {
        let text = self.render(text, Text::MAX_NAME).map_err(|failure| failure.message)?;
        if text.is_empty() {
            return Err("the template gives nothing for this Task".to_owned());
        }
        Ok(text.into_owned())
    }

    /// What is left.
    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }
}

impl Text {
    /// The longest name that a template may give, in bytes, before it is trimmed.
    pub(crate) const MAX_NAME: usize = 1024;

    /// The text over what `context` gives, of at most `max` bytes before it is trimmed: the last newline of a YAML block (`|`) and the
    /// spaces around an `if` are not part of what an author means.
    fn render<'c>(
        &self,
        context: impl FnOnce() -> &'c Context,
        max: usize,
        budget: &mut Budget,
    ) -> Result<Cow<'_, str>, Failure> {
        let text = match self {
            Self::Literal(text) => return Ok(Cow::Borrowed(text)),
            Self::Tera(template) => template.render(context(), max, budget)?,
            Self::Go(template) => template.render(context(), max, budget)?,
        };
        Ok(Cow::Owned(text.trim().to_owned()))
    }
}

/// A compiled Go template.
#[derive(Debug)]
pub(crate) struct GoTemplate(Parsed);

impl GoTemplate {
    fn compile(source: &str) -> Result<Self, String> {
        Parsed::parse(source).map(Self).map_err(|error| error.to_string())
    }

    /// The text that the template gives over `context`: at most `max` bytes.
    fn render(&self, context: &Context, max: usize, budget: &mut Budget) -> Result<String, Failure> {
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

/// The templates of one policy. Those in Tera's syntax share one engine, and equal ones are compiled once.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    tera: HashMap<String, Result<Arc<TeraTemplate>, String>>,
}

impl Templates {
    /// Compiles the Tera templates of `spec`. Errors where there are more, or longer ones, than a policy may have: nothing is
    /// compiled then.
    pub(crate) fn of(spec: &TaskPolicySpec) -> Result<Self, Problem> {
        let metadata = spec.metadata.as_ref();
        let keys = metadata.map_or(0, |section| section.labels.len() + section.annotations.len());
        let engine = metadata.and_then(|section| section.engine).unwrap_or_default();
        let item_key = spec
            .failure_policy
            .as_ref()
            .and_then(|section| section.item_key.as_ref());
        let values = metadata
            .into_iter()
            .flat_map(|section| section.labels.values().chain(section.annotations.values()))
            .chain(&spec.queue_name)
            .chain(&spec.queue_priority_class);
        let sources = || values.clone().filter(|source| is_template(source));
        let length: usize = sources().chain(item_key).map(String::len).sum();
        let problem = |message| Problem {
            field: "spec.metadata".to_owned(),
            message,
        };
        if keys > MAX_KEYS {
            let message = format!("labels and annotations have {keys} keys together; a policy may have {MAX_KEYS}");
            return Err(problem(message));
        }
        if length > MAX_SOURCES {
            let message =
                format!("the templates have {length} bytes together; those of a policy may have {MAX_SOURCES}");
            return Err(problem(message));
        }
        let tera = sources().filter(|_| engine == TemplateEngine::Tera);
        let item_key = item_key.into_iter().filter(|source| is_template(source));
        Ok(Self {
            tera: tera::compile(tera.chain(item_key).map(String::as_str)),
        })
    }

    /// The compiled `source`, one of the policy, whose language is `engine`; a Tera template may begin with `roots`. Errors
    /// with what is wrong and where, in one line.
    pub(crate) fn text(&self, engine: TemplateEngine, source: &str, roots: Roots) -> Result<Text, String> {
        if !is_template(source) {
            return Ok(Text::Literal(source.trim().to_owned()));
        }
        Ok(match engine {
            TemplateEngine::Tera => {
                let compiled = self.tera.get(source).cloned();
                let template = compiled.unwrap_or_else(|| Err("not a template of this policy".to_owned()))?;
                template.check_names(roots)?;
                Text::Tera(template)
            }
            TemplateEngine::GoTemplate => {
                if source.len() > MAX_SOURCE {
                    return Err(too_long());
                }
                Text::Go(GoTemplate::compile(source)?)
            }
        })
    }

    /// The same, and renders it over samples of what is known at `moment`; `max`: bytes.
    pub(crate) fn tried(
        &self,
        engine: TemplateEngine,
        source: &str,
        max: usize,
        moment: Moment,
    ) -> Result<Tried, String> {
        let text = self.text(engine, source, Roots::All)?;
        let doubt = try_on(&text, source, max, moment)?;
        Ok(Tried { text, doubt })
    }
}

/// A template that was rendered over samples.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) text: Text,
    /// Why it gives nothing for the realistic sample, if so; it works for another one.
    pub(crate) doubt: Option<String>,
}

/// When a template is rendered: it decides which inputs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A Task gets its labels and annotations.
    Task,
    /// Kelos creates the Job of a Task: neither the Task's creator nor the fields of the issue source are known.
    Job,
}

/// Samples in which every input is known: first a realistic one, then variations of it.
struct Samples([Context; 3]);

static TASK_SAMPLES: LazyLock<Samples> = LazyLock::new(|| Samples::of(&sample()));
static JOB_SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let mut sample = sample();
    let mut remove = |pointer: &str, name: &str| {
        let map = sample.pointer_mut(pointer).and_then(Value::as_object_mut);
        map.map(|map| map.remove(name));
    };
    remove("", "user");
    for (field, name) in ITEM_FIELDS.iter().filter(|(field, _)| SOURCE_FIELDS.contains(field)) {
        remove("/item", field);
        remove("", name);
    }
    Samples::of(&sample)
});

/// An ordinary Task of a spawner for GitHub issues.
fn sample() -> Value {
    let labels = json!({"team": "blue", "size": "XL", "priority": "high"});
    let mut sample = json!({
        "item": {
            "id": "42", "title": "Fix the login page", "kind": "Issue", "number": 42,
            "labels": ["priority/critical", "bug", "size/XL", "area/web", "team/blue", "a", "b", "c", "d", "e"],
            "url": "https://github.com/acme/shop/issues/42", "branch": "kelos/fixer-42", "author": "octocat",
            "body": "It breaks.", "time": "2026-11-21T03:00:00Z", "schedule": "0 3 * * *",
        },
        "task": {
            "metadata": {
                "name": "fixer-42", "namespace": "agents", "labels": labels,
                "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"},
            },
            "spec": {
                "type": "claude-code", "model": "claude-opus-4-5", "effort": "high",
                "image": "ghcr.io/kelos-dev/claude-code:v0.30.0", "branch": "kelos/fixer-42", "upstreamRepo": "acme/shop",
                "workspaceRef": {"name": "shop"}, "workerPoolRef": {"name": "pool"},
                "agentConfigRefs": [{"name": "base"}, {"name": "reviewer"}], "dependsOn": ["fixer-40", "fixer-41"],
            },
        },
        "spawner": {"metadata": {"name": "fixer", "labels": labels}},
        "workspace": {"name": "shop", "repo": "https://github.com/acme/shop.git", "ref": "main"},
        "namespace": {"name": "agents", "labels": labels, "metadata": {"name": "agents", "labels": labels}},
        "user": "system:serviceaccount:agents:kelos-spawner",
    });
    for (field, name) in ITEM_FIELDS {
        sample[name] = sample["item"][field].clone();
    }
    sample
}

impl Samples {
    /// `realistic`, and the same with texts that are long and have every usual separator, or are numbers; both with long lists.
    fn of(realistic: &Value) -> Self {
        let long = "a1-B2_c3.d4/e5:f6, g7@h8#i9\n".repeat(20);
        let varied = |text: &str| {
            let mut sample = realistic.clone();
            vary(&mut sample, text);
            sample
        };
        Self([realistic.clone(), varied(&long), varied("42")].map(Context::from))
    }
}

fn vary(value: &mut Value, text: &str) {
    match value {
        Value::String(own) => text.clone_into(own),
        Value::Array(items) => {
            for item in &mut *items {
                vary(item, text);
            }
            *items = items.iter().cycle().take(MAX_ENTRIES).cloned().collect();
        }
        Value::Object(map) => map.values_mut().for_each(|value| vary(value, text)),
        _ => {}
    }
}

/// Renders `text`, whose source is `source`, over the samples of `moment` when the policy is written, to catch what only fails when
/// a template runs. Errors with what is wrong with a template that works for none of them: it reads a name that does not exist, or
/// never fits its values. One that only does not suit the realistic sample may well suit the author's Tasks: that is a doubt, which is
/// returned.
///
/// Nothing is known of labels, annotations and the item's labels, which depend on the object: one that is missing is no doubt.
fn try_on(text: &Text, source: &str, max: usize, moment: Moment) -> Result<Option<String>, String> {
    if matches!(text, Text::Literal(_)) {
        return Ok(None);
    }
    let Samples([realistic, variations @ ..]) = match moment {
        Moment::Task => &*TASK_SAMPLES,
        Moment::Job => &*JOB_SAMPLES,
    };
    let failure = |context| text.render(|| context, max, &mut Budget::default()).err();
    let Some(failed) = failure(realistic) else {
        return Ok(None);
    };
    let depends_on_object = ["labels", "annotations", "Labels"]
        .iter()
        .any(|name| source.contains(name));
    if failed.cause == Cause::Missing && depends_on_object {
        return Ok(None);
    }
    if variations.iter().all(|context| failure(context).is_some()) {
        return Err(failed.message);
    }
    Ok(Some(failed.message))
}

/// Whether `source` is a template, and no literal, in either language.
pub fn is_template(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|opening| source.contains(opening))
}

fn too_long() -> String {
    format!("the template is longer than {MAX_SOURCE} bytes")
}

/// `message` with the line and column of a position in `source`.
fn at(source: &str, at: usize, message: &str) -> String {
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[start..].chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

#[cfg(test)]
mod tests;
