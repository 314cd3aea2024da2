//! Reads many files: found in order, read on as many threads as there are processors, returned in order.

use std::{
    fs,
    io::{self, Read as _},
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
            let text = read_text(path).map_err(|error| unreadable(path, &error))?;
            Ok(split::documents(&name(path), &text, *found))
        });
    read.unwrap_or_else(|unreadable| Documents {
        unreadable: vec![unreadable],
        ..Documents::default()
    })
}

/// The text of a file, in UTF-8, or in UTF-16 behind a byte order mark.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let bytes = if is_stdin(path) {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes)?;
        bytes
    } else {
        fs::read(path)?
    };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the text is no {what}"));
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = bytes.as_chunks::<2>();
        let units: Vec<_> = pairs.iter().copied().map(unit).collect();
        let text = String::from_utf16(&units).ok().filter(|_| odd.is_empty());
        text.ok_or_else(|| invalid("UTF-16"))
    };
    match &bytes[..] {
        [0xff, 0xfe, text @ ..] => wide(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => wide(text, u16::from_be_bytes),
        _ => String::from_utf8(bytes).map_err(|_| invalid("UTF-8")),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> UnreadableDocument {
    UnreadableDocument {
        file: name(path),
        line: None,
        column: None,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_16_is_read_and_a_file_of_another_encoding_hides_no_other() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes);
        let units = || "\u{feff}apiVersion: v1\nkind: Ä\n".encode_utf16();
        write("a.yaml", &units().flat_map(u16::to_le_bytes).collect::<Vec<_>>())?;
        write("b.yaml", &units().flat_map(u16::to_be_bytes).collect::<Vec<_>>())?;
        write("c.yaml", b"\xff\xfeodd")?;
        write("d.yaml", b"kind: \xe4\n")?;
        write("e.yaml", "\u{feff}apiVersion: v1\nkind: Ä\n".as_bytes())?;
        let documents = Documents::read(&[folder.path().to_owned()], &|_, _| ());
        assert!(documents.objects.iter().all(|document| document.object["kind"] == "Ä"));
        assert_eq!(documents.objects.len(), 3);
        let messages: Vec<_> = documents.unreadable.iter().map(|bad| bad.message.as_str()).collect();
        assert_eq!(messages, ["the text is no UTF-16", "the text is no UTF-8"]);
        Ok(())
    }
}
