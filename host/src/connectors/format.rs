//! Records as text, for all sinks that write lines: the columns of the value, in declared order.

use std::io::Write;

use regraft_model::describe::PortValue;
use regraft_model::schema::{Field, StructType, Type};
use regraft_model::value::text::Json;
use regraft_model::value::{Decoder, Integers, Scalar, ValueError};

use crate::connector::sink::SinkError;

/// Format of a line of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFormat {
    /// The raw text value.
    Lines,
    /// Columns of the value, tab-separated.
    Tsv,
    /// Columns of the value, comma-separated.
    Csv,
    /// One object a line.
    Json,
}

impl TextFormat {
    /// Returns the extension of the names of files of this format.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Lines => "txt",
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }
}

/// Writes records of one shape in one format.
#[derive(Debug)]
pub struct Formatter {
    format: TextFormat,
    input: PortValue,
}

impl Formatter {
    /// Makes a formatter of records of this shape.
    ///
    /// # Errors
    /// [`SinkError::Format`] where the format cannot show such records.
    pub fn new(format: TextFormat, input: &PortValue) -> Result<Self, SinkError> {
        if let (TextFormat::Lines, PortValue::Record(record)) = (format, input) {
            return Err(SinkError::Format {
                format: "lines",
                expected: "raw text or bytes; use \"tsv\", \"csv\" or \"json\" for records",
                found: Type::Struct(record.clone()).to_string(),
            });
        }
        Ok(Self {
            format,
            input: input.clone(),
        })
    }

    /// Makes a formatter that takes values as they are.
    #[must_use]
    pub const fn of_lines() -> Self {
        Self {
            format: TextFormat::Lines,
            input: PortValue::Text,
        }
    }

    /// Appends the names of the columns, with a line end; raw text and bytes have the column `value`.
    pub fn append_header(&self, out: &mut Vec<u8>) {
        match &self.input {
            PortValue::Record(record) => {
                for (i, field) in record.fields.iter().enumerate() {
                    if i > 0 {
                        out.push(separator(self.format));
                    }
                    escape(self.format, field.name.as_bytes(), out);
                }
            }
            PortValue::Text | PortValue::Bytes => out.extend_from_slice(b"value"),
        }
        out.push(b'\n');
    }

    /// Appends one record, with its line end.
    ///
    /// # Errors
    /// [`SinkError::Record`] where the value is not of the declared schema.
    pub fn append(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), SinkError> {
        let start = out.len();
        let written = match (&self.input, self.format) {
            (_, TextFormat::Lines) => {
                out.extend_from_slice(value);
                Ok(())
            }
            (PortValue::Record(record), TextFormat::Json) => json_record(record, value, out),
            (PortValue::Record(record), _) => columns(self.format, record, value, out),
            (PortValue::Text | PortValue::Bytes, TextFormat::Json) => {
                json_value(value, out);
                Ok(())
            }
            (PortValue::Text | PortValue::Bytes, _) => {
                escape(self.format, value, out);
                Ok(())
            }
        };
        if self.format == TextFormat::Csv && out.len() == start {
            // A line without anything is no record to those who read it.
            out.extend_from_slice(b"\"\"");
        }
        out.push(b'\n');
        written.map_err(|error| SinkError::Record {
            schema: self.input.to_string(),
            message: error.to_string(),
        })
    }
}

