//! Processes under supervision: the components, and whatever a scenario adds.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::sync::watch;

use crate::metrics::get_text;
use crate::process_spec::ProcessSpec;
use crate::supervisor::{Run, Supervisor};

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// How long a process without a grace has, when it is asked politely all the same: an API
/// server that is being watched would take a minute.
const MOMENT: Duration = Duration::from_secs(1);

/// Between two looks at the memory of a process that has a limit.
const MEMORY_INTERVAL: Duration = Duration::from_millis(20);

/// Lines of a log that an error carries.
const TAIL: usize = 25;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl Exit {
    /// Ended by itself, with code 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("an unknown end"),
        }
    }
}

/// A process that lives in a control plane, and can be ended and started again.
///
/// Dropping it asks it to end (SIGTERM) and does not wait; the supervisor sees to the rest.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    log: PathBuf,
    supervisor: Arc<Supervisor>,
    current: Mutex<Option<Current>>,
}

#[derive(Clone, Debug)]
struct Current {
    run: Run,
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts `spec` and waits until it is up.
    pub(crate) async fn spawn(supervisor: Arc<Supervisor>, spec: ProcessSpec) -> anyhow::Result<Self> {
        let log = PathBuf::from("log").join(format!("{}.log", spec.name));
        let process = Self {
            spec,
            log,
            supervisor,
            current: Mutex::new(None),
        };
        process.start().await?;
        Ok(process)
    }

    /// The name of its spec.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its pid, or that of its last run.
    pub fn pid(&self) -> u32 {
        self.current().map_or(0, |current| current.pid)
    }

    /// It was started and has not ended.
    pub fn is_running(&self) -> bool {
        self.current().is_some_and(|current| {
            // A closed channel without an exit: the supervisor is gone, and so is all it had.
            current.exit.borrow().is_none() && current.exit.has_changed().is_ok()
        })
    }

    /// Starts it again, with the same arguments and the same log, and waits until it is up.
    ///
    /// # Errors
    /// If it runs already, cannot be started, ends, or is not up in time; with the tail of
    /// its log.
    pub async fn start(&self) -> anyhow::Result<()> {
        let ProcessSpec {
            name, argv, env, grace, ..
        } = &self.spec;
        ensure!(!self.is_running(), "{name} is running already");
        let (run, pid, exit) = self
            .supervisor
            .spawn(argv, env, &self.log, *grace)
            .await
            .with_context(|| format!("starting {name}"))?;
        if let Some(limit) = self.spec.memory {
            self.limit_memory(run, pid, exit.clone(), limit);
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Current { run, pid, exit });
        self.ready().await
    }

    /// Ends it with SIGTERM (SIGKILL after its grace) and starts it again.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.terminate().await?;
        self.start().await
    }

    /// SIGKILL: no time to say goodbye. Returns when it has ended.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn kill(&self) -> anyhow::Result<Exit> {
        self.signal(SIGKILL).await?;
        self.wait().await
    }

    /// SIGTERM, and SIGKILL when it takes longer than its grace; tells how it ended.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn terminate(&self) -> anyhow::Result<Exit> {
        let current = self.started()?;
        let grace = if self.spec.grace.is_zero() {
            MOMENT
        } else {
            self.spec.grace
        };
        self.supervisor.end(current.run, grace)?;
        self.wait().await
    }

    /// SIGSTOP: it is there, holds its connections, and answers nothing.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.signal(SIGSTOP).await
    }

    /// Goes on after [`Process::pause`].
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.signal(SIGCONT).await
    }

    /// Sends a signal by number; a process that has ended is no error.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn signal(&self, signal: i32) -> anyhow::Result<()> {
        self.supervisor.signal(self.started()?.run, signal).await
    }

    /// Waits until it ends, for as long as that takes.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub async fn wait(&self) -> anyhow::Result<Exit> {
        let mut current = self.started()?;
        let exit = current.exit.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| *exit).context("the supervisor is gone")
    }

    /// Where it writes what it has to say, over all its runs.
    pub fn log_path(&self) -> PathBuf {
        self.supervisor.dir().join(&self.log)
    }

    /// Everything it wrote, over all its runs.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        let path = self.log_path();
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of its log, for people to read: a log that cannot be read is told so.
    pub fn log_tail(&self, lines: usize) -> String {
        match self.log() {
            Ok(log) => {
                let all: Vec<&str> = log.lines().collect();
                all[all.len().saturating_sub(lines)..].join("\n")
            }
            Err(error) => format!("(no log: {error:#})"),
        }
    }

    /// Waits until it is up, as its spec defines that.
    ///
    /// # Errors
    /// If it ends or is not up in time; with the tail of its log.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ProcessSpec {
            name,
            ready_at,
            ready_within,
            ..
        } = &self.spec;
        let Some(url) = ready_at else { return Ok(()) };
        let up = async {
            while get_text(url).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let failed = tokio::select! {
            () = up => return Ok(()),
            exit = self.wait() => format!("{name} ended before it was up: {}", exit?),
            () = tokio::time::sleep(*ready_within) => {
                format!("{name} is not up after {ready_within:?}, asked at {url}")
            }
        };
        bail!("{failed}\nthe end of its log:\n{}", self.log_tail(TAIL))
    }

    /// The most memory that was resident at any time, in bytes, as the kernel counts it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let pid = self.started()?.pid;
        memory(pid, "VmHWM:").with_context(|| format!("{} does not run", self.spec.name))
    }

    /// Kills the run once more than `limit` bytes are resident. It looks often enough that a process cannot take the
    /// machine's memory meanwhile; what it misses between two looks, [`Process::peak_memory`] shows.
    fn limit_memory(&self, run: Run, pid: u32, exit: watch::Receiver<Option<Exit>>, limit: u64) {
        let supervisor = Arc::downgrade(&self.supervisor);
        let name = self.spec.name.clone();
        // Of no runtime: the process may be shared by tests that have a runtime each.
        std::thread::spawn(move || {
            while exit.borrow().is_none() && exit.has_changed().is_ok() {
                let used = memory(pid, "VmRSS:").unwrap_or_default();
                let Some(supervisor) = supervisor.upgrade() else { return };
                if used > limit {
                    tracing::error!(name, used, limit, "killing a process that uses more memory than it may");
                    if let Err(error) = supervisor.end(run, Duration::ZERO) {
                        tracing::debug!(name, %error, "the supervisor ended it");
                    }
                    return;
                }
                drop(supervisor);
                std::thread::sleep(MEMORY_INTERVAL);
            }
        });
    }

    fn current(&self) -> Option<Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn started(&self) -> anyhow::Result<Current> {
        self.current()
            .with_context(|| format!("{} was never started", self.spec.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running()
            && let Some(current) = self.current()
            && let Err(error) = self.supervisor.end(current.run, self.spec.grace)
        {
            // The supervisor is gone, and what it had with it.
            tracing::debug!(process = self.spec.name, error = %error, "not asked to end");
        }
    }
}

/// A field of `/proc/<pid>/status` that is an amount of memory, in bytes; `None` for a process that has ended.
fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let amount = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = amount.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
