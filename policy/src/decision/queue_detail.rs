//! The reasons of a decision about the queue of a new Job.

/// What was found about a Job's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueDetail {
    /// The Job is suspended and given to Kueue.
    Queued {
        /// The `LocalQueue`.
        queue: String,
    },
    /// The Job ought to be queued and cannot be.
    NotQueued {
        /// Why, in one word.
        why: NotQueued,
        /// Why, in words.
        message: String,
    },
    /// The pod template has a key that Kueue does not allow there.
    KeyInPodTemplate {
        /// The key.
        key: String,
    },
    /// There is no Kueue.
    KueueMissing,
    /// There is no such `LocalQueue`.
    LocalQueueMissing {
        /// Its name.
        queue: String,
        /// The namespace.
        namespace: String,
    },
    /// There is no such `WorkloadPriorityClass`.
    PriorityClassMissing {
        /// Its name.
        class: String,
    },
    /// Containers request nothing, so that a quota counts them as nothing.
    RequestsMissing {
        /// Their names.
        containers: Vec<String>,
    },
}

/// Why a Job that ought to be queued is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotQueued {
    /// The queue's or the priority class' name is not legal, or a template gave none.
    QueueNameInvalid,
    /// Kueue does not manage the namespace.
    NamespaceNotManaged,
}

impl NotQueued {
    /// The word, as it starts the annotation on the Job.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueNameInvalid => "QueueNameInvalid",
            Self::NamespaceNotManaged => "NamespaceNotManaged",
        }
    }

    /// The annotation for the controller.
    pub(crate) fn annotation(self, message: &str) -> String {
        format!("{}: {message}", self.as_str())
    }

    /// Reads the annotation.
    pub(crate) fn parse(annotation: &str) -> Option<(Self, &str)> {
        let (word, message) = annotation.split_once(": ")?;
        [Self::QueueNameInvalid, Self::NamespaceNotManaged]
            .into_iter()
            .find(|why| why.as_str() == word)
            .map(|why| (why, message))
    }
}

impl QueueDetail {
    /// The reason in one word, from a closed set.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "Queued",
            Self::NotQueued { why, .. } => why.as_str(),
            Self::KeyInPodTemplate { .. } => "QueueKeyInPodTemplate",
            Self::KueueMissing => "KueueNotInstalled",
            Self::LocalQueueMissing { .. } => "NoSuchLocalQueue",
            Self::PriorityClassMissing { .. } => "UnknownPriorityClass",
            Self::RequestsMissing { .. } => "RequestsMissing",
        }
    }

    /// What the section did or, with `would`, would do; or the error.
    pub(crate) fn text(&self, would: &str) -> String {
        match self {
            Self::Queued { queue } => format!("{would}suspend the Job and give it to LocalQueue {queue}"),
            Self::NotQueued { message, .. } => format!("the Job is not queued: {message}"),
            Self::KeyInPodTemplate { key } => {
                format!("Kueue refuses to start a Job whose pod template has {key}; remove it from the pod template")
            }
            Self::KueueMissing => "Kueue is not installed: the Job stays suspended until it is".to_owned(),
            Self::LocalQueueMissing { queue, namespace } => {
                format!("there is no LocalQueue {queue} in namespace {namespace}: the Job waits until it is created")
            }
            Self::PriorityClassMissing { class } => {
                format!("there is no WorkloadPriorityClass {class}: Kueue skips the Job until it is created")
            }
            Self::RequestsMissing { containers } => format!(
                "no resource requests in {}: Kueue's quota counts the Job as nothing, unless a LimitRange fills them in",
                containers.join(", ")
            ),
        }
    }
}
