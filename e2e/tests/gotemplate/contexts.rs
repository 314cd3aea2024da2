//! What the templates are rendered over.

use serde_json::{Value, json};

/// Items as they come, and as they should not.
pub(crate) fn contexts() -> Vec<Value> {
    vec![
        json!({
            "ID": "42", "Title": "Fix the login page", "Kind": "Issue", "Number": 42,
            "Labels": ["priority/critical", "bug", "size/XL"],
            "URL": "https://github.com/acme/shop/issues/42", "Branch": "main", "Author": "octocat",
            "Body": "It breaks.\nEvery time.", "Time": "2026-11-21T03:00:00Z", "Schedule": "0 3 * * *",
            "task": {"metadata": {"name": "fixer-42", "labels": {"team": "blue", "kelos.dev/taskspawner": "fixer"}}},
            "Flag": true, "Cost": 1.5, "Zero": 0, "Nil": null, "Nested": [[1, 2], [3], []],
        }),
        json!({
            "ID": "", "Title": "", "Kind": "PR", "Number": 0, "Labels": [], "URL": "", "Author": null,
            "task": {"metadata": {"name": "x", "labels": {}}}, "Flag": false, "Cost": 0.0, "Zero": 0,
            "Nil": null, "Nested": [],
        }),
        json!({
            "ID": "é", "Title": "Größe \u{202e}evil\u{200b} 😀 {{.Number}} \"quoted\" <b>&amp;</b>\ttab\u{7}", "Kind": "Issue",
            "Number": -7, "Labels": ["ä", "", "{{.Title}}"], "URL": "x", "Flag": true, "Cost": 123_456_789.25,
            "Zero": 0, "Body": "a\r\nb", "Nested": [[null, "x"], ["y"]],
            "task": {"metadata": {"name": "n", "labels": {"team": "", "z": "1", "a": "2"}}},
        }),
        json!({
            "ID": 7, "Title": 12, "Kind": true, "Number": "42", "Labels": "bug,size/XL", "URL": 1.25, "Author": ["a"],
            "Flag": "yes", "Cost": 10_000_000, "Zero": 1e-7, "Nested": {"k": [1]}, "task": {"metadata": null}, "Body": {},
        }),
        json!({}),
        json!({
            "Number": 9_223_372_036_854_775_807_i64, "Labels": [1, 2.5, true, null, "s", ["in"], {"k": "v"}],
            "Title": "abcdefghijklmnopqrstuvwxyz", "Kind": "issue", "Cost": 1e21, "Zero": 0, "Flag": true,
            "task": {"metadata": {"labels": {"x": {"y": {"z": 1}}, "n": null}}}, "URL": null, "Nested": [[[["deep"]]]],
        }),
    ]
}
