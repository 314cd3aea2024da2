//! Pipelines: commands, operands and constants.

use crate::{
    ast::{Command, Number, Operand, Pipeline, Term},
    directive::pieces,
    error::Wrong,
    functions::Function,
    lex::{Kind, Token},
    literal,
    parser::{Parsed, Parser, unexpected},
};

/// Where a pipeline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Action,
    Range,
    Parens,
}

impl Parser<'_> {
    /// A pipeline up to and with `closing`.
    pub(crate) fn pipeline(&mut self, place: Place, closing: Kind, context: &str) -> Parsed<Pipeline> {
        let at = self.peek().at;
        let (variables, assigns) = self.declarations(place, context)?;
        let mut commands = Vec::new();
        let end = loop {
            let token = self.peek();
            if token.kind == closing {
                break self.take().at;
            }
            if !begins_operand(token) {
                return Err(unexpected(token, context));
            }
            let command = self.command()?;
            if !commands.is_empty() && is_constant(&command.first.term) {
                let stage = commands.len() + 1;
                return Err(Wrong::new(
                    command.first.at,
                    format!("non executable command in pipeline stage {stage}"),
                ));
            }
            commands.push(command);
        };
        if commands.is_empty() {
            return Err(Wrong::new(end, format!("missing value for {context}")));
        }
        Ok(Pipeline {
            at,
            end,
            variables,
            assigns,
            commands,
        })
    }

    /// `$x :=`, `$x =`, and in a range `$i, $x :=`.
    fn declarations(&mut self, place: Place, context: &str) -> Parsed<(Vec<String>, bool)> {
        let mut variables: Vec<String> = Vec::new();
        while self.peek().kind == Kind::Variable {
            let variable = self.take();
            let token = self.peek();
            match token.kind {
                Kind::Assign | Kind::Declare => {
                    self.take();
                    self.declare(variable, &mut variables);
                    return Ok((variables, token.kind == Kind::Assign));
                }
                Kind::Other if token.text == "," => {
                    self.take();
                    self.declare(variable, &mut variables);
                    if place != Place::Range || variables.len() > 1 {
                        return Err(Wrong::new(token.at, format!("too many declarations in {context}")));
                    }
                    if !matches!(self.peek().kind, Kind::Variable | Kind::Close | Kind::RightParen) {
                        return Err(Wrong::new(token.at, "range can only initialize variables"));
                    }
                }
                _ => {
                    self.next -= 1;
                    break;
                }
            }
        }
        Ok((variables, false))
    }

    fn declare(&mut self, variable: Token<'_>, variables: &mut Vec<String>) {
        self.scope.variables.push(variable.text.to_owned());
        variables.push(variable.text.to_owned());
    }

    fn command(&mut self) -> Parsed<Command> {
        let first = self.operand()?;
        let mut rest = Vec::new();
        loop {
            let token = self.peek();
            match token.kind {
                Kind::Close | Kind::RightParen => break,
                Kind::Pipe => {
                    self.take();
                    break;
                }
                _ if token.spaced && begins_operand(token) => rest.push(self.operand()?),
                _ => return Err(unexpected(token, "operand")),
            }
        }
        check_format(&first.term, &rest)?;
        Ok(Command { first, rest })
    }

    /// A term and the fields that follow it at once.
    fn operand(&mut self) -> Parsed<Operand> {
        let at = self.peek().at;
        let term = self.term()?;
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field && !self.peek().spaced {
            fields.push(self.take().text[1..].to_owned());
        }
        if fields.is_empty() {
            return Ok(Operand { at, term });
        }
        let term = match term {
            Term::Field(mut path) => {
                path.extend(fields);
                Term::Field(path)
            }
            Term::Variable(name, mut path) => {
                path.extend(fields);
                Term::Variable(name, path)
            }
            Term::Function(_) | Term::Parens(_) => Term::Chain(Box::new(Operand { at, term }), fields),
            _ => return Err(Wrong::new(at, "unexpected . after a constant")),
        };
        Ok(Operand { at, term })
    }

    fn term(&mut self) -> Parsed<Term> {
        let token = self.take();
        let wrong = |message| Wrong::new(token.at, message);
        Ok(match token.kind {
            Kind::Dot => Term::Dot,
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Variable => {
                let known = token.text == "$" || self.scope.variables.iter().any(|name| name == token.text);
                if !known {
                    return Err(wrong(format!("undefined variable {}", token.text)));
                }
                Term::Variable(token.text.to_owned(), Vec::new())
            }
            Kind::Number => Term::Number(literal::number(token.text).map_err(wrong)?),
            Kind::Char => Term::Number(Number::Int(literal::character(token.text).map_err(wrong)?)),
            Kind::Quoted => Term::Text(literal::quoted(token.text).map_err(wrong)?),
            Kind::Raw => Term::Text(literal::raw(token.text)),
            Kind::LeftParen => {
                let context = "parenthesized pipeline";
                let pipeline = self.nested(token.at, |parser| {
                    parser.pipeline(Place::Parens, Kind::RightParen, context)
                });
                Term::Parens(Box::new(pipeline?))
            }
            Kind::Word => match token.text {
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                "nil" => Term::Nil,
                name => Term::Function(Function::named(name).map_err(wrong)?),
            },
            _ => return Err(unexpected(token, "operand")),
        })
    }
}

/// Whether an operand can begin with `token`.
fn begins_operand(token: Token<'_>) -> bool {
    match token.kind {
        Kind::Word => !is_keyword(token.text),
        Kind::Dot
        | Kind::Field
        | Kind::Variable
        | Kind::Number
        | Kind::Char
        | Kind::Quoted
        | Kind::Raw
        | Kind::LeftParen => true,
        _ => false,
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range" | "template" | "with"
    )
}

/// A format of `printf` that stands in the template is in scope, or refused with its place.
fn check_format(function: &Term, operands: &[Operand]) -> Parsed<()> {
    if let (Term::Function(Function::Printf), Some(operand)) = (function, operands.first())
        && let Term::Text(format) = &operand.term
    {
        for piece in pieces(format) {
            piece.map_err(|message| Wrong::new(operand.at, message))?;
        }
    }
    Ok(())
}

fn is_constant(term: &Term) -> bool {
    matches!(
        term,
        Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Text(_)
    )
}
