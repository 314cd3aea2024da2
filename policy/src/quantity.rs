//! The canonical form of a Kubernetes quantity, as Go's `resource.Quantity` writes it back.

/// How the quantity was written; the canonical form keeps the family.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Decimal,
    Exponent,
    Binary,
}

/// `text` as Go would write it back: `0.5` becomes `500m`, `1000m` becomes `1`, `1024Mi` becomes `1Gi`.
///
/// `None` when `text` is no quantity, or one beyond what can be told here (more than 30 digits, parts of a nano, parts
/// of a byte): nothing is claimed about those.
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
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 30 || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let scale = -i32::try_from(fraction.len()).ok()?;
    let (format, power) = parse_suffix(suffix)?;
    if mantissa == 0 {
        return Some("0".into());
    }
    let rendered = match format {
        Format::Binary => binary(mantissa, scale, power)?,
        Format::Decimal | Format::Exponent => decimal(mantissa, scale + power, format)?,
    };
    Some(if negative { format!("-{rendered}") } else { rendered })
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

/// The largest power of 1000 that leaves a whole number in front.
fn decimal(mut mantissa: i128, mut power: i32, format: Format) -> Option<String> {
    while mantissa % 10 == 0 && mantissa != 0 {
        mantissa /= 10;
        power += 1;
    }
    while power.rem_euclid(3) != 0 || power > 18 {
        mantissa = mantissa.checked_mul(10)?;
        power -= 1;
    }
    if power < -9 {
        return None;
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

/// The largest power of 1024 that leaves a whole number in front; below 1024 bytes Go writes the decimal form.
fn binary(mantissa: i128, scale: i32, power: i32) -> Option<String> {
    let factor = 1024_i128.checked_pow(u32::try_from(power).ok()?)?;
    let divisor = 10_i128.checked_pow(u32::try_from(-scale).ok()?)?;
    let scaled = mantissa.checked_mul(factor)?;
    if scaled % divisor != 0 {
        return None;
    }
    let mut bytes = scaled / divisor;
    if bytes < 1024 {
        return decimal(bytes, 0, Format::Decimal);
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
            ("1E3", "1e3"),
            ("2e2", "200"),
            ("0", "0"),
            ("0Mi", "0"),
            ("1024Mi", "1Gi"),
            ("512Mi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1.5Ki", "1536"),
            ("0.5Ki", "512"),
            ("-0.5", "-500m"),
            ("+1", "1"),
            ("1.0", "1"),
            ("0.000001", "1u"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn no_claim_about_what_is_no_quantity_or_out_of_reach() {
        for given in [
            "", ".", "abc", "1 Gi", "1ki", "--1", "1.2.3", "0.1n", "1e", "1e999999", "0.0001Ki", "٣",
        ] {
            assert_eq!(canonical(given), None, "{given}");
        }
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point() {
        for given in ["0.5", "1536Mi", "1e3", "123456789", "0.000000001", "7Ei", "100e1"] {
            let once = canonical(given).unwrap();
            assert_eq!(canonical(&once).as_deref(), Some(once.as_str()), "{given}");
        }
    }
}
