//! Cron spawners (kelos §5): a tick is one cycle, and never tried again.

use super::{Item, Spawners};
use crate::cache::Key;
use crate::error::Error;
use crate::metrics::CycleResult;
use jiff::Timestamp;
use jiff::tz::TimeZone;

impl Spawners {
    /// Runs the one-shot that Kelos' `CronJob` runs at a tick. A tick that is not after the last cycle is
    /// over, denied or not. There is no schedule here: the caller decides when it ticks.
    pub(crate) async fn tick(&self, key: &Key, at: Timestamp) -> Result<(), Error> {
        let spawner = self.get(key).await?;
        let Some(cron) = &spawner.spec.when.cron else {
            let error = format!("TaskSpawner {key} has no cron source");
            return Err(Error::Configuration(error));
        };
        if spawner.spec.is_suspended() {
            return Ok(());
        }
        let watermark = spawner.current().last_discovery_time;
        let due = watermark.is_none_or(|watermark| at > watermark.0);
        let time = at.to_zoned(TimeZone::UTC);
        let tick = Item {
            id: time.strftime("%Y%m%d-%H%M").to_string(),
            title: cron.schedule.clone(),
            time: time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            schedule: cron.schedule.clone(),
            ..Item::default()
        };
        let items = if due { vec![tick] } else { Vec::new() };
        let outcome = Box::pin(self.work_off(key, spawner, items)).await;
        let result = match &outcome {
            Ok(()) => CycleResult::Success,
            Err(error) => error.of_cycle(),
        };
        self.metrics.count_cycle(key, result);
        outcome
    }
}
