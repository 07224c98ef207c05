//! Checks the repository itself: statements of its documents about the code are true, and each crate and module keeps
//! to its place.
//!
//! Every check is a pure function from texts to a list of problems. It runs on the repository, and on a small broken
//! sample, so that a check that cannot fail is noticed. Only the standard library is used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Limit of lines in a source file, without its tests.
const LINES_MAX: usize = 800;

/// Heavy crates, and where they may be used: prefixes of paths.
const HOMES: [(&str, &[&str]); 10] = [
    ("wasmtime", &["host/guest-runtime/src/"]),
    ("addr2line", &["host/guest-runtime/src/symbols.rs"]),
    ("gimli", &["host/guest-runtime/src/symbols.rs"]),
    ("parquet", &["host/src/savepoint/rows.rs", "host/src/savepoint/rows/"]),
    ("object_store", &["host/src/storage/"]),
    (
        "getrandom",
        &["host/src/environment/", "host/guest-runtime/src/cache.rs"],
    ),
    ("axum", &["host/src/api/"]),
    ("ureq", &["host/src/api/"]),
    ("clap", &["host/src/cli/", "host/src/main.rs"]),
    ("bincode", &["guest-sdk/src/codec.rs"]),
];

/// Imports between files of one room that point downwards and are still to be cleared: the room, the file, the file that it
/// uses, and why the order does not hold yet.
const DOWNWARDS: [(&str, &str, &str, &str); 0] = [];

/// Paths that no document may mention: places on the machine of its author.
const MACHINE_PATHS: [&str; 4] = ["/work/", "/tmp/", "/home/", "/root/"];

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// Files of the repository by path, with `/` as the separator.
type Files = BTreeMap<String, String>;

/// Reads all files with one of the extensions, without build output and the output of jobs.
fn files(extensions: &[&str]) -> Files {
    fn walk(root: &Path, dir: &Path, extensions: &[&str], found: &mut Files) {
        for entry in std::fs::read_dir(dir).expect("a directory that can be listed") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
            if hidden || name == "target" || name == "savepoints" || path.is_symlink() {
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                walk(root, &path, extensions, found);
            } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
                let relative = path
                    .strip_prefix(root)
                    .expect("it is below the root")
                    .to_str()
                    .expect("UTF-8");
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{relative}: {error}"));
                found.insert(relative.replace('\\', "/"), text);
            }
        }
    }
    let mut found = Files::new();
    walk(&root(), &root(), extensions, &mut found);
    found
}

fn sample(path: &str, text: &str) -> Files {
    Files::from([(path.to_owned(), text.to_owned())])
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problem(s):\n{}",
        problems.len(),
        problems.join("\n")
    );
}

/// Returns true if the whole file is for tests or measurements.
fn is_test(path: &str) -> bool {
    let test_dir = path
        .split('/')
        .any(|part| part == "tests" || part == "benches" || part == "fuzz");
    test_dir || path.ends_with("/tests.rs") || path.ends_with("/test_data.rs")
}

/// Returns the code of a file without its module of tests, which comes last.
fn without_tests(text: &str) -> &str {
    let mut at = 0;
    let mut cfg_test = None;
    for line in text.split_inclusive('\n') {
        match cfg_test {
            Some(start) if line.starts_with("mod ") && line.trim_end().ends_with('{') => return &text[..start],
            _ => cfg_test = (line.trim_end() == "#[cfg(test)]").then_some(at),
        }
        at += line.len();
    }
    text
}

/// Returns a line without its comment. A `//` in a string ends it too, which hides no path of a crate.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns the text after each place where `word` is the first part of a path.
fn after_word<'a>(text: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).filter_map(move |(at, _)| {
        let before = text[..at].bytes().next_back();
        let starts = before.is_none_or(|byte| !is_ident(byte) && byte != b'$' && byte != b':');
        starts.then(|| &text[at + word.len()..])
    })
}

