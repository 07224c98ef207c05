//! The connector `file`: lines of the files that a glob matches, and parts in a directory.
//!
//! - [`settings`]: of both.
//! - [`splits`]: the files that a glob matches. [`position`], [`resolve`]: a split is a file, known by its identity and a
//!   fingerprint of what was read of it, and not by its path.
//! - [`open_file`], [`parked`], [`look`], [`reader`]: reading lines of files that grow, move and change.
//! - [`input_error`]: everything that is wrong with input.
//! - [`name`], [`handle`], [`part`]: names, handles and content of output. [`listing`]: which parts are of which run.
//! - [`writer`], [`committer`]: parts are pending until they are renamed. [`pending`]: where, and how attempts are fenced off.

pub mod settings;
pub mod input_error;
mod position;
mod splits;
mod open_file;
mod resolve;
mod parked;
mod look;
pub mod reader;
mod name;
pub mod handle;
pub mod part;
mod listing;
mod pending;
pub mod writer;
pub mod committer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft_model::describe::PortValue;
use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use regraft_model::schema::{Field, Type};
use serde_json::json;

use self::committer::FileSinkCommitter;
use self::input_error::InputError;
use self::reader::FileReader;
use self::settings::{FileSink, FileSource, LineKey};
use self::writer::FileSinkWriter;
use super::format::{Formatter, TextFormat};
use crate::connector::sink::{
    Existing, OutputOf, OutputRun, SinkCommitter, SinkConnector, SinkContext, SinkError, SinkInput, SinkWriter,
};
use crate::connector::source::{
    Assigned, RecordShape, SourceConnector, SourceContext, SourceError, SourceReader, SplitState,
};
use crate::environment::files::FileSystem;
use crate::graph::connectors::Connector;
use crate::graph::render::last_part;

pub(super) const CONNECTOR: Connector = Connector {
    name: "file",
    source: Some(settings::source),
    sink: Some(settings::sink),
};

impl SourceConnector for FileSource {
    fn name(&self) -> &'static str {
        CONNECTOR.name
    }

    fn identity(&self) -> serde_json::Value {
        match &self.relative {
            None => json!({ "path": self.path, "key": self.key }),
            Some((written, _)) => json!({ "path": self.path, "relative": written, "key": self.key }),
        }
    }

    fn label(&self) -> String {
        format!("file {}", last_part(&self.path))
    }

    fn records(&self) -> RecordShape {
        let key = Field {
            name: "line".to_owned(),
            ty: Type::String,
            aliases: vec![],
            default: false,
        };
        RecordShape {
            key: (self.key == LineKey::Line).then_some(key),
            value: PortValue::Text,
        }
    }

    fn reads(&self, path: &Path) -> bool {
        splits::matches(&self.path, path)
    }

    fn time_fields(&self) -> Result<Vec<(usize, &str)>, &'static str> {
        Err("lines have no event time; the operators that read them emit it")
    }

    fn splits(&self, files: &dyn FileSystem, is_restored: bool) -> Result<Vec<String>, SourceError> {
        let found = splits::find(self, files)?;
        if found.is_empty() && !self.watch && !is_restored {
            let (path, hint) = (self.path.clone(), splits::hint(&self.path));
            return Err(InputError::NothingMatches { path, hint }.into());
        }
        Ok(found.into_iter().map(|found| found.path.to_string()).collect())
    }

    fn assign(&self, files: &dyn FileSystem, saved: Vec<SplitState>) -> Result<Vec<Assigned>, SourceError> {
        let assigned = resolve::assign(self, files, &saved)?;
        if assigned.is_empty() && !self.watch && saved.is_empty() {
            let (path, hint) = (self.path.clone(), splits::hint(&self.path));
            return Err(InputError::NothingMatches { path, hint }.into());
        }
        Ok(assigned)
    }

    fn tell_apart(&self, split: &mut String, position: &mut serde_json::Value) {
        resolve::tell_apart(split, position);
    }

    fn reader(&self, context: &SourceContext, splits: Vec<Assigned>) -> Result<Box<dyn SourceReader>, SourceError> {
        Ok(Box::new(FileReader::new(self.clone(), context.clone(), splits)?))
    }
}

impl SinkConnector for FileSink {
    fn name(&self) -> &'static str {
        CONNECTOR.name
    }

    fn identity(&self) -> serde_json::Value {
        json!({ "path": self.path, "format": self.format })
    }

    fn label(&self) -> String {
        format!("file {}", last_part(&self.path.to_string_lossy()))
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn example_output(&self) -> Option<PathBuf> {
        let extension = self.format.extension();
        Some(self.path.join(format!("part-uid-0-000000000000-1-0.{extension}")))
    }

    fn is_transactional(&self) -> bool {
        true
    }

    fn check_input(&self, input: &PortValue) -> Result<(), String> {
        match input {
            PortValue::Record(record) if self.format == TextFormat::Lines => Err(format!(
                "format \"lines\" writes raw text, but its input is {}; use \"tsv\", \"csv\" or \"json\"",
                Type::Struct(record.clone())
            )),
            _ => Ok(()),
        }
    }

    fn writer(
        &self,
        context: SinkContext,
        input: SinkInput<'_>,
        _: &serde_json::Value,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        let formatter = match input {
            SinkInput::Records(shape) => Formatter::new(self.format, shape)?,
            SinkInput::Lines => Formatter::of_lines(),
        };
        Ok(Box::new(FileSinkWriter::new(self.clone(), context, formatter)))
    }

    fn existing(&self) -> Existing {
        self.existing
    }

    fn committer(&self, files: &Arc<dyn FileSystem>, run: OutputRun) -> Arc<dyn SinkCommitter> {
        Arc::new(FileSinkCommitter::new(files.clone(), self.clone(), run))
    }

    fn pending_jobs(&self, files: &dyn FileSystem) -> Vec<JobId> {
        let names = files.list(&self.path.join(name::PENDING)).unwrap_or_default();
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    fn later_output(
        &self,
        files: &dyn FileSystem,
        uid: &OperatorUid,
        of: OutputOf,
        checkpoint: CheckpointId,
    ) -> Result<Vec<String>, SinkError> {
        part::behind(files, &self.path, uid, of, checkpoint)
    }
}

#[cfg(test)]
mod tests;
