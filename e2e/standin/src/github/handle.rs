//! How a test changes the stub's state.

use super::Shared;
use super::state::{Comment, Entry, Pull};
use jiff::Timestamp;

/// A repository.
#[derive(Clone, Debug)]
pub struct Repo {
    shared: Shared,
    owner: String,
    name: String,
}

impl Repo {
    pub(super) fn new(shared: Shared, owner: &str, name: &str) -> Self {
        shared.lock().repository(owner, name);
        Self {
            shared,
            owner: owner.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Its clone URL, as a Workspace names it.
    pub fn clone_url(&self) -> String {
        format!("https://github.com/{}/{}.git", self.owner, self.name)
    }

    /// An issue; it exists and is open from here on.
    pub fn issue(&self, number: u64) -> Issue {
        let issue = Issue {
            repo: self.clone(),
            number,
        };
        issue.edit(|entry| {
            if entry.title.is_empty() {
                entry.title = format!("Issue {number}");
            }
        });
        issue
    }

    /// A pull request; it exists and is open from here on.
    pub fn pull(&self, number: u64) -> Issue {
        let pull = self.issue(number);
        pull.edit(|entry| {
            entry.pull.get_or_insert_with(|| Pull {
                draft: false,
                merged: false,
                branch: format!("branch-{number}"),
                sha: format!("{number:040x}"),
            });
        });
        pull
    }

    /// What a user may do: `read`, `triage`, `write`, `maintain`, `admin`.
    pub fn permission(&self, login: &str, level: &str) -> &Self {
        let mut state = self.shared.lock();
        let permissions = &mut state.repository(&self.owner, &self.name).permissions;
        permissions.insert(login.to_owned(), level.to_owned());
        drop(state);
        self
    }
}

/// An issue or a pull request. Every change moves its time of update.
#[derive(Clone, Debug)]
pub struct Issue {
    repo: Repo,
    number: u64,
}

impl Issue {
    fn edit(&self, change: impl FnOnce(&mut Entry)) -> &Self {
        let Repo { shared, owner, name } = &self.repo;
        change(shared.lock().touch(owner, name, self.number));
        self
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sets the title.
    pub fn title(&self, title: &str) -> &Self {
        self.edit(|entry| title.clone_into(&mut entry.title))
    }

    /// Sets the text.
    pub fn body(&self, body: &str) -> &Self {
        self.edit(|entry| body.clone_into(&mut entry.body))
    }

    /// Replaces the labels.
    pub fn labels<const N: usize>(&self, labels: [&str; N]) -> &Self {
        self.label_list(&labels.map(str::to_owned))
    }

    pub(super) fn label_list(&self, labels: &[String]) -> &Self {
        self.edit(|entry| entry.labels = labels.to_vec())
    }

    /// Sets the author.
    pub fn author(&self, login: &str) -> &Self {
        self.edit(|entry| login.clone_into(&mut entry.author))
    }

    /// Sets the assignee.
    pub fn assignee(&self, login: &str) -> &Self {
        self.edit(|entry| entry.assignee = Some(login.to_owned()))
    }

    /// Opens it again.
    pub fn open(&self) -> &Self {
        self.edit(|entry| entry.closed = None)
    }

    /// Closes it.
    pub fn close(&self) -> &Self {
        self.edit(|entry| entry.closed = Some(Timestamp::now()))
    }

    /// Merges a pull request, which closes it.
    pub fn merge(&self) -> &Self {
        self.close();
        self.edit(|entry| {
            if let Some(pull) = &mut entry.pull {
                pull.merged = true;
            }
        })
    }

    /// Marks a pull request as draft, or as ready.
    pub fn draft(&self, draft: bool) -> &Self {
        self.edit(|entry| {
            if let Some(pull) = &mut entry.pull {
                pull.draft = draft;
            }
        })
    }

    /// Moves a pull request's head.
    pub fn push(&self, sha: &str) -> &Self {
        self.edit(|entry| {
            if let Some(pull) = &mut entry.pull {
                sha.clone_into(&mut pull.sha);
            }
        })
    }

    /// Adds a comment, now.
    pub fn comment(&self, author: &str, body: &str) -> &Self {
        self.comment_at(author, body, Timestamp::now())
    }

    /// Adds a comment of a certain time. GitHub's times are whole seconds: a comment in the second in
    /// which a Task ended is not after it.
    pub fn comment_at(&self, author: &str, body: &str, created: Timestamp) -> &Self {
        let id = self.repo.shared.lock().comment_id();
        self.edit(|entry| {
            entry.comments.push(Comment {
                id,
                author: author.to_owned(),
                body: body.to_owned(),
                created,
            });
        })
    }

    /// Takes it out of existence: GitHub answers 404 from here on.
    pub fn remove(&self) {
        let Repo { shared, owner, name } = &self.repo;
        let mut state = shared.lock();
        state.repository(owner, name).entries.remove(&self.number);
    }
}
