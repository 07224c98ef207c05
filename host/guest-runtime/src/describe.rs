//! Reads what a component declares: the answer of `describe`, completed and checked, and the custom section
//! `regraft:describe`, by which it is found without running the component.
//!
//! `regraft build` puts the section first in the file, so that it is found without reading the rest. It is only a shortcut:
//! deploying checks its digest, and that it says the same as the live answer. Pure; the engine runs `describe`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use regraft_model::describe::{Description, ENCODING, WIT_VERSION, interface};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wasm_encoder::{ComponentSection, CustomSection};

use crate::declared_limits::{self, check_text};
use crate::module_error::{ModuleError, shown};
use crate::world;

/// The name of the custom section.
pub const SECTION: &str = "regraft:describe";

/// The keys that this host knows, by path: those that `must` may name.
const KEYS: [&str; 55] = [
    "wit",
    "sdk",
    "encoding",
    "must",
    "calls",
    "key",
    "key.name",
    "key.type",
    "key.aliases",
    "key.default",
    "states",
    "states.name",
    "states.kind",
    "states.schema",
    "states.map_key",
    "states.travels",
    "states.width",
    "states.ttl_ms",
    "states.version",
    "states.migrates",
    "states.combines",
    "inputs",
    "inputs.name",
    "inputs.key",
    "inputs.key.name",
    "inputs.key.type",
    "inputs.key.aliases",
    "inputs.key.default",
    "inputs.value",
    "outputs",
    "outputs.name",
    "outputs.key",
    "outputs.key.name",
    "outputs.key.type",
    "outputs.key.aliases",
    "outputs.key.default",
    "outputs.value",
    "timers",
    "timers.name",
    "timers.time",
    "private_state",
    "operator_states",
    "operator_states.name",
    "operator_states.kind",
    "operator_states.schema",
    "reader",
    "reader.name",
    "reader.key",
    "reader.key.name",
    "reader.key.type",
    "reader.key.aliases",
    "reader.key.default",
    "reader.value",
    "reads_clock",
    "reads_random",
];

/// Length of a message that quotes the module, in bytes. A longer one is cut.
pub(crate) const MESSAGE_MAX: usize = 1_000;

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

    /// Returns its 32 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
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

/// Content of the section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The digest of the file without the section.
    pub digest: ModuleDigest,
    /// Answer of `describe` when the section was made.
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
    check_text(content).map_err(malformed)?;
    let json: Json =
        serde_json::from_slice(content).map_err(|error| malformed(shown(&error.to_string(), MESSAGE_MAX)))?;
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
/// [`ModuleError::DescribeMalformed`]; [`ModuleError::Width`] where a state has values of fixed width.
pub fn parse(live: &str) -> Result<Description, ModuleError> {
    /// Refuses declarations that change how cells are passed.
    #[derive(Deserialize)]
    struct Cells {
        #[serde(default)]
        states: Vec<Cell>,
    }
    #[derive(Deserialize)]
    struct Cell {
        name: String,
        #[serde(default)]
        width: Option<u32>,
    }
    let refused = |message: String| ModuleError::DescribeMalformed {
        message: shown(&message, MESSAGE_MAX),
        found: window(live, 0),
    };
    let malformed = |error: serde_json::Error| refused(error.to_string());
    check_text(live.as_bytes()).map_err(refused)?;
    let description = serde_json::from_str(live).map_err(malformed)?;
    let cells: Cells = serde_json::from_str(live).map_err(malformed)?;
    match cells.states.into_iter().find(|state| state.width.is_some()) {
        Some(Cell { name, .. }) => {
            let state = shown(&name, MESSAGE_MAX);
            Err(ModuleError::Width { state })
        }
        None => Ok(description),
    }
}

