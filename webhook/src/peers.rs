//! What peers share, and how no single one gets all of it: connections, reviews in flight, bytes.
//!
//! One peer is one IP address, and its part of everything is half. That is much, because all API servers may come from one
//! address (konnectivity, NAT), each with 25 connections; and it leaves the other half when a pod takes all it can get.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::task::AbortHandle;

use crate::activity::Activity;

/// How much of `limit` one peer may have.
pub(crate) fn share(limit: usize) -> usize {
    limit.div_ceil(2)
}

/// A limit on a sum, and on each peer's part of it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    peers: HashMap<IpAddr, usize>,
}

/// A part of a quota. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    quota: Arc<Quota>,
    peer: IpAddr,
    amount: usize,
}

impl Quota {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: Mutex::default(),
        })
    }

    /// Takes `amount` for `peer`. `None`: that would be too much for the peer, or for all together.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr, amount: usize) -> Option<Taken> {
        let mut taken = Taken {
            quota: self.clone(),
            peer,
            amount: 0,
        };
        taken.grow(amount).then_some(taken)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes `amount` more, unless that would be too much.
    pub(crate) fn grow(&mut self, amount: usize) -> bool {
        let quota = &self.quota;
        let mut used = quota.used();
        let own = used.peers.get(&self.peer).copied().unwrap_or_default();
        let fits = |used: usize, limit: usize| used.checked_add(amount).is_some_and(|sum| sum <= limit);
        if !fits(used.total, quota.limit) || !fits(own, share(quota.limit)) {
            return false;
        }
        used.total += amount;
        used.peers.insert(self.peer, own + amount);
        self.amount += amount;
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.quota.used();
        used.total = used.total.saturating_sub(self.amount);
        let left = used.peers.remove(&self.peer).unwrap_or_default();
        let left = left.saturating_sub(self.amount);
        if left > 0 {
            used.peers.insert(self.peer, left);
        }
    }
}

/// The open connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    limit: usize,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    peer: IpAddr,
    activity: Activity,
    task: AbortHandle,
}

/// Whether there is room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Free,
    /// Another connection was closed for it.
    Made,
    /// All connections that could be closed for it are in the middle of a review.
    None,
}

impl Connections {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            open: Vec::new(),
        }
    }

    /// Makes room for a connection of `peer`.
    ///
    /// Where there is none, a connection of the peer that has its share is closed, or of the peer that has the most: one that
    /// never got an answer before one that did, and among these the one that has waited longest.
    pub(crate) fn make_room(&mut self, peer: IpAddr) -> Room {
        self.open.retain(|open| !open.task.is_finished());
        let mut counts = HashMap::<IpAddr, usize>::new();
        for open in &self.open {
            *counts.entry(open.peer).or_default() += 1;
        }
        let crowded = if counts.get(&peer).is_some_and(|own| *own >= share(self.limit)) {
            peer
        } else if self.open.len() < self.limit {
            return Room::Free;
        } else {
            let most = counts.iter().max_by_key(|(_, count)| **count);
            most.map_or(peer, |(peer, _)| *peer)
        };
        let victim = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, open)| open.peer == crowded)
            .filter_map(|(index, open)| Some((open.activity.waits()?, index)))
            .max_by_key(|((served, since), _)| (!served, Reverse(*since)));
        let Some((_, victim)) = victim else { return Room::None };
        self.open.swap_remove(victim).task.abort();
        Room::Made
    }

    /// Counts a connection.
    pub(crate) fn insert(&mut self, peer: IpAddr, activity: Activity, task: AbortHandle) {
        self.open.push(Open { peer, activity, task });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn no_peer_gets_more_than_half_and_what_is_given_back_is_there_again() {
        let quota = Quota::new(10);
        let mut first = quota.take(peer(1), 3).unwrap();
        assert!(first.grow(2));
        assert!(!first.grow(1), "its share is used up");
        assert!(quota.take(peer(1), 1).is_none());
        let _second = quota.take(peer(2), 4).unwrap();
        assert!(quota.take(peer(3), 2).is_none(), "all together have 10");
        assert!(quota.take(peer(3), usize::MAX).is_none());
        drop(first);
        assert!(quota.take(peer(3), 5).is_some());
        assert_eq!(quota.used().peers.len(), 1, "who has nothing is not remembered");
    }

    /// A connection that is open until it is closed for another.
    fn open(connections: &mut Connections, from: IpAddr) -> (Activity, tokio::task::JoinHandle<()>) {
        let (activity, task) = (Activity::new(), tokio::spawn(std::future::pending()));
        connections.insert(from, activity.clone(), task.abort_handle());
        (activity, task)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_listener_closes_what_waits_longest_of_the_peer_that_has_the_most() {
        let mut connections = Connections::new(6);
        let mut crowd = Vec::new();
        for last in [1, 1, 1, 2, 2, 3] {
            assert_eq!(connections.make_room(peer(last)), Room::Free);
            crowd.push(open(&mut connections, peer(last)));
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
        }
        // The oldest of the crowd got an answer, so the second goes.
        crowd[0].0.request().answered(true);
        assert_eq!(connections.make_room(peer(4)), Room::Made);
        let (_, second) = crowd.remove(1);
        assert!(second.await.unwrap_err().is_cancelled());
        open(&mut connections, peer(4));
        // A peer that has its share makes room itself.
        open(&mut connections, peer(1));
        assert_eq!(connections.make_room(peer(1)), Room::Made);
        // What is in the middle of a review stays.
        let mut one = Connections::new(1);
        let (activity, _task) = open(&mut one, peer(1));
        let request = activity.request();
        assert_eq!(one.make_room(peer(2)), Room::Made, "its body does not come");
        let (activity, _task) = open(&mut one, peer(1));
        let _request = (activity.request(), activity.reviewing(), request);
        assert_eq!(one.make_room(peer(2)), Room::None);
    }
}
