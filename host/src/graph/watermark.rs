//! Reads the `watermark` of sources and operators; `check` moves a source's strategy if necessary.

use std::time::Duration;

use super::job_graph::WatermarkStrategy;
use super::problem::Place;
use super::reader::Reader;
use super::suggest::instead_of;
use crate::connector::source::SourceConnector;

const EXAMPLE: &str = "{ max-out-of-orderness = \"5s\" }";

/// The origin of the event times of a node's records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventTimes<'a> {
    /// The source's connector, where that could be read.
    Source(Option<&'a dyn SourceConnector>),
    /// The guest, when it emits.
    Guest,
}

/// Reads the strategy. Returns `None` if it is missing or wrong.
pub(crate) fn read(reader: &mut Reader<'_>, times: EventTimes<'_>) -> Option<WatermarkStrategy> {
    let (table, place) = reader.table("watermark", EXAMPLE)?;
    let mut reader = reader.nested(table, place, "watermark");
    let max_out_of_orderness = reader.duration("max-out-of-orderness", Duration::ZERO, false);
    let idleness = reader.optional_duration("idleness", Duration::from_secs(30));
    let timestamp = timestamp(&mut reader, times);
    reader.finish();
    Some(WatermarkStrategy {
        max_out_of_orderness,
        idleness,
        timestamp,
    })
}

/// Returns the position of the field. If it is wrong, reports a problem and returns `None`.
fn timestamp(reader: &mut Reader<'_>, times: EventTimes<'_>) -> Option<usize> {
    reader.raw("timestamp")?;
    let (name, place) = reader.text("timestamp", "time")?;
    let why = match times {
        EventTimes::Source(None) => return None,
        EventTimes::Source(Some(connector)) => match connector.time_fields() {
            Ok(fields) => return field(reader, name, place, &fields),
            Err(why) => why,
        },
        EventTimes::Guest => "an operator emits the event times itself",
    };
    reader.problem_at(
        place,
        &format!("timestamp names a field of a generator, and {why}; remove it"),
    );
    None
}

fn field(reader: &mut Reader<'_>, name: &str, place: &Place, fields: &[(usize, &str)]) -> Option<usize> {
    let position = fields.iter().find(|(_, field)| *field == name).map(|(at, _)| *at);
    if position.is_none() {
        let fields: Vec<&str> = fields.iter().map(|(_, field)| *field).collect();
        let remedy = if fields.is_empty() {
            "add a field of type u64".to_owned()
        } else {
            instead_of(name, &fields)
        };
        reader.problem_at(
            place,
            &format!(
                "timestamp: expected the name of a u64 field, milliseconds since 1970, found \"{name}\"; {remedy}"
            ),
        );
    }
    position
}
