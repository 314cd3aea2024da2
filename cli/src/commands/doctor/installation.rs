//! The settings of an installation: from the flags and the environment in its Deployment, which are parsed as `taskgate serve`
//! parses them.

use clap::{Args as _, Command, FromArgMatches as _};
use serde_json::Value;

use crate::{
    rights::Names,
    serve::{
        self,
        args::{CertMode, ServeArgs},
    },
};

/// The settings of an installation.
pub(super) struct Installation {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) configuration: String,
    /// The service account of the pods.
    pub(super) account: String,
    /// Its flags.
    pub(super) serve: ServeArgs,
    pub(super) names: Names,
    /// Why the flags of the Deployment cannot be parsed; the defaults are assumed.
    pub(super) problem: Option<String>,
}

impl Installation {
    /// The settings of the installation with this `deployment`; `None` where there is none, or it cannot be read.
    pub(super) fn of(
        namespace: &str,
        service: &str,
        configuration: &str,
        deployment: Option<&Value>,
    ) -> Result<Self, String> {
        let defaults = || parse(vec![format!("--namespace={namespace}"), format!("--service={service}")]);
        let (serve, problem) = match deployment.map(|deployment| parse(flags(namespace, deployment))) {
            None => (defaults()?, None),
            Some(Ok(serve)) => (serve, None),
            Some(Err(problem)) => (defaults()?, Some(problem)),
        };
        let account =
            deployment.and_then(|deployment| deployment.pointer("/spec/template/spec/serviceAccountName")?.as_str());
        Ok(Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            configuration: configuration.to_owned(),
            account: account.unwrap_or(service).to_owned(),
            names: Names {
                namespace: namespace.to_owned(),
                ..serve::names(&serve)
            },
            serve,
            problem,
        })
    }

    /// The Secret with the certificate; `None` where it comes from files.
    pub(super) fn secret(&self) -> Option<&str> {
        (self.serve.cert_mode != CertMode::Files).then_some(&self.serve.cert_secret)
    }
}

/// The label selector of a Deployment's pods.
pub(super) fn pod_selector(deployment: &Value) -> Option<String> {
    let labels = deployment.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs = labels
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    Some(pairs.collect::<Vec<_>>().join(","))
}

/// The flags of the pods: their arguments, and those that their environment sets.
fn flags(namespace: &str, deployment: &Value) -> Vec<String> {
    let container = deployment.pointer("/spec/template/spec/containers/0");
    let field = |name: &str| container.and_then(|container| container[name].as_array());
    let args = field("args").into_iter().flatten().filter_map(Value::as_str);
    let mut flags: Vec<_> = args.filter(|arg| *arg != "serve").map(ToOwned::to_owned).collect();
    for entry in field("env").into_iter().flatten() {
        let is_namespace = entry.pointer("/valueFrom/fieldRef/fieldPath") == Some(&"metadata.namespace".into());
        let value = entry["value"].as_str().or(is_namespace.then_some(namespace));
        let known = entry["name"].as_str().and_then(flag);
        let (Some(value), Some((flag, takes_value))) = (value, known) else {
            continue;
        };
        let is_set = flags.iter().any(|arg| arg.split('=').next() == Some(flag.as_str()));
        match takes_value {
            _ if is_set => {}
            true => flags.push(format!("{flag}={value}")),
            false if value == "true" => flags.push(flag),
            false => {}
        }
    }
    flags
}

/// The flag that an environment variable sets, and whether it takes a value.
fn flag(variable: &str) -> Option<(String, bool)> {
    let serve = ServeArgs::augment_args(Command::new("serve"));
    let found = serve
        .get_arguments()
        .find(|arg| arg.get_env().is_some_and(|env| env == variable))?;
    Some((format!("--{}", found.get_long()?), found.get_action().takes_values()))
}

/// Parses flags of `taskgate serve`, without the environment of this process.
fn parse(flags: Vec<String>) -> Result<ServeArgs, String> {
    let command = ServeArgs::augment_args(Command::new("serve")).mut_args(|arg| arg.env(None::<&'static str>));
    let line = ["serve".to_owned()].into_iter().chain(flags);
    let parsed = command
        .try_get_matches_from(line)
        .and_then(|matches| ServeArgs::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn installed(args: &Value, env: &Value) -> Installation {
        let container = json!({"args": args, "env": env});
        let deployment =
            json!({"spec": {"template": {"spec": {"serviceAccountName": "gate", "containers": [container]}}}});
        Installation::of("gates", "gate", "a", Some(&deployment)).expect("the defaults are legal")
    }

    #[test]
    fn flags_and_environment_are_parsed_as_serve_parses_them() {
        let found = installed(
            &json!(["serve", "--cert-mode=cert-manager"]),
            &json!([
                {"name": "TASKGATE_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "TASKGATE_CERT_SECRET", "value": "given"},
                {"name": "TASKGATE_CERT_MODE", "value": "files"},
                {"name": "TASKGATE_NO_LEADER_ELECTION", "value": "true"},
                {"name": "HTTPS_PROXY", "value": "http://proxy"},
            ]),
        );
        assert_eq!(
            (found.serve.cert_mode, found.secret()),
            (CertMode::CertManager, Some("given"))
        );
        assert_eq!(
            (found.account.as_str(), found.serve.no_leader_election, &found.problem),
            ("gate", true, &None)
        );
        assert_eq!(found.names.lease, "taskgate-controller");
    }

    #[test]
    fn flags_that_cannot_be_parsed_are_a_problem_and_the_defaults_are_assumed() {
        let found = installed(&json!(["serve", "--from-the-future"]), &json!([]));
        assert!(
            found
                .problem
                .as_ref()
                .is_some_and(|problem| problem.contains("--from-the-future"))
        );
        assert_eq!(found.secret(), Some("taskgate-serving-cert"));
        assert_eq!(found.names.lease, "gate-controller");
    }

    #[test]
    fn pods_are_selected_by_the_selector_of_the_deployment() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"a": "b", "c": "d"}}}});
        assert_eq!(pod_selector(&deployment).as_deref(), Some("a=b,c=d"));
    }
}
