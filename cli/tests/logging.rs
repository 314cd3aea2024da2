//! What the binary logs, as the program that reads it sees it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// An API server that nobody is behind: enough to start, and to log that.
const NOBODY: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "x",
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
fn text_that_goes_to_no_terminal_has_no_colours() {
    let kubeconfig = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("nobody.yaml");
    std::fs::write(&kubeconfig, NOBODY).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_taskgate"))
        .args(["serve", "--log-format", "text", "--listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0", "--kubeconfig"])
        .arg(&kubeconfig)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let stderr = running.0.stderr.take().unwrap();
    // Which of its parts speaks first is not said.
    for line in BufReader::new(stderr).lines() {
        let line = line.unwrap();
        assert!(!line.contains('\u{1b}'), "{line:?}");
        if line.contains("listening") {
            return;
        }
    }
    panic!("it ended without listening");
}
