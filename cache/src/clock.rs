//! The time of the API server.
//!
//! taskgate compares the present with times that the API server and other clients wrote. A replica whose own clock is wrong would end
//! waits too early or too late, so that each answer of the API server is compared with this process's clock, by its header `Date`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// The largest skew with which a replica leads. Up to here every wait is right, as the skew is corrected; a node whose clock is further
/// off is broken, and its logs, certificates and tokens with it.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The resolution of the header `Date`, which is cut to it.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(1);
/// How many answers in a row must contradict what is known before it changes: one API server of several may have a wrong clock, or a
/// proxy may answer in its place.
const CONFIRMATIONS: u32 = 3;

/// The time by the API server's clock. Cheap to clone; all clones are one clock. Before the first answer it is this process's own.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// In milliseconds.
    skew: AtomicI64,
    estimate: Mutex<SkewEstimate>,
}

impl Clock {
    /// What time it is.
    pub fn now(&self) -> Timestamp {
        let own = Timestamp::now();
        own.checked_sub(self.skew()).unwrap_or(own)
    }

    /// How far this process's clock is ahead of the API server's; negative if it is behind. Zero while the answers do not prove
    /// another.
    pub fn skew(&self) -> SignedDuration {
        SignedDuration::from_millis(self.0.skew.load(Ordering::Relaxed))
    }

    /// Whether the skew is too large to lead: more than [`MAX_CLOCK_SKEW`].
    pub fn is_too_far_off(&self) -> bool {
        self.skew().abs() > MAX_CLOCK_SKEW
    }

    /// Takes in an answer with the header `date` to a request that was sent at `sent`, by this process's clock, and answered after
    /// `took`.
    pub fn observe(&self, sent: Timestamp, took: Duration, date: Timestamp) {
        let Ok(took) = SignedDuration::try_from(took) else {
            return;
        };
        let mut estimate = self.0.estimate.lock();
        estimate.observe(SkewRange::of(sent, took, date));
        let millis = i64::try_from(estimate.skew().as_millis()).unwrap_or_default();
        self.0.skew.store(millis, Ordering::Relaxed);
    }
}

/// The range in which the skew is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SkewRange {
    least: SignedDuration,
    most: SignedDuration,
}

impl SkewRange {
    /// By one answer: the API server read its clock, which showed `date` or up to a second more, between the request and the answer.
    fn of(sent: Timestamp, took: SignedDuration, date: Timestamp) -> Self {
        let least = sent.duration_since(date);
        Self {
            least: least.saturating_sub(RESOLUTION),
            most: least.saturating_add(took),
        }
    }

    /// Where both are; `None` if they contradict each other.
    fn and(self, other: Self) -> Option<Self> {
        let both = Self {
            least: self.least.max(other.least),
            most: self.most.min(other.most),
        };
        (both.least <= both.most).then_some(both)
    }
}

/// What all answers together show.
#[derive(Debug, Default)]
struct SkewEstimate {
    known: Option<SkewRange>,
    /// The range that the last answers show instead, and how many they are.
    contradicted: Option<(SkewRange, u32)>,
}

impl SkewEstimate {
    fn observe(&mut self, answer: SkewRange) {
        let Some(known) = self.known else {
            self.known = Some(answer);
            return;
        };
        if let Some(both) = known.and(answer) {
            *self = Self {
                known: Some(both),
                contradicted: None,
            };
            return;
        }
        // A clock was set, or drifts.
        let agreeing = self
            .contradicted
            .and_then(|(range, count)| Some((range.and(answer)?, count + 1)));
        let (range, count) = agreeing.unwrap_or((answer, 1));
        if count >= CONFIRMATIONS {
            *self = Self {
                known: Some(range),
                contradicted: None,
            };
        } else {
            self.contradicted = Some((range, count));
        }
    }

