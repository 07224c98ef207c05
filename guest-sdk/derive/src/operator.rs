//! `#[operator]`: from an `impl Operator for X` or a function to an operator that its component exports.
//!
//! The runtime cannot see which methods of a trait are there. The attribute can, and writes it down as `METHODS`: so what
//! has a method is called.

mod function;
mod implementation;
mod stdio;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use syn::{Error, GenericArgument, Item, Lifetime, PathArguments, Result, Type};

pub(crate) fn operator(arguments: &TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "`#[operator]` takes no arguments"));
    }
    match syn::parse2(stdio::to_log(item))? {
        Item::Impl(item) => implementation::expand(item),
        Item::Fn(item) => function::expand(item),
        other => Err(Error::new_spanned(
            other,
            "`#[operator]` belongs on an `impl Operator for …`, or on a function",
        )),
    }
}

/// The type as it is for the lifetime `'a`: all its lifetimes but `'static` become that, also those that are left out of
/// references.
fn for_a(ty: &Type, a: &Lifetime) -> Type {
    let mut ty = ty.clone();
    replace(&mut ty, a);
    ty
}

fn replace(ty: &mut Type, a: &Lifetime) {
    match ty {
        Type::Reference(reference) => {
            if reference
                .lifetime
                .as_ref()
                .is_none_or(|lifetime| lifetime.ident != "static")
            {
                reference.lifetime = Some(a.clone());
            }
            replace(&mut reference.elem, a);
        }
        Type::Path(path) => {
            for segment in &mut path.path.segments {
                let PathArguments::AngleBracketed(arguments) = &mut segment.arguments else {
                    continue;
                };
                for argument in &mut arguments.args {
                    match argument {
                        GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => *lifetime = a.clone(),
                        GenericArgument::Type(ty) => replace(ty, a),
                        _ => {}
                    }
                }
            }
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(|ty| replace(ty, a)),
        Type::Array(array) => replace(&mut array.elem, a),
        Type::Slice(slice) => replace(&mut slice.elem, a),
        Type::Paren(paren) => replace(&mut paren.elem, a),
        Type::Group(group) => replace(&mut group.elem, a),
        _ => {}
    }
}

/// Collects errors, so that all are told at once.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn check(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