fn leading_ident(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_ident(byte)).unwrap_or(text.len());
    &text[..end]
}

/// Returns the first parts of a path or of a group of paths: `a` and `c` for `{a::b, c}`.
fn first_parts(text: &str) -> Vec<&str> {
    let Some(group) = text.strip_prefix('{') else {
        return vec![leading_ident(text)];
    };
    let (mut depth, mut parts, mut fresh) = (0, vec![], true);
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => fresh = true,
            _ if fresh && is_ident(byte) => {
                parts.push(leading_ident(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    parts
}

/// A line of an item without `pub` or `pub(…)`.
fn without_visibility(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    let rest = rest
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .map_or(rest, |(_, rest)| rest);
    rest.strip_prefix(' ').unwrap_or(line)
}

/// The modules that a file declares in files of their own, in order; those for tests are left out.
fn declared(text: &str) -> Vec<&str> {
    let mut modules = vec![];
    let mut cfg_test = false;
    for line in text.lines() {
        let module = without_visibility(line).strip_prefix("mod ");
        let module = module.and_then(|rest| rest.strip_suffix(';'));
        modules.extend(module.filter(|_| !cfg_test));
        cfg_test = line.trim_end() == "#[cfg(test)]";
    }
    modules
}

/// Returns the order of modules that ARCHITECTURE.md states, by directory of sources.
fn stated_orders(architecture: &str) -> Vec<(&str, Vec<&str>)> {
    let block = architecture
        .split("```module-order\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let lines = block.unwrap_or_default().lines();
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(dir, names)| (dir.trim(), names.split_whitespace().collect()))
        .collect()
}

fn check_orders(architecture: &str, lib: impl Fn(&str) -> String) -> Vec<String> {
    let mut problems = vec![];
    for dir in ["host/model/src", "host/guest-runtime/src", "host/src"] {
        let Some((_, stated)) = stated_orders(architecture).into_iter().find(|(of, _)| *of == dir) else {
            problems.push(format!(
                "ARCHITECTURE.md: its block `module-order` has no line for {dir}"
            ));
            continue;
        };
        let lib = lib(dir);
        let found = declared(&lib);
        if stated != found {
            let (stated, found) = (stated.join(" "), found.join(" "));
            problems.push(format!(
                "ARCHITECTURE.md states for {dir}\n  {stated}\nand lib.rs declares\n  {found}"
            ));
        }
    }
    problems
}

#[test]
fn the_stated_module_order_is_that_of_the_code() {
    none(&check_orders(&read("ARCHITECTURE.md"), |dir| {
        read(&format!("{dir}/lib.rs"))
    }));
    let wrong = "```module-order\nhost/model/src: a b\nhost/guest-runtime/src: a\nhost/src: b\n```\n";
    let lib = "pub mod b;\nmod a;\n#[cfg(test)]\nmod tests;\n".to_owned();
    assert_eq!(check_orders(wrong, |_| lib.clone()).len(), 3);
    assert_eq!(check_orders("", |_| lib.clone()).len(), 3);
}

/// The items of `dir` that a file in it names, by the path of `dir` in its crate or by enough `super::`.
fn imports<'a>(dir: &str, from_crate: &str, path: &str, code: &'a str) -> Vec<(usize, &'a str)> {
    let inner = path.strip_prefix(dir).unwrap_or_default().trim_start_matches('/');
    let depth = inner.trim_end_matches("/mod.rs").split('/').count();
    let from_root = "super::".repeat(depth);
    let (mut found, mut offset) = (vec![], 0);
    for (number, line) in code.split_inclusive('\n').enumerate() {
        let shown = without_comment(line);
        for start in [from_crate, from_root.as_str()] {
            for rest in after_word(shown, start) {
                // A group can continue over several lines.
                let at = offset + (rest.as_ptr() as usize - line.as_ptr() as usize);
                let rest = if rest.starts_with('{') { &code[at..] } else { rest };
                found.extend(first_parts(rest).into_iter().map(|module| (number + 1, module)));
            }
        }
        offset += line.len();
    }
    found
}

fn check_imports(dir: &str, order: &[&str], sources: &Files) -> Vec<String> {
    let place = |module: &str| order.iter().position(|known| *known == module);
    let mut problems = vec![];
    for (path, text) in sources
        .iter()
        .filter(|(path, _)| path.starts_with(&format!("{dir}/")) && !is_test(path))
    {
        let first = path[dir.len() + 1..]
            .split('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".rs");
        let Some(own) = place(first) else { continue };
        for (line, module) in imports(dir, "crate::", path, without_tests(text)) {
            if place(module).is_some_and(|of| of > own) {
                problems.push(format!(
                    "{path}:{line}: {first} uses {module}, which is declared below it in {dir}/lib.rs"
                ));
            }
        }
    }
    problems
}

#[test]
fn modules_use_only_those_declared_above_them() {
    let sources = files(&["rs"]);
    let architecture = read("ARCHITECTURE.md");
    let mut problems = vec![];
    for (dir, order) in stated_orders(&architecture) {
        problems.extend(check_imports(dir, &order, &sources));
    }
    none(&problems);
    let order = ["low", "high"];
    let check = |path: &str, text: &str| check_imports("x/src", &order, &sample(path, text)).len();
    assert_eq!(check("x/src/low.rs", "use crate::high::A;\n"), 1);
    assert_eq!(check("x/src/low/a.rs", "fn f() { crate::high::g() }\n"), 1);
    assert_eq!(check("x/src/low/a.rs", "use super::super::high;\n"), 1);
    assert_eq!(check("x/src/low/mod.rs", "use super::high;\n"), 1);
    assert_eq!(
        check("x/src/low/a.rs", "use crate::{\n    low::B,\n    high::{A, C},\n};\n"),
        1
    );
    assert_eq!(check("x/src/high.rs", "use crate::low::A;\n"), 0);
    assert_eq!(check("x/src/low/a.rs", "use super::high;\n"), 0, "a module of its own");
    assert_eq!(
        check(
            "x/src/low.rs",
            "/// As [`crate::high`].\n#[cfg(test)]\nmod tests {\n    use crate::high;\n}\n"
        ),
        0
    );
}

/// A directory of modules, and the file that declares them: its `mod.rs`, or the file of its name beside it.
struct Room<'a> {
    dir: &'a str,
    parent: &'a str,
}

fn rooms<'a>(crate_dir: &str, sources: &'a Files) -> Vec<Room<'a>> {
    let in_crate = |path: &str| path.strip_prefix(crate_dir).is_some_and(|rest| rest.starts_with('/'));
    let rooms = sources.iter().filter(|(path, _)| in_crate(path) && !is_test(path));
    let rooms = rooms.filter_map(|(path, text)| {
        let dir = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs"))?;
        let parent = without_tests(text);
        (dir != crate_dir).then_some(Room { dir, parent })
    });
    rooms.filter(|room| !declared(room.parent).is_empty()).collect()
}

