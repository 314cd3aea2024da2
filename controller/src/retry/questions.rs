//! Whether the source of a failed run is still open: asked beside the looks, which no silent tracker holds up.

use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use taskgate_policy::retry::{Origin, SourceState};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};

use crate::{context::Context, source::Asker, tasks::ItemRef};

/// For how long an answer holds: until a place is free, and no longer.
const FRESH: Duration = Duration::from_mins(1);
/// How many objects are asked about at the same time.
const CONCURRENCY: usize = 32;
/// How many of them may be of one namespace, so that one tenant's silent tracker does not take every place.
const PER_NAMESPACE: usize = 4;

/// What is asked about one run.
#[derive(Debug)]
pub(super) struct Question {
    item: ItemRef,
    /// The run's object.
    uid: String,
    origin: Origin,
}

/// What the tracker says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) state: SourceState,
    /// Why that is not known.
    pub(super) trouble: Option<String>,
}

/// The questions to trackers, and their answers.
#[derive(Debug)]
pub(crate) struct Questions {
    /// By the run's UID; `None` until there is an answer.
    known: Mutex<HashMap<String, Option<(Answer, Instant)>>>,
    ask: mpsc::UnboundedSender<Question>,
}

/// The questions that wait for their turn.
pub(crate) type Waiting = mpsc::UnboundedReceiver<Question>;

impl Questions {
    /// Nothing has been asked yet.
    pub(super) fn new() -> (Self, Waiting) {
        let (ask, waiting) = mpsc::unbounded_channel();
        let known = Mutex::default();
        (Self { known, ask }, waiting)
    }

    /// What the tracker says of the run of `uid`. `None`: it is being asked, and `item` is looked at again when it answered.
    pub(super) fn answer(&self, item: &ItemRef, uid: &str, origin: &Origin) -> Option<Answer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, answer| answer.as_ref().is_none_or(|(_, at)| at.elapsed() < FRESH));
        if let Some(answer) = known.get(uid) {
            return answer.as_ref().map(|(answer, _)| answer.clone());
        }
        known.insert(uid.to_owned(), None);
        // Sending fails only when all of it is being dropped.
        let _ = self.ask.send(Question {
            item: item.clone(),
            uid: uid.to_owned(),
            origin: origin.clone(),
        });
        None
    }

    fn put(&self, uid: String, answer: Answer) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(uid, Some((answer, Instant::now())));
    }
}

/// Asks what is to be asked, for ever.
pub(super) async fn run(context: &Context, asker: &Asker, mut waiting: Waiting) {
    let all = Semaphore::new(CONCURRENCY);
    let mut namespaces: HashMap<String, Arc<Semaphore>> = HashMap::new();
    let mut answers = FuturesUnordered::new();
    loop {
        let next = async {
            match answers.next().await {
                Some(answered) => answered,
                None => pending().await,
            }
        };
        tokio::select! {
            question = waiting.recv() => {
                let Some(question) = question else { return };
                namespaces.retain(|_, places| Arc::strong_count(places) > 1);
                let own = namespaces.entry(question.item.0.clone());
                let own = Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(PER_NAMESPACE))));
                let all = &all;
                answers.push(async move {
                    // Neither is ever closed.
                    let _places = (own.acquire().await, all.acquire().await);
                    let answer = ask(context, asker, &question).await;
                    (question, answer)
                });
            }
            (question, answer) = next => {
                let Question { item, uid, .. } = question;
                context.retry.questions.put(uid, answer);
                context.retry.wake(&item);
            }
        }
    }
}

async fn ask(context: &Context, asker: &Asker, question: &Question) -> Answer {
    let is_open = asker.is_open(context, &question.item.0, &question.origin).await;
    let (state, trouble) = match is_open {
        Ok(true) => (SourceState::Open, None),
        Ok(false) => (SourceState::Closed, None),
        Err(trouble) => (SourceState::Unknown, Some(trouble)),
    };
    Answer { state, trouble }
}
