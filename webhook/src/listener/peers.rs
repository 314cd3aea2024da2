//! Limits with a share per peer: connections, reviews in flight, bytes.
//!
//! One peer is one IP address, and its share is half ([`peer_share`]).

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::AbortHandle;

use super::connection::Activity;
use crate::config::peer_share;

/// A limit on a sum, and on each peer's share of it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: usize,
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    total: usize,
    peers: HashMap<IpAddr, usize>,
}

/// A reserved part of a quota; dropping it releases the part.
#[derive(Debug)]
pub(crate) struct Reservation {
    quota: Arc<Quota>,
    peer: IpAddr,
    amount: usize,
}

impl Quota {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            usage: Mutex::default(),
        })
    }

    /// Reserves `amount` for `peer`; `None` when that exceeds the peer's share or the limit.
    pub(crate) fn reserve(self: &Arc<Self>, peer: IpAddr, amount: usize) -> Option<Reservation> {
        let mut reservation = Reservation {
            quota: self.clone(),
            peer,
            amount: 0,
        };
        reservation.grow(amount).then_some(reservation)
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Reserves `amount` more; whether that fits.
    pub(crate) fn grow(&mut self, amount: usize) -> bool {
        let quota = &self.quota;
        let mut usage = quota.usage();
        let own = usage.peers.get(&self.peer).copied().unwrap_or_default();
        let fits = |used: usize, limit: usize| used.checked_add(amount).is_some_and(|sum| sum <= limit);
        if !fits(usage.total, quota.limit) || !fits(own, peer_share(quota.limit)) {
            return false;
        }
        usage.total += amount;
        usage.peers.insert(self.peer, own + amount);
        self.amount += amount;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut usage = self.quota.usage();
        usage.total = usage.total.saturating_sub(self.amount);
        let left = usage.peers.remove(&self.peer).unwrap_or_default();
        let left = left.saturating_sub(self.amount);
        if left > 0 {
            usage.peers.insert(self.peer, left);
        }
    }
}

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    open: Vec<OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    peer: IpAddr,
    activity: Activity,
    task: AbortHandle,
}

/// Whether a new connection fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// It does.
    Free,
    /// It does, because another connection was closed.
    Evicted,
    /// It does not: every connection that could be closed is answering a review.
    Exhausted,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            open: Vec::new(),
        }
    }

    /// Ensures capacity for a connection of `peer`, by eviction if necessary.
    ///
    /// Evicted is a connection of `peer` where that has its share, otherwise of the peer with the most connections: one that
    /// never served a request first, and among these the one that has waited longest.
    pub(super) fn ensure_capacity(&mut self, peer: IpAddr) -> Capacity {
        self.open.retain(|open| !open.task.is_finished());
        let mut counts = HashMap::<IpAddr, usize>::new();
        for open in &self.open {
            *counts.entry(open.peer).or_default() += 1;
        }
        let evicted_from = if counts.get(&peer).is_some_and(|own| *own >= peer_share(self.limit)) {
            peer
        } else if self.open.len() < self.limit {
            return Capacity::Free;
        } else {
            let most = counts.iter().max_by_key(|(_, count)| **count);
            most.map_or(peer, |(peer, _)| *peer)
        };
        let victim = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, open)| open.peer == evicted_from)
            .filter_map(|(index, open)| Some((open.activity.waiting()?, index)))
            .max_by_key(|((served, since), _)| (!served, Reverse(*since)));
        let Some((_, victim)) = victim else {
            return Capacity::Exhausted;
        };
        self.open.swap_remove(victim).task.abort();
        Capacity::Evicted
    }

    /// Adds an open connection.
    pub(super) fn insert(&mut self, peer: IpAddr, activity: Activity, task: AbortHandle) {
        self.open.push(OpenConnection { peer, activity, task });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn no_peer_gets_more_than_half_and_a_released_part_can_be_reserved_again() {
        let quota = Quota::new(10);
        let mut first = quota.reserve(peer(1), 3).unwrap();
        assert!(first.grow(2));
        assert!(!first.grow(1), "its share is used up");
        assert!(quota.reserve(peer(1), 1).is_none());
        let _second = quota.reserve(peer(2), 4).unwrap();
        assert!(quota.reserve(peer(3), 2).is_none(), "all together have 10");
        assert!(quota.reserve(peer(3), usize::MAX).is_none());
        drop(first);
        assert!(quota.reserve(peer(3), 5).is_some());
        assert_eq!(quota.usage().peers.len(), 1, "a peer without a reservation is dropped");
    }

    /// A connection that is open until it is evicted.
    fn open(connections: &mut Connections, from: IpAddr) -> (Activity, tokio::task::JoinHandle<()>) {
        let (activity, task) = (Activity::new(), tokio::spawn(std::future::pending()));
        connections.insert(from, activity.clone(), task.abort_handle());
        (activity, task)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_listener_evicts_the_longest_waiting_connection_of_the_peer_with_the_most() {
        let mut connections = Connections::new(6);
        let mut opened = Vec::new();
        for last in [1, 1, 1, 2, 2, 3] {
            assert_eq!(connections.ensure_capacity(peer(last)), Capacity::Free);
            opened.push(open(&mut connections, peer(last)));
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
        }
        // The oldest one of peer 1 served a request, so the second is evicted.
        opened[0].0.request().answered(true);
        assert_eq!(connections.ensure_capacity(peer(4)), Capacity::Evicted);
        let (_, second) = opened.remove(1);
        assert!(second.await.unwrap_err().is_cancelled());
        open(&mut connections, peer(4));
        // A peer that has its share loses a connection of its own.
        open(&mut connections, peer(1));
        assert_eq!(connections.ensure_capacity(peer(1)), Capacity::Evicted);
        // A connection that is answering a review stays.
        let mut one = Connections::new(1);
        let (activity, _task) = open(&mut one, peer(1));
        let request = activity.request();
        assert_eq!(
            one.ensure_capacity(peer(2)),
            Capacity::Evicted,
            "its body does not arrive"
        );
        let (activity, _task) = open(&mut one, peer(1));
        let _request = (activity.request(), activity.reviewing(), request);
        assert_eq!(one.ensure_capacity(peer(2)), Capacity::Exhausted);
    }
}
