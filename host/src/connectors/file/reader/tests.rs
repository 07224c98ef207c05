//! Files that are renamed, replaced, cut, linked and removed while they are read, or between two runs.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::connector::source::SourceConnector as _;
use crate::connectors::file::settings::{LineKey, MAX_RECORD_DEFAULT};
use crate::environment::files::LocalFiles;

/// A directory with a source over it.
struct World {
    dir: tempfile::TempDir,
    settings: FileSource,
    now: u64,
}

/// A run of the source.
struct Run {
    readers: Vec<Box<dyn SourceReader>>,
}

impl World {
    fn new(glob: &str, watch: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = FileSource {
            path: format!("{}/{glob}", dir.path().display()),
            relative: None,
            watch,
            poll: Duration::from_nanos(1),
            key: LineKey::None,
            on_truncate: OnTruncate::Fail,
            max_record: MAX_RECORD_DEFAULT,
        };
        Self { dir, settings, now: 1 }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect("written");
    }

    fn append(&self, name: &str, text: &str) {
        let file = OpenOptions::new().append(true).create(true).open(self.at(name));
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("appended");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).expect("renamed");
    }

    /// Replaces a file by a new one, as most programs do: it is written under another name and renamed.
    fn replace(&self, name: &str, text: &str) {
        self.write(".new", text);
        self.rename(".new", name);
    }

    fn start(&self, parallelism: usize, saved: &[SplitState]) -> Result<Run, SourceError> {
        let assigned = self.settings.assign(&LocalFiles, saved.to_vec())?;
        let known = Arc::new(assigned.clone());
        let reader = |subtask: usize| {
            let context = SourceContext {
                files: Arc::new(LocalFiles),
                subtask: subtask as u32,
                parallelism: parallelism as u32,
                timestamp: None,
                known: known.clone(),
            };
            let share = assigned.iter().skip(subtask).step_by(parallelism).cloned().collect();
            self.settings.reader(&context, share)
        };
        let readers = (0..parallelism).map(reader).collect::<Result<_, _>>()?;
        Ok(Run { readers })
    }

    /// Reads until there is nothing more to read, in any of some looks.
    fn read(&mut self, run: &mut Run) -> Result<Vec<String>, SourceError> {
        let mut lines = vec![];
        for reader in &mut run.readers {
            let mut idle = 0;
            while idle < 4 {
                self.now += 10;
                match reader.poll(3, self.now)? {
                    Polled::Batch(batch) => {
                        lines.extend(
                            batch
                                .values
                                .iter()
                                .map(|line| String::from_utf8_lossy(line).into_owned()),
                        );
                        idle = 0;
                    }
                    Polled::Idle(_) => idle += 1,
                    Polled::Exhausted => break,
                }
            }
        }
        Ok(lines)
    }

    fn lines(&mut self, run: &mut Run) -> Vec<String> {
        self.read(run).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Run {
    fn saved(&self) -> Vec<SplitState> {
        self.readers.iter().flat_map(|reader| reader.snapshot()).collect()
    }
}

fn message<T>(result: Result<T, SourceError>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn a_rename_within_the_glob_is_followed() {
    for parallelism in [1, 3] {
        let mut world = World::new("log*", true);
        world.write("log", "1\n2\n");
        let mut run = world.start(parallelism, &[]).expect("a run");
        assert_eq!(world.lines(&mut run), ["1", "2"]);
        world.append("log", "3\n");
        for (at, next) in [("log", "4\n"), ("log", "5\n")] {
            if world.at("log.1").exists() {
                world.rename("log.1", "log.2");
            }
            world.rename(at, "log.1");
            world.write("log", next);
        }
        let mut lines = world.lines(&mut run);
        lines.sort();
        assert_eq!(lines, ["3", "4", "5"], "parallelism {parallelism}");
        world.append("log.1", "6\n");
        assert_eq!(world.lines(&mut run), ["6"]);
        let names: Vec<String> = run.saved().into_iter().map(|split| split.split).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        // The same between two runs.
        let saved = run.saved();
        world.rename("log.2", "log.3");
        world.rename("log", "log.2");
        world.write("log", "7\n");
        let mut run = world.start(parallelism, &saved).expect("a run");
        assert_eq!(world.lines(&mut run), ["7"]);
    }
}

#[test]
fn a_file_that_comes_back_goes_on() {
    for parallelism in [1, 3] {
        let mut world = World::new("log*", true);
        world.write("log", "1\n2\n");
        let mut run = world.start(parallelism, &[]).expect("a run");
        assert_eq!(world.lines(&mut run), ["1", "2"]);
        world.rename("log", "away");
        assert_eq!(world.lines(&mut run), [""; 0]);
        assert!(run.saved().is_empty());
        world.append("away", "3\n");
        world.rename("away", "log.1");
        assert_eq!(world.lines(&mut run), ["3"], "parallelism {parallelism}");
    }
}

#[test]
fn what_has_changed_is_told_by_names_that_are_unique() {
    let mut world = World::new("log*", true);
    for name in ["log", "log.1", "log.2"] {
        world.write(name, "1\n");
    }
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run).len(), 3);
    // What was before the first call is in the first snapshot.
    assert_eq!(run.readers[0].changed(), [] as [Arc<str>; 0]);
    let all = run.saved().into_iter().map(|state| (state.split, state.position));
    let mut told = Told(all.collect());
    assert_eq!(told.0.len(), 3);
    told.update(&mut run);
    assert_eq!(run.readers[0].changed(), [] as [Arc<str>; 0]);
    // Names are swapped, and a file without a name is read to its end beside the new one.
    for round in 0..4 {
        world.rename("log.2", "log.3");
        world.rename("log.1", "log.2");
        world.rename("log", "log.1");
        world.write("log", &format!("{round}\n"));
        if round % 2 == 0 {
            world.append("log.3", "last");
            std::fs::remove_file(world.at("log.3")).expect("removed");
        }
        for _ in 0..6 {
            world.now += 10;
            let _ = run.readers[0].poll(3, world.now).expect("polled");
            told.update(&mut run);
        }
    }
    assert_eq!(world.lines(&mut run), [""; 0]);
    // Idle files are not told again.
    run.readers[0].changed();
    assert_eq!(world.lines(&mut run), [""; 0]);
    assert_eq!(run.readers[0].changed(), [] as [Arc<str>; 0]);
}

