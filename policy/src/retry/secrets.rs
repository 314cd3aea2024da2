//! Masks secrets in text that others will read: the output of a model or a tool may contain tokens.

/// The replacement of a secret.
const MASK: &str = "***";
/// How the tokens of well-known services begin, and how long they are at least.
const TOKENS: [(&str, usize); 17] = [
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxb-", 16),
    ("xoxp-", 16),
    ("xoxa-", 16),
    ("sk-", 20),
    ("hf_", 20),
    ("npm_", 20),
    ("AKIA", 20),
    ("ASIA", 20),
    ("AIza", 30),
    ("eyJ", 30),
];
/// What the name of a field whose value is a secret contains, in lower case without `-` and `_`.
const NAMES: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
];

/// `text` with a mask in the place of each secret: private keys, tokens of well-known services, values of fields that are
/// called like secrets, whatever follows `Bearer` or `Basic`, passwords in URLs.
pub(super) fn mask(text: &str) -> String {
    let text = without_keys(text);
    let mut masked = String::with_capacity(text.len());
    let mut hide = Hide::No;
    for piece in pieces(&text) {
        let is_word = piece.starts_with(is_word_char);
        if is_word {
            let secret = hide == Hide::Next || is_token(piece);
            let scheme = piece.eq_ignore_ascii_case("bearer") || piece.eq_ignore_ascii_case("basic");
            match hide {
                // The scheme is no secret, what follows it is.
                Hide::Next if scheme => masked.push_str(piece),
                _ if secret => masked.push_str(MASK),
                _ => masked.push_str(piece),
            }
            hide = if scheme {
                Hide::Next
            } else if is_name(piece) {
                Hide::Assigned
            } else {
                Hide::No
            };
        } else {
            hide = match hide {
                Hide::Assigned if piece.contains(['=', ':']) && !piece.contains('\n') => Hide::Next,
                Hide::Next if !piece.contains('\n') => Hide::Next,
                Hide::Assigned if piece.chars().all(|c| matches!(c, '"' | '\'' | ' ')) => Hide::Assigned,
                _ => Hide::No,
            };
            masked.push_str(piece);
        }
    }
    without_passwords(&masked)
}

/// Whether the next word is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hide {
    No,
    /// If it is assigned to the name that was just read.
    Assigned,
    Next,
}

/// `text` in words and what is between them.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let same = |c: char| is_word_char(c) == is_word_char(first);
        let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '~' | '%' | '!' | '$' | '&' | '*')
}

fn is_token(word: &str) -> bool {
    let begins = |at: usize| !word[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
    TOKENS.iter().any(|(start, length)| {
        word.match_indices(start)
            .any(|(at, _)| begins(at) && word.len() - at >= *length)
    })
}

fn is_name(word: &str) -> bool {
    let plain: String = word
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    NAMES.iter().any(|name| plain.contains(name))
}

/// `text` without PEM blocks; one without an end reaches to the end of the text.
fn without_keys(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        kept.push_str(&rest[..begin]);
        kept.push_str(MASK);
        let block = &rest[begin + 11..];
        rest = match block.find("-----END ") {
            Some(end) => {
                let tail = &block[end + 9..];
                tail.find("-----").map_or("", |dashes| &tail[dashes + 5..])
            }
            None => "",
        };
    }
    kept + rest
}

/// `text` without the part between `://` and `@` of each word.
fn without_passwords(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        kept.push_str(before);
        let end = url
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\''))
            .unwrap_or(url.len());
        rest = match url[..end].rfind('@') {
            Some(host) => {
                kept.push_str(MASK);
                &url[host..]
            }
            None => url,
        };
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        let token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        for (text, expected) in [
            (
                "nothing to hide: tests fail in src/a.rs:12".to_owned(),
                "nothing to hide: tests fail in src/a.rs:12".to_owned(),
            ),
            (format!("pushed with {token}."), "pushed with ***".to_owned()),
            (
                format!("https://x:{token}@github.com/a/b"),
                "https://***@github.com/a/b".to_owned(),
            ),
            (
                "https://user:pa55@host/x and https://host/y".to_owned(),
                "https://***@host/x and https://host/y".to_owned(),
            ),
            (
                "Authorization: Bearer abc.def".to_owned(),
                "Authorization: Bearer ***".to_owned(),
            ),
            ("DB_PASSWORD=hunter2 next".to_owned(), "DB_PASSWORD=*** next".to_owned()),
            (
                "{\"api_key\": \"abc\", \"b\": 1}".to_owned(),
                "{\"api_key\": \"***\", \"b\": 1}".to_owned(),
            ),
            (
                "task-runner-of-the-whole-team".to_owned(),
                "task-runner-of-the-whole-team".to_owned(),
            ),
            ("the token expired".to_owned(), "the token expired".to_owned()),
            (
                "a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b".to_owned(),
                "a *** b".to_owned(),
            ),
            ("-----BEGIN PRIVATE KEY-----\ncut".to_owned(), "***".to_owned()),
            (
                "sha 0123456789abcdef0123456789abcdef01234567".to_owned(),
                "sha 0123456789abcdef0123456789abcdef01234567".to_owned(),
            ),
        ] {
            assert_eq!(mask(&text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_token_gets_through(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let token = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
            let masked = mask(&format!("{before} {token} {after}"));
            prop_assert!(!masked.contains(token));
        }
    }
}
