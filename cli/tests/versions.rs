//! One version everywhere: what a release names is what Cargo.toml says.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The text behind each `mark` up to the next white space or sign that is not part of a version.
fn versions<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    let is_version = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    text.split(mark).skip(1).map(move |rest| {
        let end = rest.find(|c| !is_version(c)).unwrap_or(rest.len());
        rest[..end].trim_end_matches('.')
    })
}

#[test]
fn chart_and_image_have_the_version_of_the_workspace() -> Result<()> {
    for (path, mark) in [
        ("manifests/chart/Chart.yaml", "\nversion: "),
        ("manifests/chart/Chart.yaml", "\nappVersion: "),
        ("manifests/chart/Chart.yaml", "ghcr.io/taskgate/taskgate:"),
        ("manifests/base/deployment.yaml", "ghcr.io/taskgate/taskgate:"),
    ] {
        let text = read(path)?;
        let found: Vec<_> = versions(&text, mark).collect();
        ensure!(found == [VERSION], "{path}: {mark:?}: {found:?}");
    }
    Ok(())
}

#[test]
fn pages_name_no_other_image() -> Result<()> {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            pages.push(format!("docs/{name}"));
        }
    }
    for page in pages {
        for found in versions(&read(&page)?, "taskgate/taskgate:") {
            ensure!(found == VERSION, "{page}: {found}");
        }
    }
    Ok(())
}

/// The krew manifest and the archives take their version from the argument, which the Makefile reads from Cargo.toml.
#[test]
fn the_artifacts_of_a_release_have_no_version_of_their_own() -> Result<()> {
    ensure!(read("Makefile")?.contains(".ci/dist $(VERSION)") && read(".ci/dist")?.contains("version=$1"));
    for part in ["Makefile", ".ci/dist", ".ci/image", ".github/workflows/release.yml"] {
        ensure!(!read(part)?.contains(VERSION), "{part}");
    }
    Ok(())
}
