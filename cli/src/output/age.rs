//! How long something is ago.

/// As kubectl tells ages, a little coarser: 119s, 119m, 47h, 3d. A clock that is behind makes nothing negative.
pub(crate) fn age(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    match seconds.max(0) {
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 2 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 48 * HOUR => format!("{}h", seconds / HOUR),
        seconds => format!("{}d", seconds / (24 * HOUR)),
    }
}
