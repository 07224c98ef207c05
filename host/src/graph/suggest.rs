//! "Did you mean": the known word nearest to one that is not known.

/// The known word that `word` most likely stands for; none when nothing is close.
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
        .map(|candidate| (distance(&word, &fold(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= budget)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(from != to))
                .min(rows[i][j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// `"a", "b" or "c"`.
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
