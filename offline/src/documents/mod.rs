//! Objects from files, directories and standard input: every document with its location, and for every unreadable one the location
//! of its first error. An unreadable document does not affect the others.
//!
//! Imports nothing of this crate. Called by `case` and by the binary.

mod files;
mod list_lines;
mod split;

use std::{io::Read as _, path::PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use files::ProgressFn;

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

/// Documents, in the order of the arguments, and of names within a directory.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The objects.
    pub objects: Vec<Document>,
    /// The documents that cannot be read.
    pub unreadable: Vec<UnreadableDocument>,
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
        self.skipped += other.skipped;
    }
}

fn stdin() -> Documents {
    let mut text = String::new();
    match std::io::stdin().lock().read_to_string(&mut text) {
        Ok(_) => Documents::of_text("-", &text),
        Err(error) => Documents {
            unreadable: vec![UnreadableDocument {
                file: "-".to_owned(),
                line: None,
                column: None,
                message: error.to_string(),
            }],
            ..Documents::default()
        },
    }
}
