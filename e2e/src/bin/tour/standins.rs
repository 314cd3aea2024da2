//! What the tour has in place of Kelos, GitHub and Foreman.

use anyhow::Context as _;
use taskgate_e2e::{ControlPlane, Process, ProcessSpec, binary, free_port};

pub(crate) async fn start_kelos(cp: &ControlPlane) -> anyhow::Result<Process> {
    let seed = cp.dir().join("github.yaml");
    std::fs::write(&seed, include_str!("../../../tour/github.yaml")).context("writing the seed")?;
    let metrics = format!("127.0.0.1:{}", free_port()?);
    let spec = ProcessSpec::new("kelos-standin", binary("kelos-standin")?)
        .args(["--kubeconfig", &cp.kubeconfig().display().to_string()])
        .args(["--seed", &seed.display().to_string()])
        .args([
            "--github-stub",
            &format!("127.0.0.1:{}", free_port()?),
            "--metrics",
            &metrics,
        ])
        .args(["--install-crds", "--no-runtimes", "--agents"])
        .ready_at(format!("http://{metrics}/metrics"));
    cp.spawn(spec).await
}

pub(crate) async fn start_foreman(cp: &ControlPlane) -> anyhow::Result<Process> {
    let seed = cp.dir().join("foreman.yaml");
    std::fs::write(&seed, include_str!("../../../tour/foreman.yaml")).context("writing the seed")?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let spec = ProcessSpec::new("foreman-standin", binary("foreman-standin")?)
        .args(["--kubeconfig", &cp.kubeconfig().display().to_string()])
        .args(["--seed", &seed.display().to_string()])
        .args(["--install-crds", "--listen", &listen])
        .ready_at(format!("http://{listen}/healthz"));
    let foreman = cp.spawn(spec).await?;
    // The garbage collector learns of new kinds every 30 s, or at its start.
    cp.controller_manager().restart().await?;
    cp.apply_yaml(include_str!("../../../tour/agents.yaml")).await?;
    Ok(foreman)
}
