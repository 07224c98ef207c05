//! Prints tables, and puts them into a document.

use crate::Failure;
use crate::settings::Settings;

/// Prints a table, and puts it into the document, if one is to be written.
///
/// # Errors
/// The document cannot be read or written, or has no place for the table.
pub(crate) fn table(settings: &Settings, name: &str, table: &str) -> Result<(), Failure> {
    println!("{table}");
    let Some(path) = &settings.into else {
        return Ok(());
    };
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let text = replaced(&text, name, table).ok_or_else(|| {
        format!(
            "{shown} has no place for the table: expected a line <!-- bench: {name} --> and, behind it, <!-- /bench -->"
        )
    })?;
    std::fs::write(path, text).map_err(|error| format!("cannot write {shown}: {error}").into())
}

/// Returns the text with another table in the place of this name; `None` if it has no such place.
fn replaced(text: &str, name: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(&format!("<!-- bench: {name} -->\n"))?;
    let (_, after) = rest.split_once("<!-- /bench -->")?;
    Some(format!(
        "{before}<!-- bench: {name} -->\n\n{}\n\n<!-- /bench -->{after}",
        table.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn a_table_takes_the_place_of_the_last_one() {
        let text = "a\n<!-- bench: x -->\nold\n<!-- /bench -->\nb\n<!-- bench: y -->\n<!-- /bench -->\n";
        let once = replaced(text, "x", "| new |\n").expect("a place");
        assert_eq!(
            once,
            "a\n<!-- bench: x -->\n\n| new |\n\n<!-- /bench -->\nb\n<!-- bench: y -->\n<!-- /bench -->\n"
        );
        assert_eq!(replaced(&once, "x", "| new |").as_deref(), Some(&*once));
        assert_eq!(replaced(text, "z", "| new |"), None);
    }
}
