//! The log of the binary, as a program reads it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// An API server that does not exist: enough to start, and to log that.
const UNREACHABLE: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "x",
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "u", "user": {}}],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}"#;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; the test has failed then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn text_has_no_colours_without_a_terminal() {
    let kubeconfig = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("unreachable.yaml");
    std::fs::write(&kubeconfig, UNREACHABLE).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .args(["serve", "--log-format", "text", "--listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0", "--kubeconfig"])
        .arg(&kubeconfig)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let stderr = running.0.stderr.take().unwrap();
    // The order of the first lines is not fixed.
    for line in BufReader::new(stderr).lines() {
        let line = line.unwrap();
        assert!(!line.contains('\u{1b}'), "{line:?}");
        if line.contains("listening") {
            return;
        }
    }
    panic!("it ended without listening");
}
