//! Which comments start, restart or silence an item (kelos §4, "Trigger comment").

use super::discover::no_policy;
use super::rest::{Comment, DiscoverError, GitHub, Issue, Permission, Repository};
use crate::types::CommentPolicy;
use jiff::Timestamp;

const RANKS: [&str; 5] = ["read", "triage", "write", "maintain", "admin"];

/// The newest comment that counts: its time and its place.
type Match = (Option<Timestamp>, usize);

/// A comment policy in use.
pub(super) struct Policy<'a>(&'a CommentPolicy);

impl<'a> Policy<'a> {
    pub(super) fn of(policy: Option<&'a CommentPolicy>) -> Self {
        Self(policy.unwrap_or(no_policy()))
    }

    /// Whether there is a trigger comment: without one nothing is ever retriggered.
    pub(super) fn triggers(&self) -> bool {
        !self.0.trigger_comment.is_empty()
    }

    /// `None`: the item is not for us. Else the time of the trigger, if one has a time.
    pub(super) async fn judge(
        &self,
        github: &GitHub,
        repository: &Repository,
        issue: &Issue,
        comments: &[Comment],
    ) -> Result<Option<Option<Timestamp>>, DiscoverError> {
        let silencers = &self.0.exclude_comments;
        if !self.triggers() && silencers.is_empty() {
            return Ok(Some(None));
        }
        let trigger = if self.triggers() {
            std::slice::from_ref(&self.0.trigger_comment)
        } else {
            &[]
        };
        let body = issue.body.as_deref().unwrap_or_default();
        let mut body_triggers = says(body, trigger);
        let mut body_excludes = says(body, silencers);
        if (body_triggers || body_excludes) && !self.allows(github, repository, &issue.user.login).await? {
            (body_triggers, body_excludes) = (false, false);
        }
        let triggered = self.newest(github, repository, comments, trigger).await?;
        let excluded = self.newest(github, repository, comments, silencers).await?;
        Ok(match (triggered, excluded) {
            (Some(trigger), Some(exclude)) => later(trigger, exclude).then_some(trigger.0),
            (Some(trigger), None) => Some(trigger.0),
            (None, Some(_)) => None,
            (None, None) if body_excludes => None,
            (None, None) => (!self.triggers() || body_triggers).then_some(None),
        })
    }

    async fn newest(
        &self,
        github: &GitHub,
        repository: &Repository,
        comments: &[Comment],
        commands: &[String],
    ) -> Result<Option<Match>, DiscoverError> {
        let mut newest: Option<Match> = None;
        for (index, comment) in comments.iter().enumerate() {
            if !says(comment.body(), commands) || !self.allows(github, repository, &comment.user.login).await? {
                continue;
            }
            let found = (comment.created_at.parse().ok(), index);
            if newest.is_none_or(|newest| found >= newest) {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// Whether a commenter may command. Teams are not looked at.
    async fn allows(&self, github: &GitHub, repository: &Repository, login: &str) -> Result<bool, DiscoverError> {
        let policy = self.0;
        if policy.allowed_users.is_empty() && policy.minimum_permission.is_empty() {
            return Ok(true);
        }
        let named = |user: &String| user.trim().eq_ignore_ascii_case(login);
        if policy.allowed_users.iter().any(named) {
            return Ok(true);
        }
        if policy.minimum_permission.is_empty() {
            return Ok(false);
        }
        let path = repository.path(&format!("collaborators/{login}/permission"), &[]);
        let answer: Option<Permission> = github.get(&path).await?;
        let actual = answer.map(super::rest::Permission::name).unwrap_or_default();
        let rank = |name: &str| RANKS.iter().position(|rank| *rank == name);
        Ok(rank(&actual) >= rank(&policy.minimum_permission))
    }
}

/// Whether a line of the text is one of the commands, and nothing else.
fn says(text: &str, commands: &[String]) -> bool {
    text.lines()
        .any(|line| commands.iter().any(|command| line.trim() == command))
}

fn later(left: Match, right: Match) -> bool {
    match (left.0, right.0) {
        (Some(a), Some(b)) if a != b => a > b,
        _ => left.1 > right.1,
    }
}

#[cfg(test)]
mod tests {
    use super::says;

    #[test]
    fn a_command_is_a_line_of_its_own() {
        let commands = ["/fix".to_owned()];
        assert!(says("hello\n  /fix \nbye", &commands));
        assert!(!says("please /fix this", &commands));
        assert!(!says("/fixed", &commands));
    }
}
