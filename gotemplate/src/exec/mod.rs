//! Runs a template over data: actions write to the output, pipelines and commands give values.
//!
//! Imports `parse` (the tree), `fmt` and `value`. Called by the crate root.

mod functions;

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::{
    error::{EvalError, LocatedError, Position, RenderError},
    fmt::{Flags, Printer, Unprintable, write_argument},
    parse::{
        Template,
        ast::{CommandNode, Control, Function, Node, Number, Operand, Pipeline, Term},
    },
    value::{Value, sorted},
};

/// The deepest nesting of pipelines in parentheses, actions and templates together.
const MAX_DEPTH: u32 = 100;
/// The number of bytes of text that count as one step.
const BYTES_PER_STEP: usize = 64;

/// The limits of one render.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps: nodes and commands run, passes of loops, and one more for every 64 bytes of intermediate text.
    pub steps: u32,
    /// Bytes of output, and of each intermediate text.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 10_000,
            bytes: 16 * 1024,
        }
    }
}

/// How a list of nodes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ControlFlow {
    Next,
    Break,
    Continue,
}

/// Renders `template` over `data`, and returns the number of steps.
pub(crate) fn render(
    template: &Template,
    data: &Json,
    limits: Limits,
    unprintable: Unprintable,
) -> (Result<Vec<u8>, RenderError>, u32) {
    // `Execute` unwraps the interface that contains the data.
    let data = Value::of(data).unwrapped();
    let mut execution = Execution::new(template, data.clone(), limits, unprintable);
    let ended = execution.nodes(&data, &template.root);
    let steps = execution.steps;
    let result = match ended {
        Ok(_) => Ok(execution.output.into_bytes()),
        Err(LocatedError { at, error }) => Err(RenderError {
            position: Position::of(&template.source, at),
            cause: error.cause,
            message: error.message,
        }),
    };
    (result, steps)
}

