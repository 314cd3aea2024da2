//! One GitHub for all tests of a suite.

use super::GitHub;
use jiff::Timestamp;
use std::io;
use std::sync::LazyLock;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Where they run: each test has a runtime of its own, which ends with it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime can be started"));

/// A GitHub that is started, without a rate limit, by the first test that asks for it. Made for a `static`.
#[derive(Debug, Default)]
pub struct SharedGitHub(OnceCell<GitHub>);

impl SharedGitHub {
    /// One that will be started.
    pub const fn new() -> Self {
        Self(OnceCell::const_new())
    }

    /// The GitHub; started on the first call.
    ///
    /// # Errors
    /// As [`GitHub::start`]. The next call tries again.
    pub async fn get(&self) -> io::Result<&GitHub> {
        self.0
            .get_or_try_init(|| async {
                let github = RUNTIME.spawn(GitHub::start()).await??;
                github.rate_limit(u64::from(u32::MAX), Timestamp::MAX);
                Ok(github)
            })
            .await
    }
}
