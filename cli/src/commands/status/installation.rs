//! The state of the installation: whether taskgate is disabled, its webhooks, its leader.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::switch::{CONFIG_MAP, webhooks};
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};

use crate::{
    cluster::{self, Connection},
    commands::disable::describe,
    defaults::{NAME, NAMESPACE},
    flags::object_name,
};

/// The flags that name the installation.
#[derive(Args, Debug)]
pub(crate) struct InstalledArgs {
    /// The namespace that taskgate runs in.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, value_parser = object_name)]
    pub(crate) taskgate_namespace: String,
    /// The name of its webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// The Service, which the Lease is named after.
    #[arg(long, value_name = "NAME", default_value = NAME)]
    pub(crate) service: String,
}

/// The state of the installation, a line each: the switch, both webhook configurations, the leader.
///
/// RBAC: `get` on the ConfigMap and the Lease in taskgate's namespace, and on both webhook configurations.
pub(super) async fn read(connection: &Connection, args: &InstalledArgs) -> Result<String> {
    let own = Some(args.taskgate_namespace.as_str());
    let map = connection.get(cluster::CONFIG_MAP, own, CONFIG_MAP).await?;
    let switch = map.map_or_else(|| "enabled".to_owned(), |map| describe(&map).1);
    let mut text = format!("taskgate: {switch}\n");
    for resource in [cluster::MUTATING_CONFIGURATION, cluster::VALIDATING_CONFIGURATION] {
        let (.., kind, _) = resource;
        let name = args.configuration.as_str();
        let found = connection.get(resource, None, name).await?;
        let state = found.map_or_else(|| "there is none".to_owned(), |found| webhook_state(&found));
        let _ = writeln!(text, "{kind} {name}: {state}");
    }
    let lease = format!("{}-controller", args.service);
    let lease = connection.get(cluster::LEASE, own, &lease).await?.unwrap_or_default();
    let spec = |field: &str| lease["spec"][field].as_str().filter(|value| !value.is_empty());
    let renewed = spec("renewTime").and_then(|time| time.parse::<Timestamp>().ok());
    let leader = spec("holderIdentity").zip(renewed).map(|(holder, renewed)| {
        let seconds = Timestamp::now().duration_since(renewed).as_secs();
        format!("{holder}, renewed {seconds} s ago")
    });
    let _ = writeln!(text, "Leader: {}", leader.as_deref().unwrap_or("none"));
    Ok(text)
}

/// Whether a configuration's webhooks are on, and how many fail closed.
fn webhook_state(configuration: &Value) -> String {
    let all = webhooks(configuration).count();
    let fail = configuration["webhooks"].as_array().into_iter().flatten();
    let fail = fail.filter(|webhook| webhook["failurePolicy"] == "Fail").count();
    let switched = match webhooks(configuration).filter(|(_, off)| *off).count() {
        0 => "on".to_owned(),
        off if off == all => "off".to_owned(),
        off => format!("{off} of {all} off"),
    };
    format!("{switched}; of {all} webhooks {fail} fail closed")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use taskgate_api::switch::CONDITION;

    use super::*;

    #[test]
    fn a_configuration_is_on_off_or_between() {
        let webhook = |name: &str, policy: &str, off: bool| {
            let conditions = if off { json!([{"name": CONDITION}]) } else { json!([]) };
            json!({"name": name, "failurePolicy": policy, "matchConditions": conditions})
        };
        let of = |webhooks: &[Value]| webhook_state(&json!({"webhooks": webhooks}));
        let (on, off) = (webhook("a", "Ignore", false), webhook("b", "Fail", true));
        assert_eq!(of(std::slice::from_ref(&on)), "on; of 1 webhooks 0 fail closed");
        assert_eq!(of(std::slice::from_ref(&off)), "off; of 1 webhooks 1 fail closed");
        assert_eq!(of(&[on, off]), "1 of 2 off; of 2 webhooks 1 fail closed");
    }
}