/// The positions of a run, kept up with what it tells of its changes.
struct Told(std::collections::BTreeMap<String, serde_json::Value>);

impl Told {
    fn update(&mut self, run: &mut Run) {
        let reader = &mut run.readers[0];
        for split in reader.changed() {
            match reader.position(&split) {
                Some(state) => {
                    assert_eq!(state.split, *split);
                    self.0.insert(state.split, state.position);
                }
                None => {
                    self.0.remove(&*split);
                }
            }
        }
        let all = reader.snapshot();
        assert_eq!((all.len(), reader.split_count()), (self.0.len(), self.0.len()));
        let all = all.into_iter().map(|state| (state.split, state.position));
        assert!(all.eq(self.0.clone()), "{:?}", self.0);
    }
}

#[test]
fn a_new_file_at_an_old_path_is_read_after_the_old_one() {
    let mut world = World::new("a", true);
    world.write("a", "1\n2\n");
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run), ["1", "2"]);
    world.append("a", "3\nrest");
    world.replace("a", "x1\nx2\nx3\nx4\nx5\n");
    let mut lines = world.lines(&mut run);
    // The rest is read when nothing more has come for a while.
    assert_eq!(lines.len(), 7, "{lines:?}");
    assert_eq!(lines[0], "3");
    lines.sort();
    assert_eq!(lines, ["3", "rest", "x1", "x2", "x3", "x4", "x5"]);
    assert_eq!(run.saved().len(), 1);
    // Between two runs it is the same, where the old one had been read to its end.
    let saved = run.saved();
    world.replace("a", "y\n");
    let mut run = world.start(1, &saved).expect("a run");
    assert_eq!(world.lines(&mut run), ["y"]);
    // If not, its rest is lost, and that is said.
    world.append("a", "half");
    assert_eq!(world.lines(&mut run), [""; 0]);
    let saved = run.saved();
    world.replace("a", "z\n");
    let error = message(world.start(1, &saved));
    assert!(
        error.contains("/a has been replaced by another file: the old one was read to byte 2 of 6"),
        "{error}"
    );
    world.settings.on_truncate = OnTruncate::Restart;
    let mut run = world.start(1, &saved).expect("a run");
    assert_eq!(world.lines(&mut run), ["z"]);
}

