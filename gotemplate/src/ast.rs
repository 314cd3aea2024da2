//! A template as a tree. Every `at` is a byte offset into the source.

use crate::functions::Function;

/// A piece of a template.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Text that stands for itself.
    Text { at: usize, text: String },
    /// `{{pipeline}}`
    Action(Pipeline),
    /// `{{if}}`, `{{with}}` or `{{range}}`, with what follows `{{else}}`.
    Control {
        control: Control,
        pipeline: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `{{template "name" pipeline}}`
    Template {
        at: usize,
        name: String,
        pipeline: Option<Pipeline>,
    },
    /// `{{break}}`
    Break,
    /// `{{continue}}`
    Continue,
}

/// The actions that have an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    If,
    With,
    Range,
}

/// `$declared := command | command`
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) at: usize,
    /// Where it ends in the source.
    pub(crate) end: usize,
    /// The variables that get the value; two in a `range` only.
    pub(crate) variables: Vec<String>,
    /// Whether the variables are there already (`=`) or new (`:=`).
    pub(crate) assigns: bool,
    /// Never empty.
    pub(crate) commands: Vec<Command>,
}

/// `operand operand…`
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) first: Operand,
    pub(crate) rest: Vec<Operand>,
}

/// One word of a command.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) at: usize,
    pub(crate) term: Term,
}

/// What a word can be.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    Text(Vec<u8>),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    Function(Function),
    /// `(pipeline)`
    Parens(Box<Pipeline>),
    /// `(pipeline).a.b`
    Chain(Box<Operand>, Vec<String>),
}

/// A numeric constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
    /// Fits `uint64` only, which Go tells when it meets it.
    Overflow,
}

/// Whether a template holds nothing but space.
pub(crate) fn is_blank(nodes: &[Node]) -> bool {
    nodes
        .iter()
        .all(|node| matches!(node, Node::Text { text, .. } if text.trim().is_empty()))
}
