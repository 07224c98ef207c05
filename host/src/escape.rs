//! Control characters in texts that others wrote, such as names, keys and messages of guests: a terminal would obey them. They
//! are shown escaped, as Rust writes them; in JSON they stay as they are.

use std::borrow::Cow;

/// Returns a text of several lines with every other control character escaped.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// Returns a text of one line with every control character escaped, line ends too.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, char::is_control)
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        let text = "a\u{1b}[2J\tö\n\u{9b}31m\r\u{7}";
        assert_eq!(lines(text), "a\\u{1b}[2J\tö\n\\u{9b}31m\\r\\u{7}");
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert!(matches!(lines("plain\n"), Cow::Borrowed(_)));
    }
}
