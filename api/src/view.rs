//! The common part of the views of objects whose types are not taskgate's.

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

            /// The condition of type `kind`.
            pub fn condition(self, kind: &str) -> Option<$crate::condition::Condition<'a>> {
                $crate::condition::Condition::find(self.0, kind)
            }
        }
    };
}

pub(crate) use view;
