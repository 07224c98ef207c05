//! The example job, run to its end.

use std::collections::BTreeMap;

use crate::support::{World, committed, root};

/// Counts words as `tr | sort | uniq -c` does.
pub fn counted(texts: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for word in texts
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphabetic()))
    {
        if !word.is_empty() {
            *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
        }
    }
    let mut lines: Vec<String> = counts.iter().map(|(word, count)| format!("{word}\t{count}")).collect();
    lines.sort();
    lines
}

#[test]
fn word_count_is_right_at_every_parallelism() {
    let job = root().join("examples/word-count/job.toml");
    let input = std::fs::read_dir(root().join("examples/word-count/input")).expect("input");
    let texts: Vec<String> = input
        .map(|entry| std::fs::read_to_string(entry.expect("entry").path()).expect("text"))
        .collect();
    let expected = counted(&texts);
    assert!(expected.len() > 100, "the example has real text");
    for parallelism in ["1", "2", "3"] {
        let world = World::new();
        let out = world.path().join("out");
        let set = format!("out.path={}", out.display());
        let job = job.to_str().expect("UTF-8");
        world.run(&["run", job, "-p", parallelism, "--set", &set]).exits(0);
        assert_eq!(committed(&out), expected, "parallelism {parallelism}");
    }
}
