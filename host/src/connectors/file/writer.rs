//! Writes parts, which stay pending until they are committed. Committed parts of others are left as they are.

use std::io::ErrorKind;
use std::path::Path;

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::CheckpointId;

use super::handle::Part;
use super::name;
use super::part::{ContentHasher, io};
use super::pending::{gone, is_gone};
use super::settings::FileSink;
use crate::connector::sink::{SinkContext, SinkError, SinkSnapshot, SinkWriter};
use crate::connectors::format::Formatter;
use crate::environment::files::WriteFile;

/// Bytes collected before they go to the file.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes the parts of one subtask.
#[derive(Debug)]
pub struct FileSinkWriter {
    settings: FileSink,
    context: SinkContext,
    formatter: Formatter,
    buffer: Vec<u8>,
    /// The part that is being written, and its path relative to the sink's directory.
    open: Option<(Box<dyn WriteFile>, String)>,
    /// Content of that part so far.
    content: ContentHasher,
    /// Number of the next pending part of this attempt.
    next: u64,
    prepared: Vec<(CheckpointId, Part)>,
}

impl FileSinkWriter {
    /// Makes a writer of records that the formatter takes.
    #[must_use]
    pub fn new(settings: FileSink, context: SinkContext, formatter: Formatter) -> Self {
        Self {
            settings,
            context,
            formatter,
            buffer: vec![],
            open: None,
            content: ContentHasher::default(),
            next: 0,
            prepared: vec![],
        }
    }

    fn open(&mut self) -> Result<&mut dyn WriteFile, SinkError> {
        if self.open.is_none() {
            let name = name::pending(&self.context, self.next, self.settings.format.extension());
            self.next += 1;
            let path = self.settings.path.join(&name);
            let file = self.context.files.create(&path);
            let file = file.map_err(|error| self.failed("create", &path, error))?;
            self.open = Some((file, name));
        }
        match &mut self.open {
            Some((file, _)) => Ok(&mut **file),
            None => unreachable!("opened above"),
        }
    }

    /// Returns the error of a request in the attempt's directory. It is not made again where it is gone: another attempt has
    /// taken it away.
    fn failed(&self, doing: &'static str, path: &Path, error: std::io::Error) -> SinkError {
        let dir = self.settings.path.join(name::attempt_dir(&self.context));
        if error.kind() == ErrorKind::NotFound && is_gone(&*self.context.files, &self.settings.path, &dir) {
            return gone(&dir);
        }
        io(doing, path, error)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let path = self.settings.path.clone();
        self.open()?
            .write_all(&buffer)
            .map_err(|error| io("write a part in", &path, error))?;
        self.content.update(&buffer);
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }
}

impl SinkWriter for FileSinkWriter {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(()) // A part is opened with its first record: no empty parts.
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for value in batch.values.iter() {
            if self.settings.header && self.open.is_none() && self.buffer.is_empty() {
                self.formatter.append_header(&mut self.buffer);
            }
            self.formatter.append(value, &mut self.buffer)?;
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn prepare(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.flush()?;
        if let Some((mut file, pending)) = self.open.take() {
            let path = self.settings.path.join(&pending);
            file.sync_all().map_err(|error| io("sync", &path, error))?;
            let dir = self.settings.path.join(name::attempt_dir(&self.context));
            let synced = self.context.files.sync_dir(&dir);
            synced.map_err(|error| self.failed("sync directory", &dir, error))?;
            let committed = name::committed(&self.context, id, self.settings.format.extension());
            let content = Some(self.content.take());
            let part = Part {
                pending,
                committed,
                content,
            };
            self.prepared.push((id, part));
        }
        Ok(SinkSnapshot {
            handles: self.prepared.iter().map(|(_, part)| part.handle()).collect(),
            state: serde_json::Value::Null,
        })
    }

    fn committed(&mut self, id: CheckpointId) {
        self.prepared.retain(|(prepared, _)| *prepared > id);
    }

    fn abort(&mut self) {
        self.buffer.clear();
        self.content = ContentHasher::default();
        if let Some((_, pending)) = self.open.take() {
            // What cannot be removed is left as a file that nothing will ever commit.
            let _ = self.context.files.remove_file(&self.settings.path.join(pending));
        }
    }

    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError> {
        self.formatter = Formatter::new(self.settings.format, input)?;
        Ok(())
    }
}
