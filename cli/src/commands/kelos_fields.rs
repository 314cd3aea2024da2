//! `taskgate kelos-fields`: extends Kelos' CustomResourceDefinitions with the fields of the proposals, and undoes that.
//!
//! `enable` writes the setting and the rights that the leader needs; the leader extends, and extends again after an upgrade of Kelos.
//! `disable` removes both, and then the fields itself: the leader has no right to do so any more.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use k8s_openapi::{
    api::{
        core::v1::ConfigMap,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Value, json};
use taskgate_api::{
    kelos,
    kelos_fields::{CONFIG_MAP, CRDS},
    keys,
};
use taskgate_cache::{kelos_resource, served_version};
use taskgate_policy::kelos_fields::{FieldState, SchemaField, extension, removal, schema_fields};
use tokio::time::sleep;

use crate::{
    cluster::{Connection, api_error, deleted, is_conflict, resource_of},
    defaults::NAME,
    exit::ExitStatus,
    flags::{ClusterArgs, DryRun, InstallationArgs, object_name},
    output,
    rights::{Feature, Names, manifest::RightsManifests},
};

/// The field manager of what `enable` applies.
const MANAGER: &str = "taskgate-kelos-fields";
/// How long `enable` waits for the leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Until a removed field is looked for again: a leader may have begun to add it when the setting was removed.
const SETTLE: Duration = Duration::from_secs(2);
/// How often fields are removed before `disable` fails.
const ATTEMPTS: usize = 5;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate kelos-fields enable
  taskgate kelos-fields status
  taskgate kelos-fields disable --dry-run")]
pub(crate) struct KelosFieldsArgs {
    #[command(subcommand)]
    command: FieldsCommand,
}

#[derive(Debug, Subcommand)]
enum FieldsCommand {
    /// Extend the CRDs of Kelos with the fields of the proposals, and keep them extended.
    Enable(ChangeArgs),
    /// Remove the fields and their values, and the right to extend the CRDs.
    Disable(ChangeArgs),
    /// Show which version of which CRD has which field. Exit code 3: not as the setting says.
    Status(StatusArgs),
}

/// Flags of `taskgate kelos-fields enable` and `disable`.
#[derive(Args, Debug)]
struct ChangeArgs {
    /// The name of taskgate's service account: the chart's full name.
    #[arg(long, value_name = "NAME", default_value = NAME, value_parser = object_name)]
    service_account: String,
    #[command(flatten)]
    dry_run: DryRun,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    installation: InstallationArgs,
}

/// Flags of `taskgate kelos-fields status`.
#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    installation: InstallationArgs,
}

/// RBAC: those of an administrator; `status`: `get` on the ConfigMap and on both CustomResourceDefinitions.
pub(crate) async fn run(args: KelosFieldsArgs) -> Result<ExitStatus> {
    match args.command {
        FieldsCommand::Enable(args) => enable(args).await,
        FieldsCommand::Disable(args) => disable(args).await,
        FieldsCommand::Status(args) => {
            let connection = args.installation.connect(&args.cluster).await?;
            let state = State::read(&connection).await?;
            output::print(&state.text())?;
            Ok(if state.is_settled() {
                ExitStatus::Success
            } else {
                ExitStatus::Warnings
            })
        }
    }
}

