//! From a type's definition to its `State` implementation.

use crate::attributes::{Container, Item};
use crate::rename::Rule;
use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt as _;
use syn::{Data, DataEnum, DataStruct, DeriveInput, Error, Field, Fields, Result, Type, parse_quote};

pub(crate) fn state(input: &DeriveInput) -> Result<TokenStream> {
    let container = Container::read(&input.attrs)?;
    let name = container
        .rename
        .clone()
        .unwrap_or_else(|| input.ident.unraw().to_string());
    let (schema, is_record) = match &input.data {
        Data::Struct(data) => struct_schema(input, data, &container, &name)?,
        Data::Enum(data) => (enum_schema(data, &container, &name)?, false),
        Data::Union(_) => return Err(Error::new_spanned(&input.ident, "a union has no schema")),
    };
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::regraft_sdk::State));
    }
    let ident = &input.ident;
    let plain = plain_methods(input)?;
    let (parameters, arguments, conditions) = generics.split_for_impl();
    let record = is_record.then(|| {
        quote! {
            #[automatically_derived]
            impl #parameters ::regraft_sdk::Record for #ident #arguments #conditions {}
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::regraft_sdk::State for #ident #arguments #conditions {
            fn schema() -> ::regraft_sdk::schema::Type {
                ::regraft_sdk::schema::nested(#name, || #schema)
            }
            #plain
        }
        #record
    })
}

/// The schema of a struct, and whether it is one with named fields.
fn struct_schema(
    input: &DeriveInput,
    data: &DataStruct,
    container: &Container,
    name: &str,
) -> Result<(TokenStream, bool)> {
    if container.transparent {
        let mut types = Vec::new();
        for field in &data.fields {
            let item = Item::read(&field.attrs, false)?;
            if !item.skip {
                types.push(item.encoded_as.unwrap_or_else(|| field.ty.clone()));
            }
        }
        return match types.as_slice() {
            [ty] => Ok((schema_of(ty), false)),
            _ => Err(Error::new_spanned(
                &input.ident,
                "`transparent` needs exactly one field that is not skipped",
            )),
        };
    }
    match &data.fields {
        Fields::Named(fields) => {
            let fields = named_fields(fields.named.iter(), container.rename_all, container.default)?;
            let schema = quote! {
                ::regraft_sdk::schema::Type::Struct(::regraft_sdk::schema::Struct {
                    name: #name,
                    fields: #fields,
                })
            };
            Ok((schema, true))
        }
        Fields::Unnamed(fields) => {
            let types = unnamed_fields(fields.unnamed.iter())?;
            Ok((
                match types.as_slice() {
                    // As serde has it: a struct of one value is that value.
                    [ty] if fields.unnamed.len() == 1 => schema_of(ty),
                    types => tuple(types),
                },
                false,
            ))
        }
        Fields::Unit => Ok((quote!(<() as ::regraft_sdk::State>::schema()), false)),
    }
}

/// The shorter way of reading and writing (`regraft_sdk::plain`): for a struct whose fields are all numbers and truth
/// values, encoded as they are.
fn plain_methods(input: &DeriveInput) -> Result<Option<TokenStream>> {
    const PLAIN: [&str; 11] = [
        "bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64",
    ];
    let Data::Struct(DataStruct {
        fields: Fields::Named(fields),
        ..
    }) = &input.data
    else {
        return Ok(None);
    };
    let (mut idents, mut types) = (Vec::new(), Vec::new());
    for field in &fields.named {
        let item = Item::read(&field.attrs, false)?;
        let is_plain = match &field.ty {
            Type::Path(ty) => PLAIN.iter().any(|plain| ty.path.is_ident(plain)),
            _ => false,
        };
        if item.skip || item.encoded_as.is_some() || !is_plain {
            return Ok(None);
        }
        idents.extend(&field.ident);
        types.push(&field.ty);
    }
    let count = types.len();
    if count == 0 || !input.generics.params.is_empty() {
        return Ok(None);
    }
    Ok(Some(quote! {
        #[inline(always)]
        fn read_plain(bytes: &[u8]) -> ::core::option::Option<Self> {
            ::regraft_sdk::plain::read(bytes, |parts| {
                ::core::option::Option::Some(Self {
                    #(#idents: <#types as ::regraft_sdk::plain::Plain>::read(parts)?),*
                })
            })
        }
        #[inline(always)]
        fn write_plain(&self, to: &mut ::std::vec::Vec<u8>) -> bool {
            ::regraft_sdk::plain::write(to, #count, |room| {
                #(::regraft_sdk::plain::Plain::write(self.#idents, room);)*
            });
            true
        }
    }))
}

