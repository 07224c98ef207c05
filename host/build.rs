//! Embeds the sources of the guest SDK and of the WIT, so that `regraft new` can unpack them: they are on no registry.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let host = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("not run by cargo")?);
    let root = host.join("..").canonicalize()?;
    let mut files = Vec::new();
    for tree in ["guest-sdk", "wit"] {
        println!("cargo::rerun-if-changed={}", root.join(tree).display());
        collect(&root.join(tree), &mut files)?;
    }
    // By the text of the path, as it is read back from a directory.
    files.sort_by_key(|file| file.to_string_lossy().into_owned());
    let mut table = String::from("pub(super) static SDK_FILES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        let name = file
            .strip_prefix(&root)?
            .to_str()
            .ok_or("a file's name is no UTF-8")?
            .replace('\\', "/");
        writeln!(
            table,
            "    ({name:?}, include_bytes!({:?})),",
            file.to_str().ok_or("a path is no UTF-8")?
        )?;
    }
    table.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("not run by cargo")?);
    std::fs::write(out.join("sdk_files.rs"), table)?;
    Ok(())
}

/// Sources only: no build output, no tests, nothing hidden.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || name == "target" || name == "tests" {
            continue;
        }
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            collect(&path, files)?;
        } else if ["rs", "toml", "md", "wit"].contains(&extension) {
            files.push(path);
        }
    }
    Ok(())
}
