//! Sources read each line once and report files that have changed; sinks show nothing before its commit.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use regraft_model::batch::Batch;
use regraft_model::id::{AttemptId, JobVersion};

use super::name::{AttemptDir, pending_dir};
use super::settings::OnTruncate;
use super::*;
use crate::connector::sink::{EarlierOutput, KnownAttempts};
use crate::connector::source::{Polled, SplitState};
use crate::environment::files::{FileKind, FileSystem, LocalFiles};

fn settings(path: &str, watch: bool) -> FileSource {
    FileSource {
        path: path.to_owned(),
        relative: None,
        watch,
        poll: Duration::from_nanos(1),
        key: LineKey::None,
        on_truncate: OnTruncate::Fail,
        max_record: settings::MAX_RECORD_DEFAULT,
    }
}

fn files() -> Arc<dyn FileSystem> {
    Arc::new(LocalFiles)
}

fn context(known: Vec<Assigned>) -> SourceContext {
    SourceContext {
        files: files(),
        subtask: 0,
        parallelism: 1,
        timestamp: None,
        known: Arc::new(known),
    }
}

fn reader(path: &str, watch: bool, saved: &[SplitState]) -> Result<Box<dyn SourceReader>, SourceError> {
    let settings = settings(path, watch);
    let splits = settings.assign(&LocalFiles, saved.to_vec())?;
    settings.reader(&context(splits.clone()), splits)
}

fn message<T>(result: Result<T, SourceError>) -> String {
    result.err().expect("an error").to_string()
}

static NOW: AtomicU64 = AtomicU64::new(1);

fn drain(reader: &mut dyn SourceReader, records_max: usize) -> Vec<String> {
    let mut lines = vec![];
    let mut idle = 0;
    loop {
        let now = NOW.fetch_add(1, Ordering::Relaxed);
        match reader.poll(records_max, now).expect("readable") {
            Polled::Batch(batch) => {
                lines.extend(batch.values.iter().map(|v| String::from_utf8_lossy(v).into_owned()));
                idle = 0;
            }
            Polled::Idle(_) if idle < 3 => idle += 1,
            _ => break,
        }
    }
    lines
}

#[test]
fn lines_positions_and_line_ends() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("b.txt"), "3\r\n\n5").expect("write");
    std::fs::write(dir.path().join("a.txt"), "1\n2\n").expect("write");
    let glob = dir.path().join("*.txt").to_string_lossy().into_owned();
    let mut all = reader(&glob, false, &[]).expect("reader");
    assert_eq!(drain(&mut *all, 2), ["1", "2", "3", "", "5"]);
    let last = &all.snapshot()[1].position;
    assert_eq!((&last["offset"], &last["line"]), (&json!(5), &json!(3)));
    let mut part = reader(&glob, false, &[]).expect("reader");
    assert!(matches!(part.poll(1, 1), Ok(Polled::Batch(_))));
    let mut rest = reader(&glob, false, &part.snapshot()).expect("reader");
    assert_eq!(drain(&mut *rest, 10), ["2", "3", "", "5"]);
    // Watching holds an unterminated line back, takes it once it is whole, and finds new files.
    let mut watch = reader(&glob, true, &[]).expect("reader");
    assert_eq!(drain(&mut *watch, 10), ["1", "2", "3", ""]);
    std::fs::write(dir.path().join("b.txt"), "3\r\n\n55\n").expect("write");
    std::fs::write(dir.path().join("0.txt"), "new\n").expect("write");
    assert_eq!(drain(&mut *watch, 10), ["new", "55"]);
}

#[test]
fn changed_files_are_reported() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("a.txt").to_string_lossy().into_owned();
    let missing = message(settings(&path, false).assign(&LocalFiles, vec![]));
    assert_eq!(
        missing,
        format!(
            "no file matches {path}; expected at least one; check the path, or use mode = \"watch\" to wait for files"
        )
    );
    let hinted = message(settings("~/{a,b}/*", false).assign(&LocalFiles, vec![]));
    assert_eq!(
        hinted,
        "no file matches ~/{a,b}/*; expected at least one; check the path ({a,b} has no meaning in a glob: write a source for each, or a pattern such as *; ~ is not expanded: write the home directory), or use mode = \"watch\" to wait for files"
    );
    std::fs::write(&path, "1\n2\n").expect("write");
    let mut all = reader(&path, false, &[]).expect("reader");
    drain(&mut *all, 10);
    let saved = all.snapshot();
    std::fs::write(&path, "1\n").expect("write");
    let shrunk = message(reader(&path, false, &saved));
    assert!(
        shrunk.contains("has shrunk: it was read to byte 4, and has 2 bytes"),
        "{shrunk}"
    );
    let splits = vec![("nowhere.txt".to_owned(), Some(json!({"offset": 4, "line": 2})))];
    let vanished = message(settings("x", false).reader(&context(vec![]), splits));
    assert!(
        vanished.starts_with("nowhere.txt has vanished: it was read to byte 4"),
        "{vanished}"
    );
}

