//! Durations and byte sizes as people write them: `"500ms"`, `"256MiB"`.

use std::time::Duration;

/// Units of time, in milliseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Upper bound of a duration, a hundred years: times are counted in nanoseconds and must not overflow.
const LONGEST_MS: u64 = 36_500 * 86_400_000;

/// Parses a duration such as `"10s"`, `"500ms"`, `"10m"` (or `"10min"`), `"2h"` or `"1d"`.
///
/// Returns `None` if the text is not a duration, or is longer than a hundred years.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let ms = quantity(text, &TIME_UNITS)?;
    (ms <= LONGEST_MS).then(|| Duration::from_millis(ms))
}

/// Parses a size such as `"256MiB"`, `"1GB"` or `"512B"`, and returns it in bytes.
///
/// Returns `None` if the text is not a size.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    quantity(text, &SIZE_UNITS)
}

/// Parses a whole number and a unit, with or without spaces between them.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}

/// Formats a size as [`bytes`] parses it, in the greatest binary unit that divides it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let unit = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = unit
        .iter()
        .find(|(_, bits)| bytes != 0 && bytes.trailing_zeros() >= *bits);
    match unit {
        Some((name, bits)) => format!("{}{name}", bytes >> bits),
        None => format!("{bytes}B"),
    }
}

/// Formats a duration as [`duration`] parses it, in the greatest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = TIME_UNITS
        .iter()
        .rev()
        .find(|(name, scale)| *name != "min" && ms != 0 && ms.is_multiple_of(*scale));
    match unit {
        Some((name, scale)) => format!("{}{name}", ms / scale),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("10m", 600_000),
            ("10 min", 600_000),
            ("0s", 0),
            ("1d", 86_400_000),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10x",
            "99999999999999999999s",
            "9999999999999999999d",
            "36501d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(show_duration(Duration::from_secs(600)), "10m");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("256MiB"), Some(256 << 20));
        assert_eq!(bytes("1 kB"), Some(1000));
        for text in ["1GiB", "1280MiB", "3KiB", "1025B", "0B"] {
            assert_eq!(bytes(text).map(show_bytes).as_deref(), Some(text));
        }
        assert_eq!(bytes("12"), None);
        assert_eq!(bytes("99999999TiB"), None);
    }
}
