//! How far something is that takes its time: one line on standard error, on a terminal only, after a second.

use std::{
    io::{self, IsTerminal as _, Write as _},
    pin::pin,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Nobody is told anything before that.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(100);

/// A line that tells how far it is, and goes when it is over.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    next: Option<Mutex<Instant>>,
}

impl Progress {
    /// The progress of `what`, such as `reading files`.
    pub(crate) fn new(what: &'static str) -> Self {
        let next = io::stderr()
            .is_terminal()
            .then(|| Mutex::new(Instant::now() + PATIENCE));
        Self { what, next }
    }

    /// Tells that `done` of `total` are done. Cheap, and callable from any thread.
    pub(crate) fn at(&self, done: usize, total: usize) {
        let Some(Ok(mut next)) = self.next.as_ref().map(Mutex::try_lock) else {
            return;
        };
        let now = Instant::now();
        if now >= *next {
            *next = now + EVERY;
            // Nobody is left to tell when that fails.
            let _ = write!(io::stderr(), "\r{}: {done} of {total}\u{1b}[K", self.what);
        }
    }

    /// Waits for `work`, and tells how far it is by what `how_far` says: done, and of how many. For work that is silent while
    /// it waits itself.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>, how_far: impl Fn() -> (usize, usize)) -> T {
        let mut work = pin!(work);
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                _ = ticks.tick() => {
                    let (done, total) = how_far();
                    self.at(done, total);
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.next.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn work_that_is_silent_is_asked_how_far_it_is() {
        let asked = Cell::new(0);
        let work = async {
            while asked.get() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            "done"
        };
        let how_far = || {
            asked.set(asked.get() + 1);
            (asked.get(), 2)
        };
        assert_eq!(Progress::new("waiting").during(work, how_far).await, "done");
    }
}