impl<'a> Room<'a> {
    /// Names that the parent imports from its modules: what `super::Name` really comes from.
    fn imported(&self) -> BTreeMap<&'a str, &'a str> {
        let mut imported = BTreeMap::new();
        let mut offset = 0;
        for line in self.parent.split_inclusive('\n') {
            if let Some(used) = without_visibility(line).strip_prefix("use ") {
                let at = offset + (used.as_ptr() as usize - line.as_ptr() as usize);
                let module = leading_ident(used);
                let rest = self.parent[at + module.len()..].strip_prefix("::").unwrap_or_default();
                imported.extend(first_parts(rest).into_iter().map(|name| (name, module)));
            }
            offset += line.len();
        }
        imported
    }

    /// Imports that point downwards: where, which module, and which one it uses.
    fn downwards(&self, crate_dir: &str, sources: &'a Files) -> Vec<(String, &'a str, &'a str)> {
        let order = declared(self.parent);
        let imported = self.imported();
        let place = |module: &str| order.iter().position(|known| *known == module);
        let inner = self.dir.strip_prefix(crate_dir).unwrap_or_default();
        let from_crate = format!("crate{}::", inner.replace('/', "::"));
        let start = format!("{}/", self.dir);
        let mut found = vec![];
        for (path, text) in sources
            .iter()
            .filter(|(path, _)| path.starts_with(&start) && !is_test(path))
        {
            let own = leading_ident(&path[start.len()..]);
            let Some(at) = place(own) else { continue };
            for (line, name) in imports(self.dir, &from_crate, path, without_tests(text)) {
                let module = imported
                    .get(name)
                    .filter(|_| place(name).is_none())
                    .copied()
                    .unwrap_or(name);
                if place(module).is_some_and(|of| of > at) {
                    found.push((format!("{path}:{line}"), own, module));
                }
            }
        }
        found
    }
}

