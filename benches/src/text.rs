//! The input of W1: lines of ten words, drawn by Zipf's law from a fixed vocabulary. The same size gives the same
//! input.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::workload::mix;

/// Number of distinct words.
const WORDS: usize = 100_000;
/// Words per line.
const LINE: u64 = 10;

/// Texts on disk.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Paths of the files, in order.
    pub(crate) files: Vec<PathBuf>,
    /// Glob that matches all of them.
    pub(crate) glob: String,
    /// Number of words in all of them.
    pub(crate) words: u64,
}

/// Writes files of `bytes` bytes in all, or returns those of an earlier run.
pub(crate) fn make(dir: &Path, bytes: u64, files: u32) -> Result<Texts, Failure> {
    let dir = dir.join(format!("text-{bytes}-{files}"));
    let note = dir.join("words");
    if !note.exists() {
        std::fs::create_dir_all(&dir)?;
        let zipf = Zipf::new(WORDS);
        let vocabulary = vocabulary();
        let mut words = 0;
        for file in 0..files {
            words += write(
                &path(&dir, file),
                bytes / u64::from(files),
                u64::from(file),
                &zipf,
                &vocabulary,
            )?;
        }
        std::fs::write(&note, words.to_string())?;
    }
    Ok(Texts {
        files: (0..files).map(|file| path(&dir, file)).collect(),
        glob: dir.join("*.txt").to_string_lossy().into_owned(),
        words: std::fs::read_to_string(&note)?.parse()?,
    })
}

fn path(dir: &Path, file: u32) -> PathBuf {
    dir.join(format!("{file:04}.txt"))
}

/// Writes a file, and returns the number of its words.
fn write(path: &Path, bytes: u64, seed: u64, zipf: &Zipf, vocabulary: &[Vec<u8>]) -> Result<u64, Failure> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut written, mut words) = (0, 0);
    while written < bytes {
        for _ in 0..LINE {
            let word = &vocabulary[zipf.rank(mix(seed << 40 ^ words))];
            words += 1;
            out.write_all(word)?;
            out.write_all(if words % LINE == 0 { b"\n" } else { b" " })?;
            written += word.len() as u64 + 1;
        }
    }
    out.flush()?;
    Ok(words)
}

/// Words of 2 to 6 letters, 4 on average: with the space 5 bytes, so 200 million words make 1 GB.
fn vocabulary() -> Vec<Vec<u8>> {
    let mut known = HashSet::with_capacity(WORDS);
    let mut words = Vec::with_capacity(WORDS);
    let mut state = 1;
    while words.len() < WORDS {
        state = mix(state);
        // A word that is taken already is made longer.
        let mut len = 2 + state as usize % 5;
        loop {
            let word: Vec<u8> = (0..len).map(|i| b'a' + (mix(state ^ i as u64) % 26) as u8).collect();
            if known.insert(word.clone()) {
                words.push(word);
                break;
            }
            len += 1;
        }
    }
    words
}

/// Draws ranks with weight 1 / (rank + 1), by Walker's alias method.
struct Zipf {
    /// For each rank, the share of draws that stay there, as a fraction of 2³², and the rank that the other draws go
    /// to.
    alias: Vec<(u32, u32)>,
}

impl Zipf {
    fn new(ranks: usize) -> Self {
        let total: f64 = (1..=ranks).map(|rank| 1.0 / rank as f64).sum();
        let mut share: Vec<f64> = (1..=ranks).map(|rank| ranks as f64 / (rank as f64 * total)).collect();
        let mut alias = vec![(u32::MAX, 0); ranks];
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..ranks).partition(|rank| share[*rank] < 1.0);
        while let (Some(&to), Some(from)) = (large.last(), small.pop()) {
            alias[from] = ((share[from] * 4_294_967_296.0) as u32, to as u32);
            share[to] -= 1.0 - share[from];
            if share[to] < 1.0 {
                large.pop();
                small.push(to);
            }
        }
        Self { alias }
    }

    fn rank(&self, random: u64) -> usize {
        let at = (((random >> 32) * self.alias.len() as u64) >> 32) as usize;
        let (stays, other) = self.alias[at];
        if (random as u32) <= stays { at } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_zipfs_law() {
        let zipf = Zipf::new(1000);
        let mut counts = [0u32; 1000];
        for i in 0..400_000 {
            counts[zipf.rank(mix(i))] += 1;
        }
        // Rank 0 has weight 1 of H(1000) = 7.485.
        assert!((52_500..54_500).contains(&counts[0]), "{}", counts[0]);
        assert!((4_900..5_800).contains(&counts[9]), "{}", counts[9]);
    }

    #[test]
    fn texts_have_the_size_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = make(dir.path(), 10_000, 3).expect("texts");
        let text: Vec<u8> = made
            .files
            .iter()
            .flat_map(|file| std::fs::read(file).expect("a file"))
            .collect();
        assert!((10_000..10_500).contains(&text.len()), "{}", text.len());
        let spaces = text.iter().filter(|byte| byte.is_ascii_whitespace()).count() as u64;
        assert_eq!((spaces, made.words % LINE), (made.words, 0));
    }
}
