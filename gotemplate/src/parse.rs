//! From tokens to a tree.

use crate::{
    ast::{Control, Node, is_blank},
    error::{ParseError, Position, Wrong},
    lex::{Kind, tokens},
    literal,
    parser::{Defined, Parsed, Parser, unexpected},
    pipeline::Place,
};

/// Parses `source` into the template itself and those that it defines.
pub(crate) fn parse(source: &str) -> Result<(Vec<Node>, Defined), ParseError> {
    let parse = || {
        let mut parser = Parser::of(tokens(source)?);
        let root = parser.root()?;
        Ok((root, parser.defined))
    };
    parse().map_err(|wrong: Wrong| ParseError {
        position: Position::of(source, wrong.at),
        message: wrong.message,
    })
}

/// What ends a list of nodes.
#[derive(Clone, Copy, Debug)]
enum Terminator {
    End,
    Else { at: usize },
}

impl Parser<'_> {
    fn root(&mut self) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            match self.peek().kind {
                Kind::End => return Ok(nodes),
                Kind::Open if self.peek_second().text == "define" => {
                    self.next += 2;
                    self.definition()?;
                }
                _ => {
                    let at = self.peek().at;
                    match self.node()? {
                        Ok(node) => nodes.push(node),
                        Err(Terminator::End) => return Err(Wrong::new(at, "unexpected {{end}}")),
                        Err(Terminator::Else { .. }) => return Err(Wrong::new(at, "unexpected {{else}}")),
                    }
                }
            }
        }
    }

    fn definition(&mut self) -> Parsed<()> {
        let name = self.template_name("define clause")?;
        self.expect(Kind::Close, "define clause")?;
        self.define(name)
    }

    /// Parses the body of the template `name`, up to its end.
    fn define(&mut self, (at, name): (usize, String)) -> Parsed<()> {
        let outer = std::mem::take(&mut self.scope);
        let (body, terminator) = self.nested(at, Self::list)?;
        self.scope = outer;
        if let Terminator::Else { at } = terminator {
            return Err(Wrong::new(at, "unexpected {{else}} in a template's definition"));
        }
        match self.defined.get(&name) {
            Some(existing) if !is_blank(existing) => {
                if !is_blank(&body) {
                    return Err(Wrong::new(at, format!("multiple definition of template {name:?}")));
                }
            }
            _ => {
                self.defined.insert(name, body);
            }
        }
        Ok(())
    }

    /// Nodes up to `{{end}}` or `{{else}}`.
    fn list(&mut self) -> Parsed<(Vec<Node>, Terminator)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.peek();
            if token.kind == Kind::End {
                return Err(Wrong::new(
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

    /// One node, or what ends a list of them.
    fn node(&mut self) -> Parsed<Result<Node, Terminator>> {
        let token = self.take();
        match token.kind {
            Kind::Text => Ok(Ok(Node::Text {
                at: token.at,
                text: token.text.to_owned(),
            })),
            Kind::Open => self.action(),
            _ => Err(unexpected(token, "input")),
        }
    }

    /// What follows a left delimiter.
    fn action(&mut self) -> Parsed<Result<Node, Terminator>> {
        let Some(word) = self.peek_word() else {
            return self
                .pipeline(Place::Action, Kind::Close, "command")
                .map(|pipeline| Ok(Node::Action(pipeline)));
        };
        let at = self.take().at;
        let node = match word {
            "end" => {
                self.expect(Kind::Close, "end")?;
                return Ok(Err(Terminator::End));
            }
            "else" => {
                if !matches!(self.peek_word(), Some("if" | "with")) {
                    self.expect(Kind::Close, "else")?;
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
                Node::Action(self.pipeline(Place::Action, Kind::Close, "command")?)
            }
        };
        Ok(Ok(node))
    }

    fn leave(&mut self, at: usize, node: Node) -> Parsed<Node> {
        self.expect(Kind::Close, "{{break}} or {{continue}}")?;
        if self.scope.ranges == 0 {
            return Err(Wrong::new(at, "{{break}} and {{continue}} need a {{range}}"));
        }
        Ok(node)
    }

    fn control(&mut self, at: usize, control: Control) -> Parsed<Node> {
        self.nested(at, |parser| {
            let visible = parser.scope.variables.len();
            let node = parser.control_body(control);
            parser.scope.variables.truncate(visible);
            node
        })
    }

    fn control_body(&mut self, control: Control) -> Parsed<Node> {
        let (place, context) = match control {
            Control::If => (Place::Action, "if"),
            Control::With => (Place::Action, "with"),
            Control::Range => (Place::Range, "range"),
        };
        let pipeline = self.pipeline(place, Kind::Close, context)?;
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

    /// What follows `{{else`: a chained control that brings the end with it, or a list.
    fn otherwise(&mut self, at: usize, control: Control) -> Parsed<Vec<Node>> {
        match (control, self.peek_word()) {
            (Control::If, Some("if")) | (Control::With, Some("with")) => {
                self.take();
                Ok(vec![self.control(at, control)?])
            }
            // `{{else if}}` of a `with` is a list that begins in the middle of an action, which Go refuses.
            (_, Some(word)) => Err(Wrong::new(at, format!("unexpected {word} after else"))),
            _ => match self.list()? {
                (nodes, Terminator::End) => Ok(nodes),
                (_, Terminator::Else { at }) => Err(Wrong::new(at, "expected {{end}}, found {{else}}")),
            },
        }
    }

    fn template(&mut self, at: usize) -> Parsed<Node> {
        let (_, name) = self.template_name("template clause")?;
        let pipeline = if self.peek().kind == Kind::Close {
            self.take();
            None
        } else {
            Some(self.pipeline(Place::Action, Kind::Close, "template clause")?)
        };
        Ok(Node::Template { at, name, pipeline })
    }

    fn block(&mut self, at: usize) -> Parsed<Node> {
        let (_, name) = self.template_name("block clause")?;
        let pipeline = self.pipeline(Place::Action, Kind::Close, "block clause")?;
        self.define((at, name.clone()))?;
        Ok(Node::Template {
            at,
            name,
            pipeline: Some(pipeline),
        })
    }

    fn template_name(&mut self, context: &str) -> Parsed<(usize, String)> {
        let token = self.take();
        let name = match token.kind {
            Kind::Quoted => literal::quoted(token.text).map_err(|message| Wrong::new(token.at, message))?,
            Kind::Raw => literal::raw(token.text),
            _ => return Err(unexpected(token, context)),
        };
        Ok((token.at, String::from_utf8_lossy(&name).into_owned()))
    }
}