fn check_rooms(crate_dir: &str, sources: &Files, allowed: &[(&str, &str, &str, &str)]) -> Vec<String> {
    let mut problems = vec![];
    let mut needed = BTreeSet::new();
    for room in rooms(crate_dir, sources) {
        for (at, own, module) in room.downwards(crate_dir, sources) {
            let dir = room.dir;
            if allowed
                .iter()
                .any(|allowed| (allowed.0, allowed.1, allowed.2) == (dir, own, module))
            {
                needed.insert((dir, own, module));
            } else {
                problems.push(format!(
                    "{at}: {own} uses {module}, which is declared below it in {dir}"
                ));
            }
        }
    }
    let in_crate = allowed
        .iter()
        .filter(|(dir, ..)| dir.starts_with(&format!("{crate_dir}/")));
    let stale = in_crate.filter(|(dir, own, module, _)| !needed.contains(&(*dir, *own, *module)));
    problems.extend(stale.map(|(dir, own, module, _)| {
        format!("tests/tidy.rs: {own} of {dir} no longer uses {module} below it: take it off the list")
    }));
    problems
}

#[test]
fn files_of_a_room_use_only_those_declared_above_them() {
    let sources = files(&["rs"]);
    let mut problems = vec![];
    for (dir, _) in stated_orders(&read("ARCHITECTURE.md")) {
        problems.extend(check_rooms(dir, &sources, &DOWNWARDS));
    }
    none(&problems);
    let room = |parent: &str, low: &str| {
        Files::from([
            ("x/src/lib.rs".to_owned(), "mod room;\n".to_owned()),
            (
                "x/src/room.rs".to_owned(),
                format!("pub(crate) mod low;\nmod high;\n{parent}"),
            ),
            ("x/src/room/low.rs".to_owned(), low.to_owned()),
            ("x/src/room/high.rs".to_owned(), "use super::low::A;\n".to_owned()),
        ])
    };
    let check = |parent: &str, low: &str| check_rooms("x/src", &room(parent, low), &[]).len();
    assert_eq!(check("", "use super::high::B;\n"), 1);
    assert_eq!(check("", "use crate::room::{high::B, other};\n"), 1);
    assert_eq!(check("", "fn f() { super::high::g() }\n"), 1);
    assert_eq!(
        check("pub use high::{\n    B,\n    C,\n};\n", "use super::C;\n"),
        1,
        "by way of the parent"
    );
    assert_eq!(check("pub use low::C;\n", "use super::C;\n"), 0);
    assert_eq!(
        check(
            "",
            "//! As [`super::high`].\n#[cfg(test)]\nmod tests {\n    use super::super::high;\n}\n"
        ),
        0
    );
    let allowed = [("x/src/room", "low", "high", "a reason")];
    let sample = room("", "use super::high::B;\n");
    assert!(check_rooms("x/src", &sample, &allowed).is_empty());
    assert_eq!(
        check_rooms("x/src", &room("", ""), &allowed).len(),
        1,
        "no longer needed"
    );
}

