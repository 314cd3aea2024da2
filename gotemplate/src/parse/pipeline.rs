//! Pipelines: commands, operands and constants.

use super::{
    ParseResult, Parser,
    ast::{CommandNode, Function, Number, Operand, Pipeline, Term},
    lex::{LexToken, TokenKind},
    literal,
};
use crate::fmt::directive::pieces;

/// The construct that contains a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipelineConstruct {
    /// An action, with its name in errors.
    Action(&'static str),
    Range,
    Parens,
}

impl Parser<'_> {
    /// Parses a pipeline up to and including the token that closes `construct`.
    pub(crate) fn pipeline(&mut self, construct: PipelineConstruct) -> ParseResult<Pipeline> {
        let (context, closing) = match construct {
            PipelineConstruct::Action(name) => (name, TokenKind::Close),
            PipelineConstruct::Range => ("range", TokenKind::Close),
            PipelineConstruct::Parens => ("parenthesized pipeline", TokenKind::RightParen),
        };
        let at = self.peek().at;
        let (variables, assigns) = self.declarations(construct, context)?;
        let mut commands = Vec::new();
        let end = loop {
            let token = self.peek();
            if token.kind == closing {
                break self.take().at;
            }
            if !begins_operand(token) {
                return Err(self.unexpected(token, context));
            }
            let command = self.command()?;
            if !commands.is_empty() && is_constant(&command.first) {
                let stage = commands.len() + 1;
                return Err(self.error(
                    command.first.at,
                    format!("non executable command in pipeline stage {stage}"),
                ));
            }
            commands.push(command);
        };
        if commands.is_empty() {
            return Err(self.error(end, format!("missing value for {context}")));
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
    fn declarations(&mut self, construct: PipelineConstruct, context: &str) -> ParseResult<(Vec<String>, bool)> {
        let mut variables: Vec<String> = Vec::new();
        while self.peek().kind == TokenKind::Variable {
            let variable = self.take();
            let token = self.peek();
            match token.kind {
                TokenKind::Assign | TokenKind::Declare => {
                    self.take();
                    self.declare(variable, &mut variables);
                    return Ok((variables, token.kind == TokenKind::Assign));
                }
                TokenKind::Other if token.text == "," => {
                    self.take();
                    self.declare(variable, &mut variables);
                    if construct != PipelineConstruct::Range || variables.len() > 1 {
                        return Err(self.error(token.at, format!("too many declarations in {context}")));
                    }
                    if !matches!(
                        self.peek().kind,
                        TokenKind::Variable | TokenKind::Close | TokenKind::RightParen
                    ) {
                        return Err(self.error(token.at, "range can only initialize variables"));
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

    fn declare(&mut self, variable: LexToken<'_>, variables: &mut Vec<String>) {
        self.scope.variables.push(variable.text.to_owned());
        variables.push(variable.text.to_owned());
    }

    fn command(&mut self) -> ParseResult<CommandNode> {
        let first = self.operand()?;
        let mut rest = Vec::new();
        loop {
            let token = self.peek();
            match token.kind {
                TokenKind::Close | TokenKind::RightParen => break,
                TokenKind::Pipe => {
                    self.take();
                    break;
                }
                _ if token.spaced && begins_operand(token) => rest.push(self.operand()?),
                _ => return Err(self.unexpected(token, "operand")),
            }
        }
        self.check_format(&first, &rest)?;
        Ok(CommandNode { first, rest })
    }

    /// Refuses a constant format of `printf` that is out of scope.
    fn check_format(&self, function: &Operand, operands: &[Operand]) -> ParseResult<()> {
        if let (Term::Function(Function::Printf), [operand, ..]) = (&function.term, operands)
            && let Term::Text(format) = &operand.term
        {
            for piece in pieces(format) {
                piece.map_err(|message| self.error(operand.at, message))?;
            }
        }
        Ok(())
    }

    /// Parses a term and the fields directly behind it.
    fn operand(&mut self) -> ParseResult<Operand> {
        let first = self.take();
        let mut fields = Vec::new();
        let term = if first.kind == TokenKind::Field {
            fields.push(first.text[1..].to_owned());
            Term::Dot
        } else {
            self.term(first)?
        };
        let is_constant = fields.is_empty() && is_constant_term(&term);
        while self.peek().kind == TokenKind::Field && !self.peek().spaced {
            if is_constant {
                return Err(self.error(first.at, "unexpected . after a constant"));
            }
            fields.push(self.take().text[1..].to_owned());
        }
        Ok(Operand {
            at: first.at,
            term,
            fields,
        })
    }

    /// Parses the term that begins with `token`.
    fn term(&mut self, token: LexToken<'_>) -> ParseResult<Term> {
        let term = match token.kind {
            TokenKind::Dot => Ok(Term::Dot),
            TokenKind::Variable => {
                let known = token.text == "$" || self.scope.variables.iter().any(|name| name == token.text);
                let term = known.then(|| Term::Variable(token.text.to_owned()));
                term.ok_or_else(|| format!("undefined variable {}", token.text))
            }
            TokenKind::Number => literal::number(token.text).map(Term::Number),
            TokenKind::Char => literal::character(token.text).map(|code| Term::Number(Number::Int(code))),
            TokenKind::Quoted => literal::quoted(token.text).map(Term::Text),
            TokenKind::Raw => Ok(Term::Text(literal::raw(token.text))),
            TokenKind::LeftParen => {
                let pipeline = self.nested(token.at, |parser| parser.pipeline(PipelineConstruct::Parens));
                return pipeline.map(|pipeline| Term::Parens(Box::new(pipeline)));
            }
            TokenKind::Word => match token.text {
                "true" => Ok(Term::Bool(true)),
                "false" => Ok(Term::Bool(false)),
                "nil" => Ok(Term::Nil),
                name => Function::named(name).map(Term::Function),
            },
            _ => return Err(self.unexpected(token, "operand")),
        };
        term.map_err(|message| self.error(token.at, message))
    }
}

/// Whether an operand can begin with `token`.
fn begins_operand(token: LexToken<'_>) -> bool {
    match token.kind {
        TokenKind::Word => !is_keyword(token.text),
        TokenKind::Dot
        | TokenKind::Field
        | TokenKind::Variable
        | TokenKind::Number
        | TokenKind::Char
        | TokenKind::Quoted
        | TokenKind::Raw
        | TokenKind::LeftParen => true,
        _ => false,
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range" | "template" | "with"
    )
}

fn is_constant(operand: &Operand) -> bool {
    operand.fields.is_empty() && is_constant_term(&operand.term)
}

fn is_constant_term(term: &Term) -> bool {
    matches!(
        term,
        Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Text(_)
    )
}
