//! From source to a syntax tree.
//!
//! Imports `error`, and `fmt` for the formats of `printf`. Called by the crate root; `exec` runs the tree.

pub(crate) mod ast;
mod lex;
mod literal;
mod pipeline;

use std::collections::BTreeMap;

use crate::error::{ParseError, Position, SyntaxError};
use ast::{Control, Node, is_blank};
use lex::{LexToken, TokenKind, tokens};
use pipeline::PipelineConstruct;

/// How deep actions and parentheses may be nested together.
const MAX_NESTING: u32 = 50;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    pub(crate) source: String,
    pub(crate) root: Vec<Node>,
    pub(crate) definitions: Definitions,
}

/// The defined templates, by name.
pub(crate) type Definitions = BTreeMap<String, Vec<Node>>;

type ParseResult<T> = Result<T, SyntaxError>;

/// The variables and loops that a template may refer to: none of the template that contains it.
#[derive(Debug, Default)]
struct TemplateScope {
    variables: Vec<String>,
    /// The number of enclosing loops.
    ranges: u32,
}

/// A parse in progress: the position in the tokens, and the scope.
struct Parser<'s> {
    tokens: Vec<LexToken<'s>>,
    next: usize,
    scope: TemplateScope,
    nesting: u32,
    definitions: Definitions,
}

impl<'s> Parser<'s> {
    /// A parser at the first of `tokens`.
    fn of(tokens: Vec<LexToken<'s>>) -> Self {
        Self {
            tokens,
            next: 0,
            scope: TemplateScope::default(),
            nesting: 0,
            definitions: Definitions::new(),
        }
    }

    /// The next token; at the end, always the last one.
    fn peek(&self) -> LexToken<'s> {
        self.token(self.next)
    }

    /// The token after the next one.
    fn peek_second(&self) -> LexToken<'s> {
        self.token(self.next + 1)
    }

    fn token(&self, index: usize) -> LexToken<'s> {
        self.tokens[index.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> LexToken<'s> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn peek_word(&self) -> Option<&'s str> {
        let token = self.peek();
        (token.kind == TokenKind::Word).then_some(token.text)
    }

    fn expect(&mut self, kind: TokenKind, context: &str) -> ParseResult<LexToken<'s>> {
        let token = self.take();
        if token.kind == kind {
            Ok(token)
        } else {
            Err(unexpected(token, context))
        }
    }

    /// Runs `parse` one level deeper.
    fn nested<T>(&mut self, at: usize, parse: impl FnOnce(&mut Self) -> ParseResult<T>) -> ParseResult<T> {
        if self.nesting == MAX_NESTING {
            return Err(SyntaxError::new(at, format!("nested more than {MAX_NESTING} deep")));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }
}

/// The error for a `token` that `context` does not allow.
fn unexpected(token: LexToken<'_>, context: &str) -> SyntaxError {
    let what = match token.kind {
        TokenKind::End => "end of the template".to_owned(),
        _ => format!("{:?}", token.text),
    };
    SyntaxError::new(token.at, format!("unexpected {what} in {context}"))
}

/// Parses `source`, with the templates that it defines.
pub(crate) fn parse(source: &str) -> Result<Template, ParseError> {
    let parse = || {
        let mut parser = Parser::of(tokens(source)?);
        let root = parser.root()?;
        Ok(Template {
            source: source.to_owned(),
            root,
            definitions: parser.definitions,
        })
    };
    parse().map_err(|error: SyntaxError| ParseError {
        position: Position::of(source, error.at),
        message: error.message,
    })
}

/// The end of a list of nodes.
#[derive(Clone, Copy, Debug)]
enum Terminator {
    End,
    Else { at: usize },
}