fn check_module_docs(sources: &Files) -> Vec<String> {
    let without = sources.iter().filter(|(_, text)| !text.starts_with("//!"));
    without
        .map(|(path, _)| format!("{path}: does not begin with //!, which says why the file exists"))
        .collect()
}

#[test]
fn every_source_file_says_why_it_exists() {
    let sources = files(&["rs"]);
    assert!(sources.len() > 100, "only {} files were found", sources.len());
    none(&check_module_docs(&sources));
    assert_eq!(check_module_docs(&sample("a.rs", "use b;\n//! No.\n")).len(), 1);
}

/// Returns everything in backticks that is a path: it has a slash, and only characters that our paths have.
fn paths_in_backticks(text: &str) -> Vec<&str> {
    let plain = |word: &&str| {
        word.contains('/')
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
    };
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(plain)
        .collect()
}

fn check_paths(document: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let missing = paths_in_backticks(text).into_iter().filter(|path| !exists(path));
    missing
        .map(|path| format!("{document}: names {path}, which does not exist"))
        .collect()
}

#[test]
fn every_path_that_architecture_and_design_notes_name_exists() {
    let exists = |path: &str| root().join(path).exists();
    let text = read("ARCHITECTURE.md");
    let found = paths_in_backticks(&text).len();
    assert!(found > 60, "only {found} paths were found");
    none(&check_paths("ARCHITECTURE.md", &text, exists));
    for (document, text) in files(&["md"])
        .iter()
        .filter(|(document, _)| document.starts_with("docs/design/"))
    {
        none(&check_paths(document, text, exists));
    }
    assert_eq!(check_paths("A.md", "`a/b.rs` and `a/<n>/` and `c`", |_| false).len(), 1);
}

/// Returns the numbers of design notes in a text: four digits after "design note" or "design notes", or after an
/// "and" that follows one.
fn design_notes(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for start in ["esign note ", "esign notes "] {
        for mut rest in text.split(start).skip(1) {
            while let Some(number) = rest
                .get(..4)
                .filter(|number| number.bytes().all(|b| b.is_ascii_digit()))
            {
                found.insert(number);
                let Some(more) = rest[4..].strip_prefix(" and ") else {
                    break;
                };
                rest = more;
            }
        }
    }
    found
}

#[test]
fn every_design_note_that_code_refers_to_exists() {
    let there: BTreeSet<String> = files(&["md"])
        .keys()
        .filter_map(|path| path.strip_prefix("docs/design/")?.get(..4).map(str::to_owned))
        .collect();
    let mut problems = vec![];
    for (path, text) in files(&["rs", "wit", "md", "toml"]) {
        let missing = design_notes(&text)
            .into_iter()
            .filter(|number| !there.contains(*number));
        problems.extend(missing.map(|number| format!("{path}: refers to design note {number}, which does not exist")));
    }
    none(&problems);
    let sample = "Design notes 0001 and 0002, (design note 0003), design note of";
    assert_eq!(design_notes(sample), BTreeSet::from(["0001", "0002", "0003"]));
}

/// Returns the targets of Markdown links that are files, relative to the document and without the fragment.
fn link_targets(text: &str) -> Vec<&str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = ends.filter(|target| !target.contains("://") && !target.starts_with('#') && !target.contains(' '));
    files
        .map(|target| target.split('#').next().unwrap_or_default())
        .collect()
}

fn check_links(documents: &Files, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut problems = vec![];
    for (document, text) in documents {
        let dir = Path::new(document).parent().unwrap_or(Path::new(""));
        for target in link_targets(text)
            .into_iter()
            .filter(|target| !exists(&dir.join(target)))
        {
            problems.push(format!("{document}: links to {target}, which does not exist"));
        }
    }
    problems
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = files(&["md"]);
    none(&check_links(&documents, |path| root().join(path).exists()));
    assert_eq!(
        check_links(&sample("docs/a.md", "[b](b.md#c) [d](https://e.f)"), |_| false).len(),
        1
    );
}

