//! Reads many files: found in order, read on as many threads as there are processors, returned in order.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Documents, UnreadableDocument, in_parallel, split};

/// Called with the number of read files and of all files, from several threads.
pub type ProgressFn<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A file to read, or why it cannot be found.
type FoundFile = Result<InputFile, UnreadableDocument>;

struct InputFile {
    /// `-` for standard input.
    path: PathBuf,
    /// Found in a directory rather than named: it may contain no objects.
    found: bool,
}

pub(super) fn read(paths: &[PathBuf], progress: ProgressFn<'_>) -> Documents {
    let mut files = Vec::new();
    for path in paths {
        if let Err(error) = find(path, false, &mut files) {
            files.push(Err(unreadable(path, &error)));
        }
    }
    let done = AtomicUsize::new(0);
    let parts = in_parallel(&files, |file| {
        let part = load(file);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, files.len());
        part
    });
    let mut all = Documents::default();
    for part in parts {
        all.extend(part);
    }
    all
}

/// Adds the files at `path`, those of a directory in the order of their names.
fn find(path: &Path, found: bool, files: &mut Vec<FoundFile>) -> io::Result<()> {
    if is_stdin(path) || !fs::metadata(path)?.is_dir() {
        let path = path.to_owned();
        files.push(Ok(InputFile { path, found }));
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A link to a directory may lead back to a parent.
        let kind = entry.file_type()?;
        let is_objects = || {
            let extension = path.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("yaml" | "yml" | "json"))
        };
        if kind.is_dir() {
            if let Err(error) = find(&path, true, files) {
                files.push(Err(unreadable(&path, &error)));
            }
        } else if is_objects() && !path.is_dir() {
            files.push(Ok(InputFile { path, found: true }));
        }
    }
    Ok(())
}

fn load(file: &FoundFile) -> Documents {
    let read = file
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|InputFile { path, found }| {
            let text = if is_stdin(path) {
                io::read_to_string(io::stdin())
            } else {
                fs::read_to_string(path)
            };
            let text = text.map_err(|error| unreadable(path, &error))?;
            Ok(split::documents(&name(path), &text, *found))
        });
    read.unwrap_or_else(|unreadable| Documents {
        unreadable: vec![unreadable],
        ..Documents::default()
    })
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn unreadable(path: &Path, error: &io::Error) -> UnreadableDocument {
    UnreadableDocument {
        file: name(path),
        line: None,
        column: None,
        message: error.to_string(),
    }
}
