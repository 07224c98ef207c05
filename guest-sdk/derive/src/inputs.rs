//! From an enum with a variant for each input to its `FromValue` implementation.

use crate::rename::Rule;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, LitStr, Result, Type, Variant, parse_quote};

/// Attributes of a variant.
struct Input<'a> {
    variant: &'a Variant,
    name: String,
    ty: &'a Type,
}

pub(crate) fn inputs(input: &DeriveInput) -> Result<TokenStream> {
    const SHAPE: &str =
        "inputs are an enum with a variant for each, such as `enum In<'a> { Orders(&'a str), Users(User<'a>) }`";
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, SHAPE));
    };
    if data.variants.is_empty() {
        return Err(Error::new_spanned(&input.ident, SHAPE));
    }
    let mut inputs: Vec<Input<'_>> = Vec::new();
    for variant in &data.variants {
        let of = read(variant)?;
        if inputs.iter().any(|other| other.name == of.name) {
            return Err(Error::new_spanned(
                variant,
                format!("two inputs go by the name `{}`", of.name),
            ));
        }
        inputs.push(of);
    }

    let mut generics = input.generics.clone();
    let mut lifetimes = generics.lifetimes().map(|parameter| parameter.lifetime.clone());
    let lifetime = lifetimes.next();
    if lifetimes.next().is_some() || generics.type_params().next().is_some() {
        return Err(Error::new_spanned(
            &input.generics,
            "the inputs' enum can have one lifetime, that of the batch, and no other parameter",
        ));
    }
    let (_, arguments, conditions) = input.generics.split_for_impl();
    let lifetime = lifetime.unwrap_or_else(|| {
        let lifetime: syn::Lifetime = parse_quote!('__batch);
        generics
            .params
            .insert(0, GenericParam::Lifetime(parse_quote!(#lifetime)));
        lifetime
    });
    let (parameters, _, _) = generics.split_for_impl();

    let ident = &input.ident;
    let count = inputs.len() as u32;
    let declared = inputs.iter().map(|of| {
        let (name, ty) = (&of.name, of.ty);
        quote_spanned!(ty.span() => ::regraft_sdk::value::DeclaredInput::variant::<#lifetime, #ty>(#name))
    });
    let checks = inputs.iter().zip(0u32..).map(|(of, number)| {
        let ty = of.ty;
        quote!(#number => <#ty as ::regraft_sdk::value::FromValue<#lifetime>>::check(0, data, ends))
    });
    let reads = inputs.iter().zip(0u32..).map(|(of, number)| {
        let (ty, variant) = (of.ty, &of.variant.ident);
        quote! {
            // SAFETY: `check` has passed the column for this input, by the caller's promise.
            #number => unsafe { <#ty as ::regraft_sdk::value::FromValue<#lifetime>>::read(0, bytes) }.map(#ident::#variant)
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::regraft_sdk::value::FromValue<#lifetime> for #ident #arguments #conditions {
            const INPUTS: ::core::option::Option<u32> = ::core::option::Option::Some(#count);
            fn inputs() -> ::std::vec::Vec<::regraft_sdk::value::DeclaredInput> {
                ::std::vec![#(#declared),*]
            }
            fn check(
                input: u32,
                data: &[u8],
                ends: &[u32],
            ) -> ::core::result::Result<(), (usize, ::std::string::String)> {
                match input {
                    #(#checks,)*
                    _ => ::core::result::Result::Err((0, ::std::string::String::from("there is no such input"))),
                }
            }
            #[inline(always)]
            unsafe fn read(input: u32, bytes: &#lifetime [u8]) -> ::regraft_sdk::Result<Self> {
                match input {
                    #(#reads,)*
                    _ => ::core::result::Result::Err("there is no such input".into()),
                }
            }
        }
    })
}

fn read(variant: &Variant) -> Result<Input<'_>> {
    let ty = match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => &fields.unnamed[0].ty,
        _ => {
            return Err(Error::new_spanned(
                variant,
                "an input has one value: `&str`, `&[u8]`, a record or `Any`, such as `Orders(&'a str)`",
            ));
        }
    };
    let mut name = Rule::Snake.variant(&variant.ident.unraw().to_string());
    for attribute in variant
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("input"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = meta.value()?.parse::<LitStr>()?.value();
                return Ok(());
            }
            Err(meta.error("an input can have `#[input(name = \"other\")]` only"))
        })?;
    }
    Ok(Input { variant, name, ty })
}
