//! The test's end of `controlplane/supervise`, where `protocol.go` describes what is said.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::builder::Keep;
use crate::process::Exit;

/// Longest that tearing down may take; the longest grace of a process is within it.
const TEARDOWN: Duration = Duration::from_secs(20);

/// A number for one run of one process; never used twice, as pids are.
pub(crate) type Run = u64;

/// Owner of the temporary directory and of every process in it.
///
/// Bound to no runtime: its reader is a plain thread, so a control plane can be shared by
/// tests that have a runtime each.
#[derive(Debug)]
pub(crate) struct Supervisor {
    dir: PathBuf,
    pid: u32,
    keep: Keep,
    child: Mutex<Option<Child>>,
    requests: Mutex<Option<ChildStdin>>,
    answers: Arc<Answers>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Answers {
    replies: Mutex<HashMap<u64, oneshot::Sender<Line>>>,
    exits: Mutex<HashMap<Run, watch::Sender<Option<Exit>>>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    id: u64,
    process: Run,
    #[serde(flatten)]
    operation: Operation<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Operation<'a> {
    Start {
        argv: &'a [String],
        env: &'a BTreeMap<String, String>,
        log: &'a Path,
        grace_millis: u128,
    },
    Signal {
        signal: i32,
    },
    Stop {
        grace_millis: u128,
    },
}

/// One line of the supervisor: hello, reply or exit.
#[derive(Debug, Default, Deserialize)]
struct Line {
    id: Option<u64>,
    error: Option<String>,
    dir: Option<PathBuf>,
    pid: Option<u32>,
    exited: Option<Run>,
    code: Option<i32>,
    signal: Option<i32>,
}

impl Supervisor {
    /// Starts the supervisor, which makes the directory.
    pub(crate) fn start(binary: &Path, keep: Keep) -> anyhow::Result<Self> {
        let mut child = Command::new(binary)
            .args(["-keep", keep.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A terminal's Ctrl-C is for the test; the supervisor sees its pipe close.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let requests = child.stdin.take().context("the supervisor has no stdin")?;
        let stdout = child.stdout.take().context("the supervisor has no stdout")?;
        let mut lines = BufReader::new(stdout);
        let mut hello = String::new();
        lines.read_line(&mut hello)?;
        let hello: Line = serde_json::from_str(&hello).context("the supervisor sent no hello")?;
        if let Some(error) = hello.error {
            bail!("supervisor: {error}");
        }
        let answers = Arc::new(Answers::default());
        let reader = Arc::clone(&answers);
        std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || reader.read(lines))?;
        Ok(Self {
            dir: hello.dir.context("the supervisor named no directory")?,
            pid: child.id(),
            keep,
            child: Mutex::new(Some(child)),
            requests: Mutex::new(Some(requests)),
            answers,
            next: AtomicU64::new(1),
        })
    }

    /// The temporary directory; gone with the supervisor.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn keep(&self) -> Keep {
        self.keep
    }

    /// Starts a process; returns its run, its pid and where its exit will be seen.
    pub(crate) async fn spawn(
        &self,
        argv: &[String],
        env: &BTreeMap<String, String>,
        log: &Path,
        grace: Duration,
    ) -> anyhow::Result<(Run, u32, watch::Receiver<Option<Exit>>)> {
        let run = self.next.fetch_add(1, Ordering::Relaxed);
        // Before the request, so that no exit is missed.
        let (sender, exit) = watch::channel(None);
        lock(&self.answers.exits).insert(run, sender);
        let operation = Operation::Start {
            argv,
            env,
            log,
            grace_millis: grace.as_millis(),
        };
        let reply = self.call(run, operation).await;
        if reply.is_err() {
            lock(&self.answers.exits).remove(&run);
        }
        let pid = reply?.pid.context("the supervisor sent no pid")?;
        Ok((run, pid, exit))
    }

    /// Sends a signal to a process and all it started; one that has ended is no error.
    pub(crate) async fn signal(&self, run: Run, signal: i32) -> anyhow::Result<()> {
        self.call(run, Operation::Signal { signal }).await.map(drop)
    }

    /// Ends a process: SIGTERM, and SIGKILL if the grace is zero or over. Does not wait.
    pub(crate) fn end(&self, run: Run, grace: Duration) -> anyhow::Result<()> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let operation = Operation::Stop {
            grace_millis: grace.as_millis(),
        };
        self.write(&Request {
            id,
            process: run,
            operation,
        })
    }

    async fn call(&self, run: Run, operation: Operation<'_>) -> anyhow::Result<Line> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        lock(&self.answers.replies).insert(id, sender);
        self.write(&Request {
            id,
            process: run,
            operation,
        })?;
        let reply = reply.await.map_err(|_| anyhow!("the supervisor is gone"))?;
        match reply.error {
            Some(error) => Err(anyhow!(error)),
            None => Ok(reply),
        }
    }

    fn write(&self, request: &Request<'_>) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut requests = lock(&self.requests);
        let requests = requests.as_mut().context("the control plane was stopped")?;
        requests.write_all(&line).context("the supervisor is gone")
    }

    /// Ends everything and waits until it has ended. Blocks for about 0.1 s; longer only if
    /// a process uses the time it was given to end.
    pub(crate) fn stop(&self) {
        drop(lock(&self.requests).take());
        let Some(mut child) = lock(&self.child).take() else {
            return;
        };
        if self.keep == Keep::Everything {
            return;
        }
        if let Err(error) = await_end(&mut child).and_then(|()| self.remove_what_is_left()) {
            tracing::error!(
                dir = %self.dir.display(),
                error = %error,
                "something of a control plane is left behind"
            );
        }
    }

    /// Nothing is, unless the supervisor was killed: then the kernel killed what it supervised,
    /// and the directory is ours to remove.
    fn remove_what_is_left(&self) -> std::io::Result<()> {
        if self.keep == Keep::Logs {
            return Ok(());
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn await_end(child: &mut Child) -> std::io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < TEARDOWN {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    tracing::error!("the supervisor does not end, killing it");
    child.kill()?;
    child.wait().map(drop)
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Answers {
    fn read(&self, lines: BufReader<ChildStdout>) {
        for line in lines.lines() {
            let Ok(line) = line else { break };
            let line: Line = match serde_json::from_str(&line) {
                Ok(line) => line,
                Err(error) => {
                    tracing::error!(error = %error, "the supervisor sent a malformed line");
                    continue;
                }
            };
            if let Some(run) = line.exited {
                if let Some(exit) = lock(&self.exits).remove(&run) {
                    exit.send_replace(Some(Exit {
                        code: line.code,
                        signal: line.signal,
                    }));
                }
            } else if let Some(reply) = line.id.and_then(|id| lock(&self.replies).remove(&id)) {
                // The caller may have stopped waiting.
                drop(reply.send(line));
            }
        }
        // No caller waits on for a supervisor that is gone.
        lock(&self.replies).clear();
        lock(&self.exits).clear();
    }
}

/// A panic elsewhere leaves these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
