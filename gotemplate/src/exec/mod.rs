//! Runs a template over data: actions write to the output, pipelines and commands give values.
//!
//! Imports `parse` (the tree), `fmt` and `value`. Called by the crate root.

mod functions;

use std::borrow::Cow;

use serde_json::Value as Json;

use crate::{
    error::{EvalError, Position, RenderError},
    fmt::{Flags, Printer, Unprintable},
    parse::{
        Template,
        ast::{CommandNode, Control, ControlNode, Function, Node, Number, Operand, Pipeline, Term},
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
    let mut execution = Execution {
        template,
        limits,
        unprintable,
        output: Printer::new(limits.bytes, unprintable),
        variables: vec![("$", data.clone())],
        steps: 0,
        depth: 0,
        at: 0,
    };
    let ended = execution.nodes(&data, &template.root);
    let result = match ended {
        Ok(_) => Ok(execution.output.into_bytes()),
        Err(error) => Err(RenderError {
            position: Position::of(&template.source, execution.at),
            cause: error.cause,
            message: error.message,
        }),
    };
    (result, execution.steps)
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
    /// The byte offset of what is evaluated now: the position of an error.
    at: usize,
}

type EvalResult<T> = Result<T, EvalError>;

impl<'a> Execution<'a> {
    fn nodes(&mut self, dot: &Value<'a>, nodes: &'a [Node]) -> EvalResult<ControlFlow> {
        for node in nodes {
            let flow = self.node(dot, node)?;
            if flow != ControlFlow::Next {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Next)
    }

    fn node(&mut self, dot: &Value<'a>, node: &'a Node) -> EvalResult<ControlFlow> {
        match node {
            Node::Text { at, text } => {
                self.step(*at, 0)?;
                self.output.write(text)?;
            }
            Node::Action(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if pipeline.variables.is_empty() {
                    self.at = pipeline.at;
                    self.print(pipeline, &value)?;
                }
            }
            Node::Control(node) => {
                let visible = self.variables.len();
                let flow = self.deeper(node.pipeline.at, |run| run.control(dot, node))?;
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
    fn print(&mut self, pipeline: &Pipeline, value: &Value<'a>) -> EvalResult<()> {
        match value {
            Value::Missing | Value::Nil if self.unprintable == Unprintable::Refuse => {
                let source = self.template.source.get(pipeline.at..pipeline.end).unwrap_or_default();
                Err(EvalError::missing(format!("{} is not there", source.trim())))
            }
            Value::Missing | Value::Nil => self.output.write("<no value>"),
            value => self.output.argument(value, 'v', Flags::default()),
        }
    }

    fn control(&mut self, dot: &Value<'a>, node: &'a ControlNode) -> EvalResult<ControlFlow> {
        let value = self.pipeline(dot, &node.pipeline)?;
        match node.control {
            Control::Range => self.range(dot, node, value),
            Control::With if value.truth() => self.nodes(&value, &node.body),
            Control::If if value.truth() => self.nodes(dot, &node.body),
            Control::If | Control::With => self.nodes(dot, &node.otherwise),
        }
    }

    fn range(&mut self, dot: &Value<'a>, node: &'a ControlNode, over: Value<'a>) -> EvalResult<ControlFlow> {
        self.at = node.pipeline.at;
        if matches!(over, Value::Int(_) | Value::Byte(_)) && node.pipeline.variables.len() > 1 {
            return Err(EvalError::misuse("a number has no index to iterate over"));
        }
        let items: Box<dyn Iterator<Item = (Value<'a>, Value<'a>)>> = match over {
            Value::Int(count) => Box::new((0..count).map(|number| (Value::Missing, Value::Int(number)))),
            Value::Byte(count) => Box::new((0..count).map(|number| (Value::Missing, Value::Byte(number)))),
            Value::List(list) => Box::new((0..).map(Value::Int).zip(list.items().iter().map(Value::of))),
            Value::Map(map) => {
                let entries = sorted(map).into_iter();
                Box::new(entries.map(|(key, item)| (Value::Text(key.as_bytes().into()), Value::of(item))))
            }
            Value::Missing | Value::Nil => Box::new(std::iter::empty()),
            other => {
                let message = format!("range can't iterate over type {}", other.type_name());
                return Err(EvalError::misuse(message));
            }
        };
        let mut items = items.peekable();
        if items.peek().is_none() {
            return self.nodes(dot, &node.otherwise);
        }
        for (index, item) in items {
            if self.pass(node, index, &item)? == ControlFlow::Break {
                break;
            }
        }
        Ok(ControlFlow::Next)
    }

    /// Runs one pass of a range. The last variable gets the item, the one before it the index.
    fn pass(&mut self, node: &'a ControlNode, index: Value<'a>, item: &Value<'a>) -> EvalResult<ControlFlow> {
        let pipeline = &node.pipeline;
        self.step(pipeline.at, 0)?;
        let visible = self.variables.len();
        let values = if pipeline.variables.len() > 1 {
            vec![index, item.clone()]
        } else {
            vec![item.clone()]
        };
        for (index, (name, value)) in pipeline.variables.iter().zip(values).enumerate() {
            if pipeline.assigns {
                *self.variable(name)? = value;
            } else {
                let declared = visible - pipeline.variables.len() + index;
                self.variables[declared].1 = value;
            }
        }
        let flow = self.nodes(item, &node.body)?;
        self.variables.truncate(visible);
        Ok(flow)
    }

    /// Runs another template, which does not see the variables of this one.
    fn template(&mut self, dot: &Value<'a>, at: usize, name: &str, pipeline: Option<&'a Pipeline>) -> EvalResult<()> {
        self.at = at;
        let template = self.template;
        let nodes = template.definitions.get(name);
        let nodes = nodes.ok_or_else(|| EvalError::misuse(format!("template {name:?} not defined")))?;
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

    /// Takes one step at byte `at`, and more for `bytes` of text.
    fn step(&mut self, at: usize, bytes: usize) -> EvalResult<()> {
        self.at = at;
        let more = u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(u32::MAX);
        self.steps = self.steps.saturating_add(more).saturating_add(1);
        if self.steps > self.limits.steps {
            return Err(EvalError::limit(format!("more than {} steps", self.limits.steps)));
        }
        Ok(())
    }

    /// Calls `run` one level deeper.
    fn deeper<T>(&mut self, at: usize, run: impl FnOnce(&mut Self) -> EvalResult<T>) -> EvalResult<T> {
        self.at = at;
        if self.depth == MAX_DEPTH {
            return Err(EvalError::limit(format!("nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    /// Evaluates `pipeline`, and sets its variables.
    fn pipeline(&mut self, dot: &Value<'a>, pipeline: &'a Pipeline) -> EvalResult<Value<'a>> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(dot, command, value)?.unwrapped());
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipeline.variables {
            self.step(pipeline.at, value.weight())?;
            if pipeline.assigns {
                *self.variable(name)? = value.clone();
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    /// The innermost variable `name`.
    fn variable(&mut self, name: &str) -> EvalResult<&mut Value<'a>> {
        let variable = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        let (_, value) = variable.ok_or_else(|| EvalError::misuse(format!("undefined variable {name}")))?;
        Ok(value)
    }

    /// Evaluates `command`; `piped` is the value of the command before it.
    fn command(
        &mut self,
        dot: &Value<'a>,
        command: &'a CommandNode,
        piped: Option<Value<'a>>,
    ) -> EvalResult<Value<'a>> {
        let CommandNode { first, rest } = command;
        self.step(first.at, 0)?;
        let has_arguments = !rest.is_empty() || piped.is_some();
        match &first.term {
            _ if !first.fields.is_empty() => self.operand(dot, first, has_arguments),
            Term::Function(function) => self.function(*function, first.at, dot, rest, piped),
            _ if has_arguments => Err(EvalError::misuse("only a function can have arguments")),
            Term::Nil => Err(EvalError::misuse("nil is not a command")),
            _ => self.argument(dot, first),
        }
    }

    /// Evaluates a single operand, which takes a step.
    fn argument(&mut self, dot: &Value<'a>, operand: &'a Operand) -> EvalResult<Value<'a>> {
        self.step(operand.at, 0)?;
        self.operand(dot, operand, false)
    }

    /// Evaluates `operand` with its fields. A key that a map does not have is missing, and so are its fields.
    fn operand(&mut self, dot: &Value<'a>, operand: &'a Operand, has_arguments: bool) -> EvalResult<Value<'a>> {
        let Operand { at, term, fields } = operand;
        let mut value = match term {
            Term::Bool(value) => Value::Bool(*value),
            Term::Nil => Value::Missing,
            Term::Text(text) => Value::Text(Cow::Borrowed(text)),
            Term::Number(Number::Int(value)) => Value::Int(*value),
            Term::Number(Number::Float(value)) => Value::Float(*value),
            Term::Number(Number::Overflow) => return Err(EvalError::misuse("the constant overflows int")),
            Term::Dot => {
                if fields.is_empty() {
                    self.step(*at, dot.weight())?;
                }
                dot.clone()
            }
            Term::Variable(name) => {
                let value = self.variable(name)?.clone();
                self.step(*at, value.weight())?;
                value
            }
            Term::Function(function) => self.function(*function, *at, dot, &[], None)?,
            Term::Parens(pipeline) => self.deeper(*at, |run| run.pipeline(dot, pipeline))?,
        };
        self.at = *at;
        for (index, name) in fields.iter().enumerate() {
            value = match value {
                Value::Missing => Value::Missing,
                Value::Map(_) if has_arguments && index + 1 == fields.len() => {
                    return Err(EvalError::misuse(format!("{name} is not a function but has arguments")));
                }
                Value::Map(map) => map.get(name).map_or(Value::Missing, Value::of),
                Value::Nil => return Err(EvalError::missing(format!("nothing to take {name} from"))),
                other => {
                    let message = format!("can't evaluate field {name} in type {}", other.type_name());
                    return Err(EvalError::misuse(message));
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
    ) -> EvalResult<Value<'a>> {
        let count = operands.len() + usize::from(piped.is_some());
        function.check_count(count).map_err(EvalError::misuse)?;
        let mut arguments = Vec::with_capacity(count);
        for (index, operand) in operands.iter().enumerate() {
            self.step(operand.at, 0)?;
            // Only the format of printf has a type: nil and numbers cannot be strings.
            if let (Function::Printf, 0, Term::Nil | Term::Number(_) | Term::Bool(_)) = (function, index, &operand.term)
            {
                return Err(EvalError::misuse("printf: the format is no string"));
            }
            let value = self.argument(dot, operand)?;
            if function.stops_at(&value) {
                return Ok(value);
            }
            arguments.push(value);
        }
        arguments.extend(piped);
        self.at = at;
        let printer = Printer::new(self.limits.bytes, self.unprintable);
        let value = function.call(arguments, printer)?;
        self.step(at, value.weight())?;
        Ok(value)
    }
}
