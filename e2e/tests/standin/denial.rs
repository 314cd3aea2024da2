//! Denied creates: an admission policy of the test's own.

use crate::support::{StandinFixture, job, task};
use anyhow::ensure;
use taskgate_e2e::{PATIENCE, eventually};

impl StandinFixture {
    /// Denies what the CEL expression is false for; `probe` is an object that it is false for.
    pub(crate) async fn deny(
        &self,
        group: &str,
        resource: &str,
        expression: &str,
        probe: &str,
    ) -> anyhow::Result<Denial<'_>> {
        let denial = Denial {
            fixture: self,
            name: format!("{}-{resource}", self.ns),
            probe: probe.to_owned(),
        };
        let name = &denial.name;
        let policy = format!(
            r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules:
    - {{apiGroups: ["{group}"], apiVersions: ["*"], operations: [CREATE], resources: [{resource}]}}
  validations:
  - {{expression: "{expression}", message: denied by the test, reason: Forbidden}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec:
  policyName: {name}
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {ns}}}}}}}
"#,
            ns = self.ns
        );
        self.cp.apply_yaml(&policy).await?;
        eventually("the policy denies", PATIENCE, async || {
            let answer = denial.probe().await?;
            ensure!(answer.contains("denied by the test"), "{answer}");
            Ok(())
        })
        .await?;
        Ok(denial)
    }

    pub(crate) async fn deny_jobs(&self) -> anyhow::Result<Denial<'_>> {
        self.deny("batch", "jobs", "false", &job("probe", "")).await
    }

    pub(crate) async fn deny_task(&self, name: &str) -> anyhow::Result<Denial<'_>> {
        let expression = format!("object.metadata.name != '{name}'");
        self.deny("kelos.dev", "tasks", &expression, &task(name, "")).await
    }
}

/// A policy in force. It does not end when dropped: namespaces are not used twice.
pub(crate) struct Denial<'a> {
    fixture: &'a StandinFixture,
    name: String,
    probe: String,
}

impl Denial<'_> {
    async fn probe(&self) -> anyhow::Result<String> {
        let namespace = format!("--namespace={}", self.fixture.ns);
        let arguments = ["create", "--dry-run=server", "-f-", &namespace];
        let output = self.fixture.cp.kubectl_with_input(arguments, &self.probe).await?;
        Ok(match output.stdout_ok() {
            Ok(_) => String::new(),
            Err(refused) => format!("{refused:#}"),
        })
    }

    pub(crate) async fn lift(self) -> anyhow::Result<()> {
        let kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy";
        let deleted = self.fixture.cp.kubectl(["delete", kinds, &self.name]).await?;
        deleted.stdout_ok()?;
        eventually("the policy is gone", PATIENCE, async || {
            let answer = self.probe().await?;
            ensure!(!answer.contains("denied by the test"), "{answer}");
            Ok(())
        })
        .await
    }
}
