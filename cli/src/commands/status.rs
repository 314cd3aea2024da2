//! `taskgate status`: whether taskgate is disabled, by whom, until when; whether the API server asks it; who leads.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::Api;
use serde_json::Value;
use taskgate_api::switch::{CONFIG_MAP, Disabled, webhooks};
use taskgate_controller::switch::configurations;

use super::{Connection, Failure, installation::InstallationArgs, said};
use crate::{args::NAME, output};

/// Flags of `taskgate status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The Service, which the Lease is called after.
    #[arg(long, value_name = "NAME", default_value = NAME)]
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) installation: InstallationArgs,
}

/// RBAC: `get` on the ConfigMap and the Lease in taskgate's namespace, and on both webhook configurations.
pub(crate) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let connection = args.installation.connect().await?;
    let name = args.installation.configuration.as_str();
    let mut text = switch(&connection).await?;
    for (kind, api) in configurations(&connection.client) {
        let found = api.get_opt(name).await.map_err(said)?;
        let standing = found.map_or_else(|| "there is none".to_owned(), |found| standing(&found.data));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {name}: {standing}", kind.kind);
    }
    text.push_str(&leader(&connection, &format!("{}-controller", args.service)).await?);
    Ok(output::print(&text)?)
}

async fn switch(connection: &Connection) -> Result<String, Failure> {
    let maps = Api::<ConfigMap>::namespaced(connection.client.clone(), &connection.namespace);
    let Some(map) = maps.get_opt(CONFIG_MAP).await.map_err(said)? else {
        return Ok("taskgate: enabled\n".to_owned());
    };
    let (disabled, problem) = Disabled::read(&map.data.unwrap_or_default());
    let mut text = "taskgate: disabled".to_owned();
    let time = |time: Timestamp| time.strftime("%FT%TZ").to_string();
    for (word, value) in [
        (" since ", disabled.since.map(time)),
        (" by ", disabled.by),
        (" until ", disabled.until.map(time)),
        (": ", disabled.reason),
    ] {
        if let Some(value) = value {
            text.push_str(word);
            text.push_str(&value);
        }
    }
    text.push('\n');
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

async fn leader(connection: &Connection, name: &str) -> Result<String, Failure> {
    let leases = Api::<Lease>::namespaced(connection.client.clone(), &connection.namespace);
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