impl<'a> Execution<'a> {
    fn nodes(&mut self, dot: &Value<'a>, nodes: &'a [Node]) -> Result<ControlFlow, LocatedError> {
        for node in nodes {
            let flow = self.node(dot, node)?;
            if flow != ControlFlow::Next {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Next)
    }

    fn node(&mut self, dot: &Value<'a>, node: &'a Node) -> Result<ControlFlow, LocatedError> {
        match node {
            Node::Text { at, text } => {
                self.step(*at, 0)?;
                self.output.write(text).map_err(|error| error.at(*at))?;
            }
            Node::Action(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if pipeline.variables.is_empty() {
                    self.print(pipeline, &value)?;
                }
            }
            Node::Control {
                control,
                pipeline,
                body,
                otherwise,
            } => {
                let visible = self.variables.len();
                let flow = self.deeper(pipeline.at, |run| match control {
                    Control::Range => run.range(dot, pipeline, body, otherwise),
                    control => run.choose(*control, dot, pipeline, body, otherwise),
                })?;
                self.variables.truncate(visible);
                return Ok(flow);
            }
            Node::Template { at, name, pipeline } => self.template(dot, *at, name, pipeline.as_ref())?,
            Node::Break => return Ok(ControlFlow::Break),
            Node::Continue => return Ok(ControlFlow::Continue),
        }
        Ok(ControlFlow::Next)
    }

    /// Writes the value of an action.
    fn print(&mut self, pipeline: &Pipeline, value: &Value<'a>) -> Result<(), LocatedError> {
        let printed = match value {
            Value::Missing | Value::Nil if self.unprintable == Unprintable::Refuse => {
                let source = self.template.source.get(pipeline.at..pipeline.end).unwrap_or_default();
                Err(EvalError::missing(format!("{} is not there", source.trim())))
            }
            Value::Missing | Value::Nil => self.output.write("<no value>"),
            value => write_argument(&mut self.output, value, 'v', Flags::default()),
        };
        printed.map_err(|error| error.at(pipeline.at))
    }

    fn choose(
        &mut self,
        control: Control,
        dot: &Value<'a>,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<ControlFlow, LocatedError> {
        let value = self.pipeline(dot, pipeline)?;
        match (value.truth(), control) {
            (true, Control::With) => self.nodes(&value, body),
            (true, _) => self.nodes(dot, body),
            (false, _) => self.nodes(dot, otherwise),
        }
    }

    fn range(
        &mut self,
        dot: &Value<'a>,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<ControlFlow, LocatedError> {
        let over = self.pipeline(dot, pipeline)?;
        let at = pipeline.at;
        let mut passes = 0;
        let mut pass = |run: &mut Self, index: Value<'a>, item: Value<'a>| {
            passes += 1;
            run.pass(pipeline, body, index, &item)
        };
        match over {
            Value::Int(_) | Value::Byte(_) if pipeline.variables.len() > 1 => {
                return Err(EvalError::misuse("a number has no index to iterate over").at(at));
            }
            Value::Int(count) => {
                for number in 0..count {
                    if pass(self, Value::Missing, Value::Int(number))? == ControlFlow::Break {
                        break;
                    }
                }
            }
            Value::Byte(count) => {
                for number in 0..count {
                    if pass(self, Value::Missing, Value::Byte(number))? == ControlFlow::Break {
                        break;
                    }
                }
            }
            Value::List(list) => {
                for (index, item) in (0..).zip(list.items()) {
                    if pass(self, Value::Int(index), Value::of(item))? == ControlFlow::Break {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, item) in sorted(map) {
                    let key = Value::Text(key.as_bytes().into());
                    if pass(self, key, Value::of(item))? == ControlFlow::Break {
                        break;
                    }
                }
            }
            Value::Missing | Value::Nil => {}
            other => {
                let message = format!("range can't iterate over type {}", other.type_name());
                return Err(EvalError::misuse(message).at(at));
            }
        }
        if passes == 0 {
            return self.nodes(dot, otherwise);
        }
        Ok(ControlFlow::Next)
    }

    /// Runs one pass of a range. The last variable gets the item, the one before it the index.
    fn pass(
        &mut self,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        index: Value<'a>,
        item: &Value<'a>,
    ) -> Result<ControlFlow, LocatedError> {
        self.step(pipeline.at, 0)?;
        let visible = self.variables.len();
        let values = if pipeline.variables.len() > 1 {
            vec![index, item.clone()]
        } else {
            vec![item.clone()]
        };
        for (index, (name, value)) in pipeline.variables.iter().zip(values).enumerate() {
            if pipeline.assigns {
                self.assign(name, value).map_err(|error| error.at(pipeline.at))?;
            } else {
                let declared = visible - pipeline.variables.len() + index;
                self.variables[declared].1 = value;
            }
        }
        let flow = self.nodes(item, body)?;
        self.variables.truncate(visible);
        Ok(flow)
    }

    /// Runs another template, which does not see the variables of this one.
    fn template(
        &mut self,
        dot: &Value<'a>,
        at: usize,
        name: &str,
        pipeline: Option<&'a Pipeline>,
    ) -> Result<(), LocatedError> {
        let template = self.template;
        let Some(nodes) = template.definitions.get(name) else {
            return Err(EvalError::misuse(format!("template {name:?} not defined")).at(at));
        };
        let dot = match pipeline {
            Some(pipeline) => self.pipeline(dot, pipeline)?,
            None => Value::Missing,
        };
        self.step(at, 0)?;
        let outer = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        self.deeper(at, |run| run.nodes(&dot, nodes))?;
        self.variables = outer;
        Ok(())
    }
}

/// A render in progress.
struct Execution<'a> {
    template: &'a Template,
    limits: Limits,
    unprintable: Unprintable,
    output: Printer,
    /// The variables in scope, innermost last.
    variables: Vec<(&'a str, Value<'a>)>,
    steps: u32,
    depth: u32,
}

type EvalResult<'a> = Result<Value<'a>, LocatedError>;

impl<'a> Execution<'a> {
    fn new(template: &'a Template, data: Value<'a>, limits: Limits, unprintable: Unprintable) -> Self {
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

    /// Takes one step, and more for `bytes` of text.
    fn step(&mut self, at: usize, bytes: usize) -> Result<(), LocatedError> {
        let more = u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(more).saturating_add(1);
        if self.steps > self.limits.steps {
            return Err(EvalError::limit(format!("more than {} steps", self.limits.steps)).at(at));
        }
        Ok(())
    }

    /// Calls `run` one level deeper.
    fn deeper<T>(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut Self) -> Result<T, LocatedError>,
    ) -> Result<T, LocatedError> {
        if self.depth == MAX_DEPTH {
            return Err(EvalError::limit(format!("nested more than {MAX_DEPTH} deep")).at(at));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    /// Evaluates `pipeline`, and sets its variables.
    fn pipeline(&mut self, dot: &Value<'a>, pipeline: &'a Pipeline) -> EvalResult<'a> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(dot, command, value)?.unwrapped());
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipeline.variables {
            self.step(pipeline.at, value.weight())?;
            if pipeline.assigns {
                self.assign(name, value.clone())
                    .map_err(|error| error.at(pipeline.at))?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    /// Sets the innermost variable `name`.
    fn assign(&mut self, name: &str, value: Value<'a>) -> Result<(), EvalError> {
        let variable = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        let (_, slot) = variable.ok_or_else(|| EvalError::misuse(format!("undefined variable {name}")))?;
        *slot = value;
        Ok(())
    }

    /// Evaluates `command`; `piped` is the value of the command before it.
    fn command(&mut self, dot: &Value<'a>, command: &'a CommandNode, piped: Option<Value<'a>>) -> EvalResult<'a> {
        let CommandNode { first, rest } = command;
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
            _ if has_arguments => Err(EvalError::misuse("only a function can have arguments").at(at)),
            Term::Nil => Err(EvalError::misuse("nil is not a command").at(at)),
            _ => self.argument(dot, first),
        }
    }

    /// Evaluates a single operand.
    fn argument(&mut self, dot: &Value<'a>, operand: &'a Operand) -> EvalResult<'a> {
        let at = operand.at;
        self.step(at, 0)?;
        match &operand.term {
            Term::Bool(value) => Ok(Value::Bool(*value)),
            Term::Nil => Ok(Value::Missing),
            Term::Text(text) => Ok(Value::Text(Cow::Borrowed(text))),
            Term::Number(Number::Int(value)) => Ok(Value::Int(*value)),
            Term::Number(Number::Float(value)) => Ok(Value::Float(*value)),
            Term::Number(Number::Overflow) => Err(EvalError::misuse("the constant overflows int").at(at)),
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

    fn variable(&mut self, name: &str, at: usize) -> EvalResult<'a> {
        let found = self.variables.iter().rev().find(|(known, _)| *known == name);
        let Some((_, value)) = found else {
            return Err(EvalError::misuse(format!("undefined variable {name}")).at(at));
        };
        let value = value.clone();
        self.step(at, value.weight())?;
        Ok(value)
    }

    /// `value.a.b`. A key that a map does not have is missing, and so are its fields.
    fn fields(value: Value<'a>, path: &'a [String], has_arguments: bool, at: usize) -> EvalResult<'a> {
        let mut value = value;
        for (index, name) in path.iter().enumerate() {
            value = match value {
                Value::Missing => Value::Missing,
                Value::Map(_) if has_arguments && index + 1 == path.len() => {
                    return Err(EvalError::misuse(format!("{name} is not a function but has arguments")).at(at));
                }
                Value::Map(map) => map.get(name).map_or(Value::Missing, Value::of),
                Value::Nil => return Err(EvalError::missing(format!("nothing to take {name} from")).at(at)),
                other => {
                    let message = format!("can't evaluate field {name} in type {}", other.type_name());
                    return Err(EvalError::misuse(message).at(at));
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
    ) -> EvalResult<'a> {
        let name = function.name();
        let count = operands.len() + usize::from(piped.is_some());
        let (least, most) = function.arity();
        if !(least..=most).contains(&count) {
            return Err(EvalError::misuse(format!("wrong number of arguments for {name}: {count}")).at(at));
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
                return Err(EvalError::misuse("printf: the format is no string").at(operand.at));
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
        let value = function.call(arguments, printer).map_err(|error| error.at(at))?;
        self.step(at, value.weight())?;
        Ok(value)
    }
}
