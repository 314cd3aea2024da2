//! The syntax tree of a template. Every `at` is a byte offset into the source.

/// A piece of a template.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Literal text.
    Text { at: usize, text: String },
    /// `{{pipeline}}`
    Action(Pipeline),
    /// `{{if}}`, `{{with}}` or `{{range}}`, with its `{{else}}` branch.
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

/// An action with an `{{end}}`.
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
    /// The byte offset of its end.
    pub(crate) end: usize,
    /// The variables that get the value; two only in a `range`.
    pub(crate) variables: Vec<String>,
    /// Whether the variables exist already (`=`) or are new (`:=`).
    pub(crate) assigns: bool,
    /// Never empty.
    pub(crate) commands: Vec<CommandNode>,
}

/// `operand operand…`
#[derive(Clone, Debug)]
pub(crate) struct CommandNode {
    pub(crate) first: Operand,
    pub(crate) rest: Vec<Operand>,
}

/// One word of a command.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) at: usize,
    pub(crate) term: Term,
}

/// The kinds of operands.
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
    /// Fits only `uint64`, which is an error when it is evaluated, as in Go.
    Overflow,
}

/// Whether a template contains only space.
pub(crate) fn is_blank(nodes: &[Node]) -> bool {
    nodes
        .iter()
        .all(|node| matches!(node, Node::Text { text, .. } if text.trim().is_empty()))
}

/// A function that templates may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    And,
    Or,
    Not,
    Len,
    Index,
    Slice,
    Print,
    Printf,
    Println,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Function {
    /// The function `name`, or the reason why there is none.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "len" => Self::Len,
            "index" => Self::Index,
            "slice" => Self::Slice,
            "print" => Self::Print,
            "printf" => Self::Printf,
            "println" => Self::Println,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "html" | "js" | "urlquery" => {
                return Err(format!(
                    "function {name:?} is not supported: nothing here is a web page"
                ));
            }
            "call" => return Err("function \"call\" is not supported: the data has no functions".into()),
            _ => return Err(format!("function {name:?} not defined")),
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Len => "len",
            Self::Index => "index",
            Self::Slice => "slice",
            Self::Print => "print",
            Self::Printf => "printf",
            Self::Println => "println",
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::Gt => "gt",
            Self::Ge => "ge",
        }
    }

    /// The least and the greatest number of arguments.
    pub(crate) fn arity(self) -> (usize, usize) {
        match self {
            Self::Not | Self::Len => (1, 1),
            Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge => (2, 2),
            Self::Print | Self::Println => (0, usize::MAX),
            Self::And | Self::Or | Self::Index | Self::Slice | Self::Printf | Self::Eq => (1, usize::MAX),
        }
    }
}
