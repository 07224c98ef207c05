//! Reads clicks from lines, with the times at which they were made.
//!
//! A line is a user, a time in milliseconds since 1970 and a page, with tabs between them.

use regraft_sdk::{Ctx, Port, Record, Result, operator};
use serde::{Deserialize, Serialize};

/// A click. Its user is the record's key, its time the record's event time.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Click<'a> {
    /// The page that was clicked.
    pub page: &'a str,
}

/// Reads a line.
#[operator]
pub fn parse(line: &str, #[key = "user"] clicks: Port<Click<'_>, str>, cx: &mut Ctx) -> Result<()> {
    let mut parts = line.split('\t');
    let (Some(user), Some(time), Some(page), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("a line is user, milliseconds and page, with tabs between them".into());
    };
    let at: i64 = time.parse().map_err(|error| format!("the time {time:?}: {error}"))?;
    cx.emit(clicks, &Click { page }).key(user).at(at);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Click, parse};
    use regraft_sdk::testing::{Harness, Input};

    #[test]
    fn a_click_has_user_time_and_page() {
        let emitted = Harness::<parse>::new()
            .process([Input::value("ann\t1500\t/home")])
            .unwrap();
        assert_eq!(emitted[0].key_text().unwrap(), "ann");
        assert_eq!(emitted[0].timestamp, 1500);
        assert_eq!(emitted[0].record::<Click>().unwrap(), Click { page: "/home" });
    }

    #[test]
    fn other_lines_fail_their_record() {
        let fails = |line: &str| {
            let records = [Input::value("ann\t1\t/"), Input::value(line)];
            let failure = Harness::<parse>::new().process(records).unwrap_err();
            assert_eq!(failure.row, Some(1));
            failure.message
        };
        let shape = "a line is user, milliseconds and page, with tabs between them";
        assert_eq!(fails("ann\t1"), shape);
        assert_eq!(fails("ann\t1\t/\tmore"), shape);
        assert_eq!(
            fails("ann\tnoon\t/"),
            "the time \"noon\": invalid digit found in string"
        );
    }
}
