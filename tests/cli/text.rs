//! Text input: what counts as a line, and what the word count makes of it.

use crate::fixtures::{COPY, words_world};
use crate::support::World;

/// Returns the lines of some bytes, as the file source emits them.
fn lines(bytes: &[u8]) -> Vec<u8> {
    let world = World::new();
    world.write("job.toml", COPY);
    world.write("in/a", "");
    std::fs::write(world.path().join("in/a"), bytes).expect("written");
    let output = world.command(&["run"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Returns the word count of some files.
fn words(inputs: &[&[u8]]) -> Vec<String> {
    let world = words_world();
    for (i, bytes) in inputs.iter().enumerate() {
        world.write(&format!("in/{i}"), "");
        std::fs::write(world.path().join(format!("in/{i}")), bytes).expect("written");
    }
    world.run(&["run"]).exits(0);
    world.committed("out")
}

#[test]
fn carriage_returns_belong_to_the_line_end() {
    assert_eq!(lines(b"a\r\nb c\r\n\r\nd\re\n"), b"a\nb c\n\nd\re\n");
    assert_eq!(words(&[b"a\r\nb a\r\n"]), ["a\t2", "b\t1"]);
}

#[test]
fn the_last_line_needs_no_end() {
    assert_eq!(lines(b"a\nb"), b"a\nb\n");
    // A carriage return alone ends no line.
    assert_eq!(lines(b"a\nb\r"), b"a\nb\r\n");
    assert_eq!(words(&[b"a b", b"a"]), ["a\t2", "b\t1"]);
}

#[test]
fn empty_files_and_empty_lines() {
    assert_eq!(lines(b""), b"");
    assert_eq!(lines(b"\n\n"), b"\n\n");
    assert_eq!(words(&[b"", b"\n\n", b"a"]), ["a\t1"]);
    assert_eq!(words(&[b""]), [""; 0]);
}

#[test]
fn bytes_that_are_no_text() {
    let all: Vec<u8> = (0..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    let mut expected = all.clone();
    expected.push(b'\n');
    assert_eq!(lines(&all), expected);
    assert_eq!(words(&[b"a\xff\xfea \xc3\xa9t\xc3\xa9 A\0b"]), ["a\t3", "b\t1", "t\t1"]);
}

#[test]
fn a_line_of_a_megabyte() {
    let long = "word ".repeat(210_000) + "end";
    assert!(long.len() > 1 << 20);
    let mut expected = long.clone().into_bytes();
    expected.push(b'\n');
    assert_eq!(lines(long.as_bytes()), expected);
    let one = "x".repeat(1_100_000);
    let text = format!("{long}\n{one}\nend\n");
    assert_eq!(
        words(&[text.as_bytes()]),
        ["end\t2".to_owned(), "word\t210000".to_owned(), format!("{one}\t1")]
    );
}

#[test]
fn a_byte_order_mark_is_no_letter() {
    assert_eq!(words(&[b"\xef\xbb\xbfa b"]), ["a\t1", "b\t1"]);
}
