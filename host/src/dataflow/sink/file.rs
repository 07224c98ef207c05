//! Parts in a directory: pending in `PATH/.pending/<JobID>/`, renamed on commit to
//! `PATH/part-<uid>-<subtask>-<first 6 of JobID>-<checkpoint>-<n>.<ext>`. What stands in PATH already is kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use serde::{Deserialize, Serialize};

use super::format::Formatter;
use super::{SinkCommitter, SinkError, SinkSnapshot, SinkWriter};
use crate::environment::files::{FileSystem, WriteFile};
use crate::graph::job_graph::FileSink;

/// Bytes collected before they go to the file.
const BUFFER_BYTES: usize = 256 * 1024;

/// Whose output it is: all of it is part of every path.
#[derive(Debug, Clone)]
pub struct FileSinkContext {
    /// The job.
    pub job_id: JobId,
    /// The sink.
    pub uid: OperatorUid,
    /// The subtask, from 0.
    pub subtask: u32,
    /// The attempt.
    pub attempt: AttemptId,
    /// The job's version at the start of the attempt.
    pub version: JobVersion,
}

/// A prepared part: two paths relative to the sink's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    pending: String,
    #[serde(rename = "final")]
    committed: String,
}

impl Part {
    fn parse(handle: &serde_json::Value) -> Result<Self, SinkError> {
        serde_json::from_value(handle.clone()).map_err(|_| SinkError::Handle {
            handle: handle.to_string(),
            connector: "file",
        })
    }
}

/// Writes the parts of one subtask.
#[derive(Debug)]
pub struct FileSinkWriter {
    files: Arc<dyn FileSystem>,
    settings: FileSink,
    context: FileSinkContext,
    formatter: Formatter,
    buffer: Vec<u8>,
    open: Option<(Box<dyn WriteFile>, String)>,
    /// Number of the next pending file of this attempt.
    next: u64,
    prepared: Vec<(CheckpointId, Part)>,
}

impl FileSinkWriter {
    /// A writer for records of the given shape.
    ///
    /// # Errors
    /// [`SinkError::Format`] where the format cannot show them.
    pub fn new(
        files: Arc<dyn FileSystem>,
        settings: FileSink,
        context: FileSinkContext,
        input: &PortValue,
    ) -> Result<Self, SinkError> {
        let formatter = Formatter::new(settings.format, input)?;
        Ok(Self::with(files, settings, context, formatter))
    }

    /// A writer for values that are lines of the format already.
    #[must_use]
    pub fn of_lines(files: Arc<dyn FileSystem>, settings: FileSink, context: FileSinkContext) -> Self {
        Self::with(files, settings, context, Formatter::of_lines())
    }

    fn with(files: Arc<dyn FileSystem>, settings: FileSink, context: FileSinkContext, formatter: Formatter) -> Self {
        Self {
            files,
            settings,
            context,
            formatter,
            buffer: vec![],
            open: None,
            next: 0,
            prepared: vec![],
        }
    }

    fn pending_dir(&self) -> String {
        format!(".pending/{}", self.context.job_id)
    }

    fn open(&mut self) -> Result<&mut dyn WriteFile, SinkError> {
        if self.open.is_none() {
            let dir = self.settings.path.join(self.pending_dir());
            self.files
                .create_dir_all(&dir)
                .map_err(|error| io("create directory", &dir, error))?;
            let FileSinkContext {
                uid,
                subtask,
                attempt,
                version,
                ..
            } = &self.context;
            let extension = self.settings.format.extension();
            let name = format!(
                "{}/{uid}-{subtask}-v{version}-a{attempt}-{}.{extension}",
                self.pending_dir(),
                self.next
            );
            self.next += 1;
            let path = self.settings.path.join(&name);
            let file = self.files.create(&path).map_err(|error| io("create", &path, error))?;
            self.open = Some((file, name));
        }
        match &mut self.open {
            Some((file, _)) => Ok(&mut **file),
            None => unreachable!("opened above"),
        }
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
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }
}

fn io(doing: &'static str, path: &Path, error: std::io::Error) -> SinkError {
    SinkError::Io {
        doing,
        path: path.display().to_string(),
        error,
    }
}

/// Makes renames and new files in a directory durable.
fn sync_dir(files: &dyn FileSystem, path: &Path) -> Result<(), SinkError> {
    files.sync_dir(path).map_err(|error| io("sync directory", path, error))
}