fn check_index(index: &str, documents: &Files) -> Vec<String> {
    let linked = link_targets(index);
    let ours = documents
        .keys()
        .filter_map(|path| path.strip_prefix("docs/"))
        .filter(|path| *path != "README.md");
    ours.filter(|path| !linked.contains(path))
        .map(|path| format!("docs/README.md: does not list {path}"))
        .collect()
}

#[test]
fn the_index_of_the_documents_lists_all_of_them() {
    none(&check_index(&read("docs/README.md"), &files(&["md"])));
    assert_eq!(check_index("[a](guide/a.md)", &sample("docs/guide/b.md", "")).len(), 1);
}

fn check_homes(sources: &Files) -> Vec<String> {
    let mut problems = vec![];
    for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
        for (number, line) in without_tests(text).lines().map(without_comment).enumerate() {
            for (name, homes) in HOMES
                .iter()
                .filter(|(_, homes)| !homes.iter().any(|home| path.starts_with(home)))
            {
                let mut uses = after_word(line, name).filter(|rest| rest.starts_with("::") || rest.starts_with(';'));
                if uses.next().is_some() {
                    let homes = homes.join(" or ");
                    problems.push(format!("{path}:{}: uses {name}, whose home is {homes}", number + 1));
                }
            }
        }
    }
    problems
}

#[test]
fn every_heavy_crate_has_one_home() {
    let sources = files(&["rs"]);
    none(&check_homes(&sources));
    for (name, homes) in HOMES {
        let used = |text: &String| text.contains(&format!("{name}::"));
        let at_home = |path: &String| homes.iter().any(|home| path.starts_with(home));
        assert!(
            sources.iter().any(|(path, text)| at_home(path) && used(text)),
            "{name} is not used in its home"
        );
        let problems = check_homes(&sample(
            "host/src/jobs/a.rs",
            &format!("use {name}::A;\n// {name}::B\n"),
        ));
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}

/// Files that may write to stdout: both check whether it can be written to.
const WRITE_STDOUT: [&str; 2] = ["host/src/cli/output.rs", "host/src/stdout.rs"];

fn check_stdout(sources: &Files) -> Vec<String> {
    let is_elsewhere = |path: &String| path.starts_with("host/src/") && !WRITE_STDOUT.contains(&path.as_str());
    let writes = |text: &str| {
        ["io::stdout()", "println!(", "print!("].iter().any(|call| {
            let calls = without_tests(text).lines().map(without_comment);
            calls
                .filter(|line| !line.contains("eprint"))
                .any(|line| line.contains(call))
        })
    };
    let found = sources
        .iter()
        .filter(|(path, text)| is_elsewhere(path) && !is_test(path) && writes(text));
    found
        .map(|(path, _)| format!("{path}: writes to stdout; use cli::output"))
        .collect()
}

#[test]
fn results_are_written_where_errors_are_checked() {
    none(&check_stdout(&files(&["rs"])));
    let bad = "fn f() { println!(\"result\"); }\n";
    assert_eq!(check_stdout(&sample("host/src/cli/a.rs", bad)).len(), 1);
    assert_eq!(check_stdout(&sample("host/src/cli/output.rs", bad)).len(), 0);
}

fn check_sizes(sources: &Files) -> Vec<String> {
    let lines = |text: &str| without_tests(text).lines().count();
    let long = sources
        .iter()
        .filter(|(path, text)| !is_test(path) && lines(text) > LINES_MAX);
    long.map(|(path, text)| {
        format!(
            "{path}: has {} lines without its tests, more than {LINES_MAX}",
            lines(text)
        )
    })
    .collect()
}

#[test]
fn no_source_file_is_too_long() {
    none(&check_sizes(&files(&["rs"])));
    let long = "x\n".repeat(LINES_MAX + 1);
    assert_eq!(check_sizes(&sample("host/src/a.rs", &long)).len(), 1);
    assert!(check_sizes(&sample("host/src/a/tests.rs", &long)).is_empty());
    assert!(
        check_sizes(&sample(
            "host/src/a.rs",
            &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n")
        ))
        .is_empty()
    );
}

fn check_machine_paths(documents: &Files) -> Vec<String> {
    let mut problems = vec![];
    for (path, text) in documents {
        for (number, line) in text.lines().enumerate() {
            let found = MACHINE_PATHS.iter().filter(|place| line.contains(*place));
            problems.extend(found.map(|place| format!("{path}:{}: mentions {place}", number + 1)));
        }
    }
    problems
}

#[test]
fn documents_do_not_mention_places_of_one_machine() {
    let mut documents = files(&["md", "toml", "wit"]);
    documents.insert(".ci/run".to_owned(), read(".ci/run"));
    none(&check_machine_paths(&documents));
    // Joined here, so that other tools that look for such paths do not find one in this file.
    assert_eq!(
        check_machine_paths(&sample("a.md", &format!("see {}x", MACHINE_PATHS[0]))).len(),
        1
    );
}

/// Returns the text of each block of a Markdown document that begins with exactly this fence.
fn blocks<'a>(text: &'a str, info: &str) -> Vec<&'a str> {
    let fence = format!("```{info}\n");
    let starts = text
        .match_indices(&fence)
        .filter(|(at, _)| *at == 0 || text.as_bytes()[at - 1] == b'\n');
    starts
        .filter_map(|(at, _)| text[at + fence.len()..].split("```").next())
        .collect()
}