async fn enable(args: ChangeArgs) -> Result<ExitStatus> {
    let connection = args.installation.connect(&args.cluster).await?;
    let params = args.dry_run.patch(PatchParams::apply(MANAGER).force());
    for (resource, object) in objects(&connection.namespace, &args.service_account)? {
        let (name, namespace) = (object.name_any(), object.namespace());
        let api = connection.api(&resource, namespace.as_deref());
        if !args.dry_run.is_client() {
            let applied = api.patch(&name, &params, &Patch::Apply(&object)).await;
            let applied = applied.map_err(api_error);
            applied.with_context(|| format!("applying {} {name}", resource.kind))?;
        }
        output::print(&format!("applied {} {name}{}\n", resource.kind, args.dry_run.suffix()))?;
    }
    if args.dry_run.is_on() {
        return Ok(ExitStatus::Success);
    }
    let deadline = tokio::time::Instant::now() + LEADER_TIMEOUT;
    loop {
        let state = State::read(&connection).await?;
        if state.is_settled() {
            output::print(&state.text())?;
            return Ok(ExitStatus::Success);
        }
        if tokio::time::Instant::now() > deadline {
            output::print(&state.text())?;
            bail!(
                "the setting is written, but the CRDs are not extended after {} s: the leader does it as soon as it runs \
                 (taskgate doctor)",
                LEADER_TIMEOUT.as_secs()
            );
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn disable(args: ChangeArgs) -> Result<ExitStatus> {
    let connection = args.installation.connect(&args.cluster).await?;
    let maps = Api::<ConfigMap>::namespaced(connection.client.clone(), &connection.namespace);
    let by_helm = maps.get_opt(CONFIG_MAP).await.map_err(api_error)?;
    let by_helm = by_helm.is_some_and(|map| {
        let manager = map.labels().get("app.kubernetes.io/managed-by");
        manager.is_some_and(|manager| manager == "Helm")
    });
    remove_object(&maps, CONFIG_MAP, args.dry_run).await?;
    remove(&connection, args.dry_run).await?;
    let name = format!("{}-{}", args.service_account, Feature::KelosFields.suffix());
    let bindings = Api::<ClusterRoleBinding>::all(connection.client.clone());
    remove_object(&bindings, &name, args.dry_run).await?;
    let roles = Api::<ClusterRole>::all(connection.client.clone());
    remove_object(&roles, &name, args.dry_run).await?;
    output::print(&format!(
        "removed the setting and the right to extend{}\n",
        args.dry_run.suffix()
    ))?;
    if by_helm {
        output::print(
            "set features.kelosFields=false in the values of the release: its next upgrade would enable them again\n",
        )?;
    }
    Ok(ExitStatus::Success)
}

/// Deletes an object that `enable` applied.
async fn remove_object<K>(objects: &Api<K>, name: &str, dry_run: DryRun) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if dry_run.is_client() {
        return Ok(());
    }
    let result = objects.delete(name, &dry_run.delete(DeleteParams::default())).await;
    deleted(result).with_context(|| format!("deleting {} {name}", K::kind(&())))
}

/// Removes taskgate's fields from the schemas of Kelos, and then the copies of their values, which also removes what is stored of
/// them: the API server prunes with each write what the schema lacks.
pub(super) async fn remove(connection: &Connection, dry_run: DryRun) -> Result<()> {
    for attempt in 1.. {
        let mut removed = 0;
        for name in CRDS {
            removed += remove_from(connection, name, dry_run).await?;
        }
        if removed == 0 || dry_run.is_on() {
            break;
        }
        if attempt == ATTEMPTS {
            bail!("another client adds the fields again: is the setting part of what it applies?");
        }
        sleep(SETTLE).await;
    }
    remove_copies(connection, dry_run).await
}

/// How many fields were removed from the CustomResourceDefinition `name`.
async fn remove_from(connection: &Connection, name: &str, dry_run: DryRun) -> Result<usize> {
    let crds = connection.api(&resource_of::<CustomResourceDefinition>(), None);
    for _ in 0..ATTEMPTS {
        let Some(crd) = crds.get_opt(name).await.map_err(api_error)? else {
            return Ok(0);
        };
        let crd = serde_json::to_value(&crd).context("reading JSON")?;
        let is_ours = |found: &&SchemaField| matches!(found.state, FieldState::Added | FieldState::Outdated);
        let (patch, fields) = (removal(&crd), schema_fields(&crd).iter().filter(is_ours).count());
        if fields == 0 {
            return Ok(0);
        }
        let params = dry_run.patch(PatchParams::default());
        let patched = if dry_run.is_client() {
            Ok(())
        } else {
            crds.patch(name, &params, &Patch::<()>::Json(patch)).await.map(drop)
        };
        match patched {
            Ok(()) => {
                output::print(&format!("removed {fields} fields from {name}{}\n", dry_run.suffix()))?;
                return Ok(fields);
            }
            Err(error) if is_conflict(&error) || is_changed(&error) => {}
            Err(error) => return Err(api_error(error)).with_context(|| format!("changing {name}")),
        }
    }
    bail!("{name} keeps changing; run it again")
}

/// Whether a precondition of a JSON patch does not hold.
fn is_changed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

async fn remove_copies(connection: &Connection, dry_run: DryRun) -> Result<()> {
    let served = served_version(&connection.client, kelos::GROUP, &kelos::TASK_VERSIONS).await;
    let Some(version) = served.map_err(api_error)? else {
        return Ok(());
    };
    let kind = kelos_resource(version, "TaskSpawner", "taskspawners");
    let all = connection.api(&kind, None).list_metadata(&ListParams::default()).await;
    let mut removed = 0;
    for spawner in all.map_err(api_error)? {
        if !spawner.annotations().contains_key(keys::KELOS_FIELDS) {
            continue;
        }
        let (name, namespace) = (spawner.name_any(), spawner.namespace());
        let patch = json!({"metadata": {"uid": spawner.uid(), "annotations": {keys::KELOS_FIELDS: null}}});
        let params = dry_run.patch(PatchParams::default());
        let api = connection.api(&kind, namespace.as_deref());
        if !dry_run.is_client() {
            deleted(api.patch(&name, &params, &Patch::Merge(&patch)).await)
                .with_context(|| format!("changing TaskSpawner {name}"))?;
        }
        removed += 1;
    }
    if removed > 0 {
        output::print(&format!(
            "removed the fields of {removed} TaskSpawners{}\n",
            dry_run.suffix()
        ))?;
    }
    Ok(())
}

/// The setting and the rights, as the chart and the kustomize component have them.
fn objects(namespace: &str, account: &str) -> Result<Vec<(ApiResource, DynamicObject)>> {
    let metadata = format!("labels:\n    {}: {}", keys::PART_OF, keys::PART_OF_TASKGATE);
    let names = Names {
        namespace: namespace.to_owned(),
        ..Names::default()
    };
    let manifests = RightsManifests {
        name: account,
        account,
        metadata: &metadata,
        names: &names,
        feature_guard: |_| [String::new(), String::new()],
    };
    let text = manifests.of_feature(Feature::KelosFields);
    let mut objects = Vec::new();
    for document in text.split("---\n").filter(|document| !document.trim().is_empty()) {
        let value: Value = serde_saphyr::from_str(document).context("reading roles.yaml")?;
        let resource = match value["kind"].as_str() {
            Some("ClusterRole") => resource_of::<ClusterRole>(),
            Some("ClusterRoleBinding") => resource_of::<ClusterRoleBinding>(),
            _ => resource_of::<ConfigMap>(),
        };
        objects.push((
            resource,
            DynamicObject::deserialize(value).context("reading roles.yaml")?,
        ));
    }
    Ok(objects)
}

/// The setting, and what the CustomResourceDefinitions have.
#[derive(Debug)]
struct State {
    enabled: bool,
    fields: BTreeMap<&'static str, Vec<SchemaField>>,
}

impl State {
    async fn read(connection: &Connection) -> Result<Self> {
        let own = Some(connection.namespace.as_str());
        let setting = connection.get(&resource_of::<ConfigMap>(), own, CONFIG_MAP).await;
        let enabled = setting
            .with_context(|| format!("reading ConfigMap {CONFIG_MAP}"))?
            .is_some();
        let mut fields = BTreeMap::new();
        for name in CRDS {
            let crd = connection
                .get(&resource_of::<CustomResourceDefinition>(), None, name)
                .await;
            if let Some(crd) = crd.with_context(|| format!("reading {name}"))? {
                fields.insert(name, schema_fields(&crd));
            }
        }
        Ok(Self { enabled, fields })
    }

    /// Whether the schemas are as the setting says.
    fn is_settled(&self) -> bool {
        let mut states = self.fields.values().flatten().map(|found| found.state);
        if self.enabled {
            states.all(|state| !matches!(state, FieldState::Missing | FieldState::Outdated))
        } else {
            states.all(|state| !matches!(state, FieldState::Added | FieldState::Outdated))
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", if self.enabled { "enabled" } else { "disabled" });
        if self.fields.is_empty() {
            text.push_str("Kelos is not installed\n");
        }
        for (name, fields) in &self.fields {
            for SchemaField { version, field, state } in fields {
                let _ = writeln!(
                    text,
                    "{name:<24}{version:<10}{:<34}{}",
                    field.dotted(),
                    describe(*state)
                );
            }
        }
        text
    }
}

/// The state of a field for people.
fn describe(state: FieldState) -> &'static str {
    match state {
        FieldState::Missing => "missing",
        FieldState::Added => "added",
        FieldState::Outdated => "added by another release of taskgate",
        FieldState::DefinedByKelos => "defined by Kelos itself",
        FieldState::NotPossible => "cannot be added to this schema",
    }
}

/// The state of the fields in one word for `taskgate status`; `None` where they are not enabled. taskgate runs in `namespace`.
pub(super) async fn summary(connection: &Connection, namespace: &str) -> Result<Option<&'static str>> {
    let connection = Connection {
        client: connection.client.clone(),
        namespace: namespace.to_owned(),
    };
    let state = State::read(&connection).await?;
    let text = if state.is_settled() {
        "added"
    } else {
        "missing, see taskgate doctor"
    };
    Ok(state.enabled.then_some(text))
}

/// What `taskgate doctor` finds in the CustomResourceDefinitions `crds`: whether taskgate's fields are there, whether one that is to be
/// there is missing, and those that Kelos defines itself.
pub(super) fn findings<'a>(crds: impl IntoIterator<Item = &'a Value>) -> SchemaSummary {
    let mut summary = SchemaSummary::default();
    for crd in crds {
        summary.is_incomplete |= !extension(crd).0.is_empty();
        summary.is_extended |= !removal(crd).0.is_empty();
        let kept = schema_fields(crd).into_iter();
        let kept = kept.filter(|found| matches!(found.state, FieldState::DefinedByKelos | FieldState::NotPossible));
        summary.kept.extend(kept.map(|found| {
            let (field, state) = (found.field.dotted(), describe(found.state));
            format!("{} {field} in {}: {state}", found.field.kind(), found.version)
        }));
    }
    summary
}

