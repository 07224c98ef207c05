//! The full texts.

use super::*;
use crate::savepoint::test_data;

#[tokio::test]
async fn shown_as_text_and_as_json() {
    let savepoint = test_data::savepoint().await;
    let shown = show(&savepoint);
    let state = &savepoint.metadata.operators[2].states[0];
    let (bytes, total) = (state.bytes(), shown.bytes);
    let width = bytes.to_string().len().max(5);
    let expected = format!(
        "path:            store:///savepoint-a1b2c3-000000000001
job:             word-count (a1b2c3d4e5f60718293a4b5c6d7e8f90)
kind:            savepoint (manual, canonical, owner user)
checkpoint:      7
triggered at:    1000 ms, took 36 ms
max parallelism: 128
written by:      regraft 0.1.0, WIT 0.2.0
arguments:       --fast
bytes:           {total}
module:          count 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

UID    KIND      STATE          SCHEMA  KEYS  {:>width$}
lines  source    file           -          -  {:>width$}
count  operator  count (value)  u64      200  {bytes:>width$}
out    sink      file           -          -  {:>width$}

positions of lines:
  b.txt: {{\"line\":2,\"offset\":10}}
  a.txt: {{\"line\":2,\"offset\":10}}
  c.txt: {{\"line\":2,\"offset\":10}} (finished)

pending parts of out (they may lie outside the savepoint):
  {{\"pending\":\"out/.pending/p1\"}}

job file:
  name = \"word-count\"
",
        "BYTES", "-", "-"
    );
    assert_eq!(shown.text(&[]), expected);
    let json = serde_json::to_value(&shown).expect("JSON");
    assert_eq!(json["operators"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["operators"][1]["states"][0]["keys"], 200);
    assert_eq!(json["operators"][1]["watermark"], 3);
}
