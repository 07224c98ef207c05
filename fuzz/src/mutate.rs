//! Changes to bytes, and to texts by lines and numbers.

use crate::random::Random;

/// Bounds of integers, and their neighbours.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    65_536,
    i32::MAX as u64,
    u32::MAX as u64,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
];

/// Makes one change to bytes of any kind. `other` is another input of the corpus.
pub fn bytes(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    match random.below(8) {
        0 => flip(random, data),
        1 => {
            if let Some(byte) = at(random, data) {
                *byte = random.number() as u8;
            }
        }
        2 => {
            if let Some(byte) = at(random, data) {
                *byte = byte.wrapping_add(random.below(33) as u8).wrapping_sub(16);
            }
        }
        3 => overwrite_number(random, data),
        4 => remove(random, data),
        5 => repeat(random, data),
        6 => splice(random, data, other),
        _ => {
            let bytes: Vec<u8> = (0..random.length(16)).map(|_| random.number() as u8).collect();
            insert(random, data, &bytes);
        }
    }
}

/// Makes one change to a text. `words` are those that its parser looks for.
pub fn text(random: &mut Random, data: &mut Vec<u8>, other: &[u8], words: &[&str]) {
    match random.below(8) {
        0 => bytes(random, data, other),
        1 => change_number(random, data),
        2 | 3 => lines(random, data, other),
        4 => {
            // Replace the text between two delimiters.
            let range = between_delimiters(random, data);
            let word = random.pick(words).as_bytes().to_vec();
            data.splice(range, word);
        }
        _ => {
            let word = random.pick(words).as_bytes().to_vec();
            insert(random, data, &word);
        }
    }
}

fn at<'a>(random: &mut Random, data: &'a mut [u8]) -> Option<&'a mut u8> {
    let at = random.below(data.len());
    data.get_mut(at)
}

fn flip(random: &mut Random, data: &mut [u8]) {
    let bit = 1 << random.below(8);
    if let Some(byte) = at(random, data) {
        *byte ^= bit;
    }
}

/// Draws a range of the bytes, mostly a short one.
pub fn range(random: &mut Random, len: usize) -> std::ops::Range<usize> {
    let start = random.below(len + 1);
    let taken = random.length(len - start);
    start..start + taken
}

fn overwrite_number(random: &mut Random, data: &mut [u8]) {
    let number = random.pick(&NUMBERS).to_le_bytes();
    let width = *random.pick(&[1, 2, 4, 8]);
    let start = random.below(data.len());
    for (byte, new) in data[start..].iter_mut().zip(&number[..width]) {
        *byte = *new;
    }
}

fn remove(random: &mut Random, data: &mut Vec<u8>) {
    let range = range(random, data.len());
    data.drain(range);
}

fn repeat(random: &mut Random, data: &mut Vec<u8>) {
    let range = range(random, data.len());
    let part = data[range.clone()].to_vec();
    // Rarely very often: code that is fast once may be slow a thousand times.
    let times = if random.one_in(16) { 1 + random.length(1000) } else { 1 };
    let repeated = part.repeat(times.min(1 + 65_536 / part.len().max(1)));
    data.splice(range.end..range.end, repeated);
}

fn splice(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let from = range(random, other.len());
    let to = range(random, data.len());
    data.splice(to, other[from].iter().copied());
}

fn insert(random: &mut Random, data: &mut Vec<u8>, new: &[u8]) {
    let at = random.below(data.len() + 1);
    data.splice(at..at, new.iter().copied());
}

fn change_number(random: &mut Random, data: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..data.len())
        .filter(|&i| data[i].is_ascii_digit() && (i == 0 || !data[i - 1].is_ascii_digit()))
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = *random.pick(&starts);
    let len = data[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = random.pick(&NUMBERS);
    let new = match random.below(4) {
        0 => format!("-{number}"),
        1 => format!("{number}.5"),
        _ => number.to_string(),
    };
    data.splice(start..start + len, new.into_bytes());
}

fn between_delimiters(random: &mut Random, data: &[u8]) -> std::ops::Range<usize> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let start = random.below(data.len() + 1);
    let end = start + data[start..].iter().take_while(|byte| is_word(byte)).count();
    let start = start - data[..start].iter().rev().take_while(|byte| is_word(byte)).count();
    start..end
}

fn lines(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let mut lines: Vec<Vec<u8>> = data
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    if lines.is_empty() {
        return;
    }
    let (a, b) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(5) {
        0 => {
            lines.remove(a);
        }
        1 => lines.swap(a, b),
        2 => {
            let line = lines[a].clone();
            lines.insert(b, line);
        }
        3 => {
            // Move a few lines.
            let (a, b) = (a.min(b), a.max(b));
            let moved: Vec<Vec<u8>> = lines.drain(a..b).collect();
            let to = random.below(lines.len() + 1);
            lines.splice(to..to, moved);
        }
        _ => {
            let foreign: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
            let range = range(random, foreign.len());
            let foreign: Vec<Vec<u8>> = foreign[range].iter().map(|line| line.to_vec()).collect();
            lines.splice(a..a, foreign);
        }
    }
    *data = lines.concat();
}