#[test]
fn what_is_unread_after_a_restore_is_missed() {
    for parallelism in [1, 3] {
        let mut world = World::new("log*", true);
        world.write("log", "1\n2\n");
        let mut run = world.start(parallelism, &[]).expect("a run");
        assert_eq!(world.lines(&mut run), ["1", "2"]);
        let saved = run.saved();
        world.append("log", "3\n4\n");
        let mut run = world.start(parallelism, &saved).expect("a run");
        // A checkpoint before it was read on.
        let saved = run.saved();
        world.replace("log", "new\n");
        let expected = "log has been replaced by another file: the old one was read to byte 4 of 8,";
        for failed in [message(world.start(parallelism, &saved)), message(world.read(&mut run))] {
            assert!(failed.contains(expected), "{failed}");
        }
    }
}

#[test]
fn a_file_that_is_renamed_while_a_run_begins_is_read_once() {
    for parallelism in [1, 3] {
        let mut world = World::new("log*", true);
        world.write("log", "1\n2\n");
        let mut run = world.start(parallelism, &[]).expect("a run");
        assert_eq!(world.lines(&mut run), ["1", "2"]);
        let saved = run.saved();
        // The listing has another file at its path, and not yet its new path.
        world.rename("log", "away");
        world.write("log", "3\n");
        let mut run = world.start(parallelism, &saved).expect("a run");
        world.rename("away", "log.1");
        assert_eq!(world.lines(&mut run), ["3"], "parallelism {parallelism}");
        world.append("log.1", "4\n");
        assert_eq!(world.lines(&mut run), ["4"]);
        // One that does not come again is forgotten.
        world.rename("log.1", "away");
        assert_eq!(world.lines(&mut run), [""; 0]);
        assert_eq!(run.saved().len(), 1);
    }
}

#[test]
fn a_file_that_is_renamed_and_overwritten_fails_the_job() {
    let mut world = World::new("log*", true);
    world.write("log", "1\n2\n");
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run), ["1", "2"]);
    let mut run = world.start(1, &run.saved()).expect("a run");
    std::thread::sleep(Duration::from_millis(10));
    world.rename("log", "log.1");
    world.write("log.1", "head\n1\n2\n");
    let failed = message(world.read(&mut run));
    assert!(
        failed.contains("log.1 has changed within what was read of it"),
        "{failed}"
    );
}