fn enum_schema(data: &DataEnum, container: &Container, name: &str) -> Result<TokenStream> {
    let mut variants = Vec::new();
    for variant in &data.variants {
        let item = Item::read(&variant.attrs, true)?;
        let variant_name = item
            .rename
            .unwrap_or_else(|| container.rename_all.variant(&variant.ident.unraw().to_string()));
        let aliases = item.aliases;
        let content = match &variant.fields {
            Fields::Unit => quote!(Unit),
            Fields::Unnamed(fields) => {
                let types = unnamed_fields(fields.unnamed.iter())?;
                match types.as_slice() {
                    [ty] if fields.unnamed.len() == 1 => {
                        let schema = schema_of(ty);
                        quote!(Newtype(#schema))
                    }
                    types => {
                        let schemas = types.iter().map(schema_of);
                        quote!(Tuple(::std::vec![#(#schemas),*]))
                    }
                }
            }
            Fields::Named(fields) => {
                let rule = if matches!(item.rename_all, Rule::None) {
                    container.rename_all_fields
                } else {
                    item.rename_all
                };
                let fields = named_fields(fields.named.iter(), rule, false)?;
                quote!(Fields(#fields))
            }
        };
        variants.push(quote! {
            ::regraft_sdk::schema::Variant {
                name: #variant_name,
                content: ::regraft_sdk::schema::Content::#content,
                aliases: ::std::vec![#(#aliases),*],
            }
        });
    }
    Ok(quote! {
        ::regraft_sdk::schema::Type::Enum(::regraft_sdk::schema::Enum {
            name: #name,
            variants: ::std::vec![#(#variants),*],
        })
    })
}

fn named_fields<'a>(fields: impl Iterator<Item = &'a Field>, rule: Rule, all_default: bool) -> Result<TokenStream> {
    let mut parts = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for field in fields {
        let item = Item::read(&field.attrs, false)?;
        if item.skip {
            continue;
        }
        let ident = field
            .ident
            .as_ref()
            .map(|ident| ident.unraw().to_string())
            .unwrap_or_default();
        let name = item.rename.unwrap_or_else(|| rule.field(&ident));
        for name in item.aliases.iter().chain([&name]) {
            if names.contains(name) {
                return Err(Error::new_spanned(field, format!("two fields go by the name `{name}`")));
            }
            names.push(name.clone());
        }
        let ty = item.encoded_as.unwrap_or_else(|| field.ty.clone());
        let (aliases, default) = (item.aliases, item.default || all_default);
        parts.push(quote!(::regraft_sdk::schema::field::<#ty>(#name, &[#(#aliases),*], #default)));
    }
    Ok(quote!(::std::vec![#(#parts),*]))
}

fn unnamed_fields<'a>(fields: impl Iterator<Item = &'a Field>) -> Result<Vec<Type>> {
    let mut types = Vec::new();
    for field in fields {
        let item = Item::read(&field.attrs, false)?;
        if let Some(alias) = item.aliases.first() {
            return Err(Error::new_spanned(
                field,
                format!("a field without a name cannot have an alias (`{alias}`)"),
            ));
        }
        if !item.skip {
            types.push(item.encoded_as.unwrap_or_else(|| field.ty.clone()));
        }
    }
    Ok(types)
}

fn schema_of(ty: &Type) -> TokenStream {
    quote!(<#ty as ::regraft_sdk::State>::schema())
}

fn tuple(types: &[Type]) -> TokenStream {
    let schemas = types.iter().map(schema_of);
    quote!(::regraft_sdk::schema::Type::Tuple(::std::vec![#(#schemas),*]))
}
