//! Whether our Go templates are Go's: the same templates over the same contexts, by our crate and by the real
//! text/template. No control plane.

#![allow(clippy::unwrap_used)]

#[path = "gotemplate/contexts.rs"]
mod contexts;
#[path = "gotemplate/templates.rs"]
mod templates;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use taskgate_gotemplate::{Cause, Limits, Template, Unprintable};

use crate::{
    contexts::contexts,
    templates::{REFUSED, TEMPLATES, UNSUPPORTED},
};

/// What Go makes of each template over each context; `None` where it fails.
fn rendered_by_go(contexts: &[Value], templates: &[&str]) -> anyhow::Result<Vec<Vec<Option<ByteString>>>> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("gotemplate");
    let mut go = Command::new("go")
        .args(["run", "."])
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .current_dir(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("go is needed for this test")?;
    let input = serde_json::to_vec(&json!({"contexts": contexts, "templates": templates}))?;
    go.stdin.take().context("go has no stdin")?.write_all(&input)?;
    let output = go.wait_with_output()?;
    ensure!(output.status.success(), "go failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What we make of a template over a context, as Go would; `None` where it fails.
fn rendered_by_us(template: &str, context: &Value) -> Option<Vec<u8>> {
    let template = Template::parse(template).ok()?;
    template.render(context, Limits::default(), Unprintable::Print).ok()
}

#[test]
fn every_template_renders_as_in_go() {
    let contexts = contexts();
    let expected = rendered_by_go(&contexts, TEMPLATES).unwrap();
    let mut equal = 0;
    let mut different = Vec::new();
    for (template, expected) in TEMPLATES.iter().zip(&expected) {
        for (index, (context, expected)) in contexts.iter().zip(expected).enumerate() {
            let expected = expected.as_ref().map(|bytes| bytes.0.as_slice());
            let ours = rendered_by_us(template, context);
            if ours.as_deref() == expected {
                equal += 1;
            } else {
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                let (go, ours) = (text(expected), text(ours.as_deref()));
                different.push(format!("{template:?} over context {index}: Go {go:?}, ours {ours:?}"));
            }
        }
    }
    let total = TEMPLATES.len() * contexts.len();
    // Past the test harness, which keeps the output of tests that pass to itself.
    let counts = format!("{} templates, {} contexts", TEMPLATES.len(), contexts.len());
    writeln!(std::io::stdout(), "{equal} of {total} equal with Go ({counts})").unwrap();
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(TEMPLATES.len() >= 150 && contexts.len() >= 5);
    let fails = |results: &&Vec<Option<ByteString>>| results.iter().all(Option::is_none);
    let failing = expected.iter().filter(fails).count();
    assert!(
        failing > 50 && failing < TEMPLATES.len() / 2,
        "{failing} templates fail everywhere"
    );
}

#[test]
fn what_is_out_of_scope_is_refused_by_name() {
    let contexts = contexts();
    let context = &contexts[..1];
    let all = |cases: &[(&'static str, &str)]| cases.iter().map(|(template, _)| *template).collect::<Vec<_>>();
    for (cases, at_parse) in [(REFUSED, true), (UNSUPPORTED, false)] {
        let go = rendered_by_go(context, &all(cases)).unwrap();
        for ((template, name), go) in cases.iter().zip(go) {
            assert!(go[0].is_some(), "{template} is wrong for Go too");
            let message = match Template::parse(template) {
                Err(error) if at_parse => error.to_string(),
                Ok(template) if !at_parse => {
                    let rendered = template.render(&context[0], Limits::default(), Unprintable::Print);
                    let error = rendered.unwrap_err();
                    assert_eq!(error.cause, Cause::Misuse);
                    error.to_string()
                }
                other => panic!("{template}: {other:?}"),
            };
            assert!(message.contains(name), "{template}: {message}");
        }
    }
}
