//! One version everywhere: what a release names is what Cargo.toml says.

use std::{fs, path::Path};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
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
fn chart_and_image_have_the_version_of_the_workspace() {
    for (path, mark, least) in [
        ("manifests/chart/Chart.yaml", "\nversion: ", 1),
        ("manifests/chart/Chart.yaml", "\nappVersion: ", 1),
        ("manifests/chart/Chart.yaml", "ghcr.io/taskgate/taskgate:", 1),
        ("manifests/base/deployment.yaml", "ghcr.io/taskgate/taskgate:", 1),
    ] {
        let text = read(path);
        let found: Vec<_> = versions(&text, mark).collect();
        assert!(found.len() >= least && found.iter().all(|found| *found == VERSION), "{path}: {mark:?}: {found:?}");
    }
}

#[test]
fn pages_name_no_other_image() {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let entries = fs::read_dir(docs).expect("docs");
    let names = entries.map(|entry| entry.expect("a page").file_name().to_string_lossy().into_owned());
    pages.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
    for page in pages {
        for found in versions(&read(&page), "taskgate/taskgate:") {
            assert_eq!(found, VERSION, "{page}");
        }
    }
}

/// The krew manifest and the archives take their version from the argument, which the Makefile reads from Cargo.toml.
#[test]
fn the_artifacts_of_a_release_take_the_version_as_their_argument() {
    let (dist, makefile) = (read(".ci/dist"), read("Makefile"));
    assert!(makefile.contains(".ci/dist $(VERSION)") && dist.contains("version=$1"));
    for part in [".ci/dist", ".ci/image", ".github/workflows/release.yml"] {
        assert!(!read(part).contains(VERSION), "{part} has a version of its own");
    }
}
