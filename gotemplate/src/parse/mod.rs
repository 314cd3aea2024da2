//! From source to a syntax tree.
//!
//! Imports `error`, and `fmt` for the formats of `printf`. Called by the crate root; `exec` runs the tree.

pub(crate) mod ast;
mod lex;
mod literal;
mod pipeline;

use std::collections::BTreeMap;

use crate::error::ParseError;
use ast::{Control, ControlNode, Node};
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

type ParseResult<T> = Result<T, ParseError>;

/// The variables and loops that a template may refer to: none of the template that contains it.
#[derive(Debug, Default)]
struct TemplateScope {
    variables: Vec<String>,
    /// The number of enclosing loops.
    ranges: u32,
}

/// A parse in progress: the position in the tokens, and the scope.
struct Parser<'s> {
    source: &'s str,
    tokens: Vec<LexToken<'s>>,
    next: usize,
    scope: TemplateScope,
    nesting: u32,
    definitions: Definitions,
}

impl<'s> Parser<'s> {
    /// The next token; at the end, always the last one.
    fn peek(&self) -> LexToken<'s> {
        self.tokens[self.next.min(self.tokens.len() - 1)]
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
            Err(self.unexpected(token, context))
        }
    }

    fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.source, at, message)
    }

    /// The error for a `token` that `context` does not allow.
    fn unexpected(&self, token: LexToken<'_>, context: &str) -> ParseError {
        let what = match token.kind {
            TokenKind::End => "end of the template".to_owned(),
            _ => format!("{:?}", token.text),
        };
        self.error(token.at, format!("unexpected {what} in {context}"))
    }

    /// Runs `parse` one level deeper.
    fn nested<T>(&mut self, at: usize, parse: impl FnOnce(&mut Self) -> ParseResult<T>) -> ParseResult<T> {
        if self.nesting == MAX_NESTING {
            return Err(self.error(at, format!("nested more than {MAX_NESTING} deep")));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }
}

/// Parses `source`, with the templates that it defines.
pub(crate) fn parse(source: &str) -> Result<Template, ParseError> {
    let mut parser = Parser {
        source,
        tokens: tokens(source)?,
        next: 0,
        scope: TemplateScope::default(),
        nesting: 0,
        definitions: Definitions::new(),
    };
    let (root, _) = parser.list()?;
    Ok(Template {
        source: source.to_owned(),
        root,
        definitions: parser.definitions,
    })
}

/// The end of a list of nodes.
#[derive(Clone, Copy, Debug)]
enum Terminator {
    /// `{{end}}`, or the end of the template.
    End,
    Else {
        at: usize,
    },
}