/// A glob matches the names that the crate `glob` finds in the real file system, and no others.
#[test]
fn globs_find_what_the_crate_finds() {
    let dir = tempfile::tempdir().expect("temp dir");
    let made = [
        "a.txt",
        "b.txt",
        ".hidden.txt",
        "a.log",
        "[x].txt",
        "d/a.txt",
        "d/e/a.txt",
        "d/e/f/b.txt",
        "d/.h/a.txt",
        "e/a.txt",
        "e/x/y.txt",
        "xyz/1",
        "xyz/22",
    ];
    for name in made {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, "").expect("written");
    }
    std::os::unix::fs::symlink(dir.path().join("d"), dir.path().join("link")).expect("linked");
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling.txt")).expect("linked");
    std::os::unix::fs::symlink("circle.txt", dir.path().join("circle.txt")).expect("linked");
    let patterns = [
        "*.txt",
        "?.txt",
        "[ab].*",
        "[[]x].txt",
        ".*.txt",
        "*",
        "d/*.txt",
        "*/a.txt",
        "*/*/*.txt",
        "**/*.txt",
        "**/a.txt",
        "d/**/a.txt",
        "d/**/**/*.txt",
        "**/e/**/*.txt",
        "d/**",
        "**",
        "a.txt",
        "d/a.txt",
        "no",
        "no/*",
        "d/../a.txt",
        "./a.txt",
        "d/./*.txt",
        "xyz/[!1]*",
        "link/*",
        "link/**/*.txt",
        "**/.h/*",
        "d//a.txt",
        "*/",
        "d/*/",
    ];
    for pattern in patterns {
        let path = format!("{}/{pattern}", glob::Pattern::escape(&dir.path().to_string_lossy()));
        // What is hidden has to be asked for; that is a rule of its own.
        let asks = pattern.split('/').any(|part| part.starts_with('.'));
        let is_hidden = |found: &Path| {
            let below = found.strip_prefix(dir.path()).expect("it is below");
            below.iter().any(|name| name.to_string_lossy().starts_with('.'))
        };
        let expected = glob::glob(&path).expect("a glob").filter_map(Result::ok);
        let mut expected: Vec<String> = expected
            .filter(|found| found.is_file() && (asks || !is_hidden(found)))
            .map(|found| found.to_string_lossy().into_owned())
            .collect();
        expected.sort();
        let found = splits::paths(&settings(&path, true), &LocalFiles, &AtomicBool::new(false));
        let mut found = found.unwrap_or_else(|error| panic!("{pattern}: {error}"));
        found.retain(|path| matches!(splits::look_at(path, &LocalFiles), Ok(Some(_))));
        assert_eq!(found, expected, "{pattern}");
    }
    let error = message(splits::paths(
        &settings("a/**b", true),
        &LocalFiles,
        &AtomicBool::new(false),
    ));
    assert!(error.starts_with("a/**b is not a glob: "), "{error}");
}

#[test]
fn a_maze_of_links_and_a_very_long_glob_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for at in 0..8 {
        let inside = dir.path().join(at.to_string());
        std::fs::create_dir(&inside).expect("made");
        for to in (0..8).filter(|to| *to != at) {
            std::os::unix::fs::symlink(dir.path().join(to.to_string()), inside.join(to.to_string())).expect("linked");
        }
    }
    let glob = format!("{}/**/*.log", dir.path().display());
    let refused = message(splits::paths(
        &settings(&glob, true),
        &LocalFiles,
        &AtomicBool::new(false),
    ));
    assert!(refused.starts_with("more than 100 ways lead to "), "{refused}");
    let refused = message(splits::paths(
        &settings(&"a/".repeat(20_000), true),
        &LocalFiles,
        &AtomicBool::new(false),
    ));
    assert!(
        refused.ends_with("is not a glob: it has 20000 parts, expected at most 256"),
        "{refused}"
    );
}

