//! An issue or a pull request as its source has it.

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::kubernetes::hex;

/// The parts of an issue or a pull request that decisions need. Its text is only kept as a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceItem {
    /// Its number.
    pub number: u64,
    /// Whether it is a pull request.
    pub is_pull: bool,
    /// Whether it is open.
    pub is_open: bool,
    /// Whether it is a draft.
    pub is_draft: bool,
    /// Its title.
    pub title: String,
    /// SHA-256 of its text.
    pub body_digest: [u8; 32],
    /// Its labels, in the order of the issue source.
    pub labels: Vec<String>,
    /// Its author.
    pub author: String,
    /// Its assignees.
    pub assignees: Vec<String>,
    /// Its page.
    pub url: String,
    /// When it changed last.
    pub updated: Option<Timestamp>,
    /// How many comments it has.
    pub comment_count: u64,
    /// The head of a pull request; absent where it was not read.
    pub head_sha: Option<String>,
    /// SHA-256 of everything that people wrote in comments; zero until they were read.
    pub conversation: [u8; 32],
    /// The latest comments, oldest first. Empty where their text is not needed.
    pub comments: Vec<Comment>,
}

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Its number at the issue source.
    pub id: u64,
    /// Who wrote it.
    pub author: String,
    /// When, in whole seconds.
    pub created: Option<Timestamp>,
    /// Whether a person wrote it, rather than a bot, the owner of our token, or Kelos.
    pub by_person: bool,
    /// Its beginning: enough to search it for a trigger.
    pub body: String,
}

impl SourceItem {
    /// Opaque hash of what a person may have changed so that another attempt makes sense: title, text, labels, and what
    /// people commented.
    pub fn content_hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(self.title.as_bytes());
        field(&self.body_digest);
        let mut labels: Vec<_> = self.labels.iter().collect();
        labels.sort_unstable();
        for label in labels {
            field(label.as_bytes());
        }
        field(&[]);
        field(&self.conversation);
        format!("sha256:{}", hex(&hash.finalize()))
    }

    /// The fields that templates see: `title`, `labels`, `author`.
    pub fn template_fields(&self) -> Map<String, Value> {
        let fields = [
            ("title", Value::from(self.title.as_str())),
            ("labels", Value::from(self.labels.clone())),
            ("author", Value::from(self.author.as_str())),
        ];
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }

    /// Whether the item is unchanged since `before`, so that its comments need not be read again.
    pub fn is_as(&self, before: &Self) -> bool {
        let own = |item: &Self| Self {
            conversation: [0; 32],
            comments: Vec::new(),
            head_sha: None,
            ..item.clone()
        };
        own(self) == own(before) && (self.head_sha.is_none() || self.head_sha == before.head_sha)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_changes_the_hash_and_nothing_else_does() {
        let item = SourceItem {
            number: 42,
            title: "Crash".into(),
            labels: vec!["a".into(), "b".into()],
            ..SourceItem::default()
        };
        let same = [
            SourceItem {
                updated: Some(Timestamp::MAX),
                comment_count: 7,
                is_draft: true,
                head_sha: Some("abc".into()),
                assignees: vec!["ann".into()],
                ..item.clone()
            },
            SourceItem {
                labels: vec!["b".into(), "a".into()],
                ..item.clone()
            },
        ];
        for same in same {
            assert_eq!(same.content_hash(), item.content_hash());
        }
        let other = [
            SourceItem {
                title: "Crash!".into(),
                ..item.clone()
            },
            SourceItem {
                labels: vec!["ab".into()],
                ..item.clone()
            },
            SourceItem {
                labels: vec!["a".into()],
                ..item.clone()
            },
            SourceItem {
                body_digest: [1; 32],
                ..item.clone()
            },
            SourceItem {
                conversation: [1; 32],
                ..item.clone()
            },
        ];
        for other in other {
            assert_ne!(other.content_hash(), item.content_hash(), "{other:?}");
        }
    }
}
