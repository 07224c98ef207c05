//! Bounds of a component's size, checked before it is compiled: compiling takes time and memory that grow with them, some
//! faster than the file.
//!
//! Pure: one pass over the file, without validating it.

use wasmparser::{BinaryReaderError, ComponentInstance, FunctionBody, Parser, Payload};

use crate::limits::{INSTANCES_MAX, MEMORIES_MAX};
use crate::module_error::ModuleError;

/// The largest file of a component, in bytes, with its debug information.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// The most code in all functions.
const CODE_BYTES_MAX: u64 = 64 << 20;
/// The largest function.
const FUNCTION_BYTES_MAX: u64 = 512 << 10;
/// The greatest product of a function's bytes and its local variables: what finding their values takes, at worst.
const FUNCTION_WORK_MAX: u64 = 1 << 30;
/// The most functions and globals in all core modules.
const ITEMS_MAX: u64 = 200_000;
/// The greatest product of functions and globals with core instances: each instance has a table of them.
const ITEMS_OF_INSTANCES_MAX: u64 = 4_000_000;
/// The most ways to reach components that are nested in each other: compiling follows each of them.
const NESTED_MAX: u64 = 10_000;

/// Numbers of a component's parts.
#[derive(Debug)]
struct Counts {
    code: u64,
    items: u64,
    instances: u64,
    memories: u64,
    /// The product over all components of their instantiations of others, each plus one.
    nested: u64,
}

/// Checks a component's size.
///
/// # Errors
/// [`ModuleError::TooLarge`] for the first part that is; [`ModuleError::Invalid`] where the file cannot be read.
pub(crate) fn check(bytes: &[u8]) -> Result<(), ModuleError> {
    most("bytes", bytes.len() as u64, FILE_BYTES_MAX)?;
    let Counts {
        code,
        items,
        instances,
        memories,
        nested,
    } = counts(bytes)?;
    most("bytes of code", code, CODE_BYTES_MAX)?;
    most("functions and globals", items, ITEMS_MAX)?;
    most("core instances", instances, INSTANCES_MAX as u64)?;
    most("memories", memories, MEMORIES_MAX as u64)?;
    most(
        "functions and globals in its instances",
        items.saturating_mul(instances),
        ITEMS_OF_INSTANCES_MAX,
    )?;
    most("ways through its nested components", nested, NESTED_MAX)
}

fn most(what: &'static str, found: u64, most: u64) -> Result<(), ModuleError> {
    if found <= most {
        return Ok(());
    }
    Err(ModuleError::TooLarge { what, found, most })
}

fn counts(bytes: &[u8]) -> Result<Counts, ModuleError> {
    let failed = |error: BinaryReaderError| ModuleError::Invalid {
        message: error.to_string(),
    };
    let mut counts = Counts {
        code: 0,
        items: 0,
        instances: 0,
        memories: 0,
        nested: 1,
    };
    // Instantiations in each component that has been entered and not left.
    let mut open: Vec<u64> = vec![];
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(failed)? {
            Payload::Version { .. } => open.push(0),
            Payload::End(_) => {
                let own = open.pop().unwrap_or(0);
                counts.nested = counts.nested.saturating_mul(own.saturating_add(1));
            }
            Payload::FunctionSection(section) => counts.items += u64::from(section.count()),
            Payload::GlobalSection(section) => counts.items += u64::from(section.count()),
            Payload::ImportSection(section) => counts.items += u64::from(section.count()),
            Payload::MemorySection(section) => counts.memories += u64::from(section.count()),
            Payload::InstanceSection(section) => counts.instances += u64::from(section.count()),
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if let (ComponentInstance::Instantiate { .. }, Some(own)) =
                        (instance.map_err(failed)?, open.last_mut())
                    {
                        *own += 1;
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                counts.code = counts.code.saturating_add(function(&body).map_err(failed)??);
            }
            _ => {}
        }
    }
    Ok(counts)
}

/// Checks one function, and returns its size.
fn function(body: &FunctionBody<'_>) -> Result<Result<u64, ModuleError>, BinaryReaderError> {
    let bytes = body.range().len() as u64;
    if let Err(error) = most("bytes in one function", bytes, FUNCTION_BYTES_MAX) {
        return Ok(Err(error));
    }
    let mut locals = 0u64;
    for group in body.get_locals_reader()? {
        locals = locals.saturating_add(u64::from(group?.0));
    }
    let work = bytes.saturating_mul(locals);
    Ok(most("bytes times local variables in one function", work, FUNCTION_WORK_MAX).map(|()| bytes))
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        CodeSection, Component, ComponentInstanceSection, Function, FunctionSection, Module, ModuleArg, ModuleSection,
        NestedComponentSection, TypeSection, ValType,
    };

    use super::*;

    fn module(bodies: &[Function]) -> Component {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        for body in bodies {
            functions.function(0);
            code.function(body);
        }
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&code);
        let mut component = Component::new();
        component.section(&ModuleSection(&module));
        component
    }

    fn body(locals: u32, len: usize) -> Function {
        let mut body = Function::new([(locals, ValType::I32)]);
        body.raw(std::iter::repeat_n(0x01, len));
        body.raw([0x0b]);
        body
    }

    fn refused(component: Component) -> Option<String> {
        check(&component.finish()).err().map(|error| error.to_string())
    }

    #[test]
    fn one_function_is_bounded() {
        assert_eq!(refused(module(&[body(1, 500_000)])), None);
        assert!(
            refused(module(&[body(1, 600_000)]))
                .expect("refused")
                .contains("bytes in one function, and a host compiles at most 524288")
        );
        assert_eq!(refused(module(&[body(2_000, 500_000)])), None);
        assert!(
            refused(module(&[body(40_000, 100_000)]))
                .expect("refused")
                .contains("bytes times local variables in one function")
        );
    }

    #[test]
    fn instances_times_items_are_bounded() {
        let with_instances = |count: u32, functions: usize| {
            let mut component = module(&vec![body(0, 0); functions]);
            let mut instances = wasm_encoder::InstanceSection::new();
            for _ in 0..count {
                instances.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
            }
            component.section(&instances);
            refused(component)
        };
        assert_eq!(with_instances(100, 10_000), None);
        assert!(
            with_instances(101, 1)
                .expect("refused")
                .starts_with("it has 101 core instances")
        );
        assert!(
            with_instances(100, 50_000)
                .expect("refused")
                .starts_with("it has 5000000 functions and globals in its instances")
        );
    }

    #[test]
    fn components_that_multiply_are_refused() {
        // Each instantiates the one before it twice: 2^30 ways.
        let mut component = Component::new();
        component.section(&NestedComponentSection(&Component::new()));
        for _ in 0..30 {
            let mut outer = Component::new();
            outer.section(&NestedComponentSection(&component));
            let mut instances = ComponentInstanceSection::new();
            for _ in 0..2 {
                instances.instantiate(0, std::iter::empty::<(&str, wasm_encoder::ComponentExportKind, u32)>());
            }
            outer.section(&instances);
            component = outer;
        }
        assert!(
            refused(component)
                .expect("refused")
                .contains("ways through its nested components")
        );
    }
}