#[test]
fn a_walk_ends_when_the_job_is_cancelled() {
    let dir = tempfile::tempdir().expect("a directory");
    let glob = format!("{}/**/*.log", dir.path().display());
    let cancelled = message(splits::paths(
        &settings(&glob, true),
        &LocalFiles,
        &AtomicBool::new(true),
    ));
    assert!(
        cancelled.starts_with("cannot read ") && cancelled.ends_with("interrupted"),
        "{cancelled}"
    );
}

#[test]
fn a_pipe_is_opened_without_a_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("made");
    let file = FileSystem::open(&LocalFiles, &path).expect("at once");
    assert_ne!(file.info().expect("facts").kind, FileKind::File);
}

#[test]
fn directories_that_cannot_be_named_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let named = |name: &[u8]| dir.path().join(std::ffi::OsStr::from_bytes(name));
    std::fs::create_dir_all(named(b"caf\xe9")).expect("made");
    std::fs::create_dir_all(named(b"tea")).expect("made");
    for path in [&b"caf\xe9/a.txt"[..], b"tea/a.txt", b"t\xe9.txt"] {
        std::fs::write(named(path), "x\n").expect("written");
    }
    let at = |name: &str| format!("{}/{name}", dir.path().display());
    for (glob, unnamed) in [
        ("*/*.txt", vec!["caf\u{fffd}", "t\u{fffd}.txt"]),
        ("**/a.txt", vec!["caf\u{fffd}", "t\u{fffd}.txt"]),
        ("tea/*.txt", vec![]),
    ] {
        let (found, told) =
            splits::walk(&settings(&at(glob), true), &LocalFiles, &AtomicBool::new(false)).expect("listed");
        assert_eq!(found, [at("tea/a.txt")], "{glob}");
        let expected: Vec<String> = unnamed.into_iter().map(at).collect();
        assert_eq!(Vec::from_iter(told), expected, "{glob}");
    }
}

fn uid() -> OperatorUid {
    OperatorUid::new("out").expect("uid")
}

fn job_id() -> JobId {
    JobId::from_bits(0xabc_def0 << 100)
}

fn run() -> OutputRun {
    OutputRun {
        uid: uid(),
        job: "words".to_owned(),
        job_id: job_id(),
        is_own: true,
    }
}

const NONCE: u32 = 0xabc;

/// Directory of the writers' pending parts, relative to the sink's.
fn attempt_dir(job_id: JobId) -> String {
    let dir = AttemptDir::new(AttemptId(1), NONCE, &uid());
    format!("{}/{}", pending_dir(job_id), dir.name())
}

fn sink(path: &Path) -> FileSink {
    FileSink {
        path: path.into(),
        format: TextFormat::Lines,
        header: false,
        existing: Existing::Keep,
    }
}

fn writer(path: &Path) -> Box<dyn SinkWriter> {
    writer_of(&sink(path))
}

fn writer_of(settings: &FileSink) -> Box<dyn SinkWriter> {
    writer_in(settings, job_id())
}

fn writer_in(settings: &FileSink, job_id: JobId) -> Box<dyn SinkWriter> {
    let context = SinkContext {
        files: files(),
        job_id,
        attempt: AttemptId(1),
        nonce: NONCE,
        version: JobVersion(1),
        uid: uid(),
        subtask: 1,
        parallelism: 2,
    };
    let dir = settings.path.join(attempt_dir(job_id));
    std::fs::create_dir_all(dir).expect("begun");
    let input = SinkInput::Records(&PortValue::Text);
    settings.writer(context, input, &serde_json::Value::Null).expect("text")
}

fn line(text: &str) -> Batch {
    let mut batch = Batch::default();
    batch.values.push(text.as_bytes());
    batch
}

