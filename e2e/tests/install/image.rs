//! The image: what `make image` assembles is valid, the same each time, and serves admission from its own read-only root.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;
use taskgate_e2e::{ContainerRoot, ControlPlane, Image, Pods, tool};
use tokio::process::Command;

use crate::support::{SYSTEM, apply_overlay, crossing, governed, plane};

/// Assembles an image that must be accepted; the tool reads the layout back and validates it.
async fn assembled(binary: &Path, layout: &Path, flags: &[&str]) -> anyhow::Result<Image> {
    Image::assemble(binary, layout, flags)
        .await?
        .map_err(|refused| anyhow::anyhow!("{}", refused.stderr))
}

#[tokio::test]
async fn the_same_binary_gives_the_same_digest_and_another_gives_another() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    // Programs of this machine's architecture that are smaller than taskgate.
    let binary = tool("helm").await?;
    let other = binary.with_file_name("supervise");
    let folder = cp.dir().join("images");
    let flags = [
        "-source=https://example.com/source",
        "-revision=abc",
        "-created=86400",
        "-dynamic",
    ];
    let first = assembled(&other, &folder.join("first"), &flags).await?;
    let again = assembled(&other, &folder.join("again"), &flags).await?;
    ensure!(first.reference == again.reference, "{first:?} {again:?}");
    ensure!(
        first.reference.contains("taskgate.test/taskgate:0.0.0@sha256:"),
        "{first:?}"
    );
    let changed = assembled(&binary, &folder.join("changed"), &flags).await?;
    ensure!(first.reference != changed.reference, "{changed:?}");

    let (manifest, config) = first.manifest()?;
    ensure!(
        manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json",
        "{manifest}"
    );
    let labels = &config["config"]["Labels"];
    for (label, value) in [
        ("version", "0.0.0"),
        ("created", "1970-01-02T00:00:00Z"),
        ("source", "https://example.com/source"),
        ("revision", "abc"),
    ] {
        ensure!(labels[format!("org.opencontainers.image.{label}")] == value, "{labels}");
    }
    ensure!(config["created"] == "1970-01-02T00:00:00Z", "{config}");
    ensure!(config["config"]["User"] == "65532:65532" && config["config"]["Entrypoint"] == json!(["/taskgate"]));
    Ok(())
}

/// Each replica has the root of the image and nothing of this machine but the shared libraries of a debug build: a release is static,
/// and `make image` refuses one that is not.
#[tokio::test]
async fn the_image_serves_admission_from_its_read_only_root_as_its_user() -> anyhow::Result<()> {
    if !ContainerRoot::is_possible().await {
        eprintln!("skipped: this machine allows neither mounts nor user namespaces");
        return Ok(());
    }
    let cp = plane().await?;
    let built = taskgate_e2e::binary("taskgate")?;
    let folder = cp.dir().join("image");
    let refused = Image::assemble(&built, &folder, &[]).await?;
    let refused = refused.err().context("a binary that is not static was accepted")?;
    ensure!(
        refused.stderr.contains("it needs shared libraries"),
        "{}",
        refused.stderr
    );
    // Symbols of a debug build are most of it.
    let stripped = cp.dir().join("stripped");
    let strip = Command::new("strip")
        .arg("-o")
        .args([&stripped, &built])
        .status()
        .await?;
    ensure!(strip.success(), "strip: {strip}");
    let image = assembled(&stripped, &folder, &["-dynamic"]).await?;
    let root = image.unpack(&cp.dir().join("root")).await?;
    let bundle = std::fs::read_to_string(cp.dir().join("root/etc/ssl/certs/ca-certificates.crt"))?;
    ensure!(
        bundle.matches("BEGIN CERTIFICATE").count() > 80,
        "{} bytes of roots",
        bundle.len()
    );
    root.add_libraries_of(&stripped).await?;

    apply_overlay(&cp, "self-signed").await?;
    let running = Pods::start_in(&cp, crossing(), SYSTEM, "taskgate", Some(&root)).await?;
    governed(&cp, "team").await?;
    for process in running.processes() {
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", process.pid()));
        let (status, mounts) = (of("status")?, of("mountinfo")?);
        let mut ids = status
            .lines()
            .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"));
        let is_root = std::fs::read_to_string("/proc/self/status")?.contains("Uid:\t0\t");
        ensure!(!is_root || ids.all(|ids| ids.contains("\t65532\t65532")), "{status}");
        // mount ID, parent, device, root of the mount, mount point, options
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
        let options = root.and_then(|line| line.split(' ').nth(5)).context("a root")?;
        ensure!(options.split(',').any(|option| option == "ro"), "{mounts}");
    }
    Ok(())
}