/// Appends `{"value":"…"}`, or of bytes that are not UTF-8 `{"value_hex":"…"}`: no two values have the same line.
fn json_value(value: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(value) {
        Ok(text) => {
            out.extend_from_slice(b"{\"value\":");
            out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
        }
        Err(_) => {
            out.extend_from_slice(b"{\"value_hex\":\"");
            push_hex(value, out);
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// Appends the JSON of something, without a tree of it.
fn push_json(what: &impl serde::Serialize, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail, and all names of objects are texts.
    let _ = serde_json::to_writer(out, what);
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

fn columns(format: TextFormat, record: &StructType, value: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let mut decoder = Decoder::new(value, Integers::Variable);
    for (i, field) in record.fields.iter().enumerate() {
        if i > 0 {
            out.push(separator(format));
        }
        column(format, field, &mut decoder, out)?;
    }
    decoder.finish()
}

const fn separator(format: TextFormat) -> u8 {
    match format {
        TextFormat::Tsv => b'\t',
        TextFormat::Lines | TextFormat::Csv | TextFormat::Json => b',',
    }
}

fn column(format: TextFormat, field: &Field, decoder: &mut Decoder<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    if !field.ty.is_scalar() {
        let value = decoder.value(&field.ty)?;
        let mut json = vec![];
        push_json(&Json(&field.ty, &value), &mut json);
        match serde_json::from_slice::<String>(&json) {
            Ok(text) => escape(format, text.as_bytes(), out),
            Err(_) if json == b"null" => {}
            Err(_) => escape(format, &json, out),
        }
        return Ok(());
    }
    // Writing to a vector cannot fail.
    let _ = match decoder.scalar(&field.ty)? {
        Scalar::Unsigned(n) => {
            push_number(n, out);
            Ok(())
        }
        Scalar::Signed(n) => write!(out, "{n}"),
        Scalar::Text(text) => {
            escape(format, text.as_bytes(), out);
            Ok(())
        }
        Scalar::Unit => Ok(()),
        Scalar::Bool(b) => write!(out, "{b}"),
        Scalar::F32(x) => write!(out, "{x}"),
        Scalar::F64(x) => write!(out, "{x}"),
        Scalar::Char(c) => {
            escape(format, c.encode_utf8(&mut [0; 4]).as_bytes(), out);
            Ok(())
        }
        Scalar::Bytes(bytes) => {
            push_hex(bytes, out);
            Ok(())
        }
    };
    Ok(())
}

fn push_number(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn json_record(record: &StructType, value: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let mut decoder = Decoder::new(value, Integers::Variable);
    out.push(b'{');
    for (i, field) in record.fields.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_json(&field.name, out);
        out.push(b':');
        let value = decoder.value(&field.ty)?;
        push_json(&Json(&field.ty, &value), out);
    }
    out.push(b'}');
    decoder.finish()
}

/// tsv: `\t`, `\n`, `\r` and `\\` are written so. csv: quoted where it must be (RFC 4180).
fn escape(format: TextFormat, text: &[u8], out: &mut Vec<u8>) {
    match format {
        TextFormat::Csv => {
            if text.iter().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r')) {
                out.push(b'"');
                for b in text {
                    if *b == b'"' {
                        out.push(b'"');
                    }
                    out.push(*b);
                }
                out.push(b'"');
            } else {
                out.extend_from_slice(text);
            }
        }
        _ if memchr::memchr3(b'\t', b'\n', b'\\', text).is_none() && memchr::memchr(b'\r', text).is_none() => {
            out.extend_from_slice(text);
        }
        _ => {
            for b in text {
                match b {
                    b'\t' => out.extend_from_slice(b"\\t"),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    other => out.push(*other),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> PortValue {
        let field = |name: &str, ty| Field {
            name: name.into(),
            ty,
            aliases: vec![],
            default: false,
        };
        PortValue::Record(StructType {
            name: "R".into(),
            fields: vec![
                field("word", Type::String),
                field("n", Type::U64),
                field("tags", Type::List(Box::new(Type::String))),
                field("maybe", Type::Option(Box::new(Type::I32))),
            ],
        })
    }

    fn check(format: TextFormat, input: &PortValue, value: &[u8], expected: &str) {
        let mut out = vec![];
        Formatter::new(format, input)
            .expect("a format for it")
            .append(value, &mut out)
            .expect("a record");
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn records_in_every_format() {
        // word = "a\t,\"b", n = 12, tags = ["x"], maybe absent.
        let value = [5, b'a', b'\t', b',', b'"', b'b', 12, 1, 1, b'x', 0];
        check(TextFormat::Tsv, &record(), &value, "a\\t,\"b\t12\t[\"x\"]\t\n");
        check(
            TextFormat::Csv,
            &record(),
            &value,
            "\"a\t,\"\"b\",12,\"[\"\"x\"\"]\",\n",
        );
        let json = "{\"word\":\"a\\t,\\\"b\",\"n\":12,\"tags\":[\"x\"],\"maybe\":null}\n";
        check(TextFormat::Json, &record(), &value, json);
        check(TextFormat::Lines, &PortValue::Text, b"a\tb", "a\tb\n");
        check(TextFormat::Tsv, &PortValue::Text, b"a\tb\\", "a\\tb\\\\\n");
        check(TextFormat::Json, &PortValue::Text, b"a", "{\"value\":\"a\"}\n");
        check(TextFormat::Csv, &PortValue::Text, b"", "\"\"\n");
        check(TextFormat::Csv, &PortValue::Text, b"a\r", "\"a\r\"\n");
        check(TextFormat::Tsv, &PortValue::Text, b"a\r", "a\\r\n");
        check(TextFormat::Tsv, &PortValue::Text, b"", "\n");
    }

    #[test]
    fn json_of_bytes_keeps_different_values_different() {
        let values: [(&[u8], &str); 4] = [
            (b"\xff\xfe", "{\"value_hex\":\"fffe\"}\n"),
            (b"\xff\xfd", "{\"value_hex\":\"fffd\"}\n"),
            (b"fffe", "{\"value\":\"fffe\"}\n"),
            ("\u{fffd}".as_bytes(), "{\"value\":\"\u{fffd}\"}\n"),
        ];
        for (value, line) in values {
            check(TextFormat::Json, &PortValue::Bytes, value, line);
            check(TextFormat::Json, &PortValue::Text, value, line);
        }
    }

    #[test]
    fn a_header_names_the_columns() {
        let header = |format, input: &PortValue| {
            let mut out = vec![];
            Formatter::new(format, input)
                .expect("a format for it")
                .append_header(&mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(header(TextFormat::Csv, &record()), "word,n,tags,maybe\n");
        assert_eq!(header(TextFormat::Tsv, &record()), "word\tn\ttags\tmaybe\n");
        assert_eq!(header(TextFormat::Csv, &PortValue::Text), "value\n");
    }

    #[test]
    fn wrong_shapes_are_told() {
        let error = Formatter::new(TextFormat::Lines, &record())
            .expect_err("no lines of records")
            .to_string();
        assert!(
            error.starts_with("format \"lines\" cannot write R {word: string, n: u64"),
            "{error}"
        );
        let mut out = vec![];
        let error = Formatter::new(TextFormat::Tsv, &record())
            .expect("tsv")
            .append(&[9, 1], &mut out);
        let error = error.expect_err("too short").to_string();
        assert!(
            error.ends_with("the value ends after 2 bytes, inside a string"),
            "{error}"
        );
    }
}