fn visible(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .expect("dir")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn nothing_is_visible_before_commit_and_commit_twice_is_once() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut writer = writer(dir.path());
    let committer = sink(dir.path()).committer(&files(), run());
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
        ["part-out-1-abcdef000000-3-0.txt", "part-out-1-abcdef000000-4-0.txt"]
    );
    writer.committed(CheckpointId(4));
    assert!(writer.prepare(CheckpointId(5)).expect("prepare").handles.is_empty());
    committer.clean_leftovers(&[]).expect("cleaned");
    committer.clean();
    assert!(!dir.path().join(".pending").exists());
    let later = |of| {
        sink(dir.path())
            .later_output(&LocalFiles, &uid(), of, CheckpointId(3))
            .expect("listed")
    };
    assert_eq!(later(OutputOf::Job(job_id())), ["part-out-1-abcdef000000-4-0.txt"]);
    assert!(later(OutputOf::AllBut(job_id())).is_empty());
    std::fs::remove_file(dir.path().join("part-out-1-abcdef000000-4-0.txt")).expect("remove");
    let lost = committer.commit(&checkpoint.handles).expect_err("lost").to_string();
    assert!(
        lost.contains("neither pending nor committed") && lost.contains("part-out-1-abcdef000000-4-0.txt"),
        "{lost}"
    );
}

fn read(path: &Path, name: &str) -> String {
    std::fs::read_to_string(path.join(name)).expect("a part")
}

#[test]
fn a_commit_replaces_nothing_and_knows_its_own_part_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let name = |n| format!("part-out-1-abcdef000000-3-{n}.txt");
    for n in [0, 1] {
        std::fs::write(dir.path().join(name(n)), "was here\n").expect("written");
    }
    let mut writer = writer(dir.path());
    let committer = sink(dir.path()).committer(&files(), run());
    writer.write(&line("a")).expect("write");
    let handles = writer.prepare(CheckpointId(3)).expect("prepare").handles;
    assert_eq!(
        handles,
        [json!({
            "pending": format!("{}/out-1-v1-a1-0.txt", attempt_dir(job_id())),
            "final": name(0),
            "bytes": 2,
            "checksum": format!("{:016x}", xxhash_rust::xxh3::xxh3_64(b"a\n")),
        })]
    );
    for _ in 0..2 {
        committer.commit(&handles).expect("commit, and once more after a crash");
        assert_eq!(visible(dir.path()), [name(0), name(1), name(2)]);
        assert_eq!(read(dir.path(), &name(0)), "was here\n");
        assert_eq!(read(dir.path(), &name(2)), "a\n");
    }
    // Of files that were there first nothing is taken for the part, not even one of its length.
    std::fs::write(dir.path().join(name(2)), "b\n").expect("written");
    let lost = committer.commit(&handles).expect_err("lost").to_string();
    assert!(
        lost.contains("-0.txt (the file of that name has other content)"),
        "{lost}"
    );
}

/// Handles without length and checksum are those of version 0.1, whose names have six digits.
#[test]
fn handles_of_the_first_version_are_committed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let committer = sink(dir.path()).committer(&files(), run());
    let pending = format!("{}/out-1-v1-a1-0.txt", pending_dir(job_id()));
    let handles = [json!({ "pending": pending, "final": "part-out-1-abcdef-3-0.txt" })];
    committer.check().expect("a directory");
    std::fs::create_dir_all(dir.path().join(pending_dir(job_id()))).expect("made");
    std::fs::write(dir.path().join(pending), "a\n").expect("written");
    committer.commit(&handles).expect("commit");
    committer.commit(&handles).expect("commit again");
    assert_eq!(visible(dir.path()), ["part-out-1-abcdef-3-0.txt"]);
    let later = |of| {
        sink(dir.path())
            .later_output(&LocalFiles, &uid(), of, CheckpointId(2))
            .expect("listed")
    };
    assert_eq!(later(OutputOf::Job(job_id())), ["part-out-1-abcdef-3-0.txt"]);
    assert!(later(OutputOf::AllBut(job_id())).is_empty());
}

#[test]
fn a_handle_leads_nowhere_else() {
    let dir = tempfile::tempdir().expect("temp dir");
    let committer = sink(dir.path()).committer(&files(), run());
    for (pending, committed) in [
        ("../x", "part-out-0-abcdef000000-1-0.txt"),
        (".pending/../x", "part-out-0-abcdef000000-1-0.txt"),
        (".pending/a/b/c", "part-out-0-abcdef000000-1-0.txt"),
        (".pending/a/b", "../part-0.txt"),
        (".pending/a/b", ".pending"),
    ] {
        let handle = json!({ "pending": pending, "final": committed });
        let refused = committer.commit(&[handle]).expect_err("refused").to_string();
        let said = format!("a saved handle is not one of a file sink of job {}: its ", job_id());
        assert!(refused.starts_with(&said), "{refused}");
        assert!(
            refused.ends_with("; use another copy of the savepoint, or drop the sink's state with --drop-state UID")
        );
    }
}

