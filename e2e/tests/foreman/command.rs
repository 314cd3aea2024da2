//! `taskgate retry` beside Foreman alone: neither Kelos nor taskgate is installed.

use anyhow::ensure;

use crate::support::{failed, start};

#[tokio::test]
async fn a_kind_that_is_not_installed_has_no_objects() -> anyhow::Result<()> {
    let fixture = start("alone").await?;
    failed(&fixture, "wl").await?;
    for (object, expected) in [
        ("task/wl", format!("task/wl: there is none in namespace {fixture}")),
        ("missing", format!("missing: there is none in namespace {fixture}")),
        (
            "wl",
            "wl: the API server has no WorkItems: taskgate is not installed".to_owned(),
        ),
    ] {
        let retried = fixture
            .access()
            .paste(&format!("taskgate retry {object} -n {fixture}"))
            .await;
        let error = retried.map_or_else(|error| error.to_string(), |printed| format!("it succeeded: {printed}"));
        ensure!(error.contains(&expected), "{error}");
    }
    Ok(())
}
