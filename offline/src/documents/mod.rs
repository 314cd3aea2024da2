//! Objects from files, directories and standard input: every document with its location, and for every unreadable one the location
//! of its first error. An unreadable document does not affect the others.
//!
//! Imports nothing of this crate. Called by `case` and by the binary.

mod files;
mod split;
mod value;

use std::{
    fmt, iter,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde::Serialize;
use serde_json::Value;

pub use files::ProgressFn;
pub(crate) use files::read_text;
pub(crate) use value::{ReadValue, typed};

/// Where a document begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SourceLocation {
    /// The file as it was named, `-` for standard input.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
}

/// One object, as JSON.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it begins. For an item of a list, where the item begins, or the list if that is unknown.
    pub location: SourceLocation,
    /// The object. It has an `apiVersion` and a `kind`.
    pub object: Value,
}

/// A document that cannot be read as an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadableDocument {
    /// The file as it was named.
    pub file: String,
    /// The line of the error, counted from 1; `None` when the file itself cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The error.
    pub message: String,
}

impl UnreadableDocument {
    /// The location of the error as far as it is known, such as `policy.yaml:3:7`.
    pub fn location(&self) -> String {
        let numbers = [self.line, self.column].into_iter().flatten();
        numbers.fold(self.file.clone(), |location, number| format!("{location}:{number}"))
    }
}

/// A field that a document sets more than once. As with kubectl, its last value counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DuplicateField {
    /// Where the document begins.
    pub location: SourceLocation,
    /// The field's path in the document, such as `spec.type`.
    pub field: String,
}

impl fmt::Display for DuplicateField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is set more than once: its last value counts", self.field)
    }
}

/// Documents, in the order of the arguments, and of names within a directory.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The objects.
    pub objects: Vec<Document>,
    /// The documents that cannot be read.
    pub unreadable: Vec<UnreadableDocument>,
    /// The fields that a document sets more than once.
    pub duplicates: Vec<DuplicateField>,
    /// The number of skipped documents in directories: YAML but no Kubernetes objects, such as the values of a chart.
    pub skipped: usize,
}

impl Documents {
    /// Reads `paths`: files, directories recursively (`.yaml`, `.yml`, `.json`; no hidden files, no links to directories), and `-`
    /// for standard input. Calls `progress` after each file.
    pub fn read(paths: &[PathBuf], progress: ProgressFn<'_>) -> Self {
        files::read(paths, progress)
    }

    /// Reads `text`, named `file`.
    pub fn of_text(file: &str, text: &str) -> Self {
        split::documents(file, text, false)
    }

    /// Adds the documents of `other`.
    pub fn extend(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.unreadable.extend(other.unreadable);
        self.duplicates.extend(other.duplicates);
        self.skipped += other.skipped;
    }
}

/// Reads the value of the file `path`, which need not be an object: YAML or JSON.
pub fn read_value(path: &Path) -> Result<Value, UnreadableDocument> {
    let file = path.to_string_lossy().into_owned();
    let text = read_text(path).map_err(|error| files::unreadable(path, &error))?;
    let read = value::typed::<ReadValue>(&text);
    let read = read.map_err(|error| UnreadableDocument { file, ..error })?;
    Ok(read.value)
}

/// Applies `map` to all items, on as many threads as there are processors; the results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], map: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let index = next.fetch_add(1, Ordering::Relaxed);
        Some((index, items.get(index)?))
    };
    let work = || {
        iter::from_fn(take)
            .map(|(index, item)| (index, map(item)))
            .collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let mut results = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
