//! What an agent prints at its end (kelos S30, §6.6).

use super::Controller;
use crate::cache::Key;
use crate::error::{Error, already_exists};
use crate::keys;
use crate::metrics::Used;
use crate::quantity;
use crate::types::{Task, TaskRecord, TaskRecordSpec, TaskRef, TaskUsage};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use std::collections::BTreeMap;

const START: &str = "---KELOS_OUTPUTS_START---";
const END: &str = "---KELOS_OUTPUTS_END---";
/// Only so much of the log's end is read.
const TAIL: usize = 50;
/// Retention of a record: 30 days.
const RECORD_TTL: i32 = 30 * 24 * 60 * 60;

/// The non-empty lines of the last complete block; empty when there is none.
pub(super) fn outputs(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let Some(end) = tail.rfind(END) else {
        return Vec::new();
    };
    let Some(start) = tail[..end].rfind(START) else {
        return Vec::new();
    };
    let block = tail[start + START.len()..end].lines().map(str::trim);
    block.filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

/// The lines of the form `key: value`; of several the last wins.
pub(super) fn results(outputs: &[String]) -> BTreeMap<String, String> {
    let pairs = outputs.iter().filter_map(|line| line.split_once(": "));
    pairs
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The usage that the results tell; zero and negative numbers count as not told.
pub(super) fn usage(results: &BTreeMap<String, String>) -> Option<TaskUsage> {
    let tokens = |key| {
        let number: Option<i64> = results.get(key).and_then(|text: &String| text.parse().ok());
        number.filter(|number| *number > 0)
    };
    let cost = results.get("cost-usd").and_then(|text| quantity::canonical(text));
    let usage = TaskUsage {
        cost_usd: cost.filter(|cost| cost != "0" && !cost.starts_with('-')),
        input_tokens: tokens("input-tokens"),
        output_tokens: tokens("output-tokens"),
    };
    (usage != TaskUsage::default()).then_some(usage)
}

impl Controller {
    /// The outputs of a pod, `None` when it is gone or silent. No kubelet, no log: the stand-in reads
    /// [`keys::AGENT_LOG`].
    pub(super) async fn read_outputs(&self, key: &Key, pod: &str) -> Option<(Vec<String>, BTreeMap<String, String>)> {
        if pod.is_empty() {
            return None;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pod = pods.get_opt(pod).await.ok()??;
        let outputs = outputs(pod.annotations().get(keys::AGENT_LOG)?);
        let results = results(&outputs);
        (!outputs.is_empty()).then_some((outputs, results))
    }

    /// Creates the Task's record if its usage is known; twice is once.
    pub(super) async fn record(&self, key: &Key, task: &Task) -> Result<(), Error> {
        let status = task.current();
        if !self.capability.is_terminal(&status.phase) || status.usage.is_none() {
            return Ok(());
        }
        let uid = task.uid().unwrap_or_default();
        let spec = TaskRecordSpec {
            task_ref: TaskRef {
                name: key.name.clone(),
                uid: uid.clone(),
            },
            r#type: task.spec.agent_type().to_owned(),
            model: task.spec.agent_model().to_owned(),
            phase: status.phase,
            start_time: status.start_time,
            completion_time: status.completion_time,
            usage: status.usage,
            ttl_seconds: Some(RECORD_TTL),
        };
        let mut record = TaskRecord::new(&uid, spec);
        record.metadata.namespace = Some(key.namespace.clone());
        record.metadata.labels.clone_from(&task.metadata.labels);
        let records: Api<TaskRecord> = Api::namespaced(self.client.clone(), &key.namespace);
        match records.create(&PostParams::default(), &record).await {
            Err(error) if !already_exists(&error) => Err(Error::kube("creating the TaskRecord of Task", key)(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn count_usage(&self, key: &Key, task: &Task) {
        let results = task.current().results;
        let labels = Used {
            namespace: key.namespace.clone(),
            r#type: task.spec.agent_type().to_owned(),
            spawner: task.labels().get(keys::SPAWNER).cloned().unwrap_or_default(),
            model: task.spec.agent_model().to_owned(),
        };
        let cost: Option<f64> = results.get("cost-usd").and_then(|text| text.parse().ok());
        if let Some(cost) = cost.filter(|cost| *cost > 0.0) {
            self.metrics.cost.get_or_create(&labels).inc_by(cost);
        }
        for (name, family) in [
            ("input-tokens", &self.metrics.input_tokens),
            ("output-tokens", &self.metrics.output_tokens),
        ] {
            let tokens: Option<u64> = results.get(name).and_then(|text| text.parse().ok());
            if let Some(tokens) = tokens {
                family.get_or_create(&labels).inc_by(tokens);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{outputs, results, usage};

    fn block(lines: &str) -> String {
        format!("---KELOS_OUTPUTS_START---\n{lines}\n---KELOS_OUTPUTS_END---\n")
    }

    #[test]
    fn the_last_block_counts() {
        let log = format!(
            "noise\n{}more\n{}",
            block("branch: a"),
            block(" branch: b \n\nhttps://pr")
        );
        let lines = outputs(&log);
        assert_eq!(lines, ["branch: b", "https://pr"]);
        assert_eq!(results(&lines).get("branch").map(String::as_str), Some("b"));
    }

    #[test]
    fn a_block_beyond_the_tail_is_not_seen() {
        let log = block("branch: a") + &"x\n".repeat(60);
        assert!(outputs(&log).is_empty());
        assert!(outputs("---KELOS_OUTPUTS_END---").is_empty());
    }

    #[test]
    fn usage_needs_positive_numbers() {
        let of = |lines: &str| usage(&results(&outputs(&block(lines))));
        assert_eq!(of("cost-usd: 0\ninput-tokens: -3"), None);
        let found = of("cost-usd: 1.25\ninput-tokens: 10\noutput-tokens: x").expect("has usage");
        assert_eq!(found.cost_usd.as_deref(), Some("1250m"));
        assert_eq!(found.input_tokens, Some(10));
        assert_eq!(found.output_tokens, None);
    }
}
