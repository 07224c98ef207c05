//! Reads the `watermark` of sources and operators; `check` moves a source's strategy if necessary.

use std::time::Duration;

use regraft_model::schema::Type;

use super::job_graph::{GeneratorSource, SourceConnector, WatermarkStrategy};
use super::problem::Place;
use super::reader::Reader;
use super::suggest::one_of;

const EXAMPLE: &str = "{ max-out-of-orderness = \"5s\" }";

/// The origin of the event times of a node's records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventTimes<'a> {
    /// The source's connector; `None` if that could not be read.
    Source(Option<&'a SourceConnector>),
    /// The guest, which sets them as it emits.
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
        EventTimes::Source(Some(SourceConnector::Generator(generator))) => {
            return field(reader, name, place, generator);
        }
        EventTimes::Source(None) => return None,
        EventTimes::Source(Some(SourceConnector::File(_))) => {
            "lines have no event time; the operators that read them emit it"
        }
        EventTimes::Guest => "an operator emits the event times itself",
    };
    reader.problem_at(
        place,
        &format!("timestamp names a field of a generator, and {why}; remove it"),
    );
    None
}

fn field(reader: &mut Reader<'_>, name: &str, place: &Place, generator: &GeneratorSource) -> Option<usize> {
    let position = generator
        .fields
        .iter()
        .position(|field| field.name == name && field.ty == Type::U64);
    if position.is_none() {
        let fields: Vec<&str> = generator
            .fields
            .iter()
            .filter(|field| field.ty == Type::U64)
            .map(|field| field.name.as_str())
            .collect();
        let remedy = match fields.first() {
            Some(first) => format!(
                "expected {}, found \"{name}\"; write timestamp = \"{first}\"",
                one_of(&fields)
            ),
            None => format!("found \"{name}\"; add a field of type u64"),
        };
        reader.problem_at(
            place,
            &format!("timestamp: expected the name of a u64 field, milliseconds since 1970: {remedy}"),
        );
    }
    position
}
