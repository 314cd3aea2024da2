//! Reads and decodes request bodies within limits: of time, of one review's memory, and of all reviews' memory.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::{
    json_memory::parsed_size,
    refusal::ReviewRefusal,
    review::{ReviewRequest, decode},
};
use crate::{
    config::ServerLimits,
    listener::peers::{Quota, Reservation},
};

/// The largest body, in bytes, that is decoded on the thread that serves the connection. A larger one is decoded on a blocking
/// thread, so that it does not delay other requests.
const MAX_INLINE: usize = 64 << 10;

/// The limits on the memory of reviews.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    bytes: Arc<Quota>,
    max_body: usize,
    max_review: usize,
    stall: Duration,
}

/// A body, and its part of the budget.
#[derive(Debug)]
pub(super) struct BufferedBody {
    bytes: Bytes,
    reservation: Reservation,
}

impl BodyBudget {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        Self {
            bytes: Quota::new(limits.buffered_bytes.get()),
            max_body: limits.body_bytes.get(),
            max_review: limits.review_bytes.get(),
            stall: limits.stall,
        }
    }

    /// Reads all of `body`. Bytes count against the budget when they arrive, so a slow sender reserves nothing in advance.
    ///
    /// Of a body that is too large, as much again is read and dropped: most senders read the answer only after they have sent
    /// everything.
    pub(super) async fn read(&self, peer: IpAddr, mut body: Body) -> Result<BufferedBody, ReviewRefusal> {
        let mut reservation = self.bytes.reserve(peer, 0).ok_or(ReviewRefusal::Memory)?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.next_chunk(&mut body).await? {
            if bytes.len() + chunk.len() > self.max_body {
                drop((bytes, reservation));
                return Err(self.discard(body, chunk.len()).await);
            }
            if !reservation.grow(chunk.len()) {
                return Err(ReviewRefusal::Memory);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(BufferedBody {
            bytes: bytes.freeze(),
            reservation,
        })
    }

    async fn discard(&self, mut body: Body, mut dropped: usize) -> ReviewRefusal {
        while dropped <= self.max_body {
            match self.next_chunk(&mut body).await {
                Ok(Some(chunk)) => dropped += chunk.len(),
                Ok(None) | Err(_) => break,
            }
        }
        ReviewRefusal::TooLarge { limit: self.max_body }
    }

    async fn next_chunk(&self, body: &mut Body) -> Result<Option<Bytes>, ReviewRefusal> {
        timeout(self.stall, next_chunk(body))
            .await
            .map_err(|_| ReviewRefusal::SlowBody)?
    }

    /// Decodes the review in `body`. Its memory is estimated before it is parsed, and counts against the budget while the returned
    /// reservation lives.
    pub(super) async fn decode(&self, body: BufferedBody) -> Result<(ReviewRequest, Reservation), ReviewRefusal> {
        let max_review = self.max_review;
        if body.bytes.len() <= MAX_INLINE {
            return body.decode(max_review);
        }
        // It continues after a deadline, and keeps its reservation until it ends.
        tokio::task::spawn_blocking(move || body.decode(max_review))
            .await
            .map_err(|_| ReviewRefusal::Panic)?
    }
}

impl BufferedBody {
    fn decode(mut self, max_review: usize) -> Result<(ReviewRequest, Reservation), ReviewRefusal> {
        let size = parsed_size(&self.bytes, max_review)?.ok_or(ReviewRefusal::TooHeavy { limit: max_review })?;
        if !self.reservation.grow(size) {
            return Err(ReviewRefusal::Memory);
        }
        Ok((decode(&self.bytes)?, self.reservation))
    }
}

async fn next_chunk(body: &mut Body) -> Result<Option<Bytes>, ReviewRefusal> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(ReviewRefusal::Aborted),
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

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn budget(max_body: usize, total: usize) -> BodyBudget {
        let count = |count| std::num::NonZeroUsize::new(count).unwrap();
        BodyBudget::new(&ServerLimits {
            body_bytes: count(max_body),
            buffered_bytes: count(total),
            ..ServerLimits::default()
        })
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let budget = budget(10_000, 100_000);
        let buffered = budget.read(PEER, Body::from(vec![b'x'; 10_000])).await.unwrap();
        assert_eq!(buffered.bytes.len(), 10_000);
        let refused = budget.read(PEER, Body::from(vec![b'x'; 10_001])).await.unwrap_err();
        assert!(matches!(refused, ReviewRefusal::TooLarge { limit: 10_000 }));
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_a_dropped_body_releases_its_part() {
        let budget = budget(10_240, 40_960);
        let read = || budget.read(PEER, Body::from(vec![b'x'; 10_240]));
        let first = read().await.unwrap();
        let second = read().await.unwrap();
        assert!(
            matches!(read().await.unwrap_err(), ReviewRefusal::Memory),
            "half of the budget is its share"
        );
        let other = IpAddr::from([10, 0, 0, 1]);
        budget.read(other, Body::from(vec![b'x'; 10_240])).await.unwrap();
        drop(first);
        read().await.unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn the_parsed_size_of_a_review_counts_against_the_budget() {
        let budget = budget(1 << 20, 16 << 20);
        let zeroes = |count: usize| format!("[{}0]", "0,".repeat(count));
        let read = async |count| budget.read(PEER, Body::from(zeroes(count))).await.unwrap();
        // 20,000 numbers are 1.3 MB, and fit: each fails as no review, and releases its reservation.
        for _ in 0..20 {
            let body = read(20_000).await;
            let refused = budget.decode(body).await.unwrap_err();
            assert!(matches!(refused, ReviewRefusal::Malformed(_)), "{refused}");
        }
        let body = read(200_000).await;
        let refused = budget.decode(body).await.unwrap_err();
        assert!(matches!(refused, ReviewRefusal::Memory), "{refused}");
    }
}