/// Completes what `describe` returned by what the component exports, and checks that this host can run it.
///
/// # Errors
/// The first of: another version, another encoding, something that a host must know and this one does not, an interface
/// that is declared and not exported.
pub fn complete(mut description: Description, exports: &[&str]) -> Result<Description, ModuleError> {
    world::check_wit_version(&description.wit)?;
    declared_limits::check(&description)?;
    if description.encoding.0 != ENCODING {
        return Err(ModuleError::Encoding {
            found: shown(&description.encoding.0, MESSAGE_MAX),
            expected: ENCODING.to_owned(),
        });
    }
    let mut paths = std::mem::take(&mut description.must);
    paths.retain(|path| !KEYS.contains(&path.as_str()));
    if !paths.is_empty() {
        return Err(ModuleError::MustKnow { paths });
    }
    let named = description.calls.take();
    // A name that is not known is of an interface that a later version has, and this host never calls.
    let called = |name: &&str| named.as_ref().is_none_or(|calls| calls.iter().any(|call| call == name));
    let calls: Vec<&str> = interface::ALL.into_iter().filter(called).collect();
    let missing = calls
        .iter()
        .find(|name| named.is_some() && !exports.contains(name))
        .map(|name| (format!("`{name}` in `calls`"), *name));
    let timer = description.timers.first();
    let timer = timer.map(|timer| (format!("timer \"{}\"", timer.name), interface::TIMERS));
    let state = description.operator_states.first();
    let state = state.map(|state| (format!("operator state \"{}\"", state.name), interface::OPERATOR_STATE));
    let private = description.private_state;
    let private = private.then(|| ("`private_state`".to_owned(), interface::OPERATOR_STATE));
    let uncalled = [timer, state, private]
        .into_iter()
        .flatten()
        .find(|(_, name)| !exports.contains(name) || !calls.contains(name));
    if let Some((declared, name)) = missing.or(uncalled) {
        return Err(ModuleError::MissingInterface {
            declared,
            expected: format!("{}{name}@{WIT_VERSION}", world::PACKAGE),
        });
    }
    let calls = calls.into_iter().filter(|name| exports.contains(name));
    description.calls = Some(calls.map(str::to_owned).collect());
    Ok(description)
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

/// Returns the range of the section with its header, and its content.
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
        parse(&format!(r#"{{"wit":"0.2.0","sdk":"{sdk}"}}"#)).expect("a description")
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
             …wit\":\"0.2.0\",\"sdk\":\"one\",\"encoding\":\"bincode2\"}, `describe` returned \
             …wit\":\"0.2.0\",\"sdk\":\"two\",\"encoding\":\"bincode2\"}; build it again with `regraft build`"
        );
        assert_eq!(
            parse("{\"wit\":1}").expect_err("malformed").to_string(),
            "its `describe` returned JSON that is not a description: invalid type: integer `1`, expected a string at \
             line 1 column 8; found: {\"wit\":1}"
        );
    }

    fn completed(rest: &str, exports: &[&str]) -> Result<Option<Vec<String>>, String> {
        let json = format!(r#"{{"wit":"0.2.0"{rest}}}"#);
        let description = parse(&json).and_then(|description| complete(description, exports));
        description.map(|it| it.calls).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_exported_is_called_unless_calls_says_otherwise() {
        let both = ["timers", "ending"];
        let calls = |names: &[&str]| Ok(Some(names.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(completed("", &[]), calls(&[]));
        assert_eq!(completed("", &both), calls(&both));
        assert_eq!(completed(r#","calls":[]"#, &both), calls(&[]));
        assert_eq!(completed(r#","calls":["ending","queries"]"#, &both), calls(&["ending"]));
    }

    #[test]
    fn what_is_declared_is_exported() {
        let missing = |declared: &str, name: &str| {
            Err(format!(
                "it declares {declared}, which needs the interface `regraft:operator/{name}@0.2.0`; export it, and list it \
                 in `calls` where there is such a list"
            ))
        };
        let timers = r#","timers":[{"name":"gap","time":"event"}]"#;
        assert_eq!(completed(timers, &["ending"]), missing("timer \"gap\"", "timers"));
        assert_eq!(
            completed(&format!(r#","calls":[]{timers}"#), &["timers"]),
            missing("timer \"gap\"", "timers")
        );
        let state = r#","operator_states":[{"name":"seen","kind":"list","schema":"u8"}]"#;
        assert_eq!(
            completed(state, &[]),
            missing("operator state \"seen\"", "operator-state")
        );
        let private = r#","private_state":true"#;
        assert_eq!(completed(private, &[]), missing("`private_state`", "operator-state"));
        assert_eq!(
            completed(r#","calls":["migration"]"#, &[]),
            missing("`migration` in `calls`", "migration")
        );
    }

    #[test]
    fn all_keys_of_the_document_may_be_named_as_known() {
        let all: Vec<String> = KEYS.iter().map(|key| format!("{key:?}")).collect();
        let calls = Ok(Some(vec![]));
        assert_eq!(completed(&format!(r#","must":[{}]"#, all.join(",")), &[]), calls);
        let document = include_str!("../../../docs/formats/describe.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
        let is_state = |key: &str| key.starts_with('"');
        let mut compared = 0;
        for key in rows
            .map_while(|row| (!row.starts_with("{")).then_some(row))
            .flat_map(|row| {
                let cell = row.split(" |").next().unwrap_or_default();
                cell.split(", ")
                    .map(|key| key.trim_matches('`').to_owned())
                    .collect::<Vec<_>>()
            })
        {
            let path = match is_state(&key) {
                true => format!("states.{}", key.split('"').nth(1).unwrap_or_default()),
                false => key,
            };
            assert!(KEYS.contains(&path.as_str()), "{path}");
            compared += 1;
        }
        assert_eq!(compared, 20);
    }

    #[test]
    fn a_key_that_is_not_known_is_ignored_unless_it_must_be_known() {
        let calls = Ok(Some(vec![]));
        assert_eq!(completed(r#","queries":7,"must":["states.width"]"#, &[]), calls);
        assert_eq!(
            completed(r#","queries":7,"must":["queries","states.width","states.lease"]"#, &[]),
            Err("its `describe` has what a host must know, and this one does not: `queries`, `states.lease`; run it on a \
                 newer host, or build it again with `regraft build`"
                .to_owned())
        );
    }

    #[test]
    fn what_this_host_does_not_read_is_refused() {
        assert_eq!(
            completed(r#","encoding":"cbor""#, &[]),
            Err("its values are encoded as \"cbor\", this host reads \"bincode2\"; build it again with an SDK that writes \
                 that"
                .to_owned())
        );
        let state = r#","states":[{"name":"count","kind":"value","schema":"u64","travels":true,"width":8}]"#;
        assert_eq!(
            completed(state, &[]),
            Err("its state \"count\" declares `width`, and this host does not take values of fixed width yet; leave it \
                 out"
                .to_owned())
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