/// What the CustomResourceDefinitions of Kelos have of the fields.
#[derive(Debug, Default)]
pub(super) struct SchemaSummary {
    /// Whether some field was added.
    pub(super) is_extended: bool,
    /// Whether some field could be added, or is outdated.
    pub(super) is_incomplete: bool,
    /// The fields that stay as they are, and why.
    pub(super) kept: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_complete_and_have_the_names_of_the_installation() {
        let objects = objects("gate", "release-taskgate").unwrap();
        let names: Vec<_> = objects
            .iter()
            .map(|(resource, object)| (resource.kind.as_str(), object.name_any()))
            .collect();
        let role = "release-taskgate-kelos-fields".to_owned();
        assert_eq!(
            names,
            [
                ("ClusterRole", role.clone()),
                ("ClusterRoleBinding", role),
                ("ConfigMap", CONFIG_MAP.to_owned())
            ]
        );
        let [role, binding, map] = &objects[..] else { panic!() };
        for crd in CRDS {
            assert!(role.1.data["rules"].to_string().contains(crd), "{crd}");
        }
        assert_eq!(
            binding.1.data["subjects"][0],
            json!({"kind": "ServiceAccount", "name": "release-taskgate", "namespace": "gate"})
        );
        assert_eq!(map.1.namespace().as_deref(), Some("gate"));
    }
}
