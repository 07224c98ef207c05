//! Holds every file of `tests/misuse` to the errors at its end: `//~ LINE:COLUMN MESSAGE`, with columns from 1.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use std::path::Path;
use syn::{Attribute, Item, Meta};

/// Takes `#[operator]` off an item and returns its arguments. `None` where there is none.
fn take_attribute(item: &mut Item) -> Option<TokenStream> {
    let attributes: &mut Vec<Attribute> = match item {
        Item::Fn(item) => &mut item.attrs,
        Item::Impl(item) => &mut item.attrs,
        Item::Struct(item) => &mut item.attrs,
        _ => return None,
    };
    let at = attributes
        .iter()
        .position(|attribute| attribute.path().is_ident("operator"))?;
    Some(match attributes.remove(at).meta {
        Meta::List(list) => list.tokens,
        _ => TokenStream::new(),
    })
}

fn expanded(text: &str) -> syn::Result<TokenStream> {
    let file = syn::parse_file(text)?;
    for mut item in file.items {
        if let Some(arguments) = take_attribute(&mut item) {
            return super::operator(&arguments, item.into_token_stream());
        }
    }
    panic!("no item has `#[operator]`");
}

#[test]
fn misuse_is_told_at_its_place() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse");
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("//~ ")).collect();
        let told: Vec<String> = match expanded(&text) {
            Ok(code) => panic!("{} is accepted: {code}", path.display()),
            Err(errors) => errors
                .into_iter()
                .map(|error| {
                    let start = error.span().start();
                    format!("{}:{} {error}", start.line, start.column + 1)
                })
                .collect(),
        };
        assert_eq!(told, expected, "{}", path.display());
        files += 1;
    }
    assert!(files >= 12, "only {files} files of misuse were found");
}

/// The value of `name` in the list of methods.
fn has(code: &TokenStream, name: &str) -> bool {
    let text = code.to_string();
    let (_, methods) = text.split_once("declare :: Methods {").expect("a list of methods");
    let (_, value) = methods.split_once(&format!("{name} : ")).expect("the method is listed");
    value.starts_with("true")
}

#[test]
fn methods_that_are_there_are_listed() {
    let code = expanded(
        "#[operator] impl Operator for Count {
            fn declare(d: &mut Declare) -> Self { Count }
            fn process(&mut self, word: &str, _: Click<'_>, cx: &mut Ctx) -> Result<()> { Ok(()) }
            fn finish(&mut self, word: &str, cx: &mut Ctx) -> Result<()> { Ok(()) }
            fn on_watermark(&mut self, at: i64, cx: &mut Ctx) -> Result<()> { Ok(()) }
        }",
    )
    .unwrap();
    assert!(has(&code, "finish") && has(&code, "on_watermark"));
    assert!(
        !has(&code, "finish_all") && !has(&code, "prefetch") && !has(&code, "on_timer") && !has(&code, "private_state")
    );
    let text = code.to_string();
    assert!(text.contains("type Key < 'a > = & 'a str ;"), "{text}");
    assert!(text.contains("type In < 'a > = Click < 'a > ;"), "{text}");
    assert!(text.contains("export_operator ! (Count)"), "{text}");
}

#[test]
fn types_that_are_there_stay() {
    let code = expanded(
        "#[operator] impl Operator for Count {
            type Key<'a> = u64;
            type In<'a> = Any<'a>;
            fn declare(d: &mut Declare) -> Self { Count }
            fn process(&mut self, key: Self::Key<'_>, _: Self::In<'_>, cx: &mut Ctx) -> Result<()> { Ok(()) }
        }",
    )
    .unwrap();
    let types = code.into_iter().flat_map(|token| match token {
        TokenTree::Group(group) => group.stream().into_iter().collect(),
        other => vec![other],
    });
    assert_eq!(types.filter(|token| token.to_string() == "type").count(), 2);
}
