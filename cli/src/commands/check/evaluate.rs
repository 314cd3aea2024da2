//! Evaluates many documents on all processors.

use std::sync::Arc;

use anyhow::Context as _;
use taskgate_offline::{Document, Evaluator, RequestDefaults, UnreadableDocument, WriteRequest};

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
) -> anyhow::Result<()> {
    let progress = ProgressLine::new("evaluating objects");
    let total = documents.len();
    let defaults = Arc::new(defaults);
    let mut tasks = Vec::with_capacity(total.div_ceil(CHUNK));
    let mut documents = documents.into_iter().peekable();
    while documents.peek().is_some() {
        let chunk = documents.by_ref().take(CHUNK).collect();
        tasks.push(tokio::spawn(evaluate_chunk(evaluator.clone(), chunk, defaults.clone())));
    }
    for (index, task) in tasks.into_iter().enumerate() {
        report.extend(task.await.context("evaluating objects")?);
        progress.at(total.min((index + 1) * CHUNK), total);
    }
    Ok(())
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
