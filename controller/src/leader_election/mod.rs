//! Which replica runs the controller, and whether it runs at all.
//!
//! - `lease`: the election. `fence`: no write once another replica may lead.
//! - `switch`: whether taskgate is disabled. `disabled`: the controller while it is.
//!
//! Imports `error`, `kubernetes` and `metrics`. Called by `run` and by the `taskgate` binary (`switch`).

pub(crate) mod disabled;
mod fence;
mod lease;
pub mod switch;

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use crate::metrics::registered;

pub(crate) use fence::WriteFence;
pub(crate) use lease::Leader;

/// The metrics of a replica's role. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LeaderMetrics {
    leader: Gauge,
    disabled: Gauge,
}

impl LeaderMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            leader: registered(registry, "leader", "1 where the controller runs"),
            disabled: registered(
                registry,
                "disabled",
                "1 while taskgate is disabled: its webhooks are off and its controller only removes finalizers",
            ),
        }
    }

    pub(crate) fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    fn set_disabled(&self, disabled: bool) {
        self.disabled.set(i64::from(disabled));
    }
}
