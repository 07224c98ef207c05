//! Files that sources read: all of them there from the beginning, or written while the job runs.
//!
//! A watched file grows by pieces that end anywhere, also within a line, or it is written under a hidden name and renamed.
//! Input is durable as soon as it is written: the disk forgets nothing of it, so the job may lose nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::random::Random;
use crate::world::{Kind, Node};

/// Directory of all input: a directory in it for each source.
const IN: &str = "/in";

/// The longest wait of the user, and by how much it grows each time, in nanoseconds.
const PATIENCE_NS: [u64; 2] = [2_000_000_000, 500_000_000];

/// Something that a user does with a file.
#[derive(Debug, Clone)]
enum Write {
    Append(PathBuf, Vec<u8>),
    Rename(PathBuf, PathBuf),
}

/// The files of all sources that read any.
#[derive(Debug, Default)]
pub struct Input {
    /// The content that each file has in the end, by source and path.
    pub files: BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>,
    /// The sources go on looking for more.
    pub watch: bool,
    /// Time between two looks.
    poll: &'static str,
    /// Writes that are still to come, in order.
    writes: VecDeque<Write>,
    /// The step from which on the next one is due.
    next_step: u64,
    /// The moment at which the user stops the job, in simulated nanoseconds.
    stop_at: Option<u64>,
    /// The user's present wait, in nanoseconds.
    patience: u64,
    random: Option<Random>,
}

impl Input {
    /// Draws whether sources read files, and which; in most worlds none does.
    pub fn draw(mut random: Random, nodes: &[Node]) -> Self {
        let mut input = Self::default();
        if !random.percent(40) {
            return input;
        }
        input.watch = random.percent(40);
        input.poll = random.pick::<&str>(&["5ms", "20ms", "100ms"]);
        for node in nodes {
            if matches!(node.kind, Kind::Lines | Kind::Keyed) && random.percent(75) {
                let files = files(&mut random, node, input.watch);
                input.files.insert(node.uid, files);
            }
        }
        input.watch &= !input.files.is_empty();
        if input.watch {
            input.writes = writes(&mut random, &input.files);
        }
        input.random = Some(random);
        input
    }

    /// Returns the settings of a source that reads files; `None` of another.
    pub fn settings(&self, node: &Node) -> Option<String> {
        self.files.get(node.uid)?;
        let mut text = format!("connector = \"file\"\npath = \"{IN}/{}/*.txt\"\n", node.uid);
        if node.kind == Kind::Keyed {
            text.push_str("key = \"line\"\n");
        }
        if self.watch {
            text.push_str(&format!("mode = \"watch\"\npoll = \"{}\"\n", self.poll));
        }
        Some(text)
    }

    /// Makes the directories, and the files that are there before the job starts.
    pub fn begin(&mut self, disk: &Disk) {
        for (uid, files) in &self.files {
            disk.make_dir(&Path::new(IN).join(uid));
            if !self.watch {
                files
                    .iter()
                    .for_each(|(path, content)| disk.append(Path::new(path), content));
            }
        }
        let count = self.writes.len() as u64 + 1;
        let first = self.random.as_mut().map_or(0, |random| random.below(count));
        (0..first).for_each(|_| self.write(disk));
    }

    /// Writes what is due at a step; when nothing goes wrong any more, all of it.
    pub fn step(&mut self, disk: &Disk, step: u64, is_calm: bool) {
        while !self.writes.is_empty() && (is_calm || self.next_step <= step) {
            self.write(disk);
            let gap = |random: &mut Random| *random.pick(&[0, 5, 50, 300, 1500]);
            self.next_step = step + self.random.as_mut().map_or(0, gap);
        }
    }

    fn write(&mut self, disk: &Disk) {
        match self.writes.pop_front() {
            Some(Write::Append(path, bytes)) => disk.append(&path, &bytes),
            Some(Write::Rename(from, to)) => disk.rename(&from, &to),
            None => {}
        }
        self.stop_at = None;
    }

    /// Returns true if the user stops the job, which would wait for more for ever: all is written, and there was some time to
    /// read it. The next time, there is more.
    pub fn is_to_be_stopped(&mut self, now: u64) -> bool {
        if !self.watch || !self.writes.is_empty() {
            return false;
        }
        let at = *self.stop_at.get_or_insert(now + self.patience);
        if now < at {
            return false;
        }
        let [most, more] = PATIENCE_NS;
        self.patience = most.min(self.patience + more);
        self.stop_at = Some(now + self.patience);
        true
    }
}

/// Path and content of each file of a source.
fn files(random: &mut Random, node: &Node, watch: bool) -> BTreeMap<String, Vec<u8>> {
    let letters =
        |random: &mut Random, len: u64| -> Vec<u8> { (0..len).map(|_| b'a' + random.below(26) as u8).collect() };
    let count = random.range(1, 4);
    let lines_max = *random.pick(&[0, 20, 100, 400]);
    let file = |random: &mut Random| {
        let mut content = vec![];
        for _ in 0..random.range(0, lines_max) {
            // As a generator's: one of a hundred words where it is a key, else all letters.
            let len = match (random.percent(4), node.kind == Kind::Keyed) {
                (true, _) => 0,
                (_, true) => 1 + random.below(2),
                (_, false) => 9,
            };
            let mut line = letters(random, len);
            if let [first, _] = &mut *line {
                *first = b'b' + *first % 3;
            }
            content.extend(line);
            content.extend_from_slice(if random.percent(10) { b"\r\n" } else { b"\n" });
        }
        // Of a watched file, the last line is read only when it is whole.
        if !watch && random.percent(30) && content.last() == Some(&b'\n') {
            content.extend(letters(random, 3));
        }
        let name = String::from_utf8(letters(random, 6)).unwrap_or_default();
        (format!("{IN}/{}/{name}.txt", node.uid), content)
    };
    (0..count).map(|_| file(random)).collect()
}

/// Cuts all files into pieces, and puts the pieces of different files in some order.
fn writes(random: &mut Random, files: &BTreeMap<&'static str, BTreeMap<String, Vec<u8>>>) -> VecDeque<Write> {
    let mut left: Vec<VecDeque<Write>> = vec![];
    for (path, content) in files.values().flatten() {
        let path = PathBuf::from(path);
        let mut writes = VecDeque::new();
        let hidden = path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()));
        let is_hidden = random.percent(30);
        let to = if is_hidden { &hidden } else { &path };
        let mut rest = &content[..];
        for _ in 0..random.below(4) {
            let (piece, after) = rest.split_at(random.below(rest.len() as u64 + 1) as usize);
            writes.push_back(Write::Append(to.clone(), piece.to_vec()));
            rest = after;
        }
        writes.push_back(Write::Append(to.clone(), rest.to_vec()));
        if is_hidden {
            writes.push_back(Write::Rename(hidden, path));
        }
        left.push(writes);
    }
    let mut writes = VecDeque::new();
    while !left.is_empty() {
        let at = random.below(left.len() as u64) as usize;
        match left[at].pop_front() {
            Some(write) => writes.push_back(write),
            None => drop(left.swap_remove(at)),
        }
    }
    writes
}
