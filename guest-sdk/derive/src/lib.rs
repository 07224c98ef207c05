//! The macros of `regraft-sdk`: the schema of a type, exactly as serde encodes it, the inputs of an operator, and the
//! operator itself.
//!
//! The derive macros must agree with serde's derives attribute by attribute: a schema that says something else than what is in
//! the bytes would corrupt state at the next upgrade. So an attribute that is not understood is refused, never ignored.

mod attributes;
mod expand;
mod inputs;
mod operator;
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
/// `inputs`, each holding `&str`, `&[u8]`, a record or `Any`. An input is named as its variant, in snake_case, or by
/// `#[input(name = "other")]`.
#[proc_macro_derive(Inputs, attributes(input))]
pub fn derive_inputs(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    inputs::inputs(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Makes an operator, and exports it from its component: once in a crate.
///
/// On an `impl Operator for X` it looks at the methods that are there:
///
/// - `Key` and `In` are the types that `process` takes. An operator that reads no key leaves it away in `process` and
///   `prefetch`.
/// - The calls of `finish`, `finish_all`, `on_watermark` and `prefetch` are asked for where there is such a method, and so
///   is private state. A timer needs `on_timer`.
///
/// On a function it makes an operator without state. The function takes the record's value, or its key and its value, then
/// a `Port` for each output, then `cx: &mut Ctx`. Key, input and outputs are named as their parameters, and
/// `#[key = "…"]` on a port names keys of its own. It returns nothing or a `Result<()>`. The operator is a type of the
/// function's name.
///
/// ```text
/// #[operator]
/// fn split(line: &str, #[key = "word"] words: Port<str, str>, cx: &mut Ctx) {
///     for word in line.split_whitespace() {
///         cx.emit(words, "").key(word);
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn operator(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    operator::operator(&arguments.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