#[test]
fn a_file_that_was_cut_or_overwritten_fails_the_job_or_is_read_again() {
    // To nothing, to less, to the same length, and to more.
    for text in ["", "x\n", "x\ny\n", "xxxxxxxxx\ny\nz\n"] {
        for between_runs in [false, true] {
            let mut world = World::new("a", true);
            world.write("a", "1\n2\n");
            let mut run = world.start(1, &[]).expect("a run");
            assert_eq!(world.lines(&mut run), ["1", "2"]);
            let saved = run.saved();
            std::thread::sleep(Duration::from_millis(10));
            world.write("a", text);
            let failed = match between_runs {
                true => message(world.start(1, &saved)),
                false => message(world.read(&mut run)),
            };
            let expected = match text.len() {
                0..4 => format!("a has shrunk: it was read to byte 4, and has {} bytes;", text.len()),
                _ => "a has changed within what was read of it: expected the same content up to byte 4,".to_owned(),
            };
            assert!(failed.contains(&expected), "{text:?}: {failed}");
            world.settings.on_truncate = OnTruncate::Restart;
            let mut run = world.start(1, &saved).expect("a run");
            assert_eq!(world.lines(&mut run), text.lines().collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_read_gives_no_torn_record() {
    let line = |n: usize| format!("line-{n:09}-abcdefghijklmnopqrstuvwxyz");
    for (name, new) in [("cut", String::new()), ("overwritten", "06\n".repeat(1 << 20))] {
        let world = World::new("a", false);
        let text: Vec<String> = (0..20_000).map(line).collect();
        world.write("a", &(text.join("\n") + "\n"));
        let mut run = world.start(1, &[]).expect("a run");
        let Ok(Polled::Batch(_)) = run.readers[0].poll(1000, 1) else {
            panic!("records")
        };
        std::thread::sleep(Duration::from_millis(10));
        world.write("a", &new);
        let mut seen = 1000;
        let error = loop {
            match run.readers[0].poll(1000, 1) {
                Ok(Polled::Batch(batch)) => {
                    for value in batch.values.iter() {
                        assert_eq!(String::from_utf8_lossy(value), line(seen));
                        seen += 1;
                    }
                }
                Ok(_) => panic!("{name}: the end"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.contains("has shrunk") || error.contains("has changed within"),
            "{error}"
        );
    }
}

#[test]
fn a_link_that_is_switched_leads_to_another_file() {
    let mut world = World::new("current", true);
    world.write("one", "1\n2\n");
    world.write("two", "3\n4\n5\n");
    let link = |world: &World, to: &str| {
        let _ = fs::remove_file(world.at("link"));
        std::os::unix::fs::symlink(world.at(to), world.at("link")).expect("linked");
        world.rename("link", "current");
    };
    link(&world, "one");
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run), ["1", "2"]);
    link(&world, "two");
    assert_eq!(world.lines(&mut run), ["3", "4", "5"]);
    let saved = run.saved();
    link(&world, "one");
    let mut run = world.start(1, &saved).expect("a run");
    assert_eq!(world.lines(&mut run), ["1", "2"]);
}

#[test]
fn a_file_with_several_names_is_read_once() {
    for watch in [false, true] {
        for parallelism in [1, 2] {
            let mut world = World::new("**/*.log", watch);
            fs::create_dir(world.at("dir")).expect("made");
            world.write("dir/a.log", "1\n2\n");
            fs::hard_link(world.at("dir/a.log"), world.at("b.log")).expect("linked");
            std::os::unix::fs::symlink(world.at("b.log"), world.at("c.log")).expect("linked");
            std::os::unix::fs::symlink("..", world.at("dir/up")).expect("linked");
            std::os::unix::fs::symlink(".", world.at("dir/here")).expect("linked");
            let mut run = world.start(parallelism, &[]).expect("a run");
            assert_eq!(world.lines(&mut run), ["1", "2"]);
            assert_eq!(run.saved().len(), 1);
        }
    }
}

#[test]
fn an_unread_file_may_vanish_and_a_read_one_is_missed_by_a_restore() {
    let mut world = World::new("*", true);
    world.write("a", "1\n");
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run), ["1"]);
    world.write("empty", "");
    world.write("half", "no end");
    assert_eq!(world.lines(&mut run), [""; 0]);
    let saved = run.saved();
    assert_eq!(saved.len(), 3);
    for name in ["empty", "half"] {
        fs::remove_file(world.at(name)).expect("removed");
    }
    world.append("a", "2\n");
    let mut restored = world.start(1, &saved).expect("a run");
    assert_eq!(world.lines(&mut restored), ["2"]);
    // The reader that had it open reads it to its end.
    assert_eq!(world.lines(&mut run), ["2", "no end"]);
    assert_eq!(run.saved().len(), 1);
    fs::remove_file(world.at("a")).expect("removed");
    let error = message(world.start(1, &saved));
    assert!(error.contains("/a has vanished: it was read to byte 2"), "{error}");
    assert_eq!(world.lines(&mut run), [""; 0]);
    assert!(run.saved().is_empty());
    // Bounded: it was there when the source was opened.
    world.settings.watch = false;
    for name in ["a", "b", "c"] {
        world.write(name, name);
    }
    let mut run = world.start(1, &[]).expect("a run");
    fs::remove_file(world.at("a")).expect("removed");
    world.rename("b", "d");
    assert_eq!(world.lines(&mut run), ["b", "c"]);
}

#[test]
fn a_copied_tree_goes_on_by_path_and_then_by_content() {
    let mut world = World::new("in/*", true);
    fs::create_dir(world.at("in")).expect("made");
    let text = |name: &str| (0..500).map(|n| format!("{name}{n}\n")).collect::<String>();
    for name in ["a", "b"] {
        world.write(&format!("in/{name}"), &text(name));
    }
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run).len(), 1000);
    let saved = run.saved();
    world.settings.relative = Some(("in/*".to_owned(), world.dir.path().to_owned()));
    // Copied to the same paths, one of them under another name.
    for (from, to) in [("in/a", "in/a.copy"), ("in/b", "in/b.copy")] {
        fs::copy(world.at(from), world.at(to)).expect("copied");
        fs::remove_file(world.at(from)).expect("removed");
    }
    world.rename("in/a.copy", "in/a");
    world.append("in/a", "more\n");
    let mut copied = world.start(1, &saved).expect("a run");
    assert_eq!(world.lines(&mut copied), ["more"]);
    // The directory of the job is copied: the files are found relative to the job file, or by their content.
    for is_relative in [true, false] {
        let mut moved = World::new("in/*", true);
        fs::create_dir(moved.at("in")).expect("made");
        moved.write("in/a", &(text("a") + "after\n"));
        moved.write("in/b", &text("b"));
        let relative = ("in/*".to_owned(), moved.dir.path().to_owned());
        moved.settings.relative = is_relative.then_some(relative);
        let mut run = moved.start(1, &saved).expect("a run");
        assert_eq!(moved.lines(&mut run), ["after"]);
    }
}