    /// The smallest skew that the answers allow: clocks that agree within what `Date` resolves are not corrected.
    fn skew(&self) -> SignedDuration {
        let Some(SkewRange { least, most }) = self.known else {
            return SignedDuration::ZERO;
        };
        if least.is_positive() {
            least
        } else if most.is_negative() {
            most
        } else {
            SignedDuration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of an API server whose clock is `skew` milliseconds behind, at this millisecond of its time, in the middle of a
    /// request that took `took` milliseconds.
    fn answer(skew: i64, at: i64, took: i64) -> SkewRange {
        let base = 1_800_000_000_000;
        let sent = Timestamp::from_millisecond(base + at + skew - took / 2).unwrap();
        let date = Timestamp::from_second((base + at) / 1000).unwrap();
        SkewRange::of(sent, SignedDuration::from_millis(took), date)
    }

    fn skew_after(answers: impl IntoIterator<Item = SkewRange>) -> i64 {
        let mut estimate = SkewEstimate::default();
        answers.into_iter().for_each(|answer| estimate.observe(answer));
        i64::try_from(estimate.skew().as_millis()).unwrap()
    }

    #[test]
    fn clocks_that_agree_are_never_corrected() {
        for took in [0, 3, 700, 9000] {
            let answers = (0..200).map(|n| answer(0, n * 137, took));
            assert_eq!(skew_after(answers), 0, "{took}");
        }
    }

    #[test]
    fn the_skew_is_found_to_a_second_by_one_answer_and_to_the_round_trip_by_many() {
        for skew in [600_000, -600_000, 4_000, -90_000] {
            for took in [0, 10, 800] {
                let first = skew_after([answer(skew, 420, took)]);
                assert!((first - skew).abs() <= 1000 + took, "{skew} {took}: {first}");
                let many = skew_after((0..300).map(|n| answer(skew, n * 137, took)));
                assert!((many - skew).abs() <= took + 10, "{skew} {took}: {many}");
                assert!(many.abs() <= skew.abs(), "{skew} {took}: {many} corrects too much");
            }
        }
    }

    #[test]
    fn an_answer_that_contradicts_the_others_counts_once_it_is_confirmed() {
        let good = |n: i64| answer(0, n * 1000, 5);
        let bad = |n: i64| answer(600_000, n * 1000, 5);
        let near = |skew: i64| (skew - 600_000).abs() <= 1010;
        assert_eq!(skew_after([good(1), bad(2), bad(3)]), 0);
        assert_eq!(skew_after([good(1), bad(2), bad(3), good(4), bad(5), bad(6)]), 0);
        assert_eq!(
            skew_after([good(1), bad(2), answer(-90_000, 3000, 5), bad(4), bad(5)]),
            0
        );
        assert!(near(skew_after([good(1), bad(2), bad(3), bad(4)])));
        // The clock is set right again.
        let back = [bad(1), good(2), good(3), good(4)];
        assert_eq!(skew_after(back), 0);
        // A clock that drifts by a second an hour is followed.
        let drifting = (0..24 * 60).map(|minute| answer(minute * 1000 / 60, minute * 60_137, 5));
        assert!((skew_after(drifting) - 24_000).abs() <= 1100);
    }

    #[test]
    fn the_time_is_the_api_servers_and_beyond_five_minutes_no_replica_leads() {
        let clock = Clock::default();
        assert!(clock.skew().is_zero() && !clock.is_too_far_off());
        let own = Timestamp::now();
        clock.observe(own, Duration::ZERO, own - SignedDuration::from_mins(4));
        let ahead = own.duration_since(clock.now());
        assert!(
            ahead > SignedDuration::from_secs(200) && ahead < SignedDuration::from_secs(245),
            "{ahead}"
        );
        assert!(!clock.is_too_far_off());
        let clock = Clock::default();
        clock.observe(own, Duration::ZERO, own + SignedDuration::from_mins(10));
        assert!(clock.clone().is_too_far_off());
        assert!(clock.now() > own + SignedDuration::from_mins(9));
        // Times at the ends of what can be represented do no harm.
        clock.observe(Timestamp::MAX, Duration::MAX, Timestamp::MIN);
        clock.observe(Timestamp::MIN, Duration::from_secs(u64::MAX / 4), Timestamp::MAX);
    }
}
