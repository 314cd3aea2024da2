//! CEL as the API server evaluates it: match conditions of webhooks and validation rules of CRDs.
//!
//! The extensions of Kubernetes (`authorizer`, quantities, IP addresses, …) are missing: an expression that needs them is an error
//! when it is evaluated, never true or false.
//!
//! Imports nothing of this crate. Called by `webhooks` and `schema`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Program, Value as CelValue,
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString},
        value::Val,
    },
};
use serde_json::Value;

/// The functions of CEL. Building them costs more than evaluating an expression.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    program: Program,
    variables: Vec<String>,
}

/// An expression cannot be compiled or evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is not valid CEL.
    #[error("the expression cannot be compiled: {0}")]
    Syntax(String),
    /// It fails on these values.
    #[error("the expression cannot be evaluated: {0}")]
    Evaluation(String),
    /// Its value is not a boolean.
    #[error("the expression gives {0} instead of true or false")]
    NotBoolean(String),
}

/// The variables of an expression, which it borrows.
pub struct Variables<'v>(Context<'v, 'v>);

impl<'v> Variables<'v> {
    /// Variables with these names and values.
    pub fn new<'n>(values: impl IntoIterator<Item = (&'n str, &'v Value)>) -> Self {
        let mut context = Context::with_env(ENV.clone());
        for (name, value) in values {
            context.add_variable_as_val(name, view(value));
        }
        Self(context)
    }
}

impl Expression {
    /// Compiles `source`.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        let program = Program::compile(source).map_err(|errors| ExpressionError::Syntax(one_line(&errors)))?;
        let references = program.references();
        let variables = references.variables().into_iter().map(ToOwned::to_owned).collect();
        Ok(Self { program, variables })
    }

    /// Whether it refers to the variable `name`.
    pub fn mentions(&self, name: &str) -> bool {
        self.variables.iter().any(|variable| variable == name)
    }

    /// Whether it is true.
    pub fn is_true(&self, variables: &Variables<'_>) -> Result<bool, ExpressionError> {
        match self.program.execute(&variables.0) {
            Ok(CelValue::Bool(truth)) => Ok(truth),
            Ok(other) => Err(ExpressionError::NotBoolean(other.type_of().to_string())),
            Err(error) => Err(ExpressionError::Evaluation(one_line(&error))),
        }
    }
}

fn one_line(error: &impl fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// JSON as a CEL value: whole numbers are ints. Texts are borrowed, because the longest ones, the prompts, are rarely read.
fn view(value: &Value) -> Box<dyn Val + '_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(truth) => Box::new(CelBool::from(*truth)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Box::new(CelInt::from(whole)),
            (None, Some(float)) => Box::new(CelDouble::from(float)),
            (None, None) => Box::new(CelNull),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(view).collect::<Vec<_>>())),
        Value::Object(fields) => {
            let mut map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = HashMap::with_capacity(fields.len());
            map.extend(fields.iter().map(|(key, value)| (key.as_str().into(), view(value))));
            Box::new(CelMap::from(map))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_fields_null_objects_and_numbers() {
        let object = json!({"metadata": {"name": "a", "annotations": {"x/y": ""}}, "spec": {"n": 3}});
        let variables = Variables::new([("object", &object), ("oldObject", &Value::Null)]);
        for (source, truth) in [
            ("object == null || !has(object.metadata.deletionTimestamp)", true),
            ("oldObject == null", true),
            (
                "object != null && has(object.metadata.annotations) && 'x/y' in object.metadata.annotations",
                true,
            ),
            ("object.spec.n == 3 && object.metadata.name.startsWith('a')", true),
            ("['a', 'b'].exists(n, n == object.metadata.name)", true),
            ("object.metadata.name.matches('^b')", false),
        ] {
            assert_eq!(
                Expression::compile(source).unwrap().is_true(&variables),
                Ok(truth),
                "{source}"
            );
        }
        for source in [
            "object.spec.absent == 1",
            "authorizer.group('').check('get').allowed()",
            "object.spec.n",
        ] {
            assert!(
                Expression::compile(source).unwrap().is_true(&variables).is_err(),
                "{source}"
            );
        }
        assert!(matches!(Expression::compile("a &&"), Err(ExpressionError::Syntax(_))));
    }
}