impl Parser<'_> {
    /// Nodes up to their terminator, which is the end of the template if nothing is nested.
    fn list(&mut self) -> ParseResult<(Vec<Node>, Terminator)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                TokenKind::Text => nodes.push(Node::Text {
                    at: token.at,
                    text: token.text.to_owned(),
                }),
                TokenKind::Open => {
                    if let Some(terminator) = self.action(&mut nodes)? {
                        return Ok((nodes, terminator));
                    }
                }
                TokenKind::End if self.nesting == 0 => return Ok((nodes, Terminator::End)),
                TokenKind::End => {
                    return Err(self.error(token.at, "unexpected end of the template: {{end}} is missing"));
                }
                _ => return Err(self.unexpected(token, "input")),
            }
        }
    }

    /// Nodes up to `{{end}}`.
    fn list_to_end(&mut self) -> ParseResult<Vec<Node>> {
        match self.list()? {
            (nodes, Terminator::End) => Ok(nodes),
            (_, Terminator::Else { at }) => Err(self.error(at, "expected {{end}}, found {{else}}")),
        }
    }

    /// Parses an action behind its left delimiter into `nodes`, or the terminator of the list.
    fn action(&mut self, nodes: &mut Vec<Node>) -> ParseResult<Option<Terminator>> {
        let at = self.peek().at;
        let word = self.peek_word().unwrap_or_default();
        self.next += 1;
        let node = match word {
            "end" | "else" if self.nesting == 0 => {
                return Err(self.error(at, format!("unexpected {{{{{word}}}}}")));
            }
            "end" => {
                self.expect(TokenKind::Close, "end")?;
                return Ok(Some(Terminator::End));
            }
            "else" => {
                if !matches!(self.peek_word(), Some("if" | "with")) {
                    self.expect(TokenKind::Close, "else")?;
                }
                return Ok(Some(Terminator::Else { at }));
            }
            "define" if self.nesting == 0 => {
                let (at, name) = self.template_name("define clause")?;
                self.expect(TokenKind::Close, "define clause")?;
                self.define(at, name)?;
                return Ok(None);
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
                Node::Action(self.pipeline(PipelineConstruct::Action("command"))?)
            }
        };
        nodes.push(node);
        Ok(None)
    }

    /// Parses the body of the template `name`, up to its end. A blank body defines a template only if there is none of the name.
    fn define(&mut self, at: usize, name: String) -> ParseResult<()> {
        let outer = std::mem::take(&mut self.scope);
        let body = self.nested(at, Self::list_to_end)?;
        self.scope = outer;
        match self.definitions.get(&name) {
            Some(existing) if !is_blank(existing) && !is_blank(&body) => {
                Err(self.error(at, format!("multiple definition of template {name:?}")))
            }
            Some(existing) if !is_blank(existing) => Ok(()),
            _ => {
                self.definitions.insert(name, body);
                Ok(())
            }
        }
    }

    fn leave(&mut self, at: usize, node: Node) -> ParseResult<Node> {
        self.expect(TokenKind::Close, "{{break}} or {{continue}}")?;
        if self.scope.ranges == 0 {
            return Err(self.error(at, "{{break}} and {{continue}} need a {{range}}"));
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
        let pipeline = self.pipeline(match control {
            Control::If => PipelineConstruct::Action("if"),
            Control::With => PipelineConstruct::Action("with"),
            Control::Range => PipelineConstruct::Range,
        })?;
        let in_range = u32::from(control == Control::Range);
        self.scope.ranges += in_range;
        let (body, terminator) = self.list()?;
        self.scope.ranges -= in_range;
        let otherwise = match terminator {
            Terminator::End => Vec::new(),
            Terminator::Else { at } => self.otherwise(at, control)?,
        };
        Ok(Node::Control(ControlNode {
            control,
            pipeline,
            body,
            otherwise,
        }))
    }

    /// Parses the branch behind `{{else`: a chained control with its end, or a list.
    fn otherwise(&mut self, at: usize, control: Control) -> ParseResult<Vec<Node>> {
        match (control, self.peek_word()) {
            (Control::If, Some("if")) | (Control::With, Some("with")) => {
                self.take();
                Ok(vec![self.control(at, control)?])
            }
            // Go refuses `{{else if}}` of a `with`.
            (_, Some(word)) => Err(self.error(at, format!("unexpected {word} after else"))),
            _ => self.list_to_end(),
        }
    }

    fn template(&mut self, at: usize) -> ParseResult<Node> {
        let (_, name) = self.template_name("template clause")?;
        let pipeline = if self.peek().kind == TokenKind::Close {
            self.take();
            None
        } else {
            Some(self.pipeline(PipelineConstruct::Action("template clause"))?)
        };
        Ok(Node::Template { at, name, pipeline })
    }

    fn block(&mut self, at: usize) -> ParseResult<Node> {
        let (_, name) = self.template_name("block clause")?;
        let pipeline = self.pipeline(PipelineConstruct::Action("block clause"))?;
        self.define(at, name.clone())?;
        Ok(Node::Template {
            at,
            name,
            pipeline: Some(pipeline),
        })
    }

    fn template_name(&mut self, context: &str) -> ParseResult<(usize, String)> {
        let token = self.take();
        let name = match token.kind {
            TokenKind::Quoted => literal::quoted(token.text).map_err(|message| self.error(token.at, message))?,
            TokenKind::Raw => literal::raw(token.text),
            _ => return Err(self.unexpected(token, context)),
        };
        Ok((token.at, String::from_utf8_lossy(&name).into_owned()))
    }
}

/// Whether a template contains only space.
fn is_blank(nodes: &[Node]) -> bool {
    nodes
        .iter()
        .all(|node| matches!(node, Node::Text { text, .. } if text.trim().is_empty()))
}
