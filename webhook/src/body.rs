//! Reads a request's body within bounds: of one body, and of all bodies together.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;

/// What one permit of the budget stands for, in bytes.
const UNIT: usize = 1024;

/// How much of all bodies may be held at the same time, and how much of one.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget {
    permits: Arc<Semaphore>,
    largest: usize,
}

/// A body, and the part of the budget that it holds.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// At most `largest` bytes of one body, at most `total` of all.
    pub(crate) fn new(largest: usize, total: usize) -> Self {
        let permits = (total / UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(permits)),
            largest,
        }
    }

    /// Reads all of `body`. Bytes count against the budget when they arrive, so a slow sender holds nothing in advance.
    ///
    /// Of a body that is too large, as much again is read and dropped: most senders look for the answer only after they
    /// have sent everything.
    pub(crate) async fn read(&self, mut body: Body) -> Result<Buffered, Refusal> {
        let mut permit = self.reserve(0)?;
        let mut bytes = BytesMut::new();
        let mut held = 0;
        while let Some(chunk) = next_chunk(&mut body).await? {
            if bytes.len() + chunk.len() > self.largest {
                drop((bytes, permit));
                return Err(self.discard(body, chunk.len()).await);
            }
            bytes.extend_from_slice(&chunk);
            let needed = bytes.len().div_ceil(UNIT);
            permit.merge(self.reserve(needed - held)?);
            held = needed;
        }
        Ok(Buffered {
            bytes: bytes.freeze(),
            _permit: permit,
        })
    }

    fn reserve(&self, units: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let units = u32::try_from(units).map_err(|_| Refusal::Memory)?;
        self.permits
            .clone()
            .try_acquire_many_owned(units)
            .map_err(|_| Refusal::Memory)
    }

    async fn discard(&self, mut body: Body, mut dropped: usize) -> Refusal {
        while dropped <= self.largest {
            match next_chunk(&mut body).await {
                Ok(Some(chunk)) => dropped += chunk.len(),
                Ok(None) | Err(_) => break,
            }
        }
        Refusal::TooLarge { limit: self.largest }
    }
}

async fn next_chunk(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::Aborted),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let budget = BodyBudget::new(10_000, 100_000);
        let buffered = budget.read(Body::from(vec![b'x'; 10_000])).await.unwrap();
        assert_eq!(buffered.bytes.len(), 10_000);
        let refused = budget.read(Body::from(vec![b'x'; 10_001])).await.unwrap_err();
        assert!(matches!(refused, Refusal::TooLarge { limit: 10_000 }));
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_a_body_that_goes_makes_room() {
        let budget = BodyBudget::new(10_240, 20_480);
        let read = || budget.read(Body::from(vec![b'x'; 10_240]));
        let first = read().await.unwrap();
        let second = read().await.unwrap();
        assert!(matches!(read().await.unwrap_err(), Refusal::Memory));
        drop(first);
        read().await.unwrap();
        drop(second);
    }
}
