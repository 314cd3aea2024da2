//! Reads JSON objects whose types are not taskgate's: what is missing, or of another type than expected, reads as absent.

use jiff::Timestamp;
use serde_json::Value;

/// Lenient reads of a JSON object, by JSON pointer.
pub trait Lenient {
    /// The text at `pointer`, unless it is empty.
    fn text(&self, pointer: &str) -> Option<&str>;
    /// The entries of the list at `pointer`.
    fn items(&self, pointer: &str) -> impl Iterator<Item = &Value> + Clone;
    /// The moment at `pointer`.
    fn time(&self, pointer: &str) -> Option<Timestamp>;
}

impl Lenient for Value {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }

    fn items(&self, pointer: &str) -> impl Iterator<Item = &Value> + Clone {
        self.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }

    fn time(&self, pointer: &str) -> Option<Timestamp> {
        self.text(pointer)?.parse().ok()
    }
}

/// Defines a borrowed view of a JSON object, which need not be well-formed.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'a>(&'a serde_json::Value);

        impl<'a> $name<'a> {
            /// The view of `object`, which need not be well-formed.
            pub fn of(object: &'a serde_json::Value) -> Self {
                Self(object)
            }

            /// The object's metadata.
            pub fn metadata(self) -> $crate::metadata::Metadata<'a> {
                $crate::metadata::Metadata::of(self.0)
            }

            /// When the object was created.
            pub fn created(self) -> Option<jiff::Timestamp> {
                $crate::Lenient::time(self.0, "/metadata/creationTimestamp")
            }

            /// The condition of type `kind`.
            pub fn condition(self, kind: &str) -> Option<$crate::condition::Condition<'a>> {
                $crate::condition::Condition::find(self.0, kind)
            }
        }
    };
}

pub(crate) use view;
