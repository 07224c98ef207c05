//! The summary as JSON.

use super::*;
use crate::savepoint::test_data;

#[tokio::test]
async fn shown_as_json() {
    let savepoint = test_data::savepoint().await;
    let json = serde_json::to_value(show(&savepoint)).expect("JSON");
    assert_eq!(json["operators"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["operators"][1]["states"][0]["keys"], 200);
    assert_eq!(json["operators"][1]["watermark"], 3);
}
