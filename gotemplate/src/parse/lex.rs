//! From text to tokens.

use crate::error::ParseError;

/// The space characters of `text/template`.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// A right delimiter that also trims, after the space that it needs.
const TRIM_CLOSE: &str = "-}}";

/// A token of the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LexToken<'s> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'s str,
    /// The byte offset where it begins.
    pub(crate) at: usize,
    /// Whether space comes before it.
    pub(crate) spaced: bool,
}

/// The kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Between actions.
    Text,
    /// `{{`
    Open,
    /// `}}`
    Close,
    LeftParen,
    RightParen,
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `.`
    Dot,
    /// `.name`
    Field,
    /// `$name`
    Variable,
    /// A name, keyword or boolean.
    Word,
    Number,
    /// `'x'`
    Char,
    /// `"x"`
    Quoted,
    /// `` `x` ``
    Raw,
    /// Any other ASCII character.
    Other,
    /// The end of the source.
    End,
}

/// The tokens of `source`; the last one is [`TokenKind::End`].
pub(crate) fn tokens(source: &str) -> Result<Vec<LexToken<'_>>, ParseError> {
    let mut lexer = Lexer {
        source,
        at: 0,
        tokens: Vec::new(),
    };
    while lexer.at < source.len() {
        if lexer.text()? {
            lexer.action()?;
        }
    }
    lexer.push(TokenKind::End, 0, false);
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    tokens: Vec<LexToken<'s>>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    /// Takes the next `length` bytes for a token.
    fn push(&mut self, kind: TokenKind, length: usize, spaced: bool) {
        let text = &self.rest()[..length];
        self.tokens.push(LexToken {
            kind,
            text,
            at: self.at,
            spaced,
        });
        self.at += length;
    }

    fn skip_space(&mut self) {
        self.at += leading_space(self.rest());
    }

    /// Takes the text before the next action; whether there is one.
    fn text(&mut self) -> Result<bool, ParseError> {
        let rest = self.rest();
        let end = rest.find(OPEN).unwrap_or(rest.len());
        let after = rest[end..].strip_prefix(OPEN);
        let trims = after.is_some_and(|after| after.starts_with('-') && after[1..].starts_with(SPACE));
        let text = if trims {
            rest[..end].trim_end_matches(SPACE)
        } else {
            &rest[..end]
        };
        if !text.is_empty() {
            self.push(TokenKind::Text, text.len(), false);
        }
        self.at += end - text.len();
        let Some(after) = after else { return Ok(false) };
        let marker = if trims { 2 } else { 0 };
        if after[marker..].starts_with("/*") {
            self.at += OPEN.len() + marker;
            self.comment()?;
            return Ok(false);
        }
        self.push(TokenKind::Open, OPEN.len(), false);
        self.at += marker;
        Ok(true)
    }

    fn comment(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        let length = self.rest()[2..]
            .find("*/")
            .ok_or_else(|| self.error(start, "unclosed comment"))?;
        self.at += 2 + length + 2;
        let rest = self.rest();
        if rest.starts_with(CLOSE) {
            self.at += CLOSE.len();
        } else if rest.starts_with(SPACE) && rest[1..].starts_with(TRIM_CLOSE) {
            self.at += 1 + TRIM_CLOSE.len();
            self.skip_space();
        } else {
            return Err(self.error(start, "comment ends before closing delimiter"));
        }
        Ok(())
    }

    /// Takes everything up to and including the right delimiter.
    fn action(&mut self) -> Result<(), ParseError> {
        let start = self.at - OPEN.len();
        let mut parens = Vec::new();
        loop {
            let space = leading_space(self.rest());
            self.at += space;
            let spaced = space > 0;
            let rest = self.rest();
            let trims = spaced && rest.starts_with(TRIM_CLOSE);
            if trims || rest.starts_with(CLOSE) {
                if let Some(paren) = parens.pop() {
                    return Err(self.error(paren, "unclosed left paren"));
                }
                self.push(
                    TokenKind::Close,
                    if trims { TRIM_CLOSE.len() } else { CLOSE.len() },
                    spaced,
                );
                if trims {
                    self.skip_space();
                }
                return Ok(());
            }
            let Some(first) = rest.chars().next() else {
                return Err(self.error(start, "unclosed action"));
            };
            match first {
                '(' => parens.push(self.at),
                ')' if parens.pop().is_none() => return Err(self.error(self.at, "unexpected right paren")),
                _ => {}
            }
            let (kind, length) = self.token(first)?;
            self.push(kind, length, spaced);
        }
    }

    /// The token at the beginning of the rest, which starts with `first`.
    fn token(&self, first: char) -> Result<(TokenKind, usize), ParseError> {
        let rest = self.rest();
        let wrong = |message: String| self.error(self.at, message);
        Ok(match first {
            '(' => (TokenKind::LeftParen, 1),
            ')' => (TokenKind::RightParen, 1),
            '|' => (TokenKind::Pipe, 1),
            '=' => (TokenKind::Assign, 1),
            ':' if rest.starts_with(":=") => (TokenKind::Declare, 2),
            ':' => return Err(wrong("expected :=".into())),
            '"' => (TokenKind::Quoted, self.quoted('"', "unterminated quoted string")?),
            '\'' => (TokenKind::Char, self.quoted('\'', "unterminated character constant")?),
            '`' => {
                let length = rest[1..].find('`');
                let length = length.ok_or_else(|| wrong("unterminated raw quoted string".into()))?;
                (TokenKind::Raw, length + 2)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => match self.name(1)? {
                1 => (TokenKind::Dot, 1),
                length => (TokenKind::Field, length),
            },
            '$' => (TokenKind::Variable, self.name(1)?),
            '.' | '+' | '-' | '0'..='9' => (TokenKind::Number, self.number()),
            c if is_alphanumeric(c) => (TokenKind::Word, self.name(0)?),
            c if c.is_ascii_graphic() => (TokenKind::Other, 1),
            c => {
                return Err(wrong(format!(
                    "unrecognized character in action: U+{:04X}",
                    u32::from(c)
                )));
            }
        })
    }

    /// The length of a token whose name begins at `start`, which may be empty.
    fn name(&self, start: usize) -> Result<usize, ParseError> {
        let rest = self.rest();
        let name = rest[start..]
            .find(|c| !is_alphanumeric(c))
            .unwrap_or(rest.len() - start);
        let end = start + name;
        let after = &rest[end..];
        match after.chars().next() {
            Some(c) if !SPACE.contains(&c) && !".,|:)(".contains(c) && !after.starts_with(CLOSE) => {
                Err(self.error(self.at + end, format!("bad character {c:?} after a name")))
            }
            _ => Ok(end),
        }
    }

    /// The length of a quoted token. The parser reads the text between the quotes.
    fn quoted(&self, quote: char, unterminated: &str) -> Result<usize, ParseError> {
        let mut escaped = false;
        for (index, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => return Ok(index + 1),
                _ => {}
            }
        }
        Err(self.error(self.at, unterminated))
    }

    /// The length of a possible number, which the parser checks.
    fn number(&self) -> usize {
        let rest = self.rest();
        rest.find(|c| !is_alphanumeric(c) && !".+-".contains(c))
            .unwrap_or(rest.len())
    }

    fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.source, at, message)
    }
}

fn leading_space(text: &str) -> usize {
    text.len() - text.trim_start_matches(SPACE).len()
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
