//! Pipelines, commands and what they are made of.

use std::borrow::Cow;

use crate::{
    Limits, Template, Unprintable,
    ast::{Command, Number, Operand, Pipeline, Term},
    error::{Failure, Fault},
    functions::Function,
    print::Printer,
    value::Value,
};

/// How deep evaluation may go: pipelines in parentheses, nested actions and templates together.
const MAX_DEPTH: u32 = 100;
/// How many bytes of text count as one step.
const BYTES_PER_STEP: usize = 64;

/// A render under way.
pub(crate) struct Run<'a> {
    pub(crate) template: &'a Template,
    pub(crate) limits: Limits,
    pub(crate) unprintable: Unprintable,
    pub(crate) output: Printer,
    /// The variables in scope, innermost last.
    pub(crate) variables: Vec<(&'a str, Value<'a>)>,
    steps: u32,
    depth: u32,
}

type Evaluated<'a> = Result<Value<'a>, Failure>;

impl<'a> Run<'a> {
    pub(crate) fn new(template: &'a Template, data: Value<'a>, limits: Limits, unprintable: Unprintable) -> Self {
        Self {
            template,
            limits,
            unprintable,
            output: Printer::new(limits.bytes, unprintable),
            variables: vec![("$", data)],
            steps: 0,
            depth: 0,
        }
    }

    /// How many steps were taken.
    pub(crate) fn steps(&self) -> u32 {
        self.steps
    }

    /// Takes one step, and more for `bytes` of text.
    pub(crate) fn step(&mut self, at: usize, bytes: usize) -> Result<(), Failure> {
        let more = u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(more).saturating_add(1);
        if self.steps > self.limits.steps {
            return Err(Fault::limit(format!("more than {} steps", self.limits.steps)).at(at));
        }
        Ok(())
    }

