//! The syntax tree of a template. Every `at` is a byte offset into the source.

/// A piece of a template.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Literal text.
    Text { at: usize, text: String },
    /// `{{pipeline}}`
    Action(Pipeline),
    /// `{{if}}`, `{{with}}` or `{{range}}`.
    Control(ControlNode),
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

/// An action with an `{{end}}`, and its `{{else}}` branch.
#[derive(Clone, Debug)]
pub(crate) struct ControlNode {
    pub(crate) control: Control,
    pub(crate) pipeline: Pipeline,
    pub(crate) body: Vec<Node>,
    pub(crate) otherwise: Vec<Node>,
}

/// The keyword of an action with an `{{end}}`.
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

/// One word of a command, such as `.a.b`, which is the dot with two fields.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    pub(crate) at: usize,
    pub(crate) term: Term,
    /// The fields behind the term; none behind a constant.
    pub(crate) fields: Vec<String>,
}

/// What an operand begins with.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    Text(Vec<u8>),
    /// `$x`
    Variable(String),
    Function(Function),
    /// `(pipeline)`
    Parens(Box<Pipeline>),
}

/// A numeric constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
    /// Fits only `uint64`, which is an error when it is evaluated, as in Go.
    Overflow,
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

/// The least and the greatest number of arguments, and the name of each function.
const FUNCTIONS: [(Function, &str, usize, usize); 15] = [
    (Function::And, "and", 1, usize::MAX),
    (Function::Or, "or", 1, usize::MAX),
    (Function::Not, "not", 1, 1),
    (Function::Len, "len", 1, 1),
    (Function::Index, "index", 1, usize::MAX),
    (Function::Slice, "slice", 1, usize::MAX),
    (Function::Print, "print", 0, usize::MAX),
    (Function::Printf, "printf", 1, usize::MAX),
    (Function::Println, "println", 0, usize::MAX),
    (Function::Eq, "eq", 1, usize::MAX),
    (Function::Ne, "ne", 2, 2),
    (Function::Lt, "lt", 2, 2),
    (Function::Le, "le", 2, 2),
    (Function::Gt, "gt", 2, 2),
    (Function::Ge, "ge", 2, 2),
];

impl Function {
    /// The function `name`, or the reason why there is none.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let known = FUNCTIONS.iter().find(|(_, known, ..)| *known == name);
        known.map(|(function, ..)| *function).ok_or_else(|| match name {
            "html" | "js" | "urlquery" => format!("function {name:?} is not supported: nothing here is a web page"),
            "call" => "function \"call\" is not supported: the data has no functions".to_owned(),
            _ => format!("function {name:?} not defined"),
        })
    }

    /// Checks the number of arguments.
    pub(crate) fn check_count(self, count: usize) -> Result<(), String> {
        let wrong =
            |(function, _, least, most): &&(Self, _, _, _)| *function == self && !(*least..=*most).contains(&count);
        match FUNCTIONS.iter().find(wrong) {
            Some((_, name, ..)) => Err(format!("wrong number of arguments for {name}: {count}")),
            None => Ok(()),
        }
    }
}
