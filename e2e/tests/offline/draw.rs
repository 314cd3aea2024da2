//! Random objects, each from values that make decisions differ.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

/// Random choices that a seed repeats.
pub(crate) struct Chance(StdRng);

/// The user of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    /// Groups that the API server does not add itself.
    pub(crate) groups: &'static [&'static str],
}

/// The group that may do everything.
const ALL: &[&str] = &["system:masters"];

/// Users that create objects.
pub(crate) const CREATORS: [User; 4] = [
    user("ann", ALL),
    user("system:serviceaccount:kelos-system:kelos-controller", ALL),
    user("system:serviceaccount:team:ci", ALL),
    user("taskgate-tester", ALL),
];
/// Users that change objects: one is taskgate itself, one may delete nothing, and one Tasks of every other namespace.
const CHANGERS: [User; 5] = [
    user("ann", ALL),
    user("system:serviceaccount:kelos-system:kelos-controller", ALL),
    user("system:serviceaccount:taskgate-system:taskgate", ALL),
    user("carl", &[]),
    user("dora", &[]),
];

const fn user(name: &'static str, groups: &'static [&'static str]) -> User {
    User { name, groups }
}

/// Queues that policies and creators ask for. Where there is Kueue, each namespace has some of them.
pub(crate) const QUEUES: [&str; 4] = ["agents", "q-codex", "q-claude-code", "own"];
/// Priority classes that policies ask for. Where there is Kueue, it has the first one.
pub(crate) const CLASSES: [&str; 2] = ["high", "unheard-of"];
/// The spawners of every namespace.
pub(crate) const SPAWNERS: [&str; 3] = ["fixer", "nightly", "Reviewer"];
/// The Workspaces of every namespace; what Tasks name besides does not exist.
pub(crate) const WORKSPACE: &str = "app";
/// How many items of a spawner may have a WorkItem.
pub(crate) const ITEMS: u32 = 12;

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.0.random_ratio(1, times)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0.random_range(0..bound)
    }

    pub(crate) fn one_of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        values.choose(&mut self.0).expect("there is something to choose from")
    }

    pub(crate) fn creator(&mut self) -> User {
        *self.one_of(&CREATORS)
    }

    pub(crate) fn changer(&mut self) -> User {
        *self.one_of(&CHANGERS)
    }

    /// A Task that may be made in a namespace. `number` makes its name unique.
    pub(crate) fn task(&mut self, number: usize) -> Value {
        let mut metadata = json!({"name": format!("task-{number}"), "labels": {}, "annotations": {}});
        let spawner = *self.one_of(&SPAWNERS);
        match self.below(8) {
            0 => {}
            1 => metadata["annotations"]["taskgate.dev/item"] = json!(format!("item {}", self.below(ITEMS))),
            2 => metadata["name"] = json!(format!("{}-x{number}", spawner.to_lowercase())),
            3 => {
                // A generated name is no item: it is stated, or there is none.
                if self.once_in(2) {
                    metadata["annotations"]["taskgate.dev/item"] = json!(format!("item {}", self.below(ITEMS)));
                }
                let fields = metadata.as_object_mut().expect("it is an object");
                fields.remove("name");
                fields.insert(
                    "generateName".to_owned(),
                    json!(format!("{}-", "g".repeat(5 + number % 60))),
                );
            }
            _ => metadata["annotations"]["kelos.dev/source-number"] = json!(self.below(ITEMS + 3).to_string()),
        }
        if !self.once_in(6) {
            metadata["labels"]["kelos.dev/taskspawner"] = json!(spawner);
        }
        if self.once_in(3) {
            metadata["labels"]["team"] = json!(self.one_of(&["blue", "red"]));
        }
        if self.once_in(20) {
            metadata["labels"]["marked"] = json!("yes");
        }
        if self.once_in(25) {
            metadata["annotations"]["taskgate.dev/cancel"] = json!("left over");
            metadata["annotations"]["taskgate.dev/cancelled-by"] = json!("user:bob");
        }
        if self.once_in(15) {
            metadata["labels"]["kueue.x-k8s.io/queue-name"] =
                json!(self.one_of(&["own", "Not Legal"]).replace(' ', "-").to_lowercase());
        }
        if self.once_in(10) {
            metadata["finalizers"] = json!(["example.com/held"]);
        }
        if self.once_in(40) {
            metadata["name"] = json!(format!("{}-{number}", "long".repeat(16)));
        }
        let version = self.one_of(&["v1alpha2", "v1alpha1"]);
        json!({"apiVersion": format!("kelos.dev/{version}"), "kind": "Task", "metadata": metadata,
            "spec": self.task_spec()})
    }

    /// Makes the metadata of `object`, which is to be created, odd: in one way, because the API server reports only the first value
    /// that it cannot decode.
    pub(crate) fn spoil_metadata(&mut self, object: &mut Value, number: usize) {
        let long = "x".repeat(64);
        let metadata = &mut object["metadata"];
        let name = metadata["name"].clone();
        match self.below(20) {
            0 => metadata["name"] = json!(format!("Task_{number}")),
            1 => metadata["name"] = json!(format!("{}{number}", "n".repeat(250))),
            2 => metadata["name"] = json!(number),
            3 => _ = metadata.as_object_mut().map(|metadata| metadata.remove("name")),
            4 => metadata["generateName"] = json!("Gen_"),
            5 if name.is_string() => metadata["generateName"] = json!("also-"),
            6 => metadata["labels"]["issue"] = json!(42),
            7 => metadata["labels"]["urgent"] = json!(true),
            8 => metadata["labels"]["nothing"] = Value::Null,
            9 => metadata["labels"] = json!({"team": null}),
            10 => metadata["labels"]["my key"] = json!("a"),
            11 => metadata["labels"]["team"] = json!(self.one_of(&["Platform Team", "a/b", &long, "-"])),
            12 => metadata["labels"][*self.one_of(&["a/b/c", "/x", "E.com/x", "x/", ""])] = json!("a"),
            13 => metadata["annotations"]["my key"] = json!("a"),
            14 => metadata["annotations"]["big"] = json!("x".repeat(256 * 1024)),
            15 => metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}]),
            16 => metadata["finalizers"] = json!(["a b"]),
            17 => metadata["label"] = json!({}),
            18 => metadata["annotations"] = json!("text"),
            _ => *metadata = json!("text"),
        }
    }

    fn task_spec(&mut self) -> Value {
        let agent = self.one_of(&["claude-code", "codex", "gemini"]);
        let mut spec = json!({"prompt": "Do what has to be done", "type": agent, "credentials": {"type": "none"}});
        if self.once_in(3) {
            spec["ttlSecondsAfterFinished"] = self
                .one_of(&[json!(0), json!(60), json!(60.0), json!(86_400), Value::Null])
                .clone();
        }
        if self.once_in(3) {
            spec["workspaceRef"] = json!({"name": self.one_of(&[WORKSPACE, "absent", "Not A Name"])});
        }
        if self.once_in(12) {
            spec["podOverrides"] = json!({"resources": {"limits": {"cpu": self.one_of(&["1000m", "1", "0.5"])}}});
        }
        if self.once_in(6) {
            spec["model"] = json!("large");
        }
        match self.below(40) {
            0 => spec["type"] = json!("unknown-agent"),
            1 => spec["ttlSecondsAfterFinished"] = json!(-1),
            2 => _ = spec.as_object_mut().map(|spec| spec.remove("credentials")),
            3 => spec["promt"] = json!("misspelt"),
            4 => _ = spec.as_object_mut().map(|spec| spec.remove("prompt")),
            5 => spec["worker"] = json!({"type": "codex", "credentials": {"type": "none"}}),
            _ => {}
        }
        spec
    }

    /// A Job, mostly one that Kelos makes for the stored Task `owner`.
    pub(crate) fn job(&mut self, number: usize, owner: &Value) -> Value {
        let name = owner["metadata"]["name"].as_str().unwrap_or_default();
        let mut reference = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": name,
            "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true});
        let mut labels = json!({"kelos.dev/task": name, "kelos.dev/managed-by": "kelos-controller"});
        match self.below(24) {
            0 => reference["uid"] = json!("11111111-2222-3333-4444-555555555555"),
            1 => reference["controller"] = json!(false),
            2 => reference["apiVersion"] = json!("tekton.dev/v1"),
            3 => reference["kind"] = json!("CronJob"),
            4 => _ = labels.as_object_mut().map(|labels| labels.remove("kelos.dev/task")),
            5 => reference["apiVersion"] = json!("kelos.dev/v1alpha1"),
            6 => reference["name"] = json!("missing"),
            7 => {
                _ = reference
                    .as_object_mut()
                    .map(|reference| reference.remove("controller"));
            }
            _ => {}
        }
        if self.once_in(8) {
            labels["kueue.x-k8s.io/queue-name"] = json!("own");
        }
        if self.once_in(10) {
            labels["team"] = json!("green");
        }
        let template_labels = labels.clone();
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": format!("job-{number}"), "labels": labels, "ownerReferences": [reference]},
            "spec": {"backoffLimit": 1, "template": {
                "metadata": {"labels": template_labels},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}]},
            }},
        });
        if self.once_in(6) {
            job["spec"]["suspend"] = json!(self.once_in(2));
        }
        if self.once_in(12) {
            _ = job["metadata"]
                .as_object_mut()
                .map(|metadata| metadata.remove("ownerReferences"));
        }
        if self.once_in(30) {
            job["metadata"]["annotations"] = json!({"taskgate.dev/stopped": "before"});
        }
        job
    }
}