    /// Runs `what` one level deeper.
    pub(crate) fn deeper<T>(
        &mut self,
        at: usize,
        what: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::limit(format!("nested more than {MAX_DEPTH} deep")).at(at));
        }
        self.depth += 1;
        let result = what(self);
        self.depth -= 1;
        result
    }

    /// The value of `pipeline`; its variables are set.
    pub(crate) fn pipeline(&mut self, dot: &Value<'a>, pipeline: &'a Pipeline) -> Evaluated<'a> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(dot, command, value)?.unwrapped());
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipeline.variables {
            self.step(pipeline.at, value.weight())?;
            if pipeline.assigns {
                self.assign(name, value.clone())
                    .map_err(|fault| fault.at(pipeline.at))?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    /// Sets the innermost variable `name`.
    pub(crate) fn assign(&mut self, name: &str, value: Value<'a>) -> Result<(), Fault> {
        let variable = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        let (_, slot) = variable.ok_or_else(|| Fault::misuse(format!("undefined variable {name}")))?;
        *slot = value;
        Ok(())
    }

    /// The value of `command`; `piped` is what the command before it gave.
    fn command(&mut self, dot: &Value<'a>, command: &'a Command, piped: Option<Value<'a>>) -> Evaluated<'a> {
        let Command { first, rest } = command;
        let at = first.at;
        self.step(at, 0)?;
        let has_arguments = !rest.is_empty() || piped.is_some();
        match &first.term {
            Term::Function(function) => self.function(*function, at, dot, rest, piped),
            Term::Field(path) => Self::fields(dot.clone(), path, has_arguments, at),
            Term::Variable(name, path) if !path.is_empty() => {
                let value = self.variable(name, at)?;
                Self::fields(value, path, has_arguments, at)
            }
            Term::Chain(inner, path) => {
                let value = self.argument(dot, inner)?;
                Self::fields(value, path, has_arguments, at)
            }
            _ if has_arguments => Err(Fault::misuse("only a function can have arguments").at(at)),
            Term::Nil => Err(Fault::misuse("nil is not a command").at(at)),
            _ => self.argument(dot, first),
        }
    }

    /// The value of an operand that stands alone.
    fn argument(&mut self, dot: &Value<'a>, operand: &'a Operand) -> Evaluated<'a> {
        let at = operand.at;
        self.step(at, 0)?;
        match &operand.term {
            Term::Bool(value) => Ok(Value::Bool(*value)),
            Term::Nil => Ok(Value::Missing),
            Term::Text(text) => Ok(Value::Text(Cow::Borrowed(text))),
            Term::Number(Number::Int(value)) => Ok(Value::Int(*value)),
            Term::Number(Number::Float(value)) => Ok(Value::Float(*value)),
            Term::Number(Number::Overflow) => Err(Fault::misuse("the constant overflows int").at(at)),
            Term::Dot => {
                self.step(at, dot.weight())?;
                Ok(dot.clone())
            }
            Term::Field(path) => Self::fields(dot.clone(), path, false, at),
            Term::Variable(name, path) => {
                let value = self.variable(name, at)?;
                Self::fields(value, path, false, at)
            }
            Term::Function(function) => self.function(*function, at, dot, &[], None),
            Term::Parens(pipeline) => self.deeper(at, |run| run.pipeline(dot, pipeline)),
            Term::Chain(inner, path) => {
                let value = self.argument(dot, inner)?;
                Self::fields(value, path, false, at)
            }
        }
    }

    fn variable(&mut self, name: &str, at: usize) -> Evaluated<'a> {
        let found = self.variables.iter().rev().find(|(known, _)| *known == name);
        let Some((_, value)) = found else {
            return Err(Fault::misuse(format!("undefined variable {name}")).at(at));
        };
        let value = value.clone();
        self.step(at, value.weight())?;
        Ok(value)
    }

    /// `value.a.b`. What a map does not have is missing, and so is everything in it.
    fn fields(value: Value<'a>, path: &'a [String], has_arguments: bool, at: usize) -> Evaluated<'a> {
        let mut value = value;
        for (index, name) in path.iter().enumerate() {
            value = match value {
                Value::Missing => Value::Missing,
                Value::Map(_) if has_arguments && index + 1 == path.len() => {
                    return Err(Fault::misuse(format!("{name} is not a function but has arguments")).at(at));
                }
                Value::Map(map) => map.get(name).map_or(Value::Missing, Value::of),
                Value::Nil => return Err(Fault::missing(format!("nothing to take {name} from")).at(at)),
                other => {
                    let message = format!("can't evaluate field {name} in type {}", other.type_name());
                    return Err(Fault::misuse(message).at(at));
                }
            };
        }
        Ok(value)
    }

    fn function(
        &mut self,
        function: Function,
        at: usize,
        dot: &Value<'a>,
        operands: &'a [Operand],
        piped: Option<Value<'a>>,
    ) -> Evaluated<'a> {
        let name = function.name();
        let count = operands.len() + usize::from(piped.is_some());
        let (least, most) = function.arity();
        if !(least..=most).contains(&count) {
            return Err(Fault::misuse(format!("wrong number of arguments for {name}: {count}")).at(at));
        }
        let short_circuit = match function {
            Function::And => Some(false),
            Function::Or => Some(true),
            _ => None,
        };
        let mut arguments = Vec::with_capacity(count);
        for (index, operand) in operands.iter().enumerate() {
            // Only the format of printf has a type: nil and numbers cannot be strings.
            if matches!(
                (function, index, &operand.term),
                (Function::Printf, 0, Term::Nil | Term::Number(_) | Term::Bool(_))
            ) {
                return Err(Fault::misuse("printf: the format is no string").at(operand.at));
            }
            self.step(operand.at, 0)?;
            let value = self.argument(dot, operand)?;
            match short_circuit {
                Some(decides) if value.truth() == decides => return Ok(value),
                Some(_) => arguments = vec![value],
                None => arguments.push(value),
            }
        }
        match (short_circuit, piped) {
            (Some(_), Some(piped)) => return Ok(piped),
            (_, piped) => arguments.extend(piped),
        }
        let printer = Printer::new(self.limits.bytes, self.unprintable);
        let value = function.call(arguments, printer).map_err(|fault| fault.at(at))?;
        self.step(at, value.weight())?;
        Ok(value)
    }
}
