//! "Did you mean": the known word nearest to one that is not known.

/// Shortest word that suggests longer ones that begin with it.
const PREFIX_MIN: usize = 3;

/// Returns the known word nearest to `word`, or `None` when none is near enough: one edit for every three characters, and
/// three at most; or any number of them at the end of the word, as between `keyBy` and `key`.
///
/// An edit inserts, deletes or replaces a character, or swaps two neighbours (optimal string alignment). Letter case does not
/// count, and `_` equals `-`. A word of more than 64 bytes has no suggestion.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let budget = (word.chars().count() / 3).clamp(1, 3);
    let fold = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let word = fold(word);
    if word.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|candidate| (fold(candidate), *candidate))
        .map(|(folded, candidate)| (strsim::osa_distance(&word, &folded), folded, candidate))
        .filter(|(distance, folded, _)| *distance <= budget || begins(&word, folded) || begins(folded, &word))
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., candidate)| candidate)
}

/// Returns true if `word` begins with `start`, which is long enough to mean something.
fn begins(word: &str, start: &str) -> bool {
    start.chars().count() >= PREFIX_MIN && word.starts_with(start)
}

/// Returns the remedy for a word that is not known: `did you mean "b"?`, or else `expected "a", "b" or "c"`.
#[must_use]
pub fn instead_of(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("expected {}", one_of(known)),
    }
}

/// Formats a choice for a message: `"a", "b" or "c"`.
#[must_use]
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_found_and_far_ones_are_not() {
        let known = ["path", "parallelism", "max-parallelism", "inputs"];
        assert_eq!(nearest("pth", &known), Some("path"));
        assert_eq!(nearest("ptah", &known), Some("path"));
        assert_eq!(nearest("max_parallelism", &known), Some("max-parallelism"));
        assert_eq!(nearest("paralelism", &known), Some("parallelism"));
        assert_eq!(nearest("colour", &known), None);
        let known = ["forward", "key", "rebalance", "broadcast"];
        assert_eq!(nearest("keys", &known), Some("key"));
        assert_eq!(nearest("keyBy", &known), Some("key"));
        assert_eq!(nearest("fwd", &known), None);
        assert_eq!(nearest("ke", &known), Some("key"));
        assert_eq!(nearest("b", &known), None, "too short to mean broadcast");
        assert_eq!(instead_of("broad", &known), "did you mean \"broadcast\"?");
        assert_eq!(instead_of("hash", &known[..2]), "expected \"forward\" or \"key\"");
        assert_eq!(one_of(&["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