impl SinkWriter for FileSinkWriter {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(()) // A part is opened with its first record: no empty parts.
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for value in batch.values.iter() {
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
            sync_dir(&*self.files, &self.settings.path.join(self.pending_dir()))?;
            let FileSinkContext {
                uid, subtask, job_id, ..
            } = &self.context;
            let extension = self.settings.format.extension();
            let committed = format!("part-{uid}-{subtask}-{}-{id}-0.{extension}", job_id.short());
            self.prepared.push((id, Part { pending, committed }));
        }
        let handle = |(_, part): &(CheckpointId, Part)| serde_json::to_value(part).unwrap_or_default();
        Ok(SinkSnapshot {
            handles: self.prepared.iter().map(handle).collect(),
            state: serde_json::Value::Null,
        })
    }

    fn committed(&mut self, id: CheckpointId) {
        self.prepared.retain(|(prepared, _)| *prepared > id);
    }

    fn abort(&mut self) {
        self.buffer.clear();
        if let Some((_, pending)) = self.open.take() {
            // What cannot be removed is left as a file that nothing will ever commit.
            let _ = self.files.remove_file(&self.settings.path.join(pending));
        }
    }

    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError> {
        self.formatter = Formatter::new(self.settings.format, input)?;
        Ok(())
    }
}

/// Renames prepared parts.
#[derive(Debug)]
pub struct FileSinkCommitter {
    /// Where it is.
    pub files: Arc<dyn FileSystem>,
    /// The sink's directory.
    pub path: PathBuf,
    /// Whose pending parts may be cleaned.
    pub job_id: JobId,
    /// Which of that job's sinks: others may write to the same directory.
    pub uid: OperatorUid,
}

/// The uid in the name of a pending part, `<uid>-<subtask>-v<version>-a<attempt>-<n>.<ext>`.
fn uid_of_pending(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let mut fields = stem.rsplitn(5, '-');
    let is = |field: Option<&str>, prefix: &str| {
        field
            .and_then(|field| field.strip_prefix(prefix))
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let plain = is(fields.next(), "") && is(fields.next(), "a") && is(fields.next(), "v") && is(fields.next(), "");
    fields.next().filter(|_| plain)
}

impl SinkCommitter for FileSinkCommitter {
    fn check(&self) -> Result<(), SinkError> {
        let pending = self.path.join(".pending").join(self.job_id.to_string());
        self.files
            .create_dir_all(&pending)
            .map_err(|error| io("create directory", &pending, error))?;
        self.clean();
        Ok(())
    }

    fn commit(&self, handles: &[serde_json::Value]) -> Result<(), SinkError> {
        let mut lost = vec![];
        for handle in handles {
            let part = Part::parse(handle)?;
            let (pending, committed) = (self.path.join(&part.pending), self.path.join(&part.committed));
            match self.files.rename(&pending, &committed) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if !self.files.exists(&committed) {
                        lost.push(committed.display().to_string());
                    }
                }
                Err(error) => return Err(io("commit", &committed, error)),
            }
        }
        if !lost.is_empty() {
            return Err(SinkError::Lost { parts: lost });
        }
        if handles.is_empty() {
            Ok(())
        } else {
            sync_dir(&*self.files, &self.path)
        }
    }

    fn clean_leftovers(&self, keep: &[serde_json::Value]) -> Result<(), SinkError> {
        let kept: Result<Vec<Part>, SinkError> = keep.iter().map(Part::parse).collect();
        let kept = kept?;
        let dir = format!(".pending/{}", self.job_id);
        let pending = self.path.join(&dir);
        let names = match self.files.list(&pending) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io("list", &pending, error)),
        };
        let mut removed = false;
        for name in names
            .iter()
            .filter(|name| uid_of_pending(name) == Some(self.uid.as_str()))
        {
            if kept.iter().any(|part| part.pending == format!("{dir}/{name}")) {
                continue;
            }
            removed = true;
            let path = pending.join(name);
            match self.files.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &path, error)),
                _ => {}
            }
        }
        // Where power is lost now it must not come back: nobody looks a second time.
        if removed && let Err(error) = self.files.sync_dir(&pending) {
            return Err(io("sync", &pending, error));
        }
        Ok(())
    }

    fn clean(&self) {
        // Only empty directories go: a savepoint may still name what is pending.
        let pending = self.path.join(".pending");
        let _ = self.files.remove_dir(&pending.join(self.job_id.to_string()));
        let _ = self.files.remove_dir(&pending);
    }
}

/// Committed parts in a directory that are of a later state of the given job than a snapshot.
#[must_use]
pub fn later_parts(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    job_id: JobId,
    checkpoint: CheckpointId,
) -> Vec<String> {
    parts_behind(files, path, uid, |short| short == job_id.short(), checkpoint)
}

/// Committed parts of all other jobs with greater checkpoint numbers than a snapshot's.
#[must_use]
pub fn later_parts_of_others(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    job_id: JobId,
    checkpoint: CheckpointId,
) -> Vec<String> {
    parts_behind(files, path, uid, |short| short != job_id.short(), checkpoint)
}