/// Runs a job that commits one part, and returns what it found of earlier runs.
fn run_once(settings: &FileSink, job: &str, job_id: u128, text: &str) -> EarlierOutput {
    let run = OutputRun {
        job: job.to_owned(),
        job_id: JobId::from_bits(job_id << 100),
        ..run()
    };
    let committer = settings.committer(&files(), run.clone());
    let found = committer.earlier_output().expect("listed");
    let mut writer = writer_in(settings, run.job_id);
    writer.write(&line(text)).expect("write");
    let handles = writer.prepare(CheckpointId(1)).expect("prepare").handles;
    committer.commit(&handles).expect("commit");
    committer.commit(&handles).expect("commit again");
    found
}

fn replacing(path: &Path) -> FileSink {
    FileSink {
        existing: Existing::Replace,
        ..sink(path)
    }
}

#[test]
fn the_parts_of_earlier_runs_are_known_and_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    std::fs::write(dir.path().join("part-out-0-123456-7-0.txt"), "").expect("written");
    for name in [
        "part-out-0-12345-7-0.txt",
        "part-more-out-0-123456-7-0.txt",
        "part-out.txt",
    ] {
        std::fs::write(dir.path().join(name), "").expect("written");
    }
    let sink = sink(dir.path());
    assert_eq!(run_once(&sink, "words", 0xabc_def1, "a").parts, Vec::<String>::new());
    run_once(&sink, "others", 0xabc_def2, "b");
    let found = run_once(&sink, "words", 0xabc_def3, "c");
    assert_eq!(found.parts, ["part-out-1-abcdef100000-1-0.txt"]);
    assert_eq!(found.unlisted, ["part-out-0-123456-7-0.txt"]);
    assert_eq!(found.runs, [JobId::from_bits(0xabc_def1 << 100)]);
    assert_eq!(visible(dir.path()).len(), 7);
}

#[test]
fn a_commit_replaces_what_earlier_runs_of_the_job_committed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let sink = replacing(dir.path());
    let own = |run: u32| format!("part-out-1-abcdef{run}00000-1-0.txt");
    run_once(&sink, "words", 0xabc_def1, "a");
    run_once(&sink, "others", 0xabc_def2, "b");
    // Neither a file that looks like a part nor one that is not as it was is the job's.
    let foreign = "part-out-1-abcdef100000-1-1.txt";
    std::fs::write(dir.path().join(foreign), "was here\n").expect("written");
    assert_eq!(run_once(&sink, "words", 0xabc_def3, "c").unlisted, [foreign]);
    assert_eq!(visible(dir.path()), [foreign.to_owned(), own(2), own(3)]);
    std::fs::write(dir.path().join(own(3)), "changed since\n").expect("written");
    run_once(&sink, "words", 0xabc_def4, "d");
    assert_eq!(visible(dir.path()), [foreign.to_owned(), own(2), own(3), own(4)]);
}

#[test]
fn what_is_replaced_is_fixed_at_the_start_and_done_after_a_crash() {
    let dir = tempfile::tempdir().expect("temp dir");
    let sink = replacing(dir.path());
    run_once(&sink, "words", 0xabc_def1, "a");
    let run = run();
    let first = sink.committer(&files(), run.clone());
    assert_eq!(first.earlier_output().expect("listed").parts.len(), 1);
    // Meanwhile another run of the job commits; its part stays.
    run_once(&self::sink(dir.path()), "words", 0xabc_def2, "b");
    let mut writer = writer(dir.path());
    writer.write(&line("c")).expect("write");
    let handles = writer.prepare(CheckpointId(1)).expect("prepare").handles;
    // A committer of another run's output, as of a restore from its savepoint, replaces nothing for it.
    let heir = OutputRun {
        is_own: false,
        ..run.clone()
    };
    sink.committer(&files(), heir).commit(&handles).expect("commit");
    assert_eq!(visible(dir.path()).len(), 3);
    // A process that goes on with the run does.
    sink.committer(&files(), run).commit(&handles).expect("commit");
    assert_eq!(
        visible(dir.path()),
        ["part-out-1-abcdef000000-1-0.txt", "part-out-1-abcdef200000-1-0.txt"]
    );
}

