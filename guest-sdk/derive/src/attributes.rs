//! Reads the attributes of serde and of the derive itself. What is not understood is an error at its place.

use crate::rename::Rule;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, LitStr, Result, Token, Type};

/// Attributes of the type itself.
pub(crate) struct Container {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Rule,
    pub(crate) rename_all_fields: Rule,
    pub(crate) transparent: bool,
    pub(crate) default: bool,
}

/// Attributes of a field or of a variant.
pub(crate) struct Item {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Rule,
    pub(crate) aliases: Vec<String>,
    pub(crate) default: bool,
    pub(crate) skip: bool,
    pub(crate) encoded_as: Option<Type>,
}

const HIDES_TYPE: &str = "the schema cannot see what type is really encoded here";
const TAGGED: &str = "state cannot be an enum with `tag`, `content` or `untagged`: its compact encoding does not describe \
                      itself; remove the attribute (variants are then told apart by their number)";

impl Container {
    pub(crate) fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut container = Container {
            rename: None,
            rename_all: Rule::None,
            rename_all_fields: Rule::None,
            transparent: false,
            default: false,
        };
        each(attributes, "serde", |meta| {
            match name_of(&meta).as_str() {
                "rename" => container.rename = Some(both_ways(&meta)?),
                "rename_all" => container.rename_all = rule(&meta)?,
                "rename_all_fields" => container.rename_all_fields = rule(&meta)?,
                "transparent" => container.transparent = true,
                "default" => {
                    optional_value(&meta)?;
                    container.default = true;
                }
                "bound" | "crate" | "expecting" | "deny_unknown_fields" => ignore(&meta)?,
                "tag" | "content" | "untagged" => return Err(meta.error(TAGGED)),
                "from" | "try_from" | "into" | "remote" => return Err(meta.error(HIDES_TYPE)),
                other => return Err(meta.error(format!("`serde({other})` is not known to `State`"))),
            }
            Ok(())
        })?;
        each(attributes, "state", |meta| {
            Err(meta.error("`#[state(…)]` belongs on a field or a variant"))
        })?;
        Ok(container)
    }
}

impl Item {
    pub(crate) fn read(attributes: &[Attribute], is_variant: bool) -> Result<Self> {
        let mut item = Item {
            rename: None,
            rename_all: Rule::None,
            aliases: Vec::new(),
            default: false,
            skip: false,
            encoded_as: None,
        };
        each(attributes, "state", |meta| {
            match name_of(&meta).as_str() {
                "alias" => item.aliases.push(string(&meta)?.value()),
                "as" if !is_variant => item.encoded_as = Some(string(&meta)?.parse()?),
                other => {
                    return Err(meta.error(format!("`state({other})` is not known; there are `alias = \"old_name\"` and, on fields, `as = \"TYPE\"`")));
                }
            }
            Ok(())
        })?;
        let typed = item.encoded_as.is_some();
        each(attributes, "serde", |meta| {
            match name_of(&meta).as_str() {
                "rename" => item.rename = Some(both_ways(&meta)?),
                "alias" => item.aliases.push(string(&meta)?.value()),
                "rename_all" if is_variant => item.rename_all = rule(&meta)?,
                "default" if !is_variant => {
                    optional_value(&meta)?;
                    item.default = true;
                }
                "skip" if !is_variant => item.skip = true,
                "bound" | "borrow" => ignore(&meta)?,
                "with" | "serialize_with" | "deserialize_with" | "getter" if typed => ignore(&meta)?,
                "with" | "serialize_with" | "deserialize_with" | "getter" => {
                    return Err(meta.error(format!("{HIDES_TYPE}: say it with `#[state(as = \"TYPE\")]`")));
                }
                "flatten" => return Err(meta.error("state cannot have `flatten`: its fields would have no fixed place in the compact encoding; nest the struct")),
                "skip_serializing_if" => {
                    return Err(meta.error("state cannot have `skip_serializing_if`: a field left out shifts all that follow, which corrupts silently; use an `Option`"));
                }
                "skip" | "skip_serializing" | "skip_deserializing" => {
                    return Err(meta.error("state must be written and read alike: only fields can be skipped, and only by `skip`"));
                }
                "untagged" | "other" => return Err(meta.error(TAGGED)),
                other => return Err(meta.error(format!("`serde({other})` is not known to `State`"))),
            }
            Ok(())
        })?;
        Ok(item)
    }
}

/// Calls `read` for every part of every `#[name(…)]`.
fn each(attributes: &[Attribute], name: &str, mut read: impl FnMut(ParseNestedMeta<'_>) -> Result<()>) -> Result<()> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        attribute.parse_nested_meta(&mut read)?;
    }
    Ok(())
}

fn name_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path
        .segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect::<Vec<_>>()
        .join("::")
}

fn string(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    meta.value()?.parse()
}

fn optional_value(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(Token![=]) {
        string(meta).map(|_| ())
    } else {
        Ok(())
    }
}

/// Reads over whatever stands behind the name: `= …`, `(…)` or nothing.
fn ignore(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(syn::token::Paren) {
        let inside;
        syn::parenthesized!(inside in meta.input);
        inside.parse::<proc_macro2::TokenStream>().map(|_| ())
    } else if meta.input.peek(Token![=]) {
        meta.value()?.parse::<syn::Expr>().map(|_| ())
    } else {
        Ok(())
    }
}

/// `rename = "x"`; the form with different names for each way is refused unless they agree.
fn both_ways(meta: &ParseNestedMeta<'_>) -> Result<String> {
    if meta.input.peek(Token![=]) {
        return Ok(string(meta)?.value());
    }
    let mut names: Vec<String> = Vec::new();
    meta.parse_nested_meta(|way| {
        names.push(string(&way)?.value());
        Ok(())
    })?;
    match names.as_slice() {
        [serialize, deserialize] if serialize == deserialize => Ok(serialize.clone()),
        _ => Err(meta.error("state must be written and read by the same name")),
    }
}

fn rule(meta: &ParseNestedMeta<'_>) -> Result<Rule> {
    let name = both_ways(meta)?;
    Rule::parse(&name).ok_or_else(|| Error::new_spanned(&meta.path, format!("serde has no rule `{name}`")))
}
