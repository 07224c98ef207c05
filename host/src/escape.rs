//! Control characters in texts that others wrote, such as names, keys and messages of guests: a terminal would obey them. They
//! are shown escaped, as Rust writes them; in JSON they stay as they are. Words of commands that a user is to type are quoted.

use std::borrow::Cow;

/// Returns a text of several lines with every other control character escaped.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_unsafe(c) && c != '\n' && c != '\t')
}

/// Returns a text of one line with every control character escaped, line ends too.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe)
}

/// Returns the text of a log event, in which no line but the first can be taken for an event: the others begin with a blank. A
/// carriage return is escaped.
#[must_use]
pub fn event(text: &str) -> Cow<'_, str> {
    let (body, end) = match text.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (text, ""),
    };
    if !body.contains(['\n', '\r']) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for (at, line) in body.split('\n').enumerate() {
        if at > 0 {
            let is_apart = line.is_empty() || line.starts_with([' ', '\t']);
            shown.push_str(if is_apart { "\n" } else { "\n    " });
        }
        shown.push_str(&line.replace('\r', "\\r"));
    }
    shown.push_str(end);
    Cow::Owned(shown)
}

/// Returns true for control characters, and for those that end a line or change the direction of a text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

/// Quotes a word for a POSIX shell, where it needs that.
#[must_use]
pub fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        let text = "a\u{1b}[2J\tö\n\u{9b}31m\r\u{7}";
        assert_eq!(lines(text), "a\\u{1b}[2J\tö\n\\u{9b}31m\\r\\u{7}");
        assert_eq!(one_line("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(one_line("a\u{2028}b\u{202e}"), "a\\u{2028}b\\u{202e}");
        assert!(matches!(lines("plain\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn no_line_of_an_event_passes_for_another_event() {
        let text = "INFO a\r is gone\n2026-11-30T00:00:00Z ERROR forged\n  at frame\n";
        let shown = "INFO a\\r is gone\n    2026-11-30T00:00:00Z ERROR forged\n  at frame\n";
        assert_eq!(event(text), shown);
        assert!(matches!(event("plain\n"), Cow::Borrowed(_)));
    }
}
