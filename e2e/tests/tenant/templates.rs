//! Policies whose templates would cost memory or time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::{StreamExt as _, stream};
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, eventually, policy, task_of_item};

use crate::support::{TenantFixture, refusal};

/// Longest that a refusal may take: the API server waits 3 s for it.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_key_that_grows_without_bound_is_left_out_and_ends_nothing() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("itemkey").await?;
    let filters = " | replace(from='a', to='aaaaaaaaaa')".repeat(9);
    let template = format!("{{{{ 'aaaaaaaaaa'{filters} }}}}");
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 2, "itemKey": template}});
    // Its item is what its source says: the template gives nothing.
    let mut fuse = task_of_item("fixer-42", "");
    fuse["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "fixer"});
    fuse["metadata"]["annotations"] = json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"});
    let tenant = &fixture.tenant;
    fixture
        .attack(async {
            tenant.create(&policy("bomb", &spec)).await?;
            eventually("the template runs, and gives nothing", PATIENCE, || async {
                let item = tenant.dry_run(&fuse).await?.labels().get(keys::WORK_ITEM).cloned();
                ensure!(
                    item.as_ref().is_some_and(|item| item.starts_with("fixer-42-")),
                    "{item:?}"
                );
                Ok(())
            })
            .await?;
            fixture.fail(&fuse, json!({})).await?;
            let counted = |status: &Value| status["consecutiveFailures"] == 1;
            fixture.item("42", "has a failure", counted).await.map(drop)
        })
        .await
}

/// A scanner of the source text sees the statements in a comment, and Tera's lexer does not, or the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_a_scanner_takes_for_text_are_refused_at_once_in_a_dry_run() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("lexer").await?;
    let doublings = "{% set a=a~a %}".repeat(40);
    let template = format!("{{#}}{{{{ \" #}}{{% set a='aaaaaaaaaaaaaaaa' %}}{doublings}{{# \" }}}} #}}");
    for (what, spec) in [
        ("metadata.labels", json!({"metadata": {"labels": {"bomb": template}}})),
        (
            "metadata.annotations",
            json!({"metadata": {"annotations": {"bomb": template}}}),
        ),
        ("itemKey", json!({"failurePolicy": {"itemKey": template}})),
        ("queueName", json!({"queueName": template})),
    ] {
        let (written, took) = fixture
            .attack(async {
                let began = Instant::now();
                let written = fixture.tenant.dry_run(&policy("bomb", &spec)).await;
                Ok((written, began.elapsed()))
            })
            .await?;
        let told = refusal(written)?;
        ensure!(told.contains(what) && took < AT_ONCE, "{what}, after {took:?}: {told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_policies_in_one_namespace_meet_a_limit() -> anyhow::Result<()> {
    const POLICIES: usize = 200;
    let fixture = TenantFixture::start("many").await?;
    let many = |entries: usize| {
        let map = |prefix: &str| -> Value {
            let entry = |n| (format!("{prefix}-{n}"), "{{ namespace.metadata.name }}".into());
            (0..entries / 2).map(entry).collect::<Map<_, _>>().into()
        };
        json!({"metadata": {"labels": map("l"), "annotations": map("a")}})
    };
    // One policy has at most so many keys; as many as it may have are repeated.
    let told = refusal(fixture.tenant.create(&policy("large", &many(120))).await)?;
    ensure!(told.contains("64"), "{told}");
    let spec = many(64);
    let (tenant, spec) = (&fixture.tenant, &spec);
    let written: Vec<_> = fixture
        .attack(async {
            let writes = (0..POLICIES).map(async |n| tenant.create(&policy(&format!("many-{n}"), spec)).await);
            let written = stream::iter(writes).buffer_unordered(2).collect().await;
            // Its own Tasks are reviewed all the same: a policy that was accepted is a policy that works.
            for n in 0..5 {
                let began = Instant::now();
                let own = tenant.create(&task_of_item(&format!("own-{n}"), "own")).await?;
                ensure!(
                    own.labels().contains_key("l-0"),
                    "the tenant's own Task was not reviewed"
                );
                ensure!(
                    began.elapsed() < AT_ONCE,
                    "the tenant's own Task took {:?}",
                    began.elapsed()
                );
            }
            Ok(written)
        })
        .await?;
    let mut refused = Vec::new();
    for written in written {
        if written.is_err() {
            refused.push(refusal(written)?);
        }
    }
    ensure!(refused.len() > POLICIES / 2, "{} of {POLICIES} refused", refused.len());
    let clear = refused
        .iter()
        .all(|told| told.contains("already, and no more may be in force"));
    ensure!(clear, "{:?}", refused.first());
    Ok(())
}
