//! The same from files: what `kubectl get -o yaml` printed, or what is to be applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::anyhow;
use serde_json::Value;
use taskgate_api::metadata::Metadata;
use taskgate_offline::Documents;

use super::{object::Wanted, scene::Scene};
use crate::{
    commands::{
        Failure,
        snapshot::{Kind, Snapshot},
    },
    output::Progress,
};

/// What was found in files, by kind, namespace and name. Of two of one name the later one counts.
#[derive(Debug, Default)]
pub(super) struct Files {
    objects: BTreeMap<(Kind, String, String), Arc<Value>>,
    /// What could not be read, and where.
    pub(super) problems: Vec<String>,
}

impl Files {
    /// Reads files, folders, and `-`, standard input. What names no namespace is in `default`.
    pub(super) fn read(paths: &[PathBuf], default: &str) -> Self {
        let progress = Progress::new("reading files");
        let documents = Documents::read(paths, &|done, total| progress.at(done, total));
        let problems = documents.unreadable.iter().map(|bad| {
            let place = [bad.line, bad.column]
                .into_iter()
                .flatten()
                .map(|number| format!(":{number}"));
            format!("{}{}: {}", bad.file, place.collect::<String>(), bad.message)
        });
        let problems = problems.collect();
        let objects = documents.objects.into_iter().map(|document| document.object);
        Self {
            problems,
            ..Self::of(objects, default)
        }
    }

    /// What `objects` tell.
    pub(super) fn of(objects: impl IntoIterator<Item = Value>, default: &str) -> Self {
        let mut files = Self::default();
        for mut object in objects {
            let Some(kind) = Kind::of(&object) else { continue };
            let metadata = Metadata::of(&object);
            let Some(name) = metadata.name().map(ToOwned::to_owned) else {
                continue;
            };
            let namespace = match (kind.is_namespaced(), metadata.namespace()) {
                (false, _) => String::new(),
                (true, namespace) => namespace.unwrap_or(default).to_owned(),
            };
            if kind.is_namespaced() {
                object["metadata"]["namespace"] = namespace.as_str().into();
            }
            files.objects.insert((kind, namespace, name), Arc::new(object));
        }
        files
    }

    /// What there is in one namespace, and in none.
    pub(super) fn snapshot(&self, namespace: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for kind in Kind::ALL {
            let place = if kind.is_namespaced() { namespace } else { "" };
            let here = self
                .objects
                .iter()
                .filter(|((of, at, _), _)| *of == kind && at == place);
            snapshot.put(kind, Ok(here.map(|(_, object)| object.clone()).collect()));
        }
        snapshot
    }

    /// The one namespace that has what is wanted.
    pub(super) fn namespace_of(&self, wanted: &Wanted, default: &str) -> Result<String, Failure> {
        let namespaces: BTreeSet<_> = self
            .objects
            .keys()
            .map(|(_, namespace, _)| namespace.as_str())
            .collect();
        let mut found = Vec::new();
        for namespace in namespaces.into_iter().filter(|namespace| !namespace.is_empty()) {
            let snapshot = self.snapshot(namespace);
            // What is not clear in one namespace is there as well.
            if !matches!(wanted.look(&Scene::new(namespace, &snapshot)), Ok(None)) {
                found.push(namespace);
            }
        }
        match found.as_slice() {
            [] => Ok(default.to_owned()),
            [namespace] => Ok((*namespace).to_owned()),
            several => Err(Failure::Usage(format!(
                "it is in namespaces {}: say which with -n",
                several.join(", ")
            ))),
        }
    }

    /// Errors when nothing at all was found.
    pub(super) fn any(self) -> Result<Self, Failure> {
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
