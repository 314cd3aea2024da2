//! The fence around the leader's writes: none is sent once another replica may hold the Lease.
//!
//! A process that was stopped for longer than its Lease lasts goes on where it was, and learns only a moment later that it
//! does not lead any more. Its writes fail here.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request};
use jiff::Timestamp;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use tower::{BoxError, service_fn};

/// Until when this replica may write. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteFence(Arc<Mutex<Option<Until>>>);

/// By both of this process's clocks: one stands still while a machine is suspended, the other can be set back.
#[derive(Clone, Copy, Debug)]
struct Until {
    monotonic: Instant,
    wall: Timestamp,
}

/// A write that was not sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent: the Lease was not renewed in time, so another replica may lead")]
struct Fenced;

impl WriteFence {
    /// Opens the fence for `duration` from the moment `asked`, when the Lease was asked for.
    pub(crate) fn open(&self, asked: Instant, duration: Duration) {
        let left = duration.saturating_sub(asked.elapsed());
        let until = Timestamp::now().checked_add(left).ok().map(|wall| Until {
            monotonic: asked + duration,
            wall,
        });
        *self.0.lock() = until;
    }

    /// Closes it.
    pub(crate) fn close(&self) {
        *self.0.lock() = None;
    }

    /// A client like `client` whose writes fail while the fence is closed.
    pub(crate) fn around(&self, client: Client) -> Client {
        let fence = self.clone();
        let namespace = client.default_namespace().to_owned();
        let service = service_fn(move |request: Request<Body>| {
            let (fence, client) = (fence.clone(), client.clone());
            async move {
                if !is_read(request.method()) && !fence.is_open() {
                    return Err(BoxError::from(Fenced));
                }
                client.send(request).await.map_err(BoxError::from)
            }
        });
        Client::new(service, namespace)
    }

    fn is_open(&self) -> bool {
        let until = *self.0.lock();
        until.is_some_and(|until| Instant::now() < until.monotonic && Timestamp::now() < until.wall)
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_open_for_as_long_as_the_lease_lasts() {
        let fence = WriteFence::default();
        assert!(!fence.is_open());
        fence.open(Instant::now(), Duration::from_mins(1));
        assert!(fence.is_open());
        // The answer came so late that the Lease is over.
        let long_ago = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        fence.open(long_ago, Duration::from_secs(1));
        assert!(!fence.is_open());
        fence.open(Instant::now(), Duration::from_mins(1));
        fence.close();
        assert!(!fence.is_open());
    }
}
