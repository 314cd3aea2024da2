//! Pipelines: commands, operands and constants.

use super::{
    ParseResult, Parser,
    ast::{CommandNode, Function, Number, Operand, Pipeline, Term},
    lex::{LexToken, TokenKind},
    literal, unexpected,
};
use crate::{error::SyntaxError, fmt::directive::pieces};

/// The construct that contains a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipelineConstruct {
    Action,
    Range,
    Parens,
}

impl Parser<'_> {
    /// Parses a pipeline up to and including `closing`.
    pub(crate) fn pipeline(
        &mut self,
        construct: PipelineConstruct,
        closing: TokenKind,
        context: &str,
    ) -> ParseResult<Pipeline> {
        let at = self.peek().at;
        let (variables, assigns) = self.declarations(construct, context)?;
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
                return Err(SyntaxError::new(
                    command.first.at,
                    format!("non executable command in pipeline stage {stage}"),
                ));
            }
            commands.push(command);
        };
        if commands.is_empty() {
            return Err(SyntaxError::new(end, format!("missing value for {context}")));
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
                        return Err(SyntaxError::new(
                            token.at,
                            format!("too many declarations in {context}"),
                        ));
                    }
                    if !matches!(
                        self.peek().kind,
                        TokenKind::Variable | TokenKind::Close | TokenKind::RightParen
                    ) {
                        return Err(SyntaxError::new(token.at, "range can only initialize variables"));
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
                _ => return Err(unexpected(token, "operand")),
            }
        }
        check_format(&first.term, &rest)?;
        Ok(CommandNode { first, rest })
    }

    /// Parses a term and the fields directly behind it.
    fn operand(&mut self) -> ParseResult<Operand> {
        let at = self.peek().at;
        let term = self.term()?;
        let mut fields = Vec::new();
        while self.peek().kind == TokenKind::Field && !self.peek().spaced {
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
            _ => return Err(SyntaxError::new(at, "unexpected . after a constant")),
        };
        Ok(Operand { at, term })
    }

    fn term(&mut self) -> ParseResult<Term> {
        let token = self.take();
        let wrong = |message| SyntaxError::new(token.at, message);
        Ok(match token.kind {
            TokenKind::Dot => Term::Dot,
            TokenKind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            TokenKind::Variable => {
                let known = token.text == "$" || self.scope.variables.iter().any(|name| name == token.text);
                if !known {
                    return Err(wrong(format!("undefined variable {}", token.text)));
                }
                Term::Variable(token.text.to_owned(), Vec::new())
            }
            TokenKind::Number => Term::Number(literal::number(token.text).map_err(wrong)?),
            TokenKind::Char => Term::Number(Number::Int(literal::character(token.text).map_err(wrong)?)),
            TokenKind::Quoted => Term::Text(literal::quoted(token.text).map_err(wrong)?),
            TokenKind::Raw => Term::Text(literal::raw(token.text)),
            TokenKind::LeftParen => {
                let context = "parenthesized pipeline";
                let pipeline = self.nested(token.at, |parser| {
                    parser.pipeline(PipelineConstruct::Parens, TokenKind::RightParen, context)
                });
                Term::Parens(Box::new(pipeline?))
            }
            TokenKind::Word => match token.text {
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

/// Refuses a constant format of `printf` that is out of scope.
fn check_format(function: &Term, operands: &[Operand]) -> ParseResult<()> {
    if let (Term::Function(Function::Printf), Some(operand)) = (function, operands.first())
        && let Term::Text(format) = &operand.term
    {
        for piece in pieces(format) {
            piece.map_err(|message| SyntaxError::new(operand.at, message))?;
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