impl Parser<'_> {
    fn root(&mut self) -> ParseResult<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            match self.peek().kind {
                TokenKind::End => return Ok(nodes),
                TokenKind::Open if self.peek_second().text == "define" => {
                    self.next += 2;
                    self.definition()?;
                }
                _ => {
                    let at = self.peek().at;
                    match self.node()? {
                        Ok(node) => nodes.push(node),
                        Err(Terminator::End) => return Err(SyntaxError::new(at, "unexpected {{end}}")),
                        Err(Terminator::Else { .. }) => return Err(SyntaxError::new(at, "unexpected {{else}}")),
                    }
                }
            }
        }
    }

    fn definition(&mut self) -> ParseResult<()> {
        let name = self.template_name("define clause")?;
        self.expect(TokenKind::Close, "define clause")?;
        self.define(name)
    }

    /// Parses the body of the template `name`, up to its end.
    fn define(&mut self, (at, name): (usize, String)) -> ParseResult<()> {
        let outer = std::mem::take(&mut self.scope);
        let (body, terminator) = self.nested(at, Self::list)?;
        self.scope = outer;
        if let Terminator::Else { at } = terminator {
            return Err(SyntaxError::new(at, "unexpected {{else}} in a template's definition"));
        }
        match self.definitions.get(&name) {
            Some(existing) if !is_blank(existing) => {
                if !is_blank(&body) {
                    return Err(SyntaxError::new(
                        at,
                        format!("multiple definition of template {name:?}"),
                    ));
                }
            }
            _ => {
                self.definitions.insert(name, body);
            }
        }
        Ok(())
    }

    /// Nodes up to `{{end}}` or `{{else}}`.
    fn list(&mut self) -> ParseResult<(Vec<Node>, Terminator)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.peek();
            if token.kind == TokenKind::End {
                return Err(SyntaxError::new(
                    token.at,
                    "unexpected end of the template: {{end}} is missing",
                ));
            }
            match self.node()? {
                Ok(node) => nodes.push(node),
                Err(terminator) => return Ok((nodes, terminator)),
            }
        }
    }

    /// One node, or the end of a list.
    fn node(&mut self) -> ParseResult<Result<Node, Terminator>> {
        let token = self.take();
        match token.kind {
            TokenKind::Text => Ok(Ok(Node::Text {
                at: token.at,
                text: token.text.to_owned(),
            })),
            TokenKind::Open => self.action(),
            _ => Err(unexpected(token, "input")),
        }
    }

    /// Parses an action behind its left delimiter.
    fn action(&mut self) -> ParseResult<Result<Node, Terminator>> {
        let Some(word) = self.peek_word() else {
            return self
                .pipeline(PipelineConstruct::Action, TokenKind::Close, "command")
                .map(|pipeline| Ok(Node::Action(pipeline)));
        };
        let at = self.take().at;
        let node = match word {
            "end" => {
                self.expect(TokenKind::Close, "end")?;
                return Ok(Err(Terminator::End));
            }
            "else" => {
                if !matches!(self.peek_word(), Some("if" | "with")) {
                    self.expect(TokenKind::Close, "else")?;
                }
                return Ok(Err(Terminator::Else { at }));
            }
            "if" => self.control(at, Control::If)?,
            "with" => self.control(at, Control::With)?,
            "range" => self.control(at, Control::Range)?,
            "template" => self.template(at)?,
            "block" => self.block(at)?,
            "break" => self.leave(at, Node::Break)?,
            "continue" => self.leave(at, Node::Continue)?,
            _ => {
                self.next -= 1;
                Node::Action(self.pipeline(PipelineConstruct::Action, TokenKind::Close, "command")?)
            }
        };
        Ok(Ok(node))
    }

    fn leave(&mut self, at: usize, node: Node) -> ParseResult<Node> {
        self.expect(TokenKind::Close, "{{break}} or {{continue}}")?;
        if self.scope.ranges == 0 {
            return Err(SyntaxError::new(at, "{{break}} and {{continue}} need a {{range}}"));
        }
        Ok(node)
    }

    fn control(&mut self, at: usize, control: Control) -> ParseResult<Node> {
        self.nested(at, |parser| {
            let visible = parser.scope.variables.len();
            let node = parser.control_body(control);
            parser.scope.variables.truncate(visible);
            node
        })
    }

    fn control_body(&mut self, control: Control) -> ParseResult<Node> {
        let (construct, context) = match control {
            Control::If => (PipelineConstruct::Action, "if"),
            Control::With => (PipelineConstruct::Action, "with"),
            Control::Range => (PipelineConstruct::Range, "range"),
        };
        let pipeline = self.pipeline(construct, TokenKind::Close, context)?;
        let in_range = u32::from(control == Control::Range);
        self.scope.ranges += in_range;
        let (body, terminator) = self.list()?;
        self.scope.ranges -= in_range;
        let otherwise = match terminator {
            Terminator::End => Vec::new(),
            Terminator::Else { at } => self.otherwise(at, control)?,
        };
        Ok(Node::Control {
            control,
            pipeline,
            body,
            otherwise,
        })
    }

    /// Parses the branch behind `{{else`: a chained control with its end, or a list.
    fn otherwise(&mut self, at: usize, control: Control) -> ParseResult<Vec<Node>> {
        match (control, self.peek_word()) {
            (Control::If, Some("if")) | (Control::With, Some("with")) => {
                self.take();
                Ok(vec![self.control(at, control)?])
            }
            // Go refuses `{{else if}}` of a `with`.
            (_, Some(word)) => Err(SyntaxError::new(at, format!("unexpected {word} after else"))),
            _ => match self.list()? {
                (nodes, Terminator::End) => Ok(nodes),
                (_, Terminator::Else { at }) => Err(SyntaxError::new(at, "expected {{end}}, found {{else}}")),
            },
        }
    }

    fn template(&mut self, at: usize) -> ParseResult<Node> {
        let (_, name) = self.template_name("template clause")?;
        let pipeline = if self.peek().kind == TokenKind::Close {
            self.take();
            None
        } else {
            Some(self.pipeline(PipelineConstruct::Action, TokenKind::Close, "template clause")?)
        };
        Ok(Node::Template { at, name, pipeline })
    }

    fn block(&mut self, at: usize) -> ParseResult<Node> {
        let (_, name) = self.template_name("block clause")?;
        let pipeline = self.pipeline(PipelineConstruct::Action, TokenKind::Close, "block clause")?;
        self.define((at, name.clone()))?;
        Ok(Node::Template {
            at,
            name,
            pipeline: Some(pipeline),
        })
    }

    fn template_name(&mut self, context: &str) -> ParseResult<(usize, String)> {
        let token = self.take();
        let name = match token.kind {
            TokenKind::Quoted => literal::quoted(token.text).map_err(|message| SyntaxError::new(token.at, message))?,
            TokenKind::Raw => literal::raw(token.text),
            _ => return Err(unexpected(token, context)),
        };
        Ok((token.at, String::from_utf8_lossy(&name).into_owned()))
    }
}
