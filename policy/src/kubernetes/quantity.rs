//! The canonical form of a Kubernetes quantity, as Go's `resource.Quantity` writes it back.

/// How the quantity was written; the canonical form keeps the family.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// What Go accepts in its fast path: this many digits, and no finer than nano.
const FAST_DIGITS: usize = 18;
const NANO: i32 = -9;

/// `text` as Go would write it back: `0.5` becomes `500m`, `1000m` becomes `1`, `1024Mi` becomes `1Gi`.
///
/// `None` when `text` is no quantity, or one with more than 30 digits or beyond exa: those are not supported.
pub fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || number.len() > 30 || fraction.contains('.') {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let digits = format!("{whole}{fraction}");
    let mantissa: i128 = digits.parse().ok()?;
    let scale = -i32::try_from(fraction.len()).ok()?;
    let (format, power) = parse_suffix(suffix)?;
    if mantissa == 0 {
        return Some("0".into());
    }
    let kept = match format {
        Format::Binary => scale == 0 && keeps_binary(whole, mantissa, power),
        Format::Decimal | Format::Exponent => keeps_decimal(&digits, scale + power),
    };
    if kept {
        return Some(text.to_owned());
    }
    let rendered = match format {
        Format::Binary => binary(mantissa, scale, power)?,
        Format::Decimal | Format::Exponent => decimal(mantissa, scale + power, format)?,
    };
    Some(if negative { format!("-{rendered}") } else { rendered })
}

/// Go keeps the text where it considers it canonical, without a close check: `1.001`, `+1` and
/// `1E3` stay as they are.
fn keeps_decimal(digits: &str, power: i32) -> bool {
    digits.len() <= FAST_DIGITS
        && power >= NANO
        && power % 3 == 0
        && !digits.ends_with("000")
        && !digits.starts_with('0')
}

/// As [`keeps_decimal`], for `whole` times 1024 to the `power`.
fn keeps_binary(whole: &str, value: i128, power: i32) -> bool {
    let digits = i32::try_from(whole.len()).unwrap_or(i32::MAX);
    digits.saturating_add(3 * power) <= 14 && value % 8 != 0
}

/// The family and the power: of 10 for the decimal families, of 1024 for the binary one.
fn parse_suffix(suffix: &str) -> Option<(Format, i32)> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Format::Binary, i32::try_from(power).ok()? + 1));
    }
    if let Some(power) = decimal_power(suffix) {
        return Some((Format::Decimal, power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    (exponent.abs() <= 30).then_some((Format::Exponent, exponent))
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

fn decimal_power(suffix: &str) -> Option<i32> {
    DECIMAL
        .iter()
        .find(|(known, _)| *known == suffix)
        .map(|(_, power)| *power)
}

/// The largest power of 1000 that leaves a whole number in front; what is finer than nano is rounded up.
fn decimal(mut mantissa: i128, mut power: i32, format: Format) -> Option<String> {
    if power < NANO {
        let divisor = 10_i128.checked_pow(u32::try_from(NANO - power).ok()?)?;
        mantissa = mantissa.checked_add(divisor - 1)? / divisor;
        power = NANO;
    }
    while mantissa % 10 == 0 && mantissa != 0 {
        mantissa /= 10;
        power += 1;
    }
    while power.rem_euclid(3) != 0 {
        mantissa = mantissa.checked_mul(10)?;
        power -= 1;
    }
    if format == Format::Exponent {
        return Some(if power == 0 {
            mantissa.to_string()
        } else {
            format!("{mantissa}e{power}")
        });
    }
    let (suffix, _) = DECIMAL.iter().find(|(_, known)| *known == power)?;
    Some(format!("{mantissa}{suffix}"))
}

/// The largest power of 1024 that leaves a whole number in front; Go writes the decimal form of what is no whole number
/// of bytes (`0.1Gi` becomes `107374182400m`) or less than 1024 of them, and caps the rest.
fn binary(mantissa: i128, scale: i32, power: i32) -> Option<String> {
    let factor = 1024_i128.checked_pow(u32::try_from(power).ok()?)?;
    let divisor = 10_i128.checked_pow(u32::try_from(-scale).ok()?)?;
    let scaled = mantissa.checked_mul(factor)?;
    let mut bytes = scaled / divisor;
    if bytes >= i128::from(i64::MAX) {
        return Some(i64::MAX.to_string());
    }
    if bytes < 1024 || scaled % divisor != 0 {
        return decimal(scaled, scale, Format::Decimal);
    }
    let mut suffix = 0;
    while bytes % 1024 == 0 && suffix < 6 {
        bytes /= 1024;
        suffix += 1;
    }
    Some(format!("{bytes}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][suffix]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (given, expected) in [
            ("0.5", "500m"),
            ("500m", "500m"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500", "1500"),
            ("1500m", "1500m"),
            ("1000k", "1M"),
            ("0.1", "100m"),
            ("100k", "100k"),
            ("1e3", "1e3"),
            ("100e1", "1e3"),
            ("1E3", "1E3"),
            ("1000E3", "1e6"),
            ("2e2", "200"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1024Mi", "1Gi"),
            ("512Mi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1.5Ki", "1536"),
            ("0.5Ki", "512"),
            ("-0.5", "-500m"),
            ("+1", "+1"),
            ("+0.5", "500m"),
            ("010", "010"),
            ("1.", "1."),
            ("1.0", "1"),
            ("1.001", "1.001"),
            ("0.001", "1m"),
            ("38.932m", "38.932m"),
            ("1e0", "1e0"),
            ("28.2773e-2", "28.2773e-2"),
            ("1e19", "10e18"),
            ("0.000001", "1u"),
            ("0.1n", "1n"),
            ("1.1n", "2n"),
            ("1e-10", "1e-9"),
            ("1.2Ki", "1228800m"),
            ("0.1Gi", "107374182400m"),
            ("-0.1Gi", "-107374182400m"),
            ("1.2345678Gi", "1325607081423667200n"),
            ("0.0001Ki", "102400u"),
            ("01Gi", "01Gi"),
            ("08Gi", "8Gi"),
            ("8Ei", "9223372036854775807"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn no_claim_about_what_is_no_quantity_or_out_of_reach() {
        for given in [
            "", ".", "abc", "1 Gi", "1ki", "--1", "1.2.3", "1e", "1e999999", "1000E", "٣",
        ] {
            assert_eq!(canonical(given), None, "{given}");
        }
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point() {
        for given in [
            "0.5",
            "1536Mi",
            "1e3",
            "123456789",
            "0.000000001",
            "7Ei",
            "100e1",
            "1.2Gi",
            "+0.5",
            "8Ei",
        ] {
            let once = canonical(given).unwrap();
            assert_eq!(canonical(&once).as_deref(), Some(once.as_str()), "{given}");
        }
    }
}
