//! Creates of Tasks and Jobs are decided from the cache, except near the limit.

use taskgate_e2e::{job_of, task_of_item};

use crate::support::{created, end, ensure_at_most, governed, requests};

#[tokio::test]
async fn a_task_far_from_its_limit_and_its_job_cost_nothing() -> anyhow::Result<()> {
    let fixture = governed("far", 3).await?;
    let mark = fixture.cp.audit().mark()?;
    let task = fixture.created(&task_of_item("a", "epic")).await?;
    ensure_at_most(0, &requests(&fixture, mark).await?)?;
    let mark = fixture.cp.audit().mark()?;
    fixture.created(&job_of(&task)).await?;
    ensure_at_most(0, &requests(&fixture, mark).await?)
}

#[tokio::test]
async fn a_task_near_its_limit_costs_one_read() -> anyhow::Result<()> {
    let fixture = governed("near", 2).await?;
    created(&fixture, &task_of_item("a", "epic")).await?;
    end(&fixture, "a", "Failed").await?;
    let mark = fixture.cp.audit().mark()?;
    fixture.created(&task_of_item("b", "epic")).await?;
    ensure_at_most(1, &requests(&fixture, mark).await?)
}
