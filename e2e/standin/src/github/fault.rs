//! What can go wrong on request.

use std::time::Duration;

/// A fault that some requests meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub(super) kind: Kind,
    on: String,
    agent: String,
    left: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Status(u16),
    RateLimited { reset_in: Option<Duration> },
    SecondaryLimit { retry_after: u64 },
    Garbage,
    Delay(Duration),
}

impl Fault {
    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            on: String::new(),
            agent: String::new(),
            left: None,
        }
    }

    /// This code, with GitHub's kind of body.
    pub const fn status(code: u16) -> Self {
        Self::new(Kind::Status(code))
    }

    /// 403 with `X-RateLimit-Remaining: 0`, until the state's own reset.
    pub const fn rate_limited() -> Self {
        Self::new(Kind::RateLimited { reset_in: None })
    }

    /// 403 with `X-RateLimit-Remaining: 0` and a reset so much later, in whole seconds.
    pub const fn rate_limited_for(reset_in: Duration) -> Self {
        let reset_in = Some(reset_in);
        Self::new(Kind::RateLimited { reset_in })
    }

    /// 403 with `Retry-After`, in seconds, and requests left: the secondary limit.
    pub const fn secondary_limit(retry_after: u64) -> Self {
        Self::new(Kind::SecondaryLimit { retry_after })
    }

    /// 200 with a body that is no JSON.
    pub const fn garbage() -> Self {
        Self::new(Kind::Garbage)
    }

    /// The right answer, late.
    pub const fn delay(delay: Duration) -> Self {
        Self::new(Kind::Delay(delay))
    }

    /// Only for paths that contain this text.
    #[must_use]
    pub fn on(mut self, path: &str) -> Self {
        path.clone_into(&mut self.on);
        self
    }

    /// Only for requests whose `User-Agent` starts with this.
    #[must_use]
    pub fn of(mut self, agent: &str) -> Self {
        agent.clone_into(&mut self.agent);
        self
    }

    /// Only so many times; without it until healed.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.left = Some(times);
        self
    }

    pub(super) fn is_on(&self, path: &str) -> bool {
        self.on == path
    }

    /// Whether the request meets it; counts if so.
    pub(super) fn strikes(&mut self, path: &str, agent: &str) -> bool {
        if self.left == Some(0) || !path.contains(&self.on) || !agent.starts_with(&self.agent) {
            return false;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        true
    }
}
