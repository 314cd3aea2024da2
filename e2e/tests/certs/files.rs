//! Files as the kubelet mounts a Secret: the names are links into a folder that is swapped by renaming a link (C3).

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use taskgate_certs::{Lifetimes, San, SecretData, issue_all, issue_leaf};
use taskgate_e2e::{Gate, PATIENCE, eventually};

use crate::support::{FAIL, await_answer, await_certificate_check, plane, probe, trust};

/// Puts `data` where a kubelet would put it, and swaps the link.
fn mount(folder: &Path, version: u32, data: &SecretData) -> anyhow::Result<()> {
    let new = folder.join(format!("..v{version}"));
    std::fs::create_dir_all(&new)?;
    for (name, bytes) in [
        ("tls.crt", &data.tls_crt),
        ("tls.key", &data.tls_key),
        ("ca.crt", &data.ca_crt),
    ] {
        std::fs::write(new.join(name), bytes.as_ref().context("issued")?)?;
        if version == 0 {
            symlink(Path::new("..data").join(name), folder.join(name))?;
        }
    }
    symlink(format!("..v{version}"), folder.join("..data_tmp"))?;
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    if version > 0 {
        std::fs::remove_dir_all(folder.join(format!("..v{}", version - 1)))?;
    }
    Ok(())
}

#[tokio::test]
async fn three_swaps_in_a_row_are_served_and_a_bad_one_is_not() -> anyhow::Result<()> {
    let cp = plane().await?;
    let names: Vec<San> = vec!["taskgate.taskgate-system.svc".parse()?, "127.0.0.1".parse()?];
    let first = issue_all(&names, Lifetimes::default(), Timestamp::now())?;
    let folder = cp.dir().join("certs");
    std::fs::create_dir_all(&folder)?;
    mount(&folder, 0, &first)?;
    let starting = Gate::builder()
        .registration_flag(FAIL)
        .serve_flag("--cert-mode=files")
        .serve_flag(format!("--cert-dir={}", folder.display()))
        .start(&cp);
    let trusting = eventually("the configurations are there", PATIENCE, || {
        trust(&cp, first.ca_crt.as_deref().unwrap_or_default())
    });
    let (gate, ()) = tokio::try_join!(starting, trusting)?;
    let ns = cp.namespace("files").await?;
    await_answer(&ns).await?;

    let served = || anyhow::Ok(gate.process().log()?.matches("serving a new certificate").count());
    for version in 1..=3 {
        let before = served()?;
        mount(
            &folder,
            version,
            &issue_leaf(&first, &names, Lifetimes::default(), Timestamp::now())?,
        )?;
        eventually(format!("swap {version} is served"), PATIENCE, || async {
            probe(&ns).await?;
            ensure!(served()? == before + 1, "{} served", served()?);
            Ok(())
        })
        .await?;
    }
    let mut bad = first.clone();
    bad.tls_key = issue_leaf(&first, &names, Lifetimes::default(), Timestamp::now())?.tls_key;
    mount(&folder, 4, &bad)?;
    await_certificate_check(&gate, "tls.key is not the key of tls.crt", true).await?;
    probe(&ns).await?;
    mount(&folder, 5, &first)?;
    await_certificate_check(&gate, "certificate ok", false).await
}
