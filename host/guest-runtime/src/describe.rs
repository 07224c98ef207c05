//! The custom section `regraft:describe`: what a component declares, found without running it.
//!
//! `regraft build` puts it first in the file, so that it is found without reading the rest. It is only a shortcut:
//! deploying checks its digest, and that it says the same as the live answer. Pure; the engine runs `describe`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use regraft_model::describe::Description;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wasm_encoder::{ComponentSection, CustomSection};

use crate::module_error::ModuleError;

/// The name of the custom section.
pub const SECTION: &str = "regraft:describe";

/// The length of `\0asm`, version and layer, before the first section.
const PREAMBLE: usize = 8;

/// The SHA-256 of a file, which is a module's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleDigest([u8; 32]);

impl ModuleDigest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 6 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(6);
        text
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ModuleDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a module's digest: expected 64 hex digits");
        let digits: Vec<u8> = text
            .chars()
            .map(|c| c.to_digit(16).map(|d| d as u8))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        if digits.len() != 64 {
            Err(wrong())
        } else {
            bytes.try_into().map(Self).map_err(|_| wrong())
        }
    }
}

/// What the section says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The digest of the file without the section.
    pub digest: ModuleDigest,
    /// What `describe` returned when the section was made.
    pub description: Description,
}

/// Reads the section; `None` where the file does not begin with one.
///
/// # Errors
/// [`ModuleError::SectionMalformed`] where there is one that is not as documented.
pub fn read(component: &[u8]) -> Result<Option<Section>, ModuleError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Json {
        digest: String,
        describe: Description,
    }
    let Some((_, content)) = find(component) else {
        return Ok(None);
    };
    let malformed = |message: String| ModuleError::SectionMalformed { message };
    let json: Json = serde_json::from_slice(content).map_err(|error| malformed(error.to_string()))?;
    Ok(Some(Section {
        digest: json.digest.parse().map_err(malformed)?,
        description: json.describe,
    }))
}

/// Checks that the file was not changed after the section was made.
///
/// # Errors
/// [`ModuleError::SectionDigest`].
pub fn verify(component: &[u8], section: &Section) -> Result<(), ModuleError> {
    let Some((range, _)) = find(component) else {
        return Ok(());
    };
    let found = ModuleDigest::of_parts(&[&component[..range.start], &component[range.end..]]);
    if found == section.digest {
        return Ok(());
    }
    Err(ModuleError::SectionDigest {
        expected: section.digest.to_string(),
        found: found.to_string(),
    })
}

