//! Canonical form of resource quantities, as `resource.Quantity` of Go writes them.
//!
//! A quantity that is not in this form does not survive Kelos' full update, and the update is then
//! refused because the spec is immutable (kelos §6.9).

/// Nano units are the finest that a quantity holds; what is finer is rounded up.
const NANO: i128 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// Rewrites a quantity as Go does: `0.5` becomes `500m`, `1000m` becomes `1`, `1024Mi` becomes
/// `1Gi`. `None` for text that is no quantity, and for exponents below -9.
pub fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (multiplier, format) = multiplier(suffix)?;
    let nanos = nanos(number, multiplier)?;
    if nanos != 0 && stays(number, multiplier, format) {
        return Some(text.to_owned());
    }
    Some(write(nanos, format))
}

/// Go keeps the very text where it looks canonical at a glance, such as `1.001` or `+1`.
fn stays(number: &str, multiplier: i128, format: Format) -> bool {
    let unsigned = number.trim_start_matches(['+', '-']).trim_start_matches('0');
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if format == Format::Binary {
        let bits = (multiplier / NANO).ilog2();
        let short = u32::try_from(whole.len()).is_ok_and(|digits| digits + 3 * bits / 10 <= 14);
        return fraction.is_empty() && short && whole.parse::<i128>().is_ok_and(|value| value % 8 != 0);
    }
    let Ok(places) = u32::try_from(fraction.len()) else {
        return false;
    };
    // In powers of ten above nano.
    let finest = multiplier.ilog10().checked_sub(places);
    let digits = format!("{whole}{fraction}");
    !whole.is_empty() && digits.len() <= 18 && !digits.ends_with("000") && finest.is_some_and(|power| power % 3 == 0)
}

/// What a suffix multiplies with, in nano units, and how the result is written.
fn multiplier(suffix: &str) -> Option<(i128, Format)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        let power = u32::try_from(power).ok()? + 1;
        return Some((NANO * 1024_i128.pow(power), Format::Binary));
    }
    if let Some(power) = DECIMAL.iter().position(|s| *s == suffix) {
        return Some((1000_i128.pow(u32::try_from(power).ok()?), Format::Decimal));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let from_nano = u32::try_from(exponent + 9).ok().filter(|e| *e <= 36)?;
    Some((10_i128.pow(from_nano), Format::Exponent))
}

/// The value in nano units, rounded away from zero.
fn nanos(number: &str, multiplier: i128) -> Option<i128> {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(multiplier)?;
    let rounded = product / scale + i128::from(product % scale != 0);
    Some(if negative { -rounded } else { rounded })
}

fn write(nanos: i128, format: Format) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    if format == Format::Binary && nanos.abs() >= 1024 * NANO {
        let mut value = (nanos / NANO).clamp(-i128::from(i64::MAX), i128::from(i64::MAX));
        if nanos % NANO == 0 || value.abs() == i128::from(i64::MAX) {
            let mut power = 0;
            while value % 1024 == 0 {
                value /= 1024;
                power += 1;
            }
            return format!("{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
    }
    let mut value = nanos;
    let mut power = 0_usize;
    while value % 1000 == 0 && (power < 9 || format == Format::Exponent) {
        value /= 1000;
        power += 1;
    }
    match (format, power) {
        (Format::Exponent, 3) => value.to_string(),
        (Format::Exponent, _) => format!("{value}e{}", i64::try_from(power).unwrap_or(3) * 3 - 9),
        _ => format!("{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn quantities_become_what_go_writes() {
        for (given, written) in [
            ("0.5", "500m"),
            ("1", "1"),
            ("1.0", "1"),
            ("1.5", "1500m"),
            ("500m", "500m"),
            ("1000m", "1"),
            ("2000m", "2"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("512Mi", "512Mi"),
            ("1e3", "1e3"),
            ("12E6", "12E6"),
            ("1000E3", "1e6"),
            ("1e19", "10e18"),
            ("1e0", "1e0"),
            ("+1", "+1"),
            ("010", "010"),
            ("1.001", "1.001"),
            ("1.2Ki", "1228800m"),
            ("0.1Gi", "107374182400m"),
            ("-0.1Gi", "-107374182400m"),
            ("01Gi", "01Gi"),
            ("08Gi", "8Gi"),
            ("8Ei", "9223372036854775807"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-0.5", "-500m"),
            ("0.0000000001", "1n"),
            (" 2Gi ", "2Gi"),
            ("1.234", "1.234"),
            ("100k", "100k"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(written), "{given}");
        }
    }

    #[test]
    fn canonical_forms_are_fixed_points() {
        for text in ["500m", "1", "1k", "1Gi", "1536Mi", "1e3", "1234m", "7n"] {
            assert_eq!(canonical(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn other_text_is_no_quantity() {
        for text in ["", "m", "1x", "1 Gi", "1.2.3", "--1", "e3"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