/// A snapshot may come from anyone, with a position that names any file of the machine, its identity and the content at it.
#[test]
fn a_position_leads_to_no_file_outside_of_the_glob() {
    for watch in [false, true] {
        let mut thief = World::new("secret", watch);
        thief.write("secret", "1\n2\n");
        let mut run = thief.start(1, &[]).expect("a run");
        thief.lines(&mut run);
        let saved = run.saved();
        thief.append("secret", "3\n");
        let mut world = World::new("in/log*", watch);
        fs::create_dir(world.at("in")).expect("directory");
        world.write("in/log", "7\n");
        let own = world.at("in").to_string_lossy().into_owned();
        let outside = thief.at("secret").to_string_lossy().into_owned();
        for path in [
            outside.clone(),
            format!("{own}/log/../../{outside}"),
            format!("{own}//log"),
        ] {
            let mut saved = saved.clone();
            saved[0].split = path.clone();
            world.settings.on_truncate = OnTruncate::Fail;
            let said = message(world.start(1, &saved));
            assert!(
                said.starts_with(&format!("{path} is not a file of the source, whose path is ")),
                "{said}"
            );
            world.settings.on_truncate = OnTruncate::Restart;
            let mut run = world.start(1, &saved).expect("a run without it");
            assert_eq!(world.lines(&mut run), ["7"], "{path}");
            let other = SplitState {
                split: "any".to_owned(),
                position: serde_json::json!({
                    "offset": saved[0].position["offset"], "line": 1, "file": saved[0].position["file"], "path": path,
                }),
            };
            let mut run = world.start(1, &[other]).expect("a run without it");
            assert_eq!(world.lines(&mut run), ["7"], "{path}");
        }
    }
}

#[test]
fn positions_without_identity_take_that_of_the_file_at_the_path() {
    let mut world = World::new("a", true);
    world.write("a", "1\n2\n3\n");
    let split = world.at("a").to_string_lossy().into_owned();
    let old = |offset: u64| {
        let position = serde_json::json!({ "offset": offset, "line": offset / 2 });
        [SplitState {
            split: split.clone(),
            position,
        }]
    };
    let mut run = world.start(1, &old(4)).expect("a run");
    let first = run.saved();
    assert!(first[0].position["file"].is_string(), "{first:?}");
    assert_eq!(world.lines(&mut run), ["3"]);
    let error = message(world.start(1, &old(8)));
    assert!(
        error.contains("has shrunk: it was read to byte 8, and has 6 bytes"),
        "{error}"
    );
    fs::remove_file(Path::new(&split)).expect("removed");
    assert!(message(world.start(1, &old(4))).contains("has vanished: it was read to byte 4"));
}

