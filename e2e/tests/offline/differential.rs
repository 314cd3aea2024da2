//! The differential proof: many writes, each decided by both, without a difference.

use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};
use taskgate_e2e::{is_soak, seed};

use crate::{
    check::check,
    cluster::RandomCluster,
    compare::Comparison,
    draw::{Chance, User},
    send::send,
};

/// How often a write is sent that taskgate does not answer in time.
const ROUNDS: usize = 3;

/// One write.
pub(crate) struct Sample {
    pub(crate) namespace: String,
    pub(crate) user: User,
    /// The stored object; null for a creation.
    pub(crate) old: Value,
    pub(crate) object: Value,
}

impl Sample {
    pub(crate) fn is_update(&self) -> bool {
        !self.old.is_null()
    }

    pub(crate) fn is_policy(&self) -> bool {
        self.object["kind"] != "Task" && self.object["kind"] != "Job"
    }
}

/// How many writes: all of them in `make soak`.
fn count() -> usize {
    if is_soak() { 10_500 } else { 1_500 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_and_check_agree() -> anyhow::Result<()> {
    let seed = seed();
    println!("SEED={seed}, {} writes", count());
    let mut chance = Chance::new(seed);
    let cluster = RandomCluster::start(&mut chance).await?;
    println!("Kueue is {}", if cluster.has_kueue { "there" } else { "absent" });
    let samples: Vec<_> = (0..count())
        .map(|number| sample(&cluster, &mut chance, number))
        .collect();
    let began = Instant::now();
    let mut answers = Vec::new();
    let mut left: Vec<_> = (0..samples.len()).collect();
    for _ in 0..ROUNDS {
        let (answered, unanswered) = send(&cluster, &samples, left).await?;
        answers.extend(answered);
        left = unanswered;
        println!("{} answered after {:?}", answers.len(), began.elapsed());
        if left.is_empty() {
            break;
        }
    }
    ensure!(left.is_empty(), "taskgate does not answer {left:?} in time");
    answers.sort_by_key(|(number, _, _)| *number);
    ensure!(cluster.gate.process().is_running(), "taskgate has ended");
    let decided = check(&cluster, &samples, |_| {}).await?;
    let comparison = Comparison::of(&samples, &answers, &decided)?;
    println!("{comparison}, after {:?}", began.elapsed());
    ensure!(comparison.differences.is_empty(), "SEED={seed}: {}", comparison.shown());
    let mut unseen = Vec::new();
    for (what, plant) in PLANTED {
        let decided = check(&cluster, &samples, plant).await?;
        let found = Comparison::of(&samples, &answers, &decided)?.differences.len();
        println!("{what}: {found} differences");
        unseen.extend((found == 0).then_some(what));
    }
    // The few writes of a short run may not contain the one case that shows a fault.
    let allowed = usize::from(!is_soak());
    ensure!(
        unseen.len() <= allowed,
        "SEED={seed}: they make no difference: {unseen:?}"
    );
    Ok(())
}

/// A change of an object of the cluster, or of the review of an update.
pub(crate) type Change = fn(&mut Value);

/// Changes in the files alone: a proof that does not find them would prove nothing.
const PLANTED: [(&str, Change); 4] = [
    ("a registration without conditions", |object| {
        for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["matchConditions"] = json!([]);
        }
    }),
    ("items that never failed", |object| {
        if object["kind"] == "WorkItem" {
            object["status"] = json!({});
        }
    }),
    ("policies that only observe", |object| {
        if object["spec"]["mode"] == "Enforce" {
            object["spec"]["mode"] = json!("Observe");
        }
    }),
    ("updates by people who may do everything", |object| {
        if object["kind"] == "AdmissionReview" {
            object["request"]["userInfo"]["groups"] = json!(["system:masters"]);
        }
    }),
];

/// A creation, or every third time an update of a stored object.
fn sample(cluster: &RandomCluster, chance: &mut Chance, number: usize) -> Sample {
    if chance.once_in(3) {
        return update(cluster, chance);
    }
    let index = usize::try_from(chance.below(u32::try_from(cluster.namespaces.len()).unwrap_or(1))).unwrap_or_default();
    let mut object = match (chance.below(10), cluster.tasks.get(index)) {
        (0..3, Some(owners)) if !owners.is_empty() => {
            let owner = chance.one_of(owners).clone();
            chance.job(number, &owner)
        }
        (3, _) => chance.written(number),
        _ => chance.task(number),
    };
    let namespace = cluster.namespaces[index].clone();
    if object["kind"] != "ClusterTaskPolicy" {
        object["metadata"]["namespace"] = json!(namespace);
    }
    // The names and finalizers of Jobs have rules of their own.
    if object["kind"] != "Job" && chance.once_in(6) {
        chance.spoil_metadata(&mut object, number);
    }
    Sample {
        namespace,
        user: chance.creator(),
        old: Value::Null,
        object,
    }
}

/// Mostly of a Task.
fn update(cluster: &RandomCluster, chance: &mut Chance) -> Sample {
    let kind = match chance.below(12) {
        0 => "Job",
        1 => "WorkItem",
        2 => "TaskPolicy",
        3 => "ClusterTaskPolicy",
        _ => "Task",
    };
    let stored: Vec<_> = cluster.objects.iter().filter(|object| object["kind"] == kind).collect();
    let mut old = (*chance.one_of(&stored)).clone();
    if kind == "Task" {
        old["apiVersion"] = json!(chance.one_of(&["kelos.dev/v1alpha2", "kelos.dev/v1alpha1"]));
    }
    Sample {
        namespace: old["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
        user: chance.changer(),
        // Once in a while it is applied again as it is.
        object: if chance.once_in(15) {
            old.clone()
        } else {
            chance.changed(&old)
        },
        old,
    }
}