/// Returns code without indentation, empty lines and the marks of doc comments.
fn plain_code(code: &str) -> String {
    let lines = code.lines().map(|line| {
        let line = line.trim_start();
        let line = line
            .strip_prefix("//!")
            .or_else(|| line.strip_prefix("///"))
            .unwrap_or(line);
        line.trim()
    });
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("\n") + "\n"
}

fn check_shown_code(document: &str, text: &str, sources: &Files) -> Vec<String> {
    let sources: Vec<String> = sources.values().map(|source| plain_code(source)).collect();
    let shown = blocks(text, "rust").into_iter().map(plain_code);
    let unknown = shown.filter(|code| !sources.iter().any(|source| source.contains(code)));
    unknown
        .map(|code| {
            let first = code.lines().next().unwrap_or_default();
            format!("{document}: the code that begins with `{first}` stands in no file that is compiled")
        })
        .collect()
}

#[test]
fn code_that_the_guide_shows_is_compiled() {
    let mut sources = files(&["rs"]);
    sources.retain(|path, _| path.starts_with("guest-sdk/") || path.starts_with("examples/"));
    let text = read("docs/guide/writing-operators.md");
    assert!(blocks(&text, "rust").len() > 5, "the guide has no code");
    none(&check_shown_code("docs/guide/writing-operators.md", &text, &sources));
    let sample = sample(
        "a.rs",
        "mod m {\n    fn f() {\n        g();\n    }\n}\n/// let x = 1;\n",
    );
    let check = |code: &str| check_shown_code("a.md", &format!("```rust\n{code}```\n"), &sample).len();
    assert_eq!(check("fn f() {\n    g();\n}\nlet y = 2;\n"), 1);
    assert_eq!(check("fn f() {\n\n    g();\n}\n"), 0);
    assert_eq!(check("let x = 1;\n"), 0);
}

#[test]
fn the_readme_has_the_two_commands_that_ci_runs() {
    let readme = read("README.md");
    let blocks = blocks(&readme, "sh");
    assert_eq!(
        blocks.first(),
        Some(&"cargo run --release -- run examples/word-count/job.toml\n")
    );
    assert!(
        blocks.contains(&"cargo test\n"),
        "the README no longer says how to run the tests"
    );
}
