//! Objects from files, folders and standard input: every document with the place where it stands, and for every text that
//! cannot be read the place of its first fault. One bad document hides no other.

mod files;
mod items;
mod split;

use std::{io::Read as _, path::PathBuf};

use serde::Serialize;
use serde_json::Value;

pub use files::Progress;

/// Where an object begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file as it was named, `-` for standard input.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
}

/// One object, as JSON.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it stands. An item of a list stands where it begins in the list, or where the list does if that cannot be told.
    pub place: Place,
    /// The object. It has an `apiVersion` and a `kind`.
    pub object: Value,
}

/// A text that is no object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The file as it was named.
    pub file: String,
    /// Where the fault is, counted from 1; `None` when the file itself cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// What was found, in the order of the arguments, and of names within a folder.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The objects.
    pub objects: Vec<Document>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
    /// How many documents in folders are YAML but no Kubernetes objects, such as the values of a chart.
    pub foreign: usize,
}

impl Documents {
    /// Reads `paths`: files, folders with all that is in them (`.yaml`, `.yml`, `.json`; nothing hidden, no links to folders),
    /// and `-`, standard input. `progress` is told how far it is.
    pub fn read(paths: &[PathBuf], progress: Progress<'_>) -> Self {
        files::read(paths, progress)
    }

    /// Reads `text`, which is called `file`.
    pub fn of_text(file: &str, text: &str) -> Self {
        split::documents(file, text, false)
    }

    /// Adds what `other` holds.
    pub fn extend(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.unreadable.extend(other.unreadable);
        self.foreign += other.foreign;
    }
}

fn stdin() -> Documents {
    let mut text = String::new();
    match std::io::stdin().lock().read_to_string(&mut text) {
        Ok(_) => Documents::of_text("-", &text),
        Err(error) => Documents {
            unreadable: vec![Unreadable {
                file: "-".to_owned(),
                line: None,
                column: None,
                message: error.to_string(),
            }],
            ..Documents::default()
        },
    }
}
