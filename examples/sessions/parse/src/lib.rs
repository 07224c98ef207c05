//! Reads clicks from lines, with the times at which they were made.
//!
//! A line is a user, a time in milliseconds since 1970 and a page, with tabs between them.

use regraft_sdk::{Ctx, Declare, Operator, Port, Record, Result, Text, operator};
use serde::{Deserialize, Serialize};

/// A click. Its user is the record's key, its time the record's event time.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Click<'a> {
    /// What was clicked.
    pub page: &'a str,
}

/// The operator.
pub struct Parse {
    clicks: Port<Click<'static>, str>,
}

impl Operator for Parse {
    type Key<'a> = ();
    type In<'a> = Text<'a>;

    fn declare(d: &mut Declare) -> Self {
        d.input("lines");
        Parse {
            clicks: d.output_keyed("clicks", "user"),
        }
    }

    fn process(&mut self, (): (), line: Text, cx: &mut Ctx) -> Result<()> {
        let mut parts = line.0.split('\t');
        let (Some(user), Some(time), Some(page), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("a line is user, milliseconds and page, with tabs between them".into());
        };
        let at: i64 = time.parse().map_err(|error| format!("the time {time:?}: {error}"))?;
        cx.emit_keyed_at(self.clicks, user, at, &Click { page })
    }
}

operator!(Parse);

#[cfg(test)]
mod tests {
    use super::{Click, Parse};
    use regraft_sdk::testing::{Harness, Input};

    #[test]
    fn a_click_has_user_time_and_page() {
        let emitted = Harness::<Parse>::new()
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
            let failure = Harness::<Parse>::new().process(records).unwrap_err();
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
