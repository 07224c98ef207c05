//! The attribute on a function: an operator that keeps no state.

use super::{Errors, for_a};
use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt as _;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, ItemFn, Lifetime, Lit, LitStr, Meta, Pat, PatType,
    PathArguments, PathSegment, Result, ReturnType, Type, parse_quote,
};

const SHAPE: &str = "an operator's function is `fn name(value: &str, out: Port<str>, cx: &mut Ctx)`: the record's value, or its \
                     key and its value, then an output port or more, then the call";

/// A key or a value that the function reads.
struct Read {
    name: Option<String>,
    ty: Type,
}

/// An output of the function.
struct Output {
    name: String,
    value: Type,
    /// Type and name of its keys, where they are its own.
    key: Option<(Type, String)>,
}

/// Parameters by what they are.
#[derive(Default)]
struct Parameters {
    reads: Vec<Read>,
    outputs: Vec<Output>,
    has_call: bool,
}

pub(super) fn expand(mut item: ItemFn) -> Result<TokenStream> {
    let parameters = check(&mut item)?;
    let (vis, name) = (&item.vis, &item.sig.ident);
    let a: Lifetime = parse_quote!('a);
    let (key, value) = match parameters.reads.as_slice() {
        [value] => (None, value),
        [key, value] => (Some(key), value),
        _ => return Err(Error::new_spanned(&item.sig, SHAPE)),
    };
    let key_type = key.map_or_else(|| parse_quote!(()), |key| for_a(&key.ty, &a));
    let value_type = for_a(&value.ty, &a);
    let key_name = key.and_then(|key| key.name.as_ref()).map(|name| quote!(d.key(#name);));
    let value_name = value.name.as_ref().map(|name| {
        quote! {
            if <Self::In<'static> as ::regraft_sdk::value::FromValue<'static>>::INPUTS.is_none() {
                d.input(#name);
            }
        }
    });
    let outputs = parameters.outputs.iter().map(|output| {
        let (name, value) = (&output.name, &output.value);
        match &output.key {
            None => quote!(_ = d.output::<#value>(#name);),
            Some((key, column)) => quote!(_ = d.output_keyed::<#key, #value>(#name, #column);),
        }
    });
    let key_argument = key.map(|_| quote!(key,));
    let ports = (0..parameters.outputs.len() as u32).map(|index| quote!(::regraft_sdk::Port::new(#index)));
    let call_argument = parameters.has_call.then(|| quote!(cx));
    let call = quote!(#name(#key_argument value, #(#ports,)* #call_argument));
    let body = match item.sig.output {
        ReturnType::Default => quote!(#call; ::core::result::Result::Ok(())),
        ReturnType::Type(..) => call,
    };
    let doc = format!("The operator that the function `{name}` is.");
    Ok(quote! {
        #item

        #[doc = #doc]
        #[allow(non_camel_case_types)]
        #vis struct #name {}

        #[automatically_derived]
        impl ::regraft_sdk::Operator for #name {
            type Key<'a> = #key_type;
            type In<'a> = #value_type;
            const METHODS: ::core::option::Option<::regraft_sdk::declare::Methods> =
                ::core::option::Option::Some(::regraft_sdk::declare::Methods::NONE);

            fn declare(d: &mut ::regraft_sdk::Declare) -> Self {
                #key_name
                #value_name
                #(#outputs)*
                #name {}
            }

            #[inline]
            #[allow(unused_variables)]
            fn process(
                &mut self,
                key: Self::Key<'_>,
                value: Self::In<'_>,
                cx: &mut ::regraft_sdk::Ctx<'_>,
            ) -> ::regraft_sdk::Result<()> {
                #body
            }
        }

        ::regraft_sdk::export_operator!(#name);
    })
}

/// Reads the parameters, and takes their attributes away.
fn check(item: &mut ItemFn) -> Result<Parameters> {
    let mut errors = Errors::default();
    let sig = &mut item.sig;
    let qualified = [
        sig.asyncness.map(|token| {
            Error::new_spanned(
                token,
                "an operator's function cannot be `async`: a call is over when it returns",
            )
        }),
        sig.unsafety
            .map(|token| Error::new_spanned(token, "an operator's function cannot be `unsafe`")),
    ];
    qualified.into_iter().flatten().for_each(|error| errors.push(error));
    if sig.generics.type_params().next().is_some() || sig.generics.const_params().next().is_some() {
        errors.push(Error::new_spanned(
            &sig.generics,
            "an operator has no type parameters: its component exports one type",
        ));
    }
    let mut parameters = Parameters::default();
    for parameter in &mut sig.inputs {
        let added = match parameter {
            FnArg::Typed(parameter) => parameters.add(parameter),
            FnArg::Receiver(receiver) => Err(Error::new_spanned(receiver, SHAPE)),
        };
        if let Err(error) = added {
            errors.push(error);
            // What comes behind it may be told for what it is not.
            break;
        }
    }
    // Else it is what an error above makes of them.
    let complete = errors.0.is_none();
    if complete && parameters.reads.is_empty() {
        errors.push(Error::new_spanned(&sig.ident, SHAPE));
    }
    if complete && !parameters.outputs.is_empty() && !parameters.has_call {
        errors.push(Error::new_spanned(
            &sig.ident,
            "`cx: &mut Ctx` is missing, the last parameter: `cx.emit(out, …)` emits",
        ));
    }
    errors.check().map(|()| parameters)
}

impl Parameters {
    fn add(&mut self, parameter: &mut PatType) -> Result<()> {
        let attributes = std::mem::take(&mut parameter.attrs);
        let (keys, others) = attributes
            .into_iter()
            .partition::<Vec<Attribute>, _>(|attribute| attribute.path().is_ident("key"));
        parameter.attrs = others;
        let key = keys.first().map(column).transpose()?;
        let ident = ident(&parameter.pat);
        if let Some(port) = last_segment(&parameter.ty).filter(|segment| segment.ident == "Port") {
            let Some(ident) = ident else {
                return Err(Error::new_spanned(
                    &parameter.pat,
                    "an output is named by its parameter: give it a name",
                ));
            };
            let output = output(port, ident, key)?;
            if self.has_call {
                return Err(Error::new_spanned(&parameter.ty, SHAPE));
            }
            self.outputs.push(output);
            return Ok(());
        }
        if let Some(attribute) = keys.first() {
            return Err(Error::new_spanned(
                attribute,
                "`#[key = \"…\"]` names the keys of an output, which is a `Port<V, K>`",
            ));
        }
        if is_call(&parameter.ty) {
            if self.has_call {
                return Err(Error::new_spanned(&parameter.ty, SHAPE));
            }
            self.has_call = true;
            return Ok(());
        }
        if self.reads.len() == 2 || !self.outputs.is_empty() || self.has_call {
            return Err(Error::new_spanned(&parameter.ty, SHAPE));
        }
        self.reads.push(Read {
            name: ident.and_then(name),
            ty: (*parameter.ty).clone(),
        });
        Ok(())
    }
}

fn output(port: &PathSegment, ident: &Ident, column: Option<LitStr>) -> Result<Output> {
    let types: Vec<&Type> = match &port.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let name = name(ident).unwrap_or_else(|| "out".to_owned());
    let key_name = || column.as_ref().map_or_else(|| "key".to_owned(), LitStr::value);
    match types.as_slice() {
        [value] if column.is_some() => Err(Error::new_spanned(
            value,
            "records of this output keep the key of the record they come from; with a key of their own it is a `Port<V, K>`",
        )),
        [value] => Ok(Output {
            name,
            value: (*value).clone(),
            key: None,
        }),
        [value, key] => Ok(Output {
            name,
            value: (*value).clone(),
            key: Some(((*key).clone(), key_name())),
        }),
        _ => Err(Error::new_spanned(
            port,
            "a port says what it carries: `Port<str>`, or `Port<V, K>` with keys of its own",
        )),
    }
}

/// The name in `#[key = "name"]`.
fn column(attribute: &Attribute) -> Result<LitStr> {
    if let Meta::NameValue(meta) = &attribute.meta
        && let Expr::Lit(ExprLit {
            lit: Lit::Str(name), ..
        }) = &meta.value
    {
        return Ok(name.clone());
    }
    Err(Error::new_spanned(attribute, "it is `#[key = \"name\"]`"))
}

fn ident(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(pattern) => Some(&pattern.ident),
        _ => None,
    }
}

/// The name of a parameter, without underscores in front that say that it is not used.
fn name(ident: &Ident) -> Option<String> {
    let name = ident.unraw().to_string();
    let name = name.trim_start_matches('_');
    (!name.is_empty()).then(|| name.to_owned())
}

fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

fn is_call(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => {
            reference.mutability.is_some()
                && last_segment(&reference.elem).is_some_and(|segment| segment.ident == "Ctx")
        }
        _ => false,
    }
}
