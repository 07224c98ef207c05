//! Says of a panic of `std` what to use in its place, where a component lacks what it asks for.

/// Returns a hint for the message of a panic, to be put behind it. Empty where there is none.
pub(crate) fn hint(message: &str) -> &'static str {
    if message == "time not implemented on this platform" {
        ". A component has no clock of its own: declare `d.clock()` and ask `cx.now(clock)`, or take `cx.timestamp()`, the \
         time of the record"
    } else if message.starts_with("failed to spawn thread") {
        ". A component has one thread: the host runs as many subtasks of the operator as its `parallelism` says"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn a_clock_has_a_hint() {
        assert!(hint("time not implemented on this platform").contains("`cx.now(clock)`"));
        assert!(hint("failed to spawn thread: Error { kind: Unsupported }").contains("`parallelism`"));
        assert_eq!(hint("time"), "");
    }
}