#[test]
fn a_line_without_end_is_read_once_and_left_to_the_next_run() {
    let mut world = World::new("a", false);
    world.write("a", "a\nhel");
    let mut run = world.start(1, &[]).expect("a run");
    run.readers[0].cut_before_end();
    assert_eq!(world.lines(&mut run), ["a"]);
    let saved = run.saved();
    world.append("a", "lo\n");
    world.settings.watch = true;
    let mut run = world.start(1, &saved).expect("a run");
    assert_eq!(world.lines(&mut run), ["hello"]);
    // A record that was taken without its end has its end later, or the file is refused.
    for (more, expected) in [
        ("\nx\n", Ok(vec!["x"])),
        ("\r\nx\n", Ok(vec!["x"])),
        ("x\n", Err("line 2 was read up to byte 5")),
    ] {
        world.settings.watch = false;
        world.write("a", "a\nhel");
        let mut run = world.start(1, &[]).expect("a run");
        assert_eq!(world.lines(&mut run), ["a", "hel"]);
        let saved = run.saved();
        world.append("a", more);
        world.settings.watch = true;
        let mut run = world.start(1, &saved).expect("a run");
        match expected {
            Ok(lines) => assert_eq!(world.lines(&mut run), lines),
            Err(part) => assert!(message(world.read(&mut run)).contains(part)),
        }
    }
}

#[test]
fn long_lines_and_byte_order_marks() {
    let mut world = World::new("*", false);
    world.write("a", "\u{feff}first\n\u{feff}second\n");
    world.write("b", "\u{feff}");
    world.write("c", "\u{feff}alone");
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run), ["first", "\u{feff}second", "alone"]);
    world.settings.max_record = 5;
    for text in ["12345\n123456\n", "12345\n123456", "1\r\n12345678901234567890"] {
        world.write("a", text);
        let mut run = world.start(1, &[]).expect("a run");
        let error = message(world.read(&mut run));
        let expected = "a: line 2 is longer than 5 bytes; expected lines of at most max-record; \
             set a greater max-record, or take the line out";
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn an_idle_file_is_not_opened_again() {
    /// Counts how often a file is opened.
    #[derive(Debug, Default)]
    struct Counting(std::sync::atomic::AtomicUsize);
    impl crate::environment::files::FileSystem for Counting {
        fn open(&self, path: &Path) -> std::io::Result<Box<dyn crate::environment::files::ReadFile>> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            LocalFiles.open(path)
        }
        fn info(&self, path: &Path) -> std::io::Result<crate::environment::files::FileInfo> {
            LocalFiles.info(path)
        }
        fn is_link(&self, path: &Path) -> std::io::Result<bool> {
            LocalFiles.is_link(path)
        }
        fn list(&self, path: &Path) -> std::io::Result<Vec<String>> {
            LocalFiles.list(path)
        }
        fn create(&self, _: &Path) -> std::io::Result<Box<dyn crate::environment::files::WriteFile>> {
            unimplemented!("a source writes nothing")
        }
        fn create_dir_all(&self, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn sync_dir(&self, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn append(&self, _: &Path) -> std::io::Result<Box<dyn crate::environment::files::WriteFile>> {
            unimplemented!("a source writes nothing")
        }
        fn rename(&self, _: &Path, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn rename_new(&self, _: &Path, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn remove_file(&self, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn remove_dir(&self, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn remove_dir_all(&self, _: &Path) -> std::io::Result<()> {
            unimplemented!("a source writes nothing")
        }
        fn exists(&self, path: &Path) -> bool {
            LocalFiles.exists(path)
        }
    }
    let mut world = World::new("*", true);
    for n in 0..100 {
        world.write(&format!("{n}"), "1\nhalf");
    }
    let mut run = world.start(1, &[]).expect("a run");
    assert_eq!(world.lines(&mut run).len(), 100);
    let saved = run.saved();
    let files = Arc::new(Counting::default());
    let assigned = world.settings.assign(&*files, saved).expect("assigned");
    let context = SourceContext {
        files: files.clone(),
        subtask: 0,
        parallelism: 1,
        timestamp: None,
        known: Arc::new(assigned.clone()),
    };
    let mut run = Run {
        readers: vec![world.settings.reader(&context, assigned).expect("a reader")],
    };
    assert_eq!(world.lines(&mut run), [""; 0]);
    // Once, for the lines that have no end yet.
    assert_eq!(files.0.load(std::sync::atomic::Ordering::Relaxed), 100);
    world.append("7", " and more\n");
    assert_eq!(world.lines(&mut run), ["half and more"]);
    assert!(files.0.load(std::sync::atomic::Ordering::Relaxed) <= 101);
}
