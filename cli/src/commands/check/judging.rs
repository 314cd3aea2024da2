//! Many documents, judged on as many processors as there are.

use std::sync::Arc;

use anyhow::Context as _;
use taskgate_offline::{Document, Evaluator, RequestDefaults, UnreadableDocument, WriteRequest};

use super::report::{Entry, Report};
use crate::output::Progress;

/// How many documents a task judges: enough to be worth one, few enough for every processor to have its share.
const SHARE: usize = 32;

/// Judges `documents` and reports them in their order.
pub(super) async fn judge_all(
    judge: &Arc<Evaluator>,
    documents: Vec<Document>,
    defaults: RequestDefaults,
    report: &mut Report,
) -> anyhow::Result<()> {
    let progress = Progress::new("judging objects");
    let total = documents.len();
    let defaults = Arc::new(defaults);
    let mut tasks = Vec::with_capacity(total.div_ceil(SHARE));
    let mut documents = documents.into_iter().peekable();
    while documents.peek().is_some() {
        let share = documents.by_ref().take(SHARE).collect();
        tasks.push(tokio::spawn(judge_share(judge.clone(), share, defaults.clone())));
    }
    for (index, task) in tasks.into_iter().enumerate() {
        report.extend(task.await.context("judging objects")?);
        progress.at(total.min((index + 1) * SHARE), total);
    }
    Ok(())
}

async fn judge_share(judge: Arc<Evaluator>, documents: Vec<Document>, defaults: Arc<RequestDefaults>) -> Report {
    let mut report = Report::default();
    for Document {
        location: place,
        object,
    } in documents
    {
        match WriteRequest::of(object, &defaults) {
            Ok(proposal) => match judge.evaluate(proposal).await {
                Some(judgement) => report.entries.push(Entry { place, judgement }),
                None => report.other_kinds += 1,
            },
            Err(error) => report.unreadable.push(UnreadableDocument {
                file: place.file,
                line: Some(place.line),
                column: None,
                message: error.to_string(),
            }),
        }
    }
    report
}
