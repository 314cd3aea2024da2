//! A mutator of JSON values, keys and structure, so that most inputs get past the parser.

use fastrand::Rng;
use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value, json};

/// Keys and values that the code compares with, one a line.
const WORDS: &str = include_str!("words.txt");
/// The longest text that a mutation makes.
const LONGEST: usize = 8 * 1024;

/// Generates a text for a target, such as a template.
pub type TextGenerator = fn(&mut Rng) -> String;

/// Mutates the document in `data[..size]`, JSON or YAML, and writes it as JSON of at most `max` bytes. One time in eight, and
/// whenever it is no document, as bytes. Returns the new size, as libFuzzer's custom mutators do.
pub fn mutate(data: &mut [u8], size: usize, max: usize, seed: u32, text: TextGenerator) -> usize {
    let mut rng = Rng::with_seed(seed.into());
    let document = if rng.u8(..8) == 0 { None } else { parse(&data[..size]) };
    let Some(mut document) = document else {
        return fuzzer_mutate(data, size, max);
    };
    for _ in 0..rng.usize(1..=4) {
        change(&mut document, &mut rng, text);
    }
    let mutated = document.to_string();
    if mutated.len() > max {
        return fuzzer_mutate(data, size, max);
    }
    data[..mutated.len()].copy_from_slice(mutated.as_bytes());
    mutated.len()
}

/// The document in `data`.
pub fn parse(data: &[u8]) -> Option<Value> {
    let parsed = serde_json::from_slice(data).ok();
    parsed.or_else(|| serde_saphyr::from_str(std::str::from_utf8(data).ok()?).ok())
}

/// A word that the code compares with.
pub fn word(rng: &mut Rng) -> String {
    let count = WORDS.lines().count();
    WORDS.lines().nth(rng.usize(..count)).unwrap_or_default().to_owned()
}

fn change(document: &mut Value, rng: &mut Rng, text: TextGenerator) {
    let count = count(document);
    let donor = nth(document, &mut rng.usize(..count)).cloned().unwrap_or_default();
    let Some(node) = nth(document, &mut rng.usize(..count)) else {
        return;
    };
    match (rng.u8(..10), node) {
        (0, node) => *node = donor,
        (1, node) => *node = odd(rng, text),
        (_, Value::String(old)) => *old = changed(old, rng, text),
        (_, Value::Array(items)) => change_list(items, donor, rng, text),
        (_, Value::Object(fields)) => change_map(fields, donor, rng, text),
        (_, node) => *node = if rng.bool() { number(rng) } else { odd(rng, text) },
    }
}

fn change_list(items: &mut Vec<Value>, donor: Value, rng: &mut Rng, text: TextGenerator) {
    let at = rng.usize(..=items.len());
    match rng.u8(..5) {
        0 if at < items.len() => drop(items.remove(at)),
        1 if at < items.len() => items.insert(at, items[at].clone()),
        2 => items.extend(vec![donor; rng.usize(1..200)]),
        3 => items.insert(at, odd(rng, text)),
        _ => items.insert(at, donor),
    }
}

fn change_map(fields: &mut Map<String, Value>, donor: Value, rng: &mut Rng, text: TextGenerator) {
    let known = fields.keys().nth(rng.usize(..=fields.len())).cloned();
    match (rng.u8(..5), known) {
        (0, Some(key)) => drop(fields.remove(&key)),
        (1, Some(key)) => {
            let value = fields.remove(&key).unwrap_or_default();
            let key = if rng.bool() {
                word(rng)
            } else {
                changed(&key, rng, text)
            };
            fields.insert(key, value);
        }
        (2, _) => drop(fields.insert(word(rng), odd(rng, text))),
        (3, _) => drop(fields.insert(changed("", rng, text), odd(rng, text))),
        _ => drop(fields.insert(word(rng), donor)),
    }
}

fn changed(old: &str, rng: &mut Rng, text: TextGenerator) -> String {
    let mut new = match rng.u8(..9) {
        0 => word(rng),
        1 | 2 => text(rng),
        3 => format!("{old}{}", word(rng)),
        4 => format!("{}{old}", word(rng)),
        5 => old.repeat(rng.usize(..64)),
        6 => old.chars().take(rng.usize(..=old.len())).collect(),
        7 => moment(rng),
        _ => bytes(old),
    };
    new.truncate(new.floor_char_boundary(LONGEST));
    new
}

/// `old` mutated by libFuzzer, which knows recent comparisons of the code.
fn bytes(old: &str) -> String {
    let max = old.len() + 64;
    let mut bytes = old.as_bytes().to_vec();
    bytes.resize(max, 0);
    let size = fuzzer_mutate(&mut bytes, old.len(), max);
    String::from_utf8_lossy(&bytes[..size]).into_owned()
}

fn odd(rng: &mut Rng, text: TextGenerator) -> Value {
    match rng.u8(..12) {
        0 => Value::Null,
        1 => json!({}),
        2 => json!([]),
        3 => rng.bool().into(),
        4 => json!([null, {"a": null}, [[]]]),
        5 | 6 => number(rng),
        7 => text(rng).into(),
        8 => moment(rng).into(),
        9 => "x".repeat(rng.usize(..LONGEST)).into(),
        _ => word(rng).into(),
    }
}

/// A number at the edge of some type, as a number or in quotes.
fn number(rng: &mut Rng) -> Value {
    const NUMBERS: [&str; 24] = [
        "0",
        "1",
        "2",
        "3",
        "-1",
        "50",
        "63",
        "64",
        "253",
        "1000",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "9007199254740993",
        "9223372036854775807",
        "18446744073709551615",
        "-9223372036854775808",
        "1e30",
        "1e308",
        "1e-30",
        "0.1",
        "-0.5",
        "123456789012345678901234567890",
    ];
    let number = match rng.u8(..3) {
        0 => rng.i64(..).to_string(),
        _ => NUMBERS[rng.usize(..NUMBERS.len())].to_owned(),
    };
    if rng.u8(..4) == 0 {
        return number.into();
    }
    serde_json::from_str(&number).unwrap_or_default()
}

fn moment(rng: &mut Rng) -> String {
    const MOMENTS: [&str; 8] = [
        "2026-11-30T12:00:00Z",
        "2026-11-30T11:59:59Z",
        "2026-11-30T12:00:00.123456789Z",
        "2026-11-30T12:00:00+02:00",
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-30T22:00:00Z",
        "2036-02-29T23:59:60Z",
    ];
    MOMENTS[rng.usize(..MOMENTS.len())].to_owned()
}

/// How many values there are in `value`, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at place `rest` in `value`, which is counted down.
fn nth<'v>(value: &'v mut Value, rest: &mut usize) -> Option<&'v mut Value> {
    let Some(left) = rest.checked_sub(1) else {
        return Some(value);
    };
    *rest = left;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, rest)),
        Value::Object(fields) => fields.values_mut().find_map(|field| nth(field, rest)),
        _ => None,
    }
}
