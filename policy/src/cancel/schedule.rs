//! When a cron spawner runs next. Kelos hands its schedule to a CronJob: five fields in UTC, or a name such as `@hourly`.

use cronexpr::{FallbackTimezoneOption, MakeTimestamp, ParseOptions, parse_crontab_with};
use jiff::Timestamp;

/// The first run after `moment`; `None` when the schedule cannot be read, or never comes.
pub fn next_run(schedule: &str, moment: Timestamp) -> Option<Timestamp> {
    let fields = match schedule.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        fields => fields,
    };
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    let crontab = parse_crontab_with(fields, options).ok()?;
    let next = crontab.find_next(MakeTimestamp(moment)).ok()?;
    Some(next.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_as_a_cronjob_has_it() {
        for (schedule, next) in [
            ("* * * * *", Some("2026-11-21T12:31:00Z")),
            ("*/15 * * * *", Some("2026-11-21T12:45:00Z")),
            ("30 12 * * *", Some("2026-11-22T12:30:00Z")),
            ("0 0 1 * *", Some("2026-12-01T00:00:00Z")),
            ("0 9 * * 1-5", Some("2026-11-23T09:00:00Z")),
            ("0 0 13 * 5", Some("2026-11-27T00:00:00Z")),
            ("@hourly", Some("2026-11-21T13:00:00Z")),
            ("@every 1h", None),
            ("61 * * * *", None),
            ("", None),
            ("soon", None),
        ] {
            let moment = "2026-11-21T12:30:00Z".parse().unwrap();
            assert_eq!(
                next_run(schedule, moment),
                next.map(|next| next.parse().unwrap()),
                "{schedule}"
            );
        }
    }
}
