//! Bounds of a component's size, checked before it is compiled: compiling takes time and memory that grow with them, some
//! faster than the file.
//!
//! Pure: one pass over the file, without validating it.

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, FunctionBody, Parser, Payload,
};

use crate::limits::{INSTANCES_MAX, MEMORIES_MAX};
use crate::module_error::ModuleError;
use crate::type_levels::levels;

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
/// The most instances of components that instantiating the component makes: compiling follows each of them.
const NESTED_MAX: u64 = 10_000;
/// The most levels of components in components, and of their types in each other.
const LEVELS_MAX: u64 = 100;

/// Counts of a component's parts.
#[derive(Debug, Default)]
struct Counts {
    code: u64,
    items: u64,
    instances: u64,
    memories: u64,
    /// Instances of components, counted along the paths of instantiation.
    nested: u64,
    /// Levels of components in components.
    levels: u64,
    /// Levels of types of components and instances.
    type_levels: u64,
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
        levels,
        type_levels,
    } = counts(bytes)?;
    most("levels of types of components", type_levels, LEVELS_MAX)?;
    most("bytes of code", code, CODE_BYTES_MAX)?;
    most("functions and globals", items, ITEMS_MAX)?;
    most("core instances", instances, INSTANCES_MAX as u64)?;
    most("memories", memories, MEMORIES_MAX as u64)?;
    most(
        "functions and globals in its instances",
        items.saturating_mul(instances),
        ITEMS_OF_INSTANCES_MAX,
    )?;
    most("levels of nested components", levels, LEVELS_MAX)?;
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
    let mut counts = Counts::default();
    let mut paths = Paths::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(failed)?;
        paths.read(&payload).map_err(failed)?;
        match payload {
            Payload::FunctionSection(section) => counts.items += u64::from(section.count()),
            Payload::GlobalSection(section) => counts.items += u64::from(section.count()),
            Payload::ImportSection(section) => counts.items += u64::from(section.count()),
            Payload::MemorySection(section) => counts.memories += u64::from(section.count()),
            Payload::InstanceSection(section) => counts.instances += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => {
                let range = section.range();
                let types = bytes.get(range.clone()).unwrap_or_default();
                let found = levels(types, range.start, LEVELS_MAX).map_err(failed)?;
                counts.type_levels = counts.type_levels.max(found);
            }
            Payload::CodeSectionEntry(body) => {
                counts.code = counts.code.saturating_add(function(&body).map_err(failed)??);
            }
            _ => {}
        }
    }
    (counts.nested, counts.levels) = (paths.instances(), paths.levels);
    Ok(counts)
}

/// Counts the instances of components along the paths of instantiation.
#[derive(Debug, Default)]
struct Paths {
    /// Components and modules that have been entered and not left.
    open: Vec<Scope>,
    levels: u64,
    /// Instances that the outermost component makes, with itself.
    outermost: u64,
    /// Product over all components of their own instantiations, each plus one: an upper bound of the paths.
    product: u64,
    /// True if a component is instantiated that is known only when it is passed: an import, or an export of an instance.
    is_open_ended: bool,
}

/// A component that is being read.
#[derive(Debug, Default)]
struct Scope {
    /// False for a core module.
    is_component: bool,
    /// Instances that each component of its index space makes, with itself; `None` where that is not known.
    components: Vec<Option<u64>>,
    /// Instances that it makes, without itself.
    instances: u64,
    /// Its own instantiations.
    own: u64,
}

impl Paths {
    /// Returns the number of instances, or an upper bound of it where components are passed as arguments.
    const fn instances(&self) -> u64 {
        if self.is_open_ended {
            self.product
        } else {
            self.outermost
        }
    }

