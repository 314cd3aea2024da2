//! A snapshot from files: the output of `kubectl get -o yaml`, or manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::anyhow;
use serde_json::Value;
use taskgate_api::metadata::Metadata;
use taskgate_offline::Documents;

use super::{context::ExplainContext, object::ObjectName};
use crate::{
    commands::snapshot::{Collection, Snapshot},
    exit::CommandError,
    output::ProgressLine,
};

/// The objects of files, by collection, namespace and name. Of two with the same name the later one counts.
#[derive(Debug, Default)]
pub(super) struct Files {
    objects: BTreeMap<(Collection, String, String), Arc<Value>>,
    /// What could not be read, with its location.
    pub(super) problems: Vec<String>,
}

impl Files {
    /// Reads files, folders, and `-`, standard input. Objects without a namespace are in `default`.
    pub(super) fn read(paths: &[PathBuf], default: &str) -> Self {
        let progress = ProgressLine::new("reading files");
        let documents = Documents::read(paths, &|done, total| progress.at(done, total));
        let problems = documents.unreadable.iter().map(|bad| {
            let location = [bad.line, bad.column]
                .into_iter()
                .flatten()
                .map(|number| format!(":{number}"));
            format!("{}{}: {}", bad.file, location.collect::<String>(), bad.message)
        });
        let problems = problems.collect();
        let objects = documents.objects.into_iter().map(|document| document.object);
        Self {
            problems,
            ..Self::of(objects, default)
        }
    }

    pub(super) fn of(objects: impl IntoIterator<Item = Value>, default: &str) -> Self {
        let mut files = Self::default();
        for mut object in objects {
            let Some(collection) = Collection::of(&object) else {
                continue;
            };
            let metadata = Metadata::of(&object);
            let Some(name) = metadata.name().map(ToOwned::to_owned) else {
                continue;
            };
            let namespace = match (collection.is_namespaced(), metadata.namespace()) {
                (false, _) => String::new(),
                (true, namespace) => namespace.unwrap_or(default).to_owned(),
            };
            if collection.is_namespaced() {
                object["metadata"]["namespace"] = namespace.as_str().into();
            }
            files.objects.insert((collection, namespace, name), Arc::new(object));
        }
        files
    }

    /// The objects in `namespace`, and those without a namespace.
    pub(super) fn snapshot(&self, namespace: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for collection in Collection::EXPLAIN {
            let namespace = if collection.is_namespaced() { namespace } else { "" };
            let here = self
                .objects
                .iter()
                .filter(|((of, at, _), _)| *of == collection && at == namespace);
            snapshot.put(collection, Ok(here.map(|(_, object)| object.clone()).collect()));
        }
        snapshot
    }

    /// The one namespace that has the object.
    pub(super) fn namespace_of(&self, object: &ObjectName, default: &str) -> Result<String, CommandError> {
        let namespaces: BTreeSet<_> = self
            .objects
            .keys()
            .map(|(_, namespace, _)| namespace.as_str())
            .collect();
        let mut found = Vec::new();
        for namespace in namespaces.into_iter().filter(|namespace| !namespace.is_empty()) {
            let snapshot = self.snapshot(namespace);
            // An ambiguous name is in the namespace as well.
            if !matches!(object.find(&ExplainContext::new(namespace, &snapshot)), Ok(None)) {
                found.push(namespace);
            }
        }
        match found.as_slice() {
            [] => Ok(default.to_owned()),
            [namespace] => Ok((*namespace).to_owned()),
            several => Err(CommandError::Usage(format!(
                "it is in namespaces {}: name one with -n",
                several.join(", ")
            ))),
        }
    }

    /// Errors when there are no objects.
    pub(super) fn not_empty(self) -> Result<Self, CommandError> {
        if self.objects.is_empty() {
            let problems = if self.problems.is_empty() {
                String::new()
            } else {
                format!(": {}", self.problems.join("; "))
            };
            return Err(anyhow!("there is nothing to explain in these files{problems}").into());
        }
        Ok(self)
    }
}
