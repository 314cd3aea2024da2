//! The image of taskgate, assembled as `make image` does, and its container: the unpacked, read-only root, the user of the image, and
//! what a kubelet mounts into it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::access::Access;
use crate::kubectl::{Output, run};
use crate::process_spec::ProcessSpec;

const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
/// Makes `$1` the root, with nothing of it writable, and runs the rest as `$2` (empty: as the user that it has already).
const ENTER: &str = r#"
root=$1 user=$2
shift 2
unset KUBECONFIG TASKGATE_KUBECONFIG
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
exec chroot ${user:+--userspec="$user" --groups=} "$root" "$@"
"#;

/// An OCI layout with one image.
#[derive(Clone, Debug)]
pub struct Image {
    layout: PathBuf,
    /// What `make image` prints: the name, and the digest of the index.
    pub reference: String,
}

impl Image {
    /// Assembles an image with `binary` in the folder `layout`, with further flags of the tool.
    ///
    /// # Errors
    /// If Go cannot be run; a refusal of the tool is in the [`Output`].
    pub async fn assemble(binary: &Path, layout: &Path, flags: &[&str]) -> anyhow::Result<Result<Self, Output>> {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/image");
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let mut command = Command::new("go");
        command
            .args(["run", "-C"])
            .arg(tool)
            .args([".", "-name=taskgate.test/taskgate:0.0.0", "-binary"])
            .arg(format!("linux/{architecture}={}", binary.display()))
            .arg("-layout")
            .arg(layout)
            .args(flags);
        let output = run(&mut command).await?;
        if !output.status.success() {
            return Ok(Err(output));
        }
        Ok(Ok(Self {
            layout: layout.to_owned(),
            reference: output.stdout.trim().to_owned(),
        }))
    }

    /// The manifest of the image, and its configuration.
    ///
    /// # Errors
    /// If the layout has other contents than one image.
    pub fn manifest(&self) -> anyhow::Result<(Value, Value)> {
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json"))?)?;
        let images = index["manifests"].as_array().context("an index")?;
        ensure!(images.len() == 1, "{index}");
        let manifest: Value = serde_json::from_slice(&fs::read(self.blob(&images[0])?)?)?;
        let config = serde_json::from_slice(&fs::read(self.blob(&manifest["config"])?)?)?;
        Ok((manifest, config))
    }

    fn blob(&self, descriptor: &Value) -> anyhow::Result<PathBuf> {
        let digest = descriptor["digest"].as_str().context("a digest")?;
        Ok(self.layout.join("blobs").join(digest.replace(':', "/")))
    }

    /// Unpacks it to `root`.
    ///
    /// # Errors
    /// If a layer is no archive.
    pub async fn unpack(&self, root: &Path) -> anyhow::Result<ContainerRoot> {
        fs::create_dir_all(root)?;
        let (manifest, config) = self.manifest()?;
        for layer in manifest["layers"].as_array().context("layers")? {
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(self.blob(layer)?).arg("-C").arg(root);
            run(&mut tar).await?.stdout_ok()?;
        }
        let config = &config["config"];
        Ok(ContainerRoot {
            directory: root.to_owned(),
            user: config["User"].as_str().context("a user")?.to_owned(),
            entrypoint: config["Entrypoint"][0].as_str().context("an entry point")?.to_owned(),
        })
    }
}

/// The root of containers.
#[derive(Clone, Debug)]
pub struct ContainerRoot {
    directory: PathBuf,
    user: String,
    entrypoint: String,
}

impl ContainerRoot {
    /// Adds the shared libraries that its program needs: those of a debug build; the binary of a release needs none.
    ///
    /// # Errors
    /// If they cannot be found.
    pub async fn add_libraries_of(&self, binary: &Path) -> anyhow::Result<()> {
        let listed = run(Command::new("ldd").arg(binary)).await?.stdout_ok()?;
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            self.write(library.trim_start_matches('/'), &fs::read(library)?, 0o755)?;
        }
        Ok(())
    }

    fn write(&self, path: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
        let path = self.directory.join(path);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("setting permissions")
    }

    /// Whether this machine lets the test have a root of its own: it needs to be root, or user namespaces.
    pub async fn is_possible() -> bool {
        let mut unshare = Command::new("unshare");
        unshare.args(namespaces()).arg("true");
        run(&mut unshare).await.is_ok_and(|output| output.status.success())
    }

    /// What runs the image with `args` as the service account `namespace`/`name`, which finds the API server as in a pod: by
    /// the name of its Service, and with the token that the kubelet mounts.
    pub(crate) async fn process(
        &self,
        cp: &Access,
        title: &str,
        [namespace, account]: [&str; 2],
        args: Vec<String>,
    ) -> anyhow::Result<ProcessSpec> {
        let token = cp.token_of_service_account(namespace, account).await?;
        for (file, content) in [("token", token.as_str()), ("ca.crt", cp.ca()), ("namespace", namespace)] {
            self.write(&format!("{SERVICE_ACCOUNT}/{file}"), content.as_bytes(), 0o644)?;
        }
        self.write("etc/hosts", b"127.0.0.1 localhost kubernetes.default.svc\n", 0o644)?;
        let (_, port) = cp.server().rsplit_once(':').context("the API server has a port")?;
        let user = if is_root() { self.user.as_str() } else { "" };
        Ok(ProcessSpec::new(title, "unshare")
            .args(namespaces().iter().copied())
            .args(["sh", "-euc", ENTER, "sh"])
            .arg(self.directory.display().to_string())
            .args([user, &self.entrypoint])
            .args(args)
            .env("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
            .env("KUBERNETES_SERVICE_PORT", OsStr::new(port)))
    }
}

/// The flags of `unshare`. A user who is not root is 65532 in a namespace of its own.
fn namespaces() -> &'static [&'static str] {
    if is_root() {
        &["--mount"]
    } else {
        &[
            "--mount",
            "--user",
            "--map-user=65532",
            "--map-group=65532",
            "--keep-caps",
        ]
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