#[test]
fn a_run_without_output_replaces_at_its_end() {
    let dir = tempfile::tempdir().expect("temp dir");
    let sink = replacing(dir.path());
    run_once(&sink, "words", 0xabc_def1, "a");
    let committer = sink.committer(&files(), run());
    committer.earlier_output().expect("listed");
    committer.commit(&[]).expect("nothing to commit");
    assert_eq!(visible(dir.path()).len(), 1);
    committer.finished().expect("finished");
    assert!(visible(dir.path()).is_empty());
}

#[test]
fn a_list_is_read_past_a_line_that_a_crash_has_cut() {
    let dir = tempfile::tempdir().expect("temp dir");
    let sink = sink(dir.path());
    run_once(&sink, "words", 0xabc_def1, "a");
    let list = dir.path().join(".regraft/out.json");
    let text = std::fs::read_to_string(&list).expect("a list");
    std::fs::write(&list, format!("{text}{{\"job\":\"wor")).expect("written");
    run_once(&sink, "words", 0xabc_def2, "b");
    assert_eq!(run_once(&sink, "words", 0xabc_def3, "c").parts.len(), 2);
}

#[test]
fn each_part_has_its_header() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = FileSink {
        format: TextFormat::Csv,
        header: true,
        ..sink(dir.path())
    };
    let mut writer = writer_of(&settings);
    let mut handles = vec![];
    for id in [3, 4, 5] {
        let value = "a,".repeat(150_000);
        (0..if id == 4 { 0 } else { 3 }).for_each(|_| writer.write(&line(&value)).expect("write"));
        handles = writer.prepare(CheckpointId(id)).expect("prepare").handles;
    }
    settings.committer(&files(), run()).commit(&handles).expect("commit");
    let parts = visible(dir.path());
    assert_eq!(parts.len(), 2, "no part of a header alone: {parts:?}");
    for part in parts {
        let text = read(dir.path(), &part);
        let headers: Vec<usize> = text
            .lines()
            .enumerate()
            .filter(|(_, l)| *l == "value")
            .map(|(i, _)| i)
            .collect();
        assert_eq!((headers, text.lines().count()), (vec![0], 4));
    }
}

#[test]
fn leftovers_of_the_sink_go_and_what_a_snapshot_names_stays() {
    let dir = tempfile::tempdir().expect("temp dir");
    let committer = sink(dir.path()).committer(&files(), run());
    committer.clean_leftovers(&[]).expect("there is nothing yet");
    let mut writer = writer(dir.path());
    writer.write(&line("a")).expect("write");
    let savepoint = writer.prepare(CheckpointId(3)).expect("prepare");
    writer.write(&line("b")).expect("write");
    writer.prepare(CheckpointId(4)).expect("prepare");
    let pending = dir.path().join(pending_dir(job_id()));
    let others = ["out-1-0-v1-a1-0.txt", "out.txt", "out-1-v1-a1-.txt"];
    for name in others {
        std::fs::write(pending.join(name), "").expect("written");
    }
    std::fs::write(pending.join("out-1-v1-a1-7.txt"), "of an earlier version").expect("written");
    for _ in 0..2 {
        committer.clean_leftovers(&savepoint.handles).expect("cleaned");
        let mut left: Vec<String> = LocalFiles.list(&pending).expect("listed");
        left.sort();
        let kept = AttemptDir::new(AttemptId(1), NONCE, &uid()).kept_name();
        assert_eq!(
            left,
            [kept.as_str(), "out-1-0-v1-a1-0.txt", "out-1-v1-a1-.txt", "out.txt"]
        );
    }
    let lost = committer.commit(&savepoint.handles).expect_err("its attempt is over");
    assert!(matches!(lost, SinkError::Lost { .. }), "{lost}");
    committer
        .commit_restored(&savepoint.handles)
        .expect("a restore commits it");
    assert_eq!(visible(dir.path()).len(), 1);
}

