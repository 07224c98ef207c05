//! "Did you mean": the known word nearest to one that is not known.

/// Returns the known word nearest to `word`, or `None` when none is near enough: one edit for every three characters, and
/// three at most.
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
        .map(|candidate| (strsim::osa_distance(&word, &fold(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= budget)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
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
        assert_eq!(one_of(&["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
