//! Text in columns: tables with a line of titles, and labelled values, one a line.

use crate::escape::one_line;

/// Column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    title: &'a str,
    width: Option<usize>,
    gap: usize,
    numbers: bool,
}

impl<'a> Column<'a> {
    /// Returns a column of text, aligned to the left, that is as wide as its widest cell.
    #[must_use]
    pub const fn text(title: &'a str) -> Self {
        Self {
            title,
            width: None,
            gap: 1,
            numbers: false,
        }
    }

    /// Returns a column of numbers, aligned to the right, that is as wide as its widest cell.
    #[must_use]
    pub const fn numbers(title: &'a str) -> Self {
        Self {
            numbers: true,
            ..Self::text(title)
        }
    }

    /// Fixes the width, in characters, so that tables of several calls look alike. A longer cell is not cut: it moves the
    /// rest of its line.
    #[must_use]
    pub const fn fixed(self, width: usize) -> Self {
        Self {
            width: Some(width),
            ..self
        }
    }

    /// Puts two spaces before the column instead of one.
    #[must_use]
    pub const fn apart(self) -> Self {
        Self { gap: 2, ..self }
    }
}

/// Returns a table as lines: the titles, then one line for each row. Text in the last column is not padded, so that a
/// line ends in spaces only where its last cells are empty.
#[must_use]
pub fn table<const N: usize>(columns: &[Column<'_>; N], rows: &[[String; N]]) -> Vec<String> {
    let titles = columns.map(|column| column.title.to_owned());
    // A cell is part of one line.
    let rows: Vec<[String; N]> = std::iter::once(&titles)
        .chain(rows)
        .map(|row| row.each_ref().map(|cell| one_line(cell).into_owned()))
        .collect();
    let widths: Vec<usize> = (0..N)
        .map(|i| {
            let cells = rows.iter().filter_map(|row| row.get(i));
            let widest = cells.map(|cell| cell.chars().count()).max();
            columns.get(i).and_then(|column| column.width).or(widest).unwrap_or(0)
        })
        .collect();
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for (i, ((cell, column), &width)) in row.iter().zip(columns).zip(&widths).enumerate() {
            if i > 0 {
                line.push_str(&" ".repeat(column.gap));
            }
            // Not by a width in the format, which is limited.
            let missing = " ".repeat(width.saturating_sub(cell.chars().count()));
            match (column.numbers, i + 1 == N) {
                (true, _) => line.extend([missing.as_str(), cell]),
                (false, true) => line.push_str(cell),
                (false, false) => line.extend([cell, missing.as_str()]),
            }
        }
        line
    };
    rows.iter().map(line).collect()
}

/// Returns a line with a value behind its label, which is padded to `width` characters.
#[must_use]
pub fn labelled(width: usize, label: &str, value: &str) -> String {
    format!("{label:<width$}{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<const N: usize>(columns: [Column<'_>; N], rows: &[[&str; N]], expected: &[&str]) {
        let rows: Vec<_> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        assert_eq!(table(&columns, &rows), expected);
    }

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell() {
        check(
            [
                Column::text("UID"),
                Column::numbers("IN").apart(),
                Column::text("STATES").apart(),
            ],
            &[["a", "7", ""], ["ä-long-uid", "12345", "x"]],
            &[
                "UID            IN  STATES",
                "a               7  ",
                "ä-long-uid  12345  x",
            ],
        );
    }

    #[test]
    fn a_longer_cell_than_a_fixed_column_moves_its_own_line() {
        check(
            [
                Column::text("UID").fixed(5),
                Column::numbers("P").fixed(3),
                Column::numbers("IN").fixed(4),
            ],
            &[["a", "1", "7"], ["long-uid", "2", "12345"]],
            &["UID     P   IN", "a       1    7", "long-uid   2 12345"],
        );
    }

    #[test]
    fn a_table_without_rows_is_its_titles() {
        check(
            [Column::text("UID").fixed(5), Column::text("KIND")],
            &[],
            &["UID   KIND"],
        );
    }

    #[test]
    fn values_stand_below_each_other() {
        assert_eq!(labelled(8, "key", "k: u64"), "key     k: u64");
        assert_eq!(labelled(4, "imports", "x"), "importsx");
    }
}
