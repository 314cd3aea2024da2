//! Sums of money without rounding: Kelos reports costs as Kubernetes quantities, and a sum of floats would drift.

use serde_json::Value;

/// Micro-dollars in a dollar.
const MICRO: u128 = 1_000_000;
/// The largest amount: a million million dollars. Whatever is more is that much.
const MAX: u128 = 1_000_000_000_000 * MICRO;

/// The cost behind a JSON value (`"1.5"`, `"1500m"`, `1.5`), in micro-dollars, rounded up, at most [`MAX`]. `None` for garbage
/// and anything negative.
pub(crate) fn micro_dollars(value: &Value) -> Option<u128> {
    match value {
        Value::String(text) => parse(text.trim()),
        Value::Number(number) => parse(&number.to_string()),
        _ => None,
    }
}

/// The sum of two decimal amounts of dollars, as text with two to six decimals. Garbage counts as nothing.
pub(crate) fn sum(total: Option<&str>, more: Option<&str>) -> Option<String> {
    let amount = |text: Option<&str>| text.and_then(parse);
    match (amount(total), amount(more)) {
        (None, None) => None,
        (a, b) => Some(format(a.unwrap_or(0).saturating_add(b.unwrap_or(0)).min(MAX))),
    }
}

/// Micro-dollars as dollars with two to six decimals.
pub(crate) fn format(micro: u128) -> String {
    let text = format!("{}.{:06}", micro / MICRO, micro % MICRO);
    let (whole, cents) = text.split_at(text.len() - 4);
    format!("{whole}{}", cents.trim_end_matches('0'))
}

fn parse(text: &str) -> Option<u128> {
    let (number, exponent) = split(text)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Further decimals are cut, so that the number fits.
    let (fraction, cut) = fraction.split_at_checked(18).unwrap_or((fraction, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().chain(cut.bytes()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let shift = 6 + exponent - i32::try_from(fraction.len()).ok()?;
    let digits: u128 = match digits.trim_start_matches('0') {
        "" => return Some(0),
        digits => digits.parse().unwrap_or(u128::MAX),
    };
    let power = 10_u128.checked_pow(shift.unsigned_abs());
    let amount = match (shift >= 0, power) {
        (true, power) => digits.saturating_mul(power.unwrap_or(u128::MAX)),
        (false, Some(power)) if digits < u128::MAX => digits.div_ceil(power),
        (false, Some(_)) => MAX,
        (false, None) => 1,
    };
    Some(amount.min(MAX))
}

/// A number and the power of ten behind it: a quantity's decimal suffix or an exponent.
fn split(text: &str) -> Option<(&str, i32)> {
    for (suffix, exponent) in [('n', -9), ('u', -6), ('m', -3), ('k', 3), ('M', 6), ('G', 9)] {
        if let Some(number) = text.strip_suffix(suffix) {
            return Some((number, exponent));
        }
    }
    match text.split_once(['e', 'E']) {
        Some((number, exponent)) => {
            let digits = exponent.trim_start_matches(['+', '-']);
            if digits.is_empty() || digits.len() + 1 < exponent.len() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                return None;
            }
            // What is beyond is saturated as well.
            let most = if exponent.starts_with('-') { -1000 } else { 1000 };
            Some((number, exponent.parse().unwrap_or(most).clamp(-1000, 1000)))
        }
        None => Some((text, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn amounts_as_kelos_and_people_write_them() {
        for (value, expected) in [
            (json!("1.50"), Some(1_500_000)),
            (json!("1500m"), Some(1_500_000)),
            (json!("250u"), Some(250)),
            (json!("1n"), Some(1)),
            (json!("2k"), Some(2_000_000_000)),
            (json!(0.1), Some(100_000)),
            (json!("1e-3"), Some(1_000)),
            (json!(".5"), Some(500_000)),
            (json!("0.0000001"), Some(1)),
            (json!("-1"), None),
            (json!(""), None),
            (json!("NaN"), None),
            (json!("1e999"), Some(MAX)),
            (json!("1e99999999999"), Some(MAX)),
            (json!("1e-99999999999"), Some(1)),
            (json!("0e999"), Some(0)),
            (json!(1e30), Some(MAX)),
            (json!(1e300), Some(MAX)),
            (json!("9".repeat(60)), Some(MAX)),
            (json!(format!("{}m", "9".repeat(60))), Some(MAX)),
            (json!(format!("0.{}", "1".repeat(60))), Some(111_112)),
            (json!(format!("{}1", "0".repeat(60))), Some(1_000_000)),
            (json!("1e--3"), None),
            (json!("1e"), None),
            (json!(-1e30), None),
            (json!({}), None),
        ] {
            assert_eq!(micro_dollars(&value), expected, "{value}");
        }
    }

    #[test]
    fn sums_are_exact_and_readable() {
        for (total, more, expected) in [
            (None, None, None),
            (None, Some("1.5"), Some("1.50")),
            (Some("0.10"), Some("0.2"), Some("0.30")),
            (Some("1"), Some("0.000001"), Some("1.000001")),
            (Some("garbage"), Some("2"), Some("2.00")),
            (Some("3"), None, Some("3.00")),
            (Some("999999999999.99"), Some("1e30"), Some("1000000000000.00")),
        ] {
            assert_eq!(sum(total, more).as_deref(), expected, "{total:?} + {more:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(micro in 0..10_u128.pow(15)) {
            prop_assert_eq!(parse(&format(micro)), Some(micro));
        }

        #[test]
        fn any_text_gets_an_answer(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
