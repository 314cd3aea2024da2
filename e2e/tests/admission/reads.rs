//! How many requests a review costs the API server, from its audit log. Dry runs, so that the controller sends none about them.

use anyhow::ensure;
use serde_json::{Value, json};
use taskgate_e2e::{Fixture, Marker, PATIENCE, eventually, job_of, task, task_of_item};

use crate::{breaker::write_work_item, support::governed};

/// How many dry runs each figure is of.
const TIMES: usize = 10;

/// taskgate's requests about the namespace since `mark`.
async fn requests(fixture: &Fixture<'_>, mark: Marker) -> anyhow::Result<Vec<String>> {
    let events = fixture.cp.audit().since(mark).await?;
    let ours = events
        .into_iter()
        .filter(|event| event.user_agent.starts_with("taskgate") && event.object_ref.namespace == fixture.ns.name());
    Ok(ours.map(|event| event.summary()).collect())
}

/// The requests that [`TIMES`] dry runs of `object` cost, once they cost no more than `most` each: the caches follow by then.
async fn cost(fixture: &Fixture<'_>, what: &str, object: &Value, most: usize) -> anyhow::Result<Vec<String>> {
    eventually(format!("{what} costs at most {most}"), PATIENCE, || async {
        let mark = fixture.cp.audit().mark()?;
        for _ in 0..TIMES {
            fixture.dry_run(object).await?;
        }
        let sent = requests(fixture, mark).await?;
        ensure!(sent.len() <= most * TIMES, "{sent:?}");
        Ok(sent)
    })
    .await
}

#[tokio::test]
async fn a_review_asks_the_api_server_only_near_the_limit() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 3}, "queueName": "agents-{{ task.spec.model }}",
        "metadata": {"labels": {"team": "blue"}, "propagate": ["Job", "Pod"]}});
    let fixture = governed("reads", spec).await?;
    let mut object = task_of_item("far", "far");
    object["spec"]["model"] = json!("opus");
    let far = fixture.created(&object).await?;
    cost(
        &fixture,
        "a Task far from its limit",
        &task_of_item("other", "other"),
        0,
    )
    .await?;
    cost(&fixture, "a Task without an item", &task("single"), 0).await?;
    cost(&fixture, "the Job of a Task far from its limit", &job_of(&far), 0).await?;
    let job = fixture.dry_run(&job_of(&far)).await?;
    ensure!(
        job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "agents-opus"
            && job["metadata"]["labels"]["team"] == "blue",
        "the cached Task has what its Job needs: {job}"
    );

    write_work_item(
        &fixture,
        "near",
        &json!({"breaker": "Closed", "consecutiveFailures": 2}),
    )
    .await?;
    let near = eventually("the failures are known", PATIENCE, || async {
        let sent = cost(&fixture, "a Task near its limit", &task_of_item("near", "near"), 1).await?;
        ensure!(sent.len() == TIMES, "one consistent read each: {sent:?}");
        fixture.created(&task_of_item("near", "near")).await
    })
    .await?;
    let sent = cost(&fixture, "the Job of a Task near its limit", &job_of(&near), 1).await?;
    ensure!(sent.iter().all(|read| read.contains("workitems")), "{sent:?}");
    Ok(())
}
