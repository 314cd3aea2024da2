//! The documentation is right: its commands run, an API server accepts its policies, its links have targets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kelos_standin::{Agents, CRDS, Options, Outcome, Scope, Standin, client};
use serde_json::{Value, json};
use std::time::Duration;
use taskgate_e2e::{ControlPlane, Gate, Kueue, binary, eventually, tool};
use tokio::process::Command;

use crate::support::{SYSTEM, apply_overlay, crossing, pods, project};

/// What the spec of a policy can be known by.
const POLICY: [&str; 5] = [
    "failurePolicy",
    "cancellationPolicy",
    "queueName",
    "metadata",
    "selector",
];

/// A fenced block of a page.
struct Block {
    /// `docs/x.md:12`
    place: String,
    /// What follows the fence.
    info: String,
    text: String,
}

/// README and everything in docs/, its folders included.
fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let mut pages = vec![
        project("README.md"),
        project("CONTRIBUTING.md"),
        project("SECURITY.md"),
        project("e2e/README.md"),
    ];
    let mut folders = vec![project("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

fn blocks(page: &Path) -> anyhow::Result<Vec<Block>> {
    let text = std::fs::read_to_string(page)?;
    let mut blocks = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
            (Some(info), None) => {
                let name = page.file_name().unwrap_or_default().to_string_lossy();
                let place = format!("{name}:{}", number + 1);
                let (info, text) = (info.trim().to_owned(), String::new());
                open = Some((Block { place, info, text }, indent));
            }
            // In a list the whole block is indented.
            (None, Some((block, fence))) => {
                block.text += &line[indent.min(*fence)..];
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "{}: a block does not end", page.display());
    Ok(blocks)
}

/// The commands of the pages, one by one, on a cluster with Kelos and a kubelet. A page that does not install taskgate finds it
/// installed; those pages share a cluster.
#[tokio::test]
async fn every_command_that_is_marked_runs() -> anyhow::Result<()> {
    let mut on_installed = Vec::new();
    for page in pages()? {
        let mut commands = blocks(&page)?;
        commands.retain(|block| block.info.starts_with("sh run"));
        let installs = |block: &Block| block.text.contains("manifests/chart") || block.text.contains("-k manifests/");
        if commands.iter().any(installs) {
            let cp = ControlPlane::builder().crds(CRDS).crossing(crossing()).start().await?;
            read(&cp, &commands).await?;
        } else {
            on_installed.extend(commands);
        }
    }
    let cp = ControlPlane::builder().crds(CRDS).crossing(crossing()).start().await?;
    apply_overlay(&cp, "self-signed").await?;
    let _running = pods(&cp, SYSTEM, "taskgate").await?;
    for block in &on_installed {
        run(&cp, block).await?;
    }
    Ok(())
}

/// Runs a page that installs taskgate.
async fn read(cp: &ControlPlane, commands: &[Block]) -> anyhow::Result<()> {
    let _standin = Standin::start(client(cp.config())?, Options::new(Scope::Cluster, "http://127.0.0.1:9")).await?;
    // Agents without credentials.
    let fails = |_: &Pod| Some((Duration::from_secs(1), Outcome::failed_at_once()));
    let _agents = Agents::scripted(client(cp.config())?, &Scope::Cluster, fails).await;
    let needs_kueue = commands.iter().any(|block| block.text.contains("queue.yaml"));
    let _kueue = if needs_kueue {
        Some(Kueue::start(cp).await?)
    } else {
        None
    };
    let kubelet = async {
        let running = eventually("taskgate is installed", Duration::from_mins(5), || {
            pods(cp, SYSTEM, "taskgate")
        })
        .await?;
        // Until the page is through.
        std::future::pending::<()>().await;
        drop(running);
        anyhow::Ok(())
    };
    let reader = async {
        for block in commands {
            run(cp, block).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        read = reader => read,
        installed = kubelet => installed,
    }
}

/// Runs a block as a user does who copies it into a shell.
async fn run(cp: &ControlPlane, block: &Block) -> anyhow::Result<()> {
    let helm = tool("helm").await?;
    let folder = |path: &Path| {
        path.parent()
            .map(|folder| folder.display().to_string())
            .unwrap_or_default()
    };
    let path = format!(
        "{}:{}:{}",
        folder(&helm),
        folder(&binary("taskgate")?),
        std::env::var("PATH")?
    );
    let own = cp.dir().join("helm");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block.text])
        .current_dir(project("."))
        .env("PATH", path)
        .env("KUBECONFIG", cp.kubeconfig())
        .env("HELM_CACHE_HOME", &own)
        .env("HELM_CONFIG_HOME", &own)
        .env("HELM_DATA_HOME", &own)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let [told, wrong] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    let is_denied = !output.status.success() && wrong.contains("denied the request: taskgate: item 42 failed 2 times");
    let expected = match block.info.as_str() {
        "sh run denied" => is_denied,
        _ => output.status.success(),
    };
    ensure!(expected, "{}: {}\n{told}{wrong}", block.place, output.status);
    if block.text.contains("get workitems") {
        ensure!(told.contains("42     Open      2 "), "{}: {told}", block.place);
    }
    if block.text.contains("-L kueue.x-k8s.io/queue-name") {
        ensure!(told.contains("agents"), "{}: {told}", block.place);
    }
    Ok(())
}

/// Every YAML block is YAML; every object of a kind that is there is one that the API server takes.
#[tokio::test]
async fn the_api_server_accepts_every_object() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let _gate = Gate::start(&cp).await?;
    cp.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: team-a}}")
        .await?;
    let mut judged = 0;
    for page in pages()? {
        for block in blocks(&page)?.into_iter().filter(|block| block.info == "yaml") {
            for document in block.text.split("\n---\n") {
                let mut object: Value = serde_saphyr::from_str(document).with_context(|| block.place.clone())?;
                if object["apiVersion"].is_null() {
                    // A part of something; of a policy, if its fields say so.
                    let spec = if object["spec"].is_object() {
                        object["spec"].take()
                    } else {
                        object
                    };
                    if POLICY.iter().all(|field| spec[field].is_null()) {
                        continue;
                    }
                    object = json!({
                        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "part"}, "spec": spec,
                    });
                }
                let args = ["apply", "--server-side", "--dry-run=server", "-n", "team-a", "-f-"];
                let applied = cp.kubectl_with_input(args, &object.to_string()).await?;
                let applied = applied.stdout_ok();
                let unknown = applied
                    .as_ref()
                    .err()
                    .is_some_and(|error| format!("{error:#}").contains("no matches for kind"));
                if unknown && !block.text.contains("taskgate.dev/") {
                    continue;
                }
                applied.with_context(|| block.place.clone())?;
                judged += 1;
            }
        }
    }
    ensure!(judged >= 8, "only {judged} objects");
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> anyhow::Result<()> {
    let anchors = |path: &Path| -> anyhow::Result<BTreeSet<String>> {
        let text = std::fs::read_to_string(path)?;
        let titles = text
            .lines()
            .filter(|line| line.starts_with('#'))
            .map(|line| line.trim_start_matches('#').trim());
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        Ok(titles
            .map(|title| {
                title
                    .to_lowercase()
                    .chars()
                    .filter(|c| legal(*c))
                    .collect::<String>()
                    .replace(' ', "-")
            })
            .collect())
    };
    let mut wrong = Vec::new();
    for page in pages()? {
        let text = std::fs::read_to_string(&page)?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap_or(&page).join(file)
            };
            let found = target.exists() && (anchor.is_empty() || anchors(&target)?.contains(anchor));
            if !found {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    // And the index has every page.
    let index = std::fs::read_to_string(project("docs/README.md"))?;
    for page in std::fs::read_dir(project("docs"))? {
        let page = page?;
        let mut name = page.file_name().to_string_lossy().into_owned();
        if page.path().is_dir() {
            if name == "images" {
                continue;
            }
            // A folder has an index of its own.
            name += "/README.md";
        }
        ensure!(
            name == "README.md" || index.contains(&format!("({name})")),
            "{name} is not in docs/README.md"
        );
    }
    Ok(())
}
