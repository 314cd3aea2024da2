//! Labels and annotations from templates, on a real API server.

#[path = "metadata/bad.rs"]
mod bad;
#[path = "metadata/command.rs"]
mod command;
#[path = "metadata/example.rs"]
mod example;
#[path = "metadata/hostile.rs"]
mod hostile;
#[path = "metadata/issue_source.rs"]
mod issue_source;
#[path = "metadata/kueue.rs"]
mod kueue;
#[path = "metadata/propagation.rs"]
mod propagation;
#[path = "metadata/recipes.rs"]
mod recipes;
#[path = "metadata/refused.rs"]
mod refused;
#[path = "metadata/rules.rs"]
mod rules;
#[path = "metadata/support.rs"]
mod support;
