//! The revision of etcd: the proof that nothing was written, whatever the API calls it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::metrics::plain_client;
use crate::plane::ControlPlane;
use crate::wait::PATIENCE;

/// Longer than any controller gathers work before it writes: the job controller's second.
const SILENCE: Duration = Duration::from_secs(2);

impl ControlPlane {
    /// The revision of the whole store, which counts every write to any key.
    ///
    /// It stays the same while no client sends a request: the API server's identity lease and
    /// its compaction are off, the controller manager does not elect, and no controller
    /// runs that writes by itself; seen standing still for seven minutes. What may still move it:
    /// events, which expire after an hour.
    ///
    /// # Errors
    /// If etcd does not answer.
    pub async fn etcd_revision(&self) -> anyhow::Result<i64> {
        let ask = async {
            // Any key does, "a" here (base64): the revision is in the header of every answer.
            let body = serde_json::to_vec(&json!({"key": "YQ==", "count_only": true}))?;
            let request = http::Request::post("/v3/kv/range").body(body)?;
            let answer: Value = plain_client(self.etcd_url())?.request(request).await?;
            // 64-bit numbers are strings in protobuf's JSON.
            let revision = answer["header"]["revision"].as_str().context("no revision")?;
            Ok::<_, anyhow::Error>(revision.parse()?)
        };
        ask.await.context("asking etcd for its revision")
    }
    /// Waits until nothing has been written for two seconds, and returns the revision: the
    /// controllers have finished with what was asked of them.
    ///
    /// # Errors
    /// If a client writes for longer than [`PATIENCE`], or etcd does not answer.
    pub async fn settled_revision(&self) -> anyhow::Result<i64> {
        let began = Instant::now();
        let mut revision = self.etcd_revision().await?;
        let mut since = Instant::now();
        while since.elapsed() < SILENCE {
            if began.elapsed() > PATIENCE {
                bail!("something has been writing for {PATIENCE:?}, up to revision {revision}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.etcd_revision().await?;
            if now != revision {
                (revision, since) = (now, Instant::now());
            }
        }
        Ok(revision)
    }
}