#[test]
fn abort_leaves_no_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut writer = writer(dir.path());
    writer.write(&line(&"a".repeat(300_000))).expect("write");
    writer.abort();
    let pending = dir.path().join(attempt_dir(job_id()));
    assert_eq!(std::fs::read_dir(pending).expect("dir").count(), 0);
}

/// The two halves of an attempt's sink.
fn begun(path: &Path, attempt: u32, nonce: u32) -> (Box<dyn SinkWriter>, Arc<dyn SinkCommitter>) {
    let committer = sink(path).committer(&files(), run());
    let begun = committer.take_over(AttemptId(attempt), Some(nonce), &[]);
    begun.unwrap_or_else(|error| panic!("{error}"));
    (writer_at(path, attempt, nonce), committer)
}

fn writer_at(path: &Path, attempt: u32, nonce: u32) -> Box<dyn SinkWriter> {
    let context = SinkContext {
        files: files(),
        job_id: job_id(),
        attempt: AttemptId(attempt),
        nonce,
        version: JobVersion(1),
        uid: uid(),
        subtask: 1,
        parallelism: 2,
    };
    let input = SinkInput::Records(&PortValue::Text);
    sink(path)
        .writer(context, input, &serde_json::Value::Null)
        .expect("text")
}

fn taken<T>(result: Result<T, SinkError>) -> String {
    match result {
        Err(error @ SinkError::Taken { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the other attempt can still do that"),
    }
}

#[test]
fn an_attempt_whose_sink_is_taken_over_commits_and_writes_nothing_more() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut stale, committer) = begun(dir.path(), 1, 1);
    stale.write(&line("a")).expect("write");
    let savepoint = stale.prepare(CheckpointId(3)).expect("prepare").handles;
    stale.write(&line("b")).expect("write");
    let handles = stale.prepare(CheckpointId(4)).expect("prepare").handles;
    stale
        .write(&line(&"c".repeat(300_000)))
        .expect("a part that stays open");
    assert!(!committer.is_taken());
    let next = sink(dir.path()).committer(&files(), run());
    next.take_over(AttemptId(2), Some(2), &savepoint).expect("taken over");
    assert!(committer.is_taken() && !next.is_taken());
    let said = taken(committer.commit(&handles));
    let own = AttemptDir::new(AttemptId(1), 1, &uid()).name();
    let gone = dir.path().join(pending_dir(job_id())).join(own);
    assert_eq!(
        said,
        format!(
            "another host has taken this job over: {}, where its output was pending, has been removed; it runs this job now, and two must not. This one writes nothing more: stop one of the two hosts, or, where this one is the only one, start it again",
            gone.display()
        )
    );
    taken(committer.commit(&savepoint));
    taken(stale.prepare(CheckpointId(5)));
    taken(stale.write(&line(&"d".repeat(300_000))));
    taken(committer.take_over(AttemptId(3), Some(3), &[]));
    assert!(visible(dir.path()).is_empty() && !gone.exists());
    let mut writer = writer_at(dir.path(), 2, 2);
    writer.write(&line("b")).expect("write");
    next.commit(&writer.prepare(CheckpointId(5)).expect("prepare").handles)
        .expect("commit");
    let heir = OutputRun { is_own: false, ..run() };
    let heir = sink(dir.path()).committer(&files(), heir);
    heir.commit_restored(&savepoint)
        .expect("the savepoint still has its output");
    assert_eq!(visible(dir.path()).len(), 2);
}

#[test]
fn output_of_attempts_that_the_records_do_not_have_is_found() {
    let dir = tempfile::tempdir().expect("temp dir");
    let known = KnownAttempts::default().with(AttemptId(3), 1).with(AttemptId(4), 2);
    let foreign = |known: &KnownAttempts| {
        let committer = sink(dir.path()).committer(&files(), run());
        committer.foreign_output(known).expect("listed")
    };
    let commit = |attempt, nonce, id| {
        let (mut writer, committer) = begun(dir.path(), attempt, nonce);
        writer.write(&line("a")).expect("write");
        let handles = writer.prepare(CheckpointId(id)).expect("prepare").handles;
        committer.commit(&handles).expect("committed");
    };
    commit(2, 9, 1);
    commit(3, 1, 2);
    commit(4, 2, 3);
    assert!(
        foreign(&known).is_empty(),
        "attempt 2 is too old to be told from others"
    );
    // A host with a copy of the records of attempt 3 has made an attempt 4 of its own.
    commit(5, 7, 3);
    assert_eq!(foreign(&known), ["part-out-1-abcdef000000-3-1.txt"]);
    let of_the_other = KnownAttempts::default().with(AttemptId(3), 1).with(AttemptId(5), 7);
    assert_eq!(foreign(&of_the_other), ["part-out-1-abcdef000000-3-0.txt"]);
    assert!(
        foreign(&KnownAttempts::default()).is_empty(),
        "records of a version without them"
    );
    std::fs::remove_file(dir.path().join("part-out-1-abcdef000000-3-1.txt")).expect("removed");
    assert!(foreign(&known).is_empty(), "it is given up");
}

