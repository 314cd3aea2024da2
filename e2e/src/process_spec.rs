//! What a further process is to be.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// How long a process may take to end that was not told otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// What to start, and how to know that it is up.
#[derive(Clone, Debug)]
#[must_use]
pub struct ProcessSpec {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) ready_at: Option<String>,
    pub(crate) ready_within: Duration,
    pub(crate) grace: Duration,
    pub(crate) memory: Option<u64>,
}

impl ProcessSpec {
    /// `name` is what its log file and the errors call it.
    pub fn new(name: impl Into<String>, program: impl AsRef<Path>) -> Self {
        Self {
            name: name.into(),
            argv: vec![program.as_ref().display().to_string()],
            env: BTreeMap::new(),
            ready_at: None,
            ready_within: Duration::from_mins(1),
            grace: GRACE,
            memory: None,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable, on top of the test's own environment.
    pub fn env(mut self, name: impl Into<String>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .insert(name.into(), value.as_ref().to_string_lossy().into_owned());
        self
    }

    /// It is up when a GET of this URL (http or https, any certificate) answers 2xx.
    /// Without one, it is up once it runs.
    pub fn ready_at(mut self, url: impl Into<String>) -> Self {
        self.ready_at = Some(url.into());
        self
    }

    /// How long it may take to be up; 60 s if not told.
    pub fn ready_within(mut self, deadline: Duration) -> Self {
        self.ready_within = deadline;
        self
    }

    /// How long it may take to end after SIGTERM before it is killed; 5 s if not told.
    /// Zero: it is killed at once when the control plane ends. At most 15 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace.min(Duration::from_secs(15));
        self
    }

    /// How many bytes of memory may be resident. A process that uses more is killed, as by a container's limit, but without
    /// the rights that a cgroup takes: see [`Process::peak_memory`](crate::Process::peak_memory).
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }
}
