//! Whose turn it is.

use tokio::time::Instant;

/// Those whose turn it is, who has waited longest first: where there are more of them than places, nobody is passed over for
/// ever. Each comes with the time from which it has its turn; `None` for at once.
pub(super) fn in_turn<T>(waiting: impl Iterator<Item = (Option<Instant>, T)>, now: Instant) -> Vec<T> {
    let mut turn: Vec<_> = waiting.filter(|(due, _)| due.is_none_or(|due| due <= now)).collect();
    turn.sort_by_key(|(due, _)| *due);
    turn.into_iter().map(|(_, who)| who).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_has_waited_longest_comes_first() {
        let now = Instant::now() + Duration::from_mins(1);
        let before = |seconds| Some(now - Duration::from_secs(seconds));
        let later = Some(now + Duration::from_secs(1));
        let waiting = [
            (before(0), "a"),
            (later, "b"),
            (before(2), "c"),
            (before(1), "d"),
            (None, "new"),
        ];
        assert_eq!(in_turn(waiting.into_iter(), now), ["new", "c", "d", "a"]);
    }

    #[test]
    fn more_than_there_are_places_for_all_get_their_turn() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut due = [None; 10];
        for round in 0..3 {
            let now = start + second * round;
            for who in in_turn(due.into_iter().zip(0..), now).into_iter().take(4) {
                due[who] = Some(now + second);
            }
        }
        assert!(due.iter().all(Option::is_some), "{due:?}");
    }
}
