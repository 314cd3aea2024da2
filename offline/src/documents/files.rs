//! Reads many files: found in order, read on as many threads as there are processors, returned in order.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{Documents, UnreadableDocument, split, stdin};

/// Called with the number of read files and of all files, from several threads.
pub type ProgressFn<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// An input to read.
enum InputSource {
    Stdin,
    File {
        path: PathBuf,
        /// Found in a directory rather than named: it may contain no objects.
        found: bool,
    },
    Missing(UnreadableDocument),
}

pub(super) fn read(paths: &[PathBuf], progress: ProgressFn<'_>) -> Documents {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(InputSource::Stdin);
        } else if let Err(error) = find(path, false, &mut sources) {
            sources.push(InputSource::Missing(unreadable(path, &error)));
        }
    }
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let parts = Mutex::new(Vec::with_capacity(sources.len()));
    let work = || {
        let mut mine = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(source) = sources.get(index) else { break };
            mine.push((index, load(source)));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, sources.len());
        }
        parts
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend(mine);
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(sources.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut parts = parts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    parts.sort_by_key(|(index, _)| *index);
    let mut all = Documents::default();
    for (_, part) in parts {
        all.extend(part);
    }
    all
}

/// Adds the files at `path`, those of a directory in the order of their names.
fn find(path: &Path, found: bool, sources: &mut Vec<InputSource>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        sources.push(InputSource::File {
            path: path.to_owned(),
            found,
        });
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
            if let Err(error) = find(&path, true, sources) {
                sources.push(InputSource::Missing(unreadable(&path, &error)));
            }
        } else if is_objects() && !path.is_dir() {
            sources.push(InputSource::File { path, found: true });
        }
    }
    Ok(())
}

fn load(source: &InputSource) -> Documents {
    let failed = |unreadable| Documents {
        unreadable: vec![unreadable],
        ..Documents::default()
    };
    match source {
        InputSource::Stdin => stdin(),
        InputSource::Missing(missing) => failed(missing.clone()),
        InputSource::File { path, found } => match fs::read_to_string(path) {
            Ok(text) => split::documents(&name(path), &text, *found),
            Err(error) => failed(unreadable(path, &error)),
        },
    }
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
