//! The attribute on an `impl Operator for X`.

use super::{Errors, for_a};
use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote};
use syn::{Error, FnArg, ImplItem, ImplItemFn, ItemImpl, Lifetime, PatType, Result, Type, parse_quote};

/// The methods of `Operator`.
const METHODS: [&str; 11] = [
    "declare",
    "open",
    "restored",
    "process",
    "prefetch",
    "on_timer",
    "finish",
    "finish_all",
    "on_watermark",
    "snapshot_private",
    "restore_private",
];

const PROCESS: &str = "it is `fn process(&mut self, key: KEY, value: VALUE, cx: &mut Ctx) -> Result<()>`, without `key` for \
                       an operator that reads none";

pub(super) fn expand(mut item: ItemImpl) -> Result<TokenStream> {
    let mut errors = Errors::default();
    check_head(&item, &mut errors);
    check_methods(&item, &mut errors);
    let inputs = match method(&item, "process") {
        None => {
            let missing = format!("`process` is missing: {PROCESS}");
            errors.push(Error::new_spanned(&item.self_ty, missing));
            None
        }
        Some(process) => match Inputs::of(process) {
            Ok(inputs) => {
                check_key(&item, &inputs, &mut errors);
                Some(inputs)
            }
            Err(error) => {
                errors.push(error);
                None
            }
        },
    };
    errors.check()?;
    if let Some(inputs) = inputs {
        complete(&mut item, inputs);
    }
    let operator = &item.self_ty;
    Ok(quote! {
        #item
        ::regraft_sdk::export_operator!(#operator);
    })
}

/// The types that `process` reads.
struct Inputs {
    /// `None`: there is no parameter for it.
    key: Option<Type>,
    value: Type,
}

impl Inputs {
    fn of(process: &ImplItemFn) -> Result<Self> {
        let types: Vec<&Type> = typed(process).map(|parameter| &*parameter.ty).collect();
        let has_self = process.sig.receiver().is_some();
        match types.as_slice() {
            [value, _] if has_self => Ok(Inputs {
                key: None,
                value: (*value).clone(),
            }),
            [key, value, _] if has_self => Ok(Inputs {
                key: Some((*key).clone()),
                value: (*value).clone(),
            }),
            _ => Err(Error::new_spanned(
                &process.sig,
                format!("these are not the parameters of `process`: {PROCESS}"),
            )),
        }
    }

    fn has_key(&self) -> bool {
        match &self.key {
            None => false,
            Some(Type::Tuple(tuple)) => !tuple.elems.is_empty(),
            Some(_) => true,
        }
    }
}

fn typed(method: &ImplItemFn) -> impl Iterator<Item = &PatType> {
    method.sig.inputs.iter().filter_map(|parameter| match parameter {
        FnArg::Typed(parameter) => Some(parameter),
        FnArg::Receiver(_) => None,
    })
}

fn method<'a>(item: &'a ItemImpl, name: &str) -> Option<&'a ImplItemFn> {
    item.items.iter().find_map(|item| match item {
        ImplItem::Fn(method) if method.sig.ident == name => Some(method),
        _ => None,
    })
}

fn has_type(item: &ItemImpl, name: &str) -> bool {
    let mut items = item.items.iter();
    items.any(|item| matches!(item, ImplItem::Type(ty) if ty.ident == name))
}

fn check_head(item: &ItemImpl, errors: &mut Errors) {
    let of_operator = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
    if of_operator.is_none_or(|segment| segment.ident != "Operator") {
        errors.push(Error::new_spanned(
            &item.self_ty,
            "`#[operator]` belongs on an `impl Operator for …`",
        ));
    }
    if !item.generics.params.is_empty() {
        errors.push(Error::new_spanned(
            &item.generics,
            "an operator has no parameters: its component exports one type",
        ));
    }
}

fn check_methods(item: &ItemImpl, errors: &mut Errors) {
    for item in &item.items {
        if let ImplItem::Fn(method) = item
            && METHODS.iter().all(|name| method.sig.ident != name)
        {
            let (name, methods) = (&method.sig.ident, METHODS.join("`, `"));
            errors.push(Error::new_spanned(
                name,
                format!("`{name}` is no method of `Operator`; these are: `{methods}`"),
            ));
        }
    }
    if method(item, "declare").is_none() {
        errors.push(Error::new_spanned(
            &item.self_ty,
            "`declare` is missing: `fn declare(d: &mut Declare) -> Self` makes the operator with its handles",
        ));
    }
    for (name, other) in [
        ("snapshot_private", "restore_private"),
        ("restore_private", "snapshot_private"),
    ] {
        if let Some(method) = method(item, name)
            && self::method(item, other).is_none()
        {
            errors.push(Error::new_spanned(
                &method.sig.ident,
                format!("`{name}` needs `{other}`: one saves what the other takes back"),
            ));
        }
    }
}

/// Refuses what needs a key where `process` reads none.
fn check_key(item: &ItemImpl, inputs: &Inputs, errors: &mut Errors) {
    if inputs.key.is_none() && has_type(item, "Key") {
        errors.push(Error::new_spanned(
            &item.self_ty,
            "there is a type `Key`, and `process` takes no key: take it, or leave the type away",
        ));
    }
    if inputs.has_key() {
        return;
    }
    for (name, why) in [
        ("finish", "is called for each key: `finish_all` is called once"),
        ("on_timer", "is called for a timer's key, and timers are kept by key"),
    ] {
        if let Some(method) = method(item, name) {
            errors.push(Error::new_spanned(
                &method.sig.ident,
                format!("`{name}` {why}; `process` takes no key"),
            ));
        }
    }
}

/// Adds what is left to the attribute: the types, the parameter for a key that is none, and the list of methods.
fn complete(item: &mut ItemImpl, inputs: Inputs) {
    let a: Lifetime = parse_quote!('a);
    if !has_type(item, "In") {
        let value = for_a(&inputs.value, &a);
        item.items.push(parse_quote!(type In<'a> = #value;));
    }
    if !has_type(item, "Key") {
        let key = inputs
            .key
            .as_ref()
            .map_or_else(|| parse_quote!(()), |key| for_a(key, &a));
        item.items.push(parse_quote!(type Key<'a> = #key;));
    }
    if inputs.key.is_none() {
        for item in &mut item.items {
            if let ImplItem::Fn(method) = item
                && (method.sig.ident == "process" || method.sig.ident == "prefetch")
            {
                method.sig.inputs.insert(1, parse_quote!(_: ()));
            }
        }
    }
    let has = |name| method(item, name).is_some();
    let (prefetch, on_timer, on_watermark) = (has("prefetch"), has("on_timer"), has("on_watermark"));
    let (finish, finish_all, private_state) = (has("finish"), has("finish_all"), has("snapshot_private"));
    item.items.push(ImplItem::Verbatim(
        quote! {
            const METHODS: ::core::option::Option<::regraft_sdk::declare::Methods> =
                ::core::option::Option::Some(::regraft_sdk::declare::Methods {
                    prefetch: #prefetch,
                    on_timer: #on_timer,
                    finish: #finish,
                    finish_all: #finish_all,
                    on_watermark: #on_watermark,
                    private_state: #private_state,
                });
        }
        .to_token_stream(),
    ));
}
