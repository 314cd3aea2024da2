//! Whether taskgate's service account may do what it has to: one review for each verb, as the API server decides it.

use std::collections::HashSet;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::{
    super::facts::{Installation, Seen},
    reader::Reader,
};
use crate::rights::questions::{Question, questions};

/// How many reviews are under way at once.
const AT_ONCE: usize = 12;

/// What may not be done of all that has to be. RBAC: `create` on subjectaccessreviews; nothing is stored.
pub(super) async fn denied(reader: &Reader, installation: &Installation) -> Seen<HashSet<Question>> {
    let reviews = Api::<SubjectAccessReview>::all(reader.client.clone());
    let asked = questions(&installation.names).into_iter().map(async |question| {
        let answer = reviews
            .create(&PostParams::default(), &review(&question, installation))
            .await;
        let status = reader.seen(answer)?.status;
        Ok(if status.is_some_and(|status| status.allowed) {
            None
        } else {
            Some(question)
        })
    });
    let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut denied = HashSet::new();
    while let Some(answer) = answers.next().await {
        denied.extend(answer?);
    }
    Ok(denied)
}

fn review(question: &Question, installation: &Installation) -> SubjectAccessReview {
    let Installation { namespace, account, .. } = installation;
    let (resource, subresource) = match question.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (question.resource, None),
    };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{namespace}:{account}")),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(ResourceAttributes {
                namespace: question.at_home.then(|| namespace.clone()),
                verb: Some(question.verb.to_owned()),
                group: Some(question.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                name: question.object.clone(),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
