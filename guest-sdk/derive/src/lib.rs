//! The derive macros of `regraft-sdk`: the schema of a type, exactly as serde encodes it, and the inputs of an operator.
//!
//! The macro must agree with serde's derives attribute by attribute: a schema that says something else than what is in
//! the bytes would corrupt state at the next upgrade. So an attribute that is not understood is refused, never ignored.

mod attributes;
mod expand;
mod inputs;
mod rename;

/// Derives `State`, and `Record` for a struct with named fields. Goes by both names.
///
/// To stand beside serde's derives, whose attributes it follows. Its own: `#[state(alias = "old")]` on a field or a
/// variant, and `#[state(as = "TYPE")]` on a field whose encoding is another type's.
#[proc_macro_derive(State, attributes(state, serde))]
pub fn derive_state(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::state(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Lets an enum be the `In` of an operator with several inputs: a variant for each, in the order of the job file's
/// `inputs`, each holding `Text`, `Bytes`, `Any` or `Typed`. An input is named as its variant, in snake_case, or by
/// `#[input(name = "other")]`.
#[proc_macro_derive(Inputs, attributes(input))]
pub fn derive_inputs(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    inputs::inputs(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
