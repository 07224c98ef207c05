//! Files and lines of a component's code, from the debug information (DWARF) that its compiler left in it.
//!
//! They are wanted when a guest traps, and a job whose policy is `dead-letter` may see many traps. So what there is to
//! read is read once for a module, by the first trap of any of its instances, and kept; the runtime itself would do it
//! anew for every frame of every trap, in some milliseconds each.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use addr2line::Context;
use gimli::{Dwarf, EndianArcSlice, LittleEndian};
use wasmparser::{Parser, Payload};

use crate::module_error::shown;

/// The longest section of lines that is read, in bytes.
const LINES_BYTES_MAX: usize = 8 << 20;
/// The longest other section that is read, in bytes.
const SECTION_BYTES_MAX: usize = 64 << 20;
/// The most places in a module's code whose names are kept.
const FOUND_MAX: usize = 10_000;
/// The most functions around one place.
const INLINED_MAX: usize = 64;
/// The longest name of a function or file, in bytes. A longer one is cut.
const NAME_MAX: usize = 1_000;

/// A piece of debug information.
type Section = EndianArcSlice<LittleEndian>;

/// Functions around one place in the code, innermost first. All but the last were inlined.
pub(crate) type Symbols = Arc<[Symbol]>;

/// One function at a place in the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol {
    /// As the compiler has it: mangled, or without its path.
    pub(crate) function: Option<String>,
    /// As the compiler has it.
    pub(crate) file: Option<String>,
    /// From 1.
    pub(crate) line: Option<u32>,
}

/// The debug information of a component; read when it is first asked.
pub(crate) struct DebugInfo {
    component: Arc<[u8]>,
    modules: OnceLock<Vec<CoreModule>>,
}

/// One of the component's core modules, where it has debug information.
struct CoreModule {
    /// Range of its code in the component's file.
    code: Range<usize>,
    read: Mutex<Read>,
}

struct Read {
    context: Context<Section>,
    /// Earlier answers.
    found: HashMap<usize, Symbols>,
}

impl DebugInfo {
    /// That of a component's bytes.
    pub(crate) fn new(component: Arc<[u8]>) -> Self {
        Self {
            component,
            modules: OnceLock::new(),
        }
    }

    /// Returns the place at an offset in the component's file. Empty if there is no debug information, or none that can
    /// be read: it only helps people, and a guest may have written anything there.
    pub(crate) fn at(&self, offset: usize) -> Symbols {
        let modules = self.modules.get_or_init(|| core_modules(&self.component));
        let Some(module) = modules.iter().find(|module| module.code.contains(&offset)) else {
            return Symbols::default();
        };
        let mut read = module.read.lock().unwrap_or_else(PoisonError::into_inner);
        let Read { context, found } = &mut *read;
        if found.len() >= FOUND_MAX {
            found.clear();
        }
        Arc::clone(
            found
                .entry(offset)
                // Addresses of debug information count from where the code section's content begins.
                .or_insert_with(|| symbols(context, (offset - module.code.start) as u64)),
        )
    }
}

impl std::fmt::Debug for DebugInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugInfo").finish_non_exhaustive()
    }
}

fn symbols(context: &Context<Section>, address: u64) -> Symbols {
    let mut symbols = Vec::new();
    if let Ok(mut frames) = context.find_frames(address).skip_all_loads() {
        while let (true, Ok(Some(frame))) = (symbols.len() < INLINED_MAX, frames.next()) {
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            let file = frame.location.as_ref().and_then(|at| at.file);
            symbols.push(Symbol {
                function: name.map(|name| shown(&name, NAME_MAX)),
                file: file.map(|file| shown(file, NAME_MAX)),
                line: frame.location.as_ref().and_then(|at| at.line),
            });
        }
    }
    symbols.into()
}

/// The core modules of a component that have code and debug information, up to where the file cannot be read.
fn core_modules(component: &[u8]) -> Vec<CoreModule> {
    /// Sections of a module whose end has not been reached.
    #[derive(Default)]
    struct Open<'a> {
        code: Option<Range<usize>>,
        sections: HashMap<&'a str, &'a [u8]>,
    }
    let mut modules = Vec::new();
    // The component, what is nested in it, and so on.
    let mut open = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        match payload {
            Ok(Payload::Version { .. }) => open.push(Open::default()),
            Ok(Payload::CodeSectionStart { range, .. }) => {
                if let Some(last) = open.last_mut() {
                    last.code = Some(range);
                }
            }
            Ok(Payload::CustomSection(section)) if is_read(section.name(), section.data().len()) => {
                if let Some(last) = open.last_mut() {
                    last.sections.insert(section.name(), section.data());
                }
            }
            Ok(Payload::End(_)) => {
                let Some(Open {
                    code: Some(code),
                    sections,
                }) = open.pop()
                else {
                    continue;
                };
                if let Some(context) = context(&sections) {
                    let found = HashMap::new();
                    let read = Mutex::new(Read { context, found });
                    modules.push(CoreModule { code, read });
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    modules
}

/// True if a custom section is debug information that is read: what is made of it in memory is larger than itself, most of
/// all of lines.
fn is_read(name: &str, len: usize) -> bool {
    let most = match name {
        ".debug_line" => LINES_BYTES_MAX,
        _ => SECTION_BYTES_MAX,
    };
    name.starts_with(".debug_") && len <= most
}

fn context(sections: &HashMap<&str, &[u8]>) -> Option<Context<Section>> {
    if sections.is_empty() {
        return None;
    }
    let section = |id: gimli::SectionId| -> Result<Section, gimli::Error> {
        let bytes = sections.get(id.name()).copied().unwrap_or_default();
        Ok(EndianArcSlice::new(bytes.into(), LittleEndian))
    };
    Context::from_dwarf(Dwarf::load(section).ok()?).ok()
}
