//! From node to node, writing what they give.

use serde_json::Value as Json;

use crate::{
    Limits, RenderError, Template, Unprintable,
    ast::{Control, Node, Pipeline},
    error::{Failure, Fault, Position},
    eval::Run,
    value::{Value, sorted},
    verb::{Flags, write_argument},
};

/// Where a list of nodes was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// Renders `template` over `data`; how many steps it took.
pub(crate) fn render(
    template: &Template,
    data: &Json,
    limits: Limits,
    unprintable: Unprintable,
) -> (Result<Vec<u8>, RenderError>, u32) {
    // `Execute` takes the data in an interface and looks inside at once.
    let data = Value::of(data).unwrapped();
    let mut run = Run::new(template, data.clone(), limits, unprintable);
    let ended = run.nodes(&data, &template.root);
    let steps = run.steps();
    let result = match ended {
        Ok(_) => Ok(run.output.into_bytes()),
        Err(Failure { at, fault }) => Err(RenderError {
            position: Position::of(&template.source, at),
            cause: fault.cause,
            message: fault.message,
        }),
    };
    (result, steps)
}

impl<'a> Run<'a> {
    fn nodes(&mut self, dot: &Value<'a>, nodes: &'a [Node]) -> Result<Flow, Failure> {
        for node in nodes {
            let flow = self.node(dot, node)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value<'a>, node: &'a Node) -> Result<Flow, Failure> {
        match node {
            Node::Text { at, text } => {
                self.step(*at, 0)?;
                self.output.write(text).map_err(|fault| fault.at(*at))?;
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
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Writes what an action gives. Nothing that is there has no text.
    fn print(&mut self, pipeline: &Pipeline, value: &Value<'a>) -> Result<(), Failure> {
        let printed = match value {
            Value::Missing | Value::Nil if self.unprintable == Unprintable::Refuse => {
                let source = self.template.source.get(pipeline.at..pipeline.end).unwrap_or_default();
                Err(Fault::missing(format!("{} is not there", source.trim())))
            }
            Value::Missing | Value::Nil => self.output.write("<no value>"),
            value => write_argument(&mut self.output, value, 'v', Flags::default()),
        };
        printed.map_err(|fault| fault.at(pipeline.at))
    }

    fn choose(
        &mut self,
        control: Control,
        dot: &Value<'a>,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<Flow, Failure> {
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
    ) -> Result<Flow, Failure> {
        let over = self.pipeline(dot, pipeline)?;
        let at = pipeline.at;
        let mut passes = 0;
        let mut pass = |run: &mut Self, index: Value<'a>, item: Value<'a>| {
            passes += 1;
            run.pass(pipeline, body, index, &item)
        };
        match over {
            Value::Int(_) | Value::Byte(_) if pipeline.variables.len() > 1 => {
                return Err(Fault::misuse("a number has no index to iterate over").at(at));
            }
            Value::Int(count) => {
                for number in 0..count {
                    if pass(self, Value::Missing, Value::Int(number))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Byte(count) => {
                for number in 0..count {
                    if pass(self, Value::Missing, Value::Byte(number))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::List(list) => {
                for (index, item) in (0..).zip(list.items()) {
                    if pass(self, Value::Int(index), Value::of(item))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (key, item) in sorted(map) {
                    let key = Value::Text(key.as_bytes().into());
                    if pass(self, key, Value::of(item))? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Missing | Value::Nil => {}
            other => {
                let message = format!("range can't iterate over type {}", other.type_name());
                return Err(Fault::misuse(message).at(at));
            }
        }
        if passes == 0 {
            return self.nodes(dot, otherwise);
        }
        Ok(Flow::Next)
    }

    /// One pass of a range. The last variable gets the item, the one before it the index.
    fn pass(
        &mut self,
        pipeline: &'a Pipeline,
        body: &'a [Node],
        index: Value<'a>,
        item: &Value<'a>,
    ) -> Result<Flow, Failure> {
        self.step(pipeline.at, 0)?;
        let visible = self.variables.len();
        let values = if pipeline.variables.len() > 1 {
            vec![index, item.clone()]
        } else {
            vec![item.clone()]
        };
        for (place, (name, value)) in pipeline.variables.iter().zip(values).enumerate() {
            if pipeline.assigns {
                self.assign(name, value).map_err(|fault| fault.at(pipeline.at))?;
            } else {
                let declared = visible - pipeline.variables.len() + place;
                self.variables[declared].1 = value;
            }
        }
        let flow = self.nodes(item, body)?;
        self.variables.truncate(visible);
        Ok(flow)
    }

    /// Runs another template, which sees nothing of this one's variables.
    fn template(
        &mut self,
        dot: &Value<'a>,
        at: usize,
        name: &str,
        pipeline: Option<&'a Pipeline>,
    ) -> Result<(), Failure> {
        let template = self.template;
        let Some(nodes) = template.defined.get(name) else {
            return Err(Fault::misuse(format!("template {name:?} not defined")).at(at));
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
