//! What is found: a line each.

use serde::{Serialize, Serializer};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It is as it should be.
    Ok,
    /// It works, but somebody should look at it; or it could not be found out.
    Warning,
    /// It does not work.
    Failure,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// What was looked at. In the order in which it is told: what others rest on comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    ApiServer,
    Clock,
    Switch,
    Kinds,
    Registration,
    Neighbours,
    Order,
    Certificate,
    CaBundle,
    Answers,
    Replicas,
    Versions,
    Leader,
    Rights,
    Kelos,
    Foreman,
    Kueue,
    CertManager,
    Namespaces,
    Policies,
    Queues,
}

impl Check {
    /// All of them.
    #[cfg(test)]
    pub(super) const ALL: [Self; 21] = [
        Self::ApiServer,
        Self::Clock,
        Self::Switch,
        Self::Kinds,
        Self::Registration,
        Self::Neighbours,
        Self::Order,
        Self::Certificate,
        Self::CaBundle,
        Self::Answers,
        Self::Replicas,
        Self::Versions,
        Self::Leader,
        Self::Rights,
        Self::Kelos,
        Self::Foreman,
        Self::Kueue,
        Self::CertManager,
        Self::Namespaces,
        Self::Policies,
        Self::Queues,
    ];

    /// Its name, which programs may rely on.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "api-server",
            Self::Clock => "clock",
            Self::Switch => "switch",
            Self::Kinds => "kinds",
            Self::Registration => "registration",
            Self::Neighbours => "neighbours",
            Self::Order => "order",
            Self::Certificate => "certificate",
            Self::CaBundle => "ca-bundle",
            Self::Answers => "answers",
            Self::Replicas => "replicas",
            Self::Versions => "versions",
            Self::Leader => "leader",
            Self::Rights => "rights",
            Self::Kelos => "kelos",
            Self::Foreman => "foreman",
            Self::Kueue => "kueue",
            Self::CertManager => "cert-manager",
            Self::Namespaces => "namespaces",
            Self::Policies => "policies",
            Self::Queues => "queues",
        }
    }

    /// Whether taskgate enforces nothing while it fails. The others are about single policies, and do not heal by waiting.
    pub(super) fn is_about_enforcing(self) -> bool {
        !matches!(self, Self::Namespaces | Self::Policies | Self::Queues | Self::Kueue)
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) level: Level,
    /// What is so.
    pub(super) message: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: Check, message: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            message: message.into(),
            advice: None,
        }
    }

    pub(super) fn warning(check: Check, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Level::Warning, check, message, advice)
    }

    pub(super) fn failure(check: Check, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Level::Failure, check, message, advice)
    }

    pub(super) fn bad(level: Level, check: Check, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            check,
            level,
            message: message.into(),
            advice: Some(advice.into()),
        }
    }
}

/// All findings, as they are printed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    pub(super) ok: usize,
    pub(super) warnings: usize,
    pub(super) failures: usize,
}

impl Report {
    pub(super) fn of(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.check);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self {
            ok: count(Level::Ok),
            warnings: count(Level::Warning),
            failures: count(Level::Failure),
            findings,
        }
    }

    /// Whether nothing keeps taskgate from enforcing.
    pub(super) fn enforces(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level != Level::Failure || !finding.check.is_about_enforcing())
    }
}
