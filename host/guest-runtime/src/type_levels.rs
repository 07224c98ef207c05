//! The levels of types of components and instances in each other, counted before anything else reads them: `wasmparser`
//! reads such types by recursion, as deep as the file says. Pure.

use wasmparser::{BinaryReader, BinaryReaderError, ComponentType, ComponentTypeDeclaration};

/// First bytes of the type of a component, of that of an instance, and of a declaration of a type in them.
const COMPONENT: u8 = 0x41;
const INSTANCE: u8 = 0x42;
const TYPE: u8 = 0x01;

/// Returns the greatest number of levels in a section of types at `offset` of the file, and `most` + 1 where it has more
/// than `most`: the rest is not read then.
///
/// # Errors
/// The section cannot be read.
pub(crate) fn levels(section: &[u8], offset: usize, most: u64) -> Result<u64, BinaryReaderError> {
    let mut reader = BinaryReader::new(section, offset);
    // Types or declarations that are still to come, at each level.
    let mut left = vec![reader.read_var_u32()?];
    let mut deepest = 1;
    while let Some(count) = left.last_mut() {
        if *count == 0 {
            left.pop();
            continue;
        }
        *count -= 1;
        let rest = section.get(reader.current_position()..).unwrap_or_default();
        let (head, is_declaration) = match (rest, left.len()) {
            ([head, ..], 1) => (*head, false),
            ([TYPE, head, ..], 2..) => (*head, true),
            _ => (TYPE, true),
        };
        if matches!(head, COMPONENT | INSTANCE) {
            reader.read_bytes(1 + usize::from(is_declaration))?;
            left.push(reader.read_var_u32()?);
            deepest = deepest.max(left.len() as u64);
            if deepest > most {
                break;
            }
        } else if left.len() == 1 {
            reader.read::<ComponentType<'_>>()?;
        } else {
            reader.read::<ComponentTypeDeclaration<'_>>()?;
        }
    }
    Ok(deepest)
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{ComponentType as Encoded, ComponentTypeSection, Encode as _, InstanceType, PrimitiveValType};

    use super::*;

    fn of(section: &ComponentTypeSection) -> Result<u64, BinaryReaderError> {
        let mut bytes = vec![];
        section.encode(&mut bytes);
        // Without its length.
        let mut reader = BinaryReader::new(&bytes, 0);
        let len = reader.read_var_u32()? as usize;
        levels(&bytes[bytes.len() - len..], 0, 100)
    }

    #[test]
    fn levels_are_counted_over_all_kinds_of_declarations() {
        let mut section = ComponentTypeSection::new();
        section.ty().defined_type().primitive(PrimitiveValType::Bool);
        assert_eq!(of(&section).expect("readable"), 1);
        let mut inner = InstanceType::new();
        inner.ty().defined_type().list(PrimitiveValType::U8);
        inner.export(
            "list",
            wasm_encoder::ComponentTypeRef::Type(wasm_encoder::TypeBounds::Eq(0)),
        );
        let mut outer = Encoded::new();
        outer.ty().defined_type().primitive(PrimitiveValType::U8);
        outer.ty().instance(&inner);
        outer.import("inner", wasm_encoder::ComponentTypeRef::Instance(1));
        section.ty().component(&outer);
        section.ty().instance(&inner);
        assert_eq!(of(&section).expect("readable"), 3);
    }

    #[test]
    fn deep_ones_are_found_without_recursion() {
        let nested = |levels: usize| [vec![1], [COMPONENT, 1, TYPE].repeat(levels), vec![INSTANCE, 0]].concat();
        assert_eq!(levels(&nested(98), 0, 100).expect("readable"), 100);
        assert_eq!(levels(&nested(99), 0, 100).expect("readable"), 101);
        assert_eq!(levels(&nested(1_000_000), 0, 100).expect("readable"), 101);
        assert!(levels(&[1, COMPONENT, 1, TYPE], 0, 100).is_err());
        assert!(levels(&[200, 1], 0, 100).is_err());
    }
}
