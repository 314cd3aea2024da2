//! Reads a request's body and decodes it, within bounds: of time, of one review's memory, and of all reviews' together.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::{
    config::Limits,
    peers::{Quota, Taken},
    refusal::Refusal,
    review::{ReviewRequest, decode},
    weight::weigh,
};

/// Up to how many bytes a body is decoded in place. A larger one goes to a thread of its own: other requests wait for those
/// that serve connections.
const IN_PLACE: usize = 64 << 10;

/// How much of all reviews may be held at the same time, and how much of one.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget {
    bytes: Arc<Quota>,
    largest: usize,
    heaviest: usize,
    stall: Duration,
}

/// A body, and the part of the budget that it holds.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) bytes: Bytes,
    taken: Taken,
}

impl BodyBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            bytes: Quota::new(limits.buffered_bytes.get()),
            largest: limits.body_bytes.get(),
            heaviest: limits.review_bytes.get(),
            stall: limits.stall,
        }
    }

    /// Reads all of `body`. Bytes count against the budget when they arrive, so a slow sender holds nothing in advance.
    ///
    /// Of a body that is too large, as much again is read and dropped: most senders look for the answer only after they
    /// have sent everything.
    pub(crate) async fn read(&self, peer: IpAddr, mut body: Body) -> Result<Buffered, Refusal> {
        let mut taken = self.bytes.take(peer, 0).ok_or(Refusal::Memory)?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.next_chunk(&mut body).await? {
            if bytes.len() + chunk.len() > self.largest {
                drop((bytes, taken));
                return Err(self.discard(body, chunk.len()).await);
            }
            if !taken.grow(chunk.len()) {
                return Err(Refusal::Memory);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Buffered {
            bytes: bytes.freeze(),
            taken,
        })
    }

    async fn discard(&self, mut body: Body, mut dropped: usize) -> Refusal {
        while dropped <= self.largest {
            match self.next_chunk(&mut body).await {
                Ok(Some(chunk)) => dropped += chunk.len(),
                Ok(None) | Err(_) => break,
            }
        }
        Refusal::TooLarge { limit: self.largest }
    }

    async fn next_chunk(&self, body: &mut Body) -> Result<Option<Bytes>, Refusal> {
        timeout(self.stall, next_chunk(body))
            .await
            .map_err(|_| Refusal::SlowBody)?
    }

    /// Decodes the review in `body`. What it takes in memory is counted before it is built, and held against the budget for
    /// as long as the second return value lives.
    pub(crate) async fn decode(&self, body: Buffered) -> Result<(ReviewRequest, Taken), Refusal> {
        let heaviest = self.heaviest;
        if body.bytes.len() <= IN_PLACE {
            return body.decode(heaviest);
        }
        // It goes on after a deadline, and holds its part of the budget until it ends.
        tokio::task::spawn_blocking(move || body.decode(heaviest))
            .await
            .map_err(|_| Refusal::Panic)?
    }
}

impl Buffered {
    fn decode(mut self, heaviest: usize) -> Result<(ReviewRequest, Taken), Refusal> {
        let weight = weigh(&self.bytes, heaviest)?.ok_or(Refusal::TooHeavy { limit: heaviest })?;
        if !self.taken.grow(weight) {
            return Err(Refusal::Memory);
        }
        Ok((decode(&self.bytes)?, self.taken))
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

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn budget(largest: usize, total: usize) -> BodyBudget {
        let count = |count| std::num::NonZeroUsize::new(count).unwrap();
        BodyBudget::new(&Limits {
            body_bytes: count(largest),
            buffered_bytes: count(total),
            ..Limits::default()
        })
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let budget = budget(10_000, 100_000);
        let buffered = budget.read(PEER, Body::from(vec![b'x'; 10_000])).await.unwrap();
        assert_eq!(buffered.bytes.len(), 10_000);
        let refused = budget.read(PEER, Body::from(vec![b'x'; 10_001])).await.unwrap_err();
        assert!(matches!(refused, Refusal::TooLarge { limit: 10_000 }));
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_a_body_that_goes_makes_room() {
        let budget = budget(10_240, 40_960);
        let read = || budget.read(PEER, Body::from(vec![b'x'; 10_240]));
        let first = read().await.unwrap();
        let second = read().await.unwrap();
        assert!(
            matches!(read().await.unwrap_err(), Refusal::Memory),
            "half is its share"
        );
        let other = IpAddr::from([10, 0, 0, 1]);
        budget.read(other, Body::from(vec![b'x'; 10_240])).await.unwrap();
        drop(first);
        read().await.unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn what_a_review_takes_when_it_is_parsed_counts_against_the_budget() {
        let budget = budget(1 << 20, 16 << 20);
        let zeroes = |count: usize| format!("[{}0]", "0,".repeat(count));
        let read = async |count| budget.read(PEER, Body::from(zeroes(count))).await.unwrap();
        // 20,000 numbers are 1.3 MB, which is 7 in 8 MiB: each fails as no review, and gives everything back.
        for _ in 0..20 {
            let body = read(20_000).await;
            let refused = budget.decode(body).await.unwrap_err();
            assert!(matches!(refused, Refusal::Malformed(_)), "{refused}");
        }
        let body = read(200_000).await;
        let refused = budget.decode(body).await.unwrap_err();
        assert!(matches!(refused, Refusal::Memory), "{refused}");
    }
}
