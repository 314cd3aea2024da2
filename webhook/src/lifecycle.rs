//! The life of a listener: serving, then lame duck, then draining (C7).

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::config::ShutdownConfig;

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everything is accepted.
    Serving,
    /// Everything is still accepted, because whoever sends does not know yet; each answer closes its connection.
    LameDuck,
    /// Nothing new is accepted; what runs may finish.
    Draining,
}

/// The stage that a listener and its connections share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    stage: Arc<watch::Sender<Stage>>,
    last_request: Arc<Mutex<Instant>>,
}

impl Lifecycle {
    /// Serving.
    pub fn new() -> Self {
        Self {
            stage: Arc::new(watch::Sender::new(Stage::Serving)),
            last_request: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// The stage of the moment.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Waits until `stage`, or a later one, is reached.
    pub async fn reached(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    /// Goes to `stage`; never back.
    pub fn enter(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let later = stage > *now;
            *now = stage.max(*now);
            later
        });
    }

    /// Notes that a request came.
    pub(crate) fn note_request(&self) {
        *self.last_request.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Lives through the lame duck stage and then drains. The stage ends early once requests came in it and then none for a
    /// while: whoever sends has learned of the end. That none came at all tells nothing, as agents may start hours apart.
    pub async fn wind_down(&self, config: &ShutdownConfig) {
        self.enter(Stage::LameDuck);
        let began = Instant::now();
        let latest = began + config.lame_duck;
        loop {
            let last = self.last_request();
            let end = if last > began { last + config.quiet } else { latest };
            let now = Instant::now();
            if now >= end.min(latest) {
                break;
            }
            // A request may come meanwhile.
            sleep_until(end.min(latest).min(now + config.quiet)).await;
        }
        self.enter(Stage::Draining);
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
