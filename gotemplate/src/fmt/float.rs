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
    let precision = precision.map(|precision| precision.min(ALL_DIGITS));
    let rounded = match precision {
        Some(precision) => format!("{value:.0$e}", precision.max(1) - 1),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let significant = significant_digits(mantissa);
    let threshold = match precision {
        None => 6,
        Some(precision) => {
            // Go: with more precision than digits, the digits that an integer has decide.
            let precision = i64::try_from(precision.max(1)).unwrap_or(i64::MAX);
            let digits = i64::try_from(significant).unwrap_or(i64::MAX);
            if precision > digits && digits > exponent {
                digits
            } else {
                precision
            }
        }
    };
    if exponent < -4 || exponent >= threshold {
        return exponential(&trim_zeros(&rounded));
    }
    let decimals = i64::try_from(digits).unwrap_or(i64::MAX) - 1 - exponent;
    let fixed = match usize::try_from(decimals) {
        Ok(decimals) if precision.is_some() => format!("{value:.decimals$}"),
        _ => format!("{value}"),
    };
    if fixed.contains('.') {
        fixed.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        fixed
    }
}

fn significant_digits(mantissa: &str) -> usize {
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_end_matches('0').len().max(1)
}

/// `1.500e7` as `1.5e7`.
fn trim_zeros(text: &str) -> String {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    format!("{mantissa}e{exponent}")
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
