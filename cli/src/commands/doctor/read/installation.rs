//! How taskgate is run: from the flags and the environment in its Deployment, which are read as taskgate itself reads them.

use clap::{CommandFactory as _, FromArgMatches as _};
use serde_json::Value;

use super::super::facts::Installation;
use crate::{
    args::{CertMode, Cli, Command, ServeArgs},
    serve,
};

/// What follows for an installation; `deployment` is absent where there is none, or it may not be read.
pub(super) fn of(namespace: &str, service: &str, configuration: &str, deployment: Option<&Value>) -> Installation {
    let nothing = Value::Null;
    let usual = || vec![format!("--namespace={namespace}"), format!("--service={service}")];
    let written = deployment.map(|deployment| flags(namespace, deployment));
    let (serve, problem) = match parse(written.unwrap_or_else(usual)) {
        Ok(serve) => (Some(serve), None),
        Err(problem) => (parse(usual()).ok(), Some(problem)),
    };
    let account = deployment
        .unwrap_or(&nothing)
        .pointer("/spec/template/spec/serviceAccountName");
    let account = account.and_then(Value::as_str).unwrap_or(service);
    let names = serve.as_ref().map_or_else(crate::manifests::usual_names, serve::names);
    let mode = serve.as_ref().map(|serve| serve.cert_mode).unwrap_or_default();
    Installation {
        version: env!("CARGO_PKG_VERSION"),
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        configuration: configuration.to_owned(),
        account: account.to_owned(),
        secret: match mode {
            CertMode::SelfSigned => Some(names.certificate.clone()),
            CertMode::CertManager => Some(names.issued.clone()),
            CertMode::Files => None,
        },
        mode,
        elects: serve.as_ref().is_none_or(|serve| !serve.no_leader_election),
        kueue: serve.map(|serve| serve.kueue_config).unwrap_or_default(),
        names,
        problem,
    }
}

/// The label selector of a Deployment's pods.
pub(super) fn selector(deployment: &Value) -> Option<String> {
    let labels = deployment.pointer("/spec/selector/matchLabels")?.as_object()?;
    let pairs = labels
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    Some(pairs.collect::<Vec<_>>().join(","))
}

/// The flags that the pods are started with: those that are written, and those that their environment stands for.
fn flags(namespace: &str, deployment: &Value) -> Vec<String> {
    let container = deployment.pointer("/spec/template/spec/containers/0");
    let field = |name: &str| container.and_then(|container| container[name].as_array());
    let written = field("args").into_iter().flatten().filter_map(Value::as_str);
    let mut flags: Vec<_> = written.filter(|arg| *arg != "serve").map(ToOwned::to_owned).collect();
    for entry in field("env").into_iter().flatten() {
        let is_namespace = entry.pointer("/valueFrom/fieldRef/fieldPath") == Some(&"metadata.namespace".into());
        let value = entry["value"].as_str().or(is_namespace.then_some(namespace));
        let known = entry["name"].as_str().and_then(flag);
        let (Some(value), Some((flag, takes_value))) = (value, known) else {
            continue;
        };
        let is_written = flags.iter().any(|arg| arg.split('=').next() == Some(flag.as_str()));
        match takes_value {
            _ if is_written => {}
            true => flags.push(format!("{flag}={value}")),
            false if value == "true" => flags.push(flag),
            false => {}
        }
    }
    flags
}

/// The flag that an environment variable stands for, and whether it takes a value.
fn flag(variable: &str) -> Option<(String, bool)> {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve")?;
    let found = serve
        .get_arguments()
        .find(|arg| arg.get_env().is_some_and(|env| env == variable))?;
    Some((format!("--{}", found.get_long()?), found.get_action().takes_values()))
}

/// The flags of `taskgate serve`, without looking at the environment of this process.
fn parse(flags: Vec<String>) -> Result<ServeArgs, String> {
    let cli = Cli::command().mut_subcommand("serve", |serve| serve.mut_args(|arg| arg.env(None::<&'static str>)));
    let line = ["taskgate", "serve"].map(ToOwned::to_owned).into_iter().chain(flags);
    let parsed = cli
        .try_get_matches_from(line)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed.map(|cli| cli.command) {
        Ok(Command::Serve(serve)) => Ok(*serve),
        Ok(_) => Err("it does not run `taskgate serve`".to_owned()),
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            Err(line.trim_start_matches("error: ").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn installed(args: &Value, env: &Value) -> Installation {
        let container = json!({"args": args, "env": env});
        let deployment =
            json!({"spec": {"template": {"spec": {"serviceAccountName": "gate", "containers": [container]}}}});
        of("gates", "gate", "a", Some(&deployment))
    }

    #[test]
    fn flags_and_environment_are_read_as_taskgate_reads_them() {
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
            (found.mode, found.secret.as_deref()),
            (CertMode::CertManager, Some("given"))
        );
        assert_eq!(
            (found.account.as_str(), found.elects, found.problem),
            ("gate", false, None)
        );
        assert_eq!(found.names.lease, "taskgate-controller");
    }

    #[test]
    fn what_is_not_understood_is_told_and_the_usual_is_assumed() {
        let found = installed(&json!(["serve", "--from-the-future"]), &json!([]));
        assert!(
            found
                .problem
                .is_some_and(|problem| problem.contains("--from-the-future"))
        );
        assert_eq!(found.secret.as_deref(), Some("taskgate-serving-cert"));
        assert_eq!(found.names.lease, "gate-controller");
    }

    #[test]
    fn pods_are_selected_as_the_deployment_does() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"a": "b", "c": "d"}}}});
        assert_eq!(selector(&deployment).as_deref(), Some("a=b,c=d"));
    }
}
