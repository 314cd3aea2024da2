//! The stages of a listener: serving, lame duck, draining (C7).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::config::ShutdownConfig;

/// A stage of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownStage {
    /// Connections and requests are accepted.
    Serving,
    /// They still are, because endpoints change with a delay; each answer closes its connection.
    LameDuck,
    /// No new ones are accepted; open requests may finish.
    Draining,
}

/// The current stage, shared by a listener and its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stage: Arc<watch::Sender<ShutdownStage>>,
    last_request: Arc<Mutex<Instant>>,
}

impl Lifecycle {
    /// A lifecycle at [`ShutdownStage::Serving`].
    pub fn new() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(ShutdownStage::Serving)),
            last_request: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// The current stage.
    pub fn stage(&self) -> ShutdownStage {
        *self.stage.borrow()
    }

    /// Waits until `stage` or a later one is reached.
    pub async fn reached(&self, stage: ShutdownStage) {
        let mut stages = self.stage.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Enters `stage`, unless a later one is reached already.
    pub fn enter(&self, stage: ShutdownStage) {
        self.stage.send_if_modified(|now| {
            let later = stage > *now;
            *now = stage.max(*now);
            later
        });
    }

    /// Records the time of a request.
    pub(super) fn record_request(&self) {
        *self.last_request.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Enters the lame-duck stage, waits, and enters draining. The stage ends early once requests arrived in it and then none
    /// for a while: the API servers have learned of the shutdown. No request at all proves nothing, as Tasks may start hours apart.
    pub async fn wind_down(&self, config: &ShutdownConfig) {
        self.enter(ShutdownStage::LameDuck);
        let began = Instant::now();
        let latest = began + config.lame_duck;
        loop {
            let last = self.last_request();
            let end = if last > began { last + config.quiet } else { latest };
            let now = Instant::now();
            if now >= end.min(latest) {
                break;
            }
            // A request may arrive meanwhile.
            sleep_until(end.min(latest).min(now + config.quiet)).await;
        }
        self.enter(ShutdownStage::Draining);
    }

    fn last_request(&self) -> Instant {
        *self.last_request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}
