//! The operator of this job.

use regraft_sdk::{Ctx, Port, operator};

/// Passes each line on. An operator with state is an `impl Operator for …` instead.
#[operator]
pub fn pass(line: &str, lines: Port<str>, cx: &mut Ctx) {
    cx.emit(lines, line);
}

#[cfg(test)]
mod tests {
    use super::pass;
    use regraft_sdk::testing::{Harness, Input};

    #[test]
    fn a_line_goes_on() {
        let emitted = Harness::<pass>::new().process([Input::value("hello")]).unwrap();
        assert_eq!(emitted[0].text().unwrap(), "hello");
    }
}