    fn read(&mut self, payload: &Payload<'_>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::Version { encoding, .. } => {
                self.open.push(Scope {
                    is_component: *encoding == Encoding::Component,
                    ..Scope::default()
                });
                self.levels = self.levels.max(self.open.len() as u64);
            }
            Payload::End(_) => self.leave(),
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    if let ComponentTypeRef::Component(_) = import?.ty {
                        self.define(None);
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Component {
                        let instances = self.known(0, export.index);
                        self.define(instances);
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    match alias? {
                        ComponentAlias::InstanceExport {
                            kind: ComponentExternalKind::Component,
                            ..
                        } => self.define(None),
                        ComponentAlias::Outer {
                            kind: ComponentOuterAliasKind::Component,
                            count,
                            index,
                        } => {
                            let instances = self.known(count, index);
                            self.define(instances);
                        }
                        _ => {}
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        self.instantiate(component_index);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Leaves a module or component, which is the next of the index space around it if it is a component.
    fn leave(&mut self) {
        let Some(scope) = self.open.pop() else { return };
        let instances = scope.instances.saturating_add(1);
        self.product = self.product.max(1).saturating_mul(scope.own.saturating_add(1));
        match self.open.last_mut() {
            Some(around) if scope.is_component => around.components.push(Some(instances)),
            Some(_) => {}
            None => self.outermost = instances,
        }
    }

    fn define(&mut self, instances: Option<u64>) {
        if let Some(scope) = self.open.last_mut() {
            scope.components.push(instances);
        }
    }

    /// Returns the instances that a component makes in the index space so many levels further out.
    fn known(&self, levels: u32, index: u32) -> Option<u64> {
        let scope = self.open.iter().nth_back(levels as usize)?;
        scope.components.get(index as usize).copied().flatten()
    }

    fn instantiate(&mut self, index: u32) {
        let instances = self.known(0, index);
        self.is_open_ended |= instances.is_none();
        if let Some(scope) = self.open.last_mut() {
            scope.own += 1;
            scope.instances = scope.instances.saturating_add(instances.unwrap_or(1));
        }
    }
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
        Alias, CodeSection, Component, ComponentAliasSection, ComponentExportKind, ComponentInstanceSection,
        ComponentOuterAliasKind, Function, FunctionSection, Module, ModuleArg, ModuleSection, NestedComponentSection,
        TypeSection, ValType,
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

    /// Adds instantiations of components of its index space.
    fn instantiate(component: &mut Component, indices: impl IntoIterator<Item = u32>) {
        let mut instances = ComponentInstanceSection::new();
        for index in indices {
            instances.instantiate(index, std::iter::empty::<(&str, ComponentExportKind, u32)>());
        }
        component.section(&instances);
    }

    const WAYS: &str = "ways through its nested components";

    #[test]
    fn components_that_multiply_are_refused() {
        // Each instantiates the one before it twice: 2^30 ways.
        let mut component = Component::new();
        component.section(&NestedComponentSection(&Component::new()));
        for _ in 0..30 {
            let mut outer = Component::new();
            outer.section(&NestedComponentSection(&component));
            instantiate(&mut outer, [0, 0]);
            component = outer;
        }
        assert!(refused(component).expect("refused").contains(WAYS));
        // The same as siblings, each with an alias of the one before it.
        let mut component = Component::new();
        component.section(&NestedComponentSection(&Component::new()));
        for before in 0..30 {
            let mut sibling = Component::new();
            let mut aliases = ComponentAliasSection::new();
            aliases.alias(Alias::Outer {
                kind: ComponentOuterAliasKind::Component,
                count: 1,
                index: before,
            });
            sibling.section(&aliases);
            instantiate(&mut sibling, [0, 0]);
            component.section(&NestedComponentSection(&sibling));
        }
        instantiate(&mut component, [30]);
        assert!(refused(component).expect("refused").contains(WAYS));
    }

    #[test]
    fn composed_components_are_compiled() {
        // Seven libraries, each with a component for each of its three interfaces.
        let mut composed = Component::new();
        for library in 0..7 {
            let mut inner = Component::new();
            inner.section(&NestedComponentSection(&Component::new()));
            instantiate(&mut inner, [0, 0, 0]);
            composed.section(&NestedComponentSection(&inner));
            instantiate(&mut composed, [library]);
        }
        assert_eq!(refused(composed), None);
    }

    #[test]
    fn levels_are_bounded() {
        let nested = |levels: usize| {
            let mut component = Component::new();
            for _ in 1..levels {
                let mut outer = Component::new();
                outer.section(&NestedComponentSection(&component));
                component = outer;
            }
            refused(component)
        };
        assert_eq!(nested(100), None);
        let deep = nested(101).expect("refused");
        assert!(deep.contains("101 levels of nested components"), "{deep}");
    }
}