/// Committed parts behind a checkpoint, of jobs whose first six digits are asked for.
fn parts_behind(
    files: &dyn FileSystem,
    path: &Path,
    uid: &OperatorUid,
    is_asked_for: impl Fn(&str) -> bool,
    checkpoint: CheckpointId,
) -> Vec<String> {
    let Ok(names) = files.list(path) else { return vec![] };
    let prefix = format!("part-{uid}-");
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| {
            let Some(rest) = name.strip_prefix(&prefix) else {
                return false;
            };
            let fields: Vec<&str> = rest.split(['-', '.']).collect();
            matches!(fields[..], [_, short, id, ..]
                if is_asked_for(short) && id.parse::<u64>().is_ok_and(|id| id > checkpoint.0))
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::environment::files::LocalFiles;
    use crate::graph::job_graph::TextFormat;

    fn writer(path: &Path) -> FileSinkWriter {
        let settings = FileSink {
            path: path.into(),
            format: TextFormat::Lines,
        };
        let context = FileSinkContext {
            job_id: JobId::from_bits(0xabc_def0 << 100),
            uid: OperatorUid::new("out").expect("uid"),
            subtask: 1,
            attempt: AttemptId(1),
            version: JobVersion(1),
        };
        FileSinkWriter::new(Arc::new(LocalFiles), settings, context, &PortValue::Text).expect("text")
    }

    fn line(text: &str) -> Batch {
        let mut batch = Batch::default();
        batch.values.push(text.as_bytes());
        batch
    }

    fn visible(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .expect("dir")
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| name != ".pending")
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_is_visible_before_commit_and_commit_twice_is_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut writer = writer(dir.path());
        let committer = FileSinkCommitter {
            files: writer.files.clone(),
            path: dir.path().into(),
            job_id: writer.context.job_id,
            uid: writer.context.uid.clone(),
        };
        writer.write(&line("a")).expect("write");
        let savepoint = writer.prepare(CheckpointId(3)).expect("prepare");
        writer.write(&line("b")).expect("write");
        let checkpoint = writer.prepare(CheckpointId(4)).expect("prepare");
        assert_eq!((savepoint.handles.len(), checkpoint.handles.len()), (1, 2));
        assert!(visible(dir.path()).is_empty());
        committer.commit(&checkpoint.handles).expect("commit");
        committer.commit(&checkpoint.handles).expect("commit again");
        assert_eq!(
            visible(dir.path()),
            ["part-out-1-abcdef-3-0.txt", "part-out-1-abcdef-4-0.txt"]
        );
        writer.committed(CheckpointId(4));
        assert!(writer.prepare(CheckpointId(5)).expect("prepare").handles.is_empty());
        committer.clean();
        assert!(!dir.path().join(".pending").exists());
        let later = later_parts(
            &LocalFiles,
            dir.path(),
            &writer.context.uid,
            writer.context.job_id,
            CheckpointId(3),
        );
        assert_eq!(later, ["part-out-1-abcdef-4-0.txt"]);
        fs::remove_file(dir.path().join("part-out-1-abcdef-4-0.txt")).expect("remove");
        let lost = committer.commit(&checkpoint.handles).expect_err("lost").to_string();
        assert!(
            lost.contains("neither pending nor committed") && lost.contains("part-out-1-abcdef-4-0.txt"),
            "{lost}"
        );
    }

    #[test]
    fn leftovers_of_the_sink_go_and_what_a_snapshot_names_stays() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut writer = writer(dir.path());
        let committer = FileSinkCommitter {
            files: writer.files.clone(),
            path: dir.path().into(),
            job_id: writer.context.job_id,
            uid: writer.context.uid.clone(),
        };
        committer.clean_leftovers(&[]).expect("there is nothing yet");
        writer.write(&line("a")).expect("write");
        let savepoint = writer.prepare(CheckpointId(3)).expect("prepare");
        writer.write(&line("b")).expect("write");
        writer.prepare(CheckpointId(4)).expect("prepare");
        let pending = dir.path().join(writer.pending_dir());
        let others = ["out-1-0-v1-a1-0.txt", "out.txt", "out-1-v1-a1-.txt"];
        for name in others {
            fs::write(pending.join(name), "").expect("written");
        }
        committer.clean_leftovers(&savepoint.handles).expect("cleaned");
        let mut left: Vec<String> = LocalFiles.list(&pending).expect("listed");
        left.sort();
        assert_eq!(
            left,
            [
                "out-1-0-v1-a1-0.txt",
                "out-1-v1-a1-.txt",
                "out-1-v1-a1-0.txt",
                "out.txt"
            ]
        );
        committer.commit(&savepoint.handles).expect("it can still be committed");
    }

    #[test]
    fn abort_leaves_no_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut writer = writer(dir.path());
        writer.write(&line("a")).expect("write");
        writer.flush().expect("flush");
        writer.abort();
        let pending = dir.path().join(writer.pending_dir());
        assert_eq!(fs::read_dir(pending).expect("dir").count(), 0);
    }
}
