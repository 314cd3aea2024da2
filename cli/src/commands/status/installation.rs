//! Whether taskgate is disabled, by whom, until when; whether the API server asks it; who leads.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{Api, Client};
use serde_json::Value;
use taskgate_api::switch::{CONFIG_MAP, Disabled, webhooks};
use taskgate_controller::switch::configurations;
use taskgate_webhook::{ConfigurationName, rules::CONFIGURATION};

use super::super::{disable::told, said};
use crate::args::{NAME, NAMESPACE, object_name};

/// Which installation of taskgate is asked about.
#[derive(Args, Debug)]
pub(crate) struct InstalledArgs {
    /// The namespace that taskgate runs in.
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, value_parser = object_name)]
    pub(crate) taskgate_namespace: String,
    /// The name of its webhook configurations.
    #[arg(long, value_name = "NAME", default_value = CONFIGURATION)]
    pub(crate) configuration: ConfigurationName,
    /// The Service, which the Lease is called after.
    #[arg(long, value_name = "NAME", default_value = NAME)]
    pub(crate) service: String,
}

/// The state of the installation, a line each: the switch, both webhook configurations, the leader.
///
/// RBAC: `get` on the ConfigMap and the Lease in taskgate's namespace, and on both webhook configurations.
pub(super) async fn read(client: &Client, args: &InstalledArgs) -> Result<String> {
    let name = args.configuration.as_str();
    let mut text = switch(client, &args.taskgate_namespace).await?;
    for (kind, api) in configurations(client) {
        let found = api.get_opt(name).await.map_err(said)?;
        let standing = found.map_or_else(|| "there is none".to_owned(), |found| standing(&found.data));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {name}: {standing}", kind.kind);
    }
    text.push_str(
        &leader(
            client,
            &args.taskgate_namespace,
            &format!("{}-controller", args.service),
        )
        .await?,
    );
    Ok(text)
}

async fn switch(client: &Client, namespace: &str) -> Result<String> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let Some(map) = maps.get_opt(CONFIG_MAP).await.map_err(said)? else {
        return Ok("taskgate: enabled\n".to_owned());
    };
    let (disabled, problem) = Disabled::read(&map.data.unwrap_or_default());
    let mut text = format!("taskgate: {}\n", told(&disabled));
    if let Some(problem) = problem {
        text.push_str(&problem);
        text.push('\n');
    }
    Ok(text)
}

/// Whether a configuration's webhooks are on, and what happens when nobody answers them.
fn standing(configuration: &Value) -> String {
    let (all, off) = webhooks(configuration).fold((0, 0), |(all, off), (_, is)| (all + 1, off + u32::from(is)));
    let fail = configuration["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|webhook| webhook["failurePolicy"] == "Fail")
        .count();
    let switched = match off {
        0 => "on".to_owned(),
        off if off == all => "off".to_owned(),
        off => format!("{off} of {all} off"),
    };
    format!("{switched}; of {all} webhooks {fail} fail closed")
}

async fn leader(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let leases = Api::<Lease>::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(name).await.map_err(said)?;
    let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
    Ok(
        match (
            spec.holder_identity.filter(|holder| !holder.is_empty()),
            spec.renew_time,
        ) {
            (Some(holder), Some(renewed)) => {
                let ago = Timestamp::now().duration_since(renewed.0).as_secs();
                format!("Leader: {holder}, heard of {ago} s ago\n")
            }
            _ => "Leader: none\n".to_owned(),
        },
    )
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
        let of = |webhooks: &[Value]| standing(&json!({"webhooks": webhooks}));
        let (on, off) = (webhook("a", "Ignore", false), webhook("b", "Fail", true));
        assert_eq!(of(std::slice::from_ref(&on)), "on; of 1 webhooks 0 fail closed");
        assert_eq!(of(std::slice::from_ref(&off)), "off; of 1 webhooks 1 fail closed");
        assert_eq!(of(&[on, off]), "1 of 2 off; of 2 webhooks 1 fail closed");
    }
}
