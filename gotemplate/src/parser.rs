//! A parse under way: where it is in the tokens, and what it knows there.

use std::collections::BTreeMap;

use crate::{
    ast::Node,
    error::Wrong,
    lex::{Kind, Token},
};

/// How deep actions and parentheses may be nested together.
const MAX_NESTING: u32 = 50;

/// The templates that are defined, by name.
pub(crate) type Defined = BTreeMap<String, Vec<Node>>;

pub(crate) type Parsed<T> = Result<T, Wrong>;

/// What a template may refer to: nothing of the one that it is written in.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) variables: Vec<String>,
    /// How many loops there are around.
    pub(crate) ranges: u32,
}

/// A parse under way.
pub(crate) struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    pub(crate) next: usize,
    pub(crate) scope: Scope,
    nesting: u32,
    pub(crate) defined: Defined,
}

impl<'s> Parser<'s> {
    /// At the first of `tokens`.
    pub(crate) fn of(tokens: Vec<Token<'s>>) -> Self {
        Self {
            tokens,
            next: 0,
            scope: Scope::default(),
            nesting: 0,
            defined: Defined::new(),
        }
    }

    /// The next token; the last one for ever.
    pub(crate) fn peek(&self) -> Token<'s> {
        self.token(self.next)
    }

    /// The one after it.
    pub(crate) fn peek_second(&self) -> Token<'s> {
        self.token(self.next + 1)
    }

    fn token(&self, index: usize) -> Token<'s> {
        self.tokens[index.min(self.tokens.len() - 1)]
    }

    pub(crate) fn take(&mut self) -> Token<'s> {
        let token = self.peek();
        self.next += 1;
        token
    }

    pub(crate) fn peek_word(&self) -> Option<&'s str> {
        let token = self.peek();
        (token.kind == Kind::Word).then_some(token.text)
    }

    pub(crate) fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Token<'s>> {
        let token = self.take();
        if token.kind == kind {
            Ok(token)
        } else {
            Err(unexpected(token, context))
        }
    }

    /// Runs `parse` one level deeper.
    pub(crate) fn nested<T>(&mut self, at: usize, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == MAX_NESTING {
            return Err(Wrong::new(at, format!("nested more than {MAX_NESTING} deep")));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }
}

/// `token` is not what `context` needs.
pub(crate) fn unexpected(token: Token<'_>, context: &str) -> Wrong {
    let what = match token.kind {
        Kind::End => "end of the template".to_owned(),
        _ => format!("{:?}", token.text),
    };
    Wrong::new(token.at, format!("unexpected {what} in {context}"))
}