#[test]
fn a_late_attempt_takes_nothing_from_a_later_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut writer, committer) = begun(dir.path(), 3, 1);
    writer.write(&line("a")).expect("write");
    let handles = writer.prepare(CheckpointId(3)).expect("prepare").handles;
    for (attempt, nonce) in [(2, Some(1)), (3, Some(2)), (1, None)] {
        let late = sink(dir.path()).committer(&files(), run());
        let said = taken(late.take_over(AttemptId(attempt), nonce, &[]));
        assert!(
            said.contains(" has the output of its attempt 3, and this is attempt "),
            "{said}"
        );
    }
    let dirs = std::fs::read_dir(dir.path().join(pending_dir(job_id()))).expect("there");
    assert_eq!(dirs.count(), 1, "late ones leave nothing");
    committer.commit(&handles).expect("nothing has been taken away");
    // The other sink of a job that writes to the same directory is not its business.
    let other = OutputRun {
        uid: OperatorUid::new("other").expect("a uid"),
        ..run()
    };
    let other = sink(dir.path()).committer(&files(), other);
    other.take_over(AttemptId(4), Some(4), &[]).expect("taken over");
    assert!(!committer.is_taken());
}

#[test]
fn links_and_pipes_among_pending_parts_are_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let secret = dir.path().join("secret");
    std::fs::create_dir(&secret).expect("made");
    std::fs::write(secret.join("out-1-v1-a1-0.txt"), "s\n").expect("written");
    let handles = [json!({
        "pending": format!("{}/out-1-v1-a1-0.txt", attempt_dir(job_id())),
        "final": "part-out-1-abcdef000000-3-0.txt",
    })];
    let out = dir.path().join("out");
    let at = |below: &str| out.join(below);
    let part = format!("{}/out-1-v1-a1-0.txt", attempt_dir(job_id()));
    for below in [".pending", &pending_dir(job_id()), &attempt_dir(job_id()), &part] {
        std::fs::create_dir_all(at(below).parent().expect("a directory")).expect("made");
        let target = if below == part {
            secret.join("out-1-v1-a1-0.txt")
        } else {
            secret.clone()
        };
        std::os::unix::fs::symlink(target, at(below)).expect("linked");
        let committer = sink(&out).committer(&files(), run());
        let refused = committer.commit_restored(&handles).expect_err("refused").to_string();
        assert!(
            refused.starts_with(&format!("{} is a symbolic link, expected ", at(below).display())),
            "{refused}"
        );
        if below != part {
            committer.take_over(AttemptId(2), Some(2), &[]).expect_err("refused");
        }
        assert!(
            secret.join("out-1-v1-a1-0.txt").exists(),
            "nothing behind a link is touched"
        );
        std::fs::remove_dir_all(&out).expect("removed");
    }
    std::fs::create_dir_all(at(&attempt_dir(job_id()))).expect("made");
    rustix::fs::mknodat(rustix::fs::CWD, at(&part), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("made");
    let committer = sink(&out).committer(&files(), run());
    let refused = committer.commit_restored(&handles).expect_err("refused").to_string();
    assert!(
        refused.contains(" is a pipe or device, expected a regular file"),
        "{refused}"
    );
    // Nor is a link followed where a part is to be written.
    let first = part.replace("-0.txt", "-1.txt");
    let mut writer = writer_at(&out, 1, NONCE);
    std::fs::remove_file(at(&part)).expect("removed");
    std::os::unix::fs::symlink(secret.join("new"), at(&part)).expect("linked");
    writer.write(&line(&"a".repeat(300_000))).expect_err("refused");
    assert!(!secret.join("new").exists() && !at(&first).exists());
}
