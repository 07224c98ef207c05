//! `println!` and its like in an operator's code: those of `std` print nothing from a component.

use proc_macro2::{Group, Ident, Spacing, TokenStream, TokenTree};
use quote::quote_spanned;

const MACROS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Puts the macros of `regraft_sdk::stdio` in the place of those of `std` that are called by their bare names.
pub(super) fn to_log(code: TokenStream) -> TokenStream {
    let mut out = TokenStream::new();
    let mut tokens = code.into_iter().peekable();
    // True behind `::` and `.`, where a name is a part of something else.
    let mut is_part = false;
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(name) if !is_part && is_bang(tokens.peek()) && prints(&name) => {
                out.extend(quote_spanned!(name.span()=> ::regraft_sdk::stdio::#name));
                is_part = false;
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), to_log(group.stream()));
                inner.set_span(group.span());
                out.extend([TokenTree::Group(inner)]);
                is_part = false;
            }
            other => {
                is_part = matches!(&other, TokenTree::Punct(punct) if matches!(punct.as_char(), ':' | '.'));
                out.extend([other]);
            }
        }
    }
    out
}

fn prints(name: &Ident) -> bool {
    MACROS.iter().any(|known| name == known)
}

fn is_bang(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == '!' && punct.spacing() == Spacing::Alone)
}

#[cfg(test)]
mod tests {
    use super::to_log;
    use proc_macro2::TokenStream;

    #[test]
    fn bare_names_become_those_of_the_sdk() {
        let becomes = |code: &str, expected: &str| {
            let text = |code: &str| code.parse::<TokenStream>().unwrap().to_string();
            assert_eq!(to_log(code.parse().unwrap()).to_string(), text(expected), "{code}");
        };
        becomes(
            "fn f() { if x { println!(\"{x}\") } else { dbg!(x); } }",
            "fn f() { if x { ::regraft_sdk::stdio::println!(\"{x}\") } else { ::regraft_sdk::stdio::dbg!(x); } }",
        );
        for same in [
            "std::println!(\"\")",
            "a.print != b",
            "let print = !x;",
            "log::info!(\"println!\")",
        ] {
            becomes(same, same);
        }
    }
}