/// The component with the section first; one that it has already is replaced.
#[must_use]
pub fn embed(component: &[u8], description: &Description) -> Vec<u8> {
    let range = find(component).map_or(PREAMBLE..PREAMBLE, |(range, _)| range);
    let (head, tail) = (
        &component[..range.start.min(component.len())],
        component.get(range.end..).unwrap_or_default(),
    );
    let digest = ModuleDigest::of_parts(&[head, tail]);
    let content = format!(r#"{{"digest":"{digest}","describe":{}}}"#, to_json(description));
    let mut made = head.to_vec();
    CustomSection {
        name: SECTION.into(),
        data: content.as_bytes().into(),
    }
    .append_to_component(&mut made);
    made.extend_from_slice(tail);
    made
}

/// The canonical JSON of a description.
#[must_use]
pub fn to_json(description: &Description) -> String {
    serde_json::to_string(description).unwrap_or_default()
}

/// Reads what `describe` returned.
///
/// # Errors
/// [`ModuleError::DescribeMalformed`].
pub fn parse(live: &str) -> Result<Description, ModuleError> {
    serde_json::from_str(live).map_err(|error| ModuleError::DescribeMalformed {
        message: error.to_string(),
        found: window(live, 0),
    })
}

/// Compares the section with the live answer.
///
/// # Errors
/// [`ModuleError::SectionDiffers`], with both texts from shortly before they differ.
pub fn compare(section: &Description, live: &Description) -> Result<(), ModuleError> {
    if section == live {
        return Ok(());
    }
    let (section, live) = (to_json(section), to_json(live));
    let at = section.bytes().zip(live.bytes()).take_while(|(a, b)| a == b).count();
    Err(ModuleError::SectionDiffers {
        section: window(&section, at),
        live: window(&live, at),
    })
}

/// Some 100 characters of a text, from a little before `at`.
fn window(text: &str, at: usize) -> String {
    let from = text.floor_char_boundary(at.saturating_sub(20));
    let to = text.floor_char_boundary((from + 100).min(text.len()));
    format!(
        "{}{}{}",
        if from > 0 { "…" } else { "" },
        &text[from..to],
        if to < text.len() { "…" } else { "" }
    )
}

/// Where the section is, with its header, and its content.
fn find(component: &[u8]) -> Option<(Range<usize>, &[u8])> {
    let rest = component.get(PREAMBLE..)?;
    let (&id, rest) = rest.split_first()?;
    let (size, rest) = leb128(rest)?;
    let body = (id == 0).then(|| rest.get(..size))??;
    let (name_len, body) = leb128(body)?;
    let (name, content) = (body.get(..name_len)?, body.get(name_len..)?);
    let end = component.len() - rest.len() + size;
    (name == SECTION.as_bytes()).then_some((PREAMBLE..end, content))
}

/// An unsigned LEB128 number of at most 32 bits, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn description(sdk: &str) -> Description {
        parse(&format!(r#"{{"wit":"0.1.0","sdk":"{sdk}"}}"#)).expect("a description")
    }

    #[test]
    fn round_trip() {
        let mut file = EMPTY.to_vec();
        file.extend_from_slice(b"the rest");
        assert_eq!(read(&file), Ok(None));
        let made = embed(&file, &description("one"));
        assert_eq!(&made[..9], b"\0asm\x0d\0\x01\0\0");
        let section = read(&made).expect("well formed").expect("a section");
        assert_eq!(
            section,
            Section {
                digest: ModuleDigest::of(&file),
                description: description("one")
            }
        );
        assert_eq!(verify(&made, &section), Ok(()));
        // A second one takes the place of the first, and the digest stays that of the rest.
        let again = embed(&made, &description(&"two".repeat(100)));
        assert_eq!(
            read(&again).expect("well formed").expect("a section").digest,
            section.digest
        );
        assert_eq!(embed(&again, &description("one")), made);
    }

    #[test]
    fn damage_is_told() {
        let made = embed(EMPTY, &description("one"));
        let mut longer = made.clone();
        longer.push(0);
        let section = read(&longer).expect("well formed").expect("a section");
        assert_eq!(
            verify(&longer, &section).expect_err("a changed file").to_string(),
            format!(
                "it was changed after it was built: its section `regraft:describe` is of a file with the digest {}, found {}; \
                 build it again with `regraft build`",
                ModuleDigest::of(EMPTY),
                ModuleDigest::of(&[EMPTY, b"\0"].concat())
            )
        );
        let mut other = made.clone();
        let at = other
            .windows(8)
            .position(|window| window == b"\"digest\"")
            .expect("the digest");
        other[at + 6] = b'T';
        assert_eq!(
            read(&other).expect_err("a malformed section").to_string(),
            "its section `regraft:describe` is malformed: unknown field `digesT`, expected `digest` or `describe` at \
             line 1 column 9; build it again with `regraft build`"
        );
        for len in 0..made.len() {
            let _ = read(&made[..len]);
        }
    }

    #[test]
    fn differences_are_told() {
        assert_eq!(
            compare(&description("one"), &description("two"))
                .expect_err("different")
                .to_string(),
            "its section `regraft:describe` differs from what its `describe` returns: the section has \
             …wit\":\"0.1.0\",\"sdk\":\"one\"}, `describe` returned …wit\":\"0.1.0\",\"sdk\":\"two\"}; build it again with \
             `regraft build`"
        );
        assert_eq!(
            parse("{\"wit\":1}").expect_err("malformed").to_string(),
            "its `describe` returned JSON that is not a description: invalid type: integer `1`, expected a string at \
             line 1 column 8; found: {\"wit\":1}"
        );
    }

    #[test]
    fn digests_are_read_and_shown() {
        let digest = ModuleDigest::of(b"");
        assert_eq!(digest.short(), "e3b0c4");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(
            "e3b0".parse::<ModuleDigest>(),
            Err("`e3b0` is not a module's digest: expected 64 hex digits".to_owned())
        );
    }
}
