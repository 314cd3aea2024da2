//! Evaluates many documents on all processors.

use std::sync::Arc;

use taskgate_offline::{Document, Evaluator, RequestDefaults, SourceLocation, UnreadableDocument, WriteRequest};

use super::report::{CheckReport, EvaluatedObject};
use crate::output::ProgressLine;

/// How many documents one task evaluates.
const CHUNK: usize = 32;

/// Evaluates `documents` and reports them in their order.
pub(super) async fn all(
    evaluator: &Arc<Evaluator>,
    documents: Vec<Document>,
    defaults: RequestDefaults,
    report: &mut CheckReport,
) {
    let progress = ProgressLine::new("evaluating objects");
    let total = documents.len();
    let defaults = Arc::new(defaults);
    let mut tasks = Vec::with_capacity(total.div_ceil(CHUNK));
    let mut documents = documents.into_iter().peekable();
    while documents.peek().is_some() {
        let chunk: Vec<_> = documents.by_ref().take(CHUNK).collect();
        let places: Vec<_> = chunk.iter().map(|document| document.location.clone()).collect();
        let task = tokio::spawn(evaluate_chunk(evaluator.clone(), chunk, defaults.clone()));
        tasks.push((places, task));
    }
    for (index, (places, task)) in tasks.into_iter().enumerate() {
        match task.await {
            Ok(evaluated) => report.extend(evaluated),
            // A panic hides no other result.
            Err(error) => report
                .unreadable
                .extend(places.into_iter().map(|place| not_evaluated(place, &error))),
        }
        progress.at(total.min((index + 1) * CHUNK), total);
    }
}

async fn evaluate_chunk(
    evaluator: Arc<Evaluator>,
    documents: Vec<Document>,
    defaults: Arc<RequestDefaults>,
) -> CheckReport {
    let mut report = CheckReport::default();
    for Document {
        location: place,
        object,
    } in documents
    {
        match WriteRequest::of(object, &defaults) {
            Ok(proposal) => match evaluator.evaluate(proposal).await {
                Some(judgement) => report.entries.push(EvaluatedObject { place, judgement }),
                None => report.other_kinds += 1,
            },
            Err(error) => report.unreadable.push(not_evaluated(place, &error)),
        }
    }
    report
}

fn not_evaluated(place: SourceLocation, error: &impl ToString) -> UnreadableDocument {
    UnreadableDocument {
        file: place.file,
        line: Some(place.line),
        column: None,
        message: error.to_string(),
    }
}
