//! Floats in the forms of Go's `strconv.FormatFloat`.

/// `value` in the form `verb` (`e`, `E`, `f`, `g`, `G`), with a sign if it is negative. `precision` of `None` is the
/// smallest that identifies the value.
pub(crate) fn format(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let text = match (verb.to_ascii_lowercase(), precision) {
        ('f', None) => format!("{value}"),
        ('f', Some(precision)) => format!("{value:.precision$}"),
        ('e', None) => exponential(&format!("{value:e}")),
        ('e', Some(precision)) => exponential(&format!("{value:.precision$e}")),
        (_, precision) => general(value, precision),
    };
    if verb.is_ascii_uppercase() {
        text.to_ascii_uppercase()
    } else {
        text
    }
}

/// Rust's `1.5e7` as Go's `1.5e+07`.
fn exponential(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// More digits than any float has. With more precision `%g` gives the same text: it has no zeros at the end.
const ALL_DIGITS: usize = 800;

/// `%g`: exponential for small and for large values, without zeros at the end.
fn general(value: f64, precision: Option<usize>) -> String {
    let precision = precision.map(|precision| precision.clamp(1, ALL_DIGITS));
    let rounded = match precision {
        Some(precision) => format!("{value:.0$e}", precision - 1),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let mantissa = match mantissa.trim_end_matches('0') {
        trimmed if mantissa.contains('.') => trimmed.trim_end_matches('.'),
        _ => mantissa,
    };
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let digits = mantissa.replace(['-', '.'], "");
    let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let threshold = match precision.map(i64::try_from) {
        // Go: with more precision than digits, the digits that an integer has decide.
        Some(Ok(precision)) if precision > count && count > exponent => count,
        Some(precision) => precision.unwrap_or(i64::MAX),
        None => 6,
    };
    if exponent < -4 || exponent >= threshold {
        return exponential(&format!("{mantissa}e{exponent}"));
    }
    match usize::try_from(exponent + 1) {
        Ok(whole) if whole >= digits.len() => format!("{sign}{digits:0<whole$}"),
        Ok(whole) if whole > 0 => format!("{sign}{}.{}", &digits[..whole], &digits[whole..]),
        _ => {
            let zeros = usize::try_from(-1 - exponent).unwrap_or(0);
            format!("{sign}0.{:0>zeros$}{digits}", "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_precision_than_digits_changes_nothing() {
        for value in [5e-324, f64::MIN_POSITIVE, f64::MAX, 0.1, 1e21, 0.0, -3.0] {
            for verb in ['g', 'G'] {
                let all = format(value, verb, Some(ALL_DIGITS));
                assert_eq!(format(value, verb, Some(ALL_DIGITS - 20)), all);
                assert_eq!(format(value, verb, Some(16_384)), all);
                assert_eq!(all.parse(), Ok(value));
            }
        }
    }
}
