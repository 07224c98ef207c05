//! A savepoint is input: it may come from anyone, and every checksum in it may be made to fit.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::forge::{
    Forged, POSITIONS, POSITIONS_AT, Packing, RawRow, STATE, STATE_AT, at, counted, nested_columns, position, raw,
    with_heads,
};
use crate::support::World;
use crate::watched::watched;

/// More than the memory of a machine that runs tests.
const HUGE: u64 = 1 << 62;

/// An attack: its name, how it changes a sound savepoint, and a part of what is said of it.
type Attack = (&'static str, fn(&mut Forged), &'static str);

/// Verifies savepoints that were attacked, and shows them, which must not harm either.
#[track_caller]
fn verified(attacks: &[Attack]) {
    let mut failed = vec![];
    for (name, attack, words) in attacks {
        let world = World::new();
        let mut forged = Forged::new(&world.path().join("sp"));
        attack(&mut forged);
        let shown = watched(&world, &["state", "show", forged.path(), "--entries"]);
        let verified = watched(&world, &["state", "verify", forged.path()]);
        for (ended, is_verified) in [(&shown, false), (&verified, true)] {
            if let Err(wrong) = ended.check(if is_verified { words } else { "" }, is_verified.then_some(1)) {
                failed.push(format!("{name}: {wrong}"));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Replaces a file by what a function puts there.
fn replace(path: &Path, put: impl FnOnce(&Path)) {
    let _ = fs::remove_file(path);
    put(path);
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

fn sparse(path: &Path, bytes: u64) {
    File::create(path)
        .and_then(|file| file.set_len(bytes))
        .expect("a sparse file");
}

/// Many rows with one large value.
fn bomb(rows: usize, bytes: usize) -> Vec<RawRow> {
    let value = Bytes::from([&[252], (bytes as u32).to_le_bytes().as_slice(), &vec![b' '; bytes]].concat());
    let row = |n: usize| (0, Bytes::from(format!("{n:08}")), value.clone(), 1);
    (0..rows).map(row).collect()
}

#[test]
fn a_sound_savepoint_is_verified_and_shown() {
    let world = World::new();
    let forged = Forged::new(&world.path().join("sp"));
    let verified = watched(&world, &["state", "verify", forged.path(), "--json"])
        .ran
        .exits(0);
    assert_eq!(verified.json()["entries"], 103);
    let shown = watched(&world, &["state", "show", forged.path(), "--entries"])
        .ran
        .exits(0);
    assert!(shown.stdout.contains("\"w7\": "), "{}", shown.stdout);
}

#[test]
fn metadata_is_a_regular_file_of_a_bounded_size() {
    verified(&[
        (
            "a pipe",
            |forged| replace(&forged.dir.join("_metadata"), pipe),
            "_metadata is a pipe, expected a regular file",
        ),
        (
            "a directory",
            |forged| {
                replace(&forged.dir.join("_metadata"), |path| {
                    fs::create_dir(path).expect("made")
                })
            },
            "_metadata is a directory, expected a regular file",
        ),
        (
            "a link to a device",
            |forged| {
                replace(&forged.dir.join("_metadata"), |path| {
                    symlink("/dev/zero", path).expect("a link")
                })
            },
            "_metadata is reached over a symbolic link that leads out of its directory",
        ),
        (
            "a sparse file",
            |forged| replace(&forged.dir.join("_metadata"), |path| sparse(path, 20 << 30)),
            "_metadata has 21474836480 bytes, expected at most 67108864",
        ),
        (
            "very many texts",
            |forged| {
                *forged.at("/job_file") = json!("");
                forged.payload["arguments"] = Value::from(vec![""; 3 << 20]);
                forged.seal();
            },
            "values, expected at most 2097152",
        ),
        (
            "very many objects",
            |forged| {
                *forged.at("/operators/2/sink/handles") = Value::from(vec![json!({"": 0}); 300_000]);
                forged.seal();
            },
            "objects and arrays, expected at most 262144",
        ),
    ]);
}

#[test]
fn files_are_regular_files_inside_of_it() {
    verified(&[
        (
            "a pipe",
            |forged| replace(&forged.dir.join(STATE), pipe),
            ".count.parquet is a pipe, expected a regular file",
        ),
        (
            "a directory",
            |forged| replace(&forged.dir.join(POSITIONS), |path| fs::create_dir(path).expect("made")),
            ".positions.parquet is a directory, expected a regular file",
        ),
        (
            "a link out of it",
            |forged| {
                let outside = forged.dir.with_extension("outside");
                fs::rename(forged.dir.join(STATE), &outside).expect("moved");
                symlink(outside, forged.dir.join(STATE)).expect("a link");
            },
            ".count.parquet is reached over a symbolic link that leads out of its directory",
        ),
        (
            "a directory that is a link out of it",
            |forged| {
                let outside = forged.dir.with_extension("outside");
                fs::rename(forged.dir.join("operators"), &outside).expect("moved");
                symlink(outside, forged.dir.join("operators")).expect("a link");
            },
            ".count.parquet is reached over a symbolic link that leads out of its directory",
        ),
        (
            "a path out of it",
            |forged| {
                forged.at(STATE_AT)["path"] = json!("operators/../../secret");
                forged.seal();
            },
            "is not a relative path into the savepoint",
        ),
        (
            "a path of checkpoints",
            |forged| {
                forged.at(STATE_AT)["path"] = json!("../shared/secret");
                forged.seal();
            },
            "leads out of the savepoint",
        ),
        (
            "a sparse file as large as is said",
            |forged| {
                let len = 20 << 30;
                sparse(&forged.dir.join(STATE), len);
                let footer = json!({"offset": len - 100, "bytes": 100, "checksum": "0000000000000000"});
                let place = json!({"offset": 4, "bytes": len - 104, "checksum": "0000000000000000"});
                let file = forged.at(STATE_AT);
                (file["bytes"], file["footer"], file["entries"]) = (json!(len), footer, json!(100));
                file["groups"] =
                    json!([{"first_group": 0, "last_group": 0, "row_group": 0, "rows": 100, "place": place}]);
                forged.seal();
            },
            "row group 0 has 21474836376 bytes, expected at most 1073741824",
        ),
    ]);
}

#[test]
fn what_is_claimed_is_compared_with_the_file() {
    verified(&[
        (
            "a size",
            |forged| {
                let file = forged.at(STATE_AT);
                (file["bytes"], file["groups"], file["footer"]) = (json!(HUGE), json!([]), Value::Null);
                file["entries"] = json!(0);
                forged.seal();
            },
            "is damaged: expected 4611686018427387904 bytes",
        ),
        (
            "the size of a part",
            |forged| {
                let file = forged.at(STATE_AT);
                file["bytes"] = json!(HUGE);
                file["footer"]["bytes"] = json!(HUGE - file["footer"]["offset"].as_u64().expect("a number"));
                forged.seal();
            },
            "what follows its row groups has",
        ),
        (
            "the sum of all sizes",
            |forged| {
                for at in [STATE_AT, POSITIONS_AT] {
                    let file = forged.at(at);
                    (file["bytes"], file["groups"], file["footer"]) = (json!(u64::MAX), json!([]), Value::Null);
                    file["entries"] = json!(0);
                }
                forged.seal();
            },
            "the sum of the bytes of its files does not fit in 64 bits",
        ),
        (
            "a number of rows",
            |forged| {
                let file = forged.at(POSITIONS_AT);
                (file["groups"][0]["rows"], file["entries"]) = (json!(HUGE), json!(HUGE));
                forged.seal();
            },
            "row group 0: expected 4611686018427387904 rows, found 3",
        ),
        (
            "key groups that no file has",
            |forged| {
                forged.at(STATE_AT)["key_groups"]["last"] = json!(126);
                forged.seal();
            },
            "no file has key groups 127 to 127",
        ),
        (
            "bytes between the parts",
            |forged| {
                let mut bytes = fs::read(forged.dir.join(POSITIONS)).expect("read");
                let place = &forged.at(POSITIONS_AT)["footer"];
                let footer = place["offset"].as_u64().expect("a number") as usize;
                bytes.splice(footer..footer, [0; 9]);
                forged.put_bytes(POSITIONS_AT, POSITIONS, &bytes, [0, 0], 3);
                let place = &mut forged.at(POSITIONS_AT)["groups"][0]["place"];
                place["bytes"] = json!(footer - 4);
                place["checksum"] = json!(regraft::savepoint::metadata::checksum(&bytes[4..footer]));
                forged.seal();
            },
            "are in none of its parts",
        ),
        (
            "bytes after the end",
            |forged| {
                let bytes = [fs::read(forged.dir.join(POSITIONS)).expect("read"), vec![0; 9]].concat();
                let [footer, old] = ["offset", "bytes"].map(|key| forged.at(POSITIONS_AT)["footer"][key].as_u64());
                let footer = footer.expect("a number") as usize;
                fs::write(forged.dir.join(POSITIONS), &bytes).expect("written");
                let checksum = regraft::savepoint::metadata::checksum;
                let file = forged.at(POSITIONS_AT);
                file["footer"]["bytes"] = json!(old.expect("a number") + 9);
                file["footer"]["checksum"] = json!(checksum(&bytes[footer..]));
                (file["bytes"], file["checksum"]) = (json!(bytes.len()), json!(checksum(&bytes)));
                forged.seal();
            },
            "not a readable Parquet state file",
        ),
    ]);
}

#[test]
fn what_is_nested_exhausts_no_stack() {
    verified(&[
        (
            "heads of pages, with fields of no number",
            |forged| {
                forged.put_bytes(STATE_AT, STATE, &with_heads(&[0x0c, 0], 400_000), [0, 0], 1);
                forged.seal();
            },
            "no head of a page at byte 0 of a column",
        ),
        (
            "heads of pages",
            |forged| {
                forged.put_bytes(STATE_AT, STATE, &with_heads(&[0x1c], 400_000), [0, 0], 1);
                forged.seal();
            },
            "no head of a page at byte 0 of a column",
        ),
        (
            "columns",
            |forged| {
                forged.put_bytes(STATE_AT, STATE, &nested_columns(100_000), [0, 0], 1);
                forged.seal();
            },
            "its columns are nested deeper than 32 levels",
        ),
        (
            "a handle",
            |forged| {
                let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
                let deep = String::from_utf8(deep).expect("text");
                *forged.at("/operators/2/sink/handles") = json!(["deep"]);
                let text = forged.payload.to_string().replace("\"deep\"", &deep);
                fs::write(forged.dir.join("_metadata"), regraft::savepoint::metadata::seal(&text)).expect("written");
            },
            "recursion limit exceeded",
        ),
    ]);
}

#[test]
fn what_is_unpacked_is_bounded() {
    verified(&[
        (
            "4 GiB of one value",
            |forged| {
                forged.put_raw(STATE_AT, STATE, &bomb(4096, 1 << 20), Packing::Dictionary);
                let bytes = fs::metadata(forged.dir.join(STATE)).expect("a file").len();
                assert!(bytes < 200 << 10, "{bytes} bytes");
                forged.seal();
            },
            "row group 0 has rows of 4295020544 bytes, expected at most 268435456",
        ),
        (
            "pages of 600 MB",
            |forged| {
                forged.put_raw(STATE_AT, STATE, &bomb(600, 1 << 20), Packing::Plain);
                forged.seal();
            },
            "bytes when it is unpacked, expected at most 536870912",
        ),
        (
            "very many rows",
            |forged| {
                let row = (0, Bytes::new(), Bytes::from_static(&[0]), 1);
                forged.put_raw(STATE_AT, STATE, &vec![row; 2 << 20], Packing::Dictionary);
                forged.seal();
            },
            "row group 0 has 2097152 rows, expected at most 1048576",
        ),
        (
            "1.8 GB of positions",
            |forged| {
                forged.put_raw(POSITIONS_AT, POSITIONS, &bomb(30_000, 60_000), Packing::Dictionary);
                forged.seal();
            },
            "row group 0 has rows of 1800390000 bytes, expected at most 268435456",
        ),
        (
            "a position of a megabyte",
            |forged| {
                forged.put_raw(POSITIONS_AT, POSITIONS, &bomb(1, 1 << 20), Packing::Dictionary);
                forged.seal();
            },
            "the position of split \"00000000\" has 1048581 bytes, expected at most 65536",
        ),
    ]);
}

#[test]
fn rows_are_in_order_and_in_their_places() {
    verified(&[
        (
            "a key of another key group",
            |forged| {
                let (group, key, value) = counted("w1", 1);
                forged.put_state(&[((group + 1) % 128, key, value)]);
                forged.seal();
            },
            "belongs to key group",
        ),
        (
            "a repeated key",
            |forged| {
                let row = raw(counted("w1", 1));
                forged.put_raw(STATE_AT, STATE, &[row.clone(), row], Packing::Plain);
                forged.seal();
            },
            "are out of order or repeated (7731 before 7731)",
        ),
        (
            "key groups out of order",
            |forged| {
                let mut rows: Vec<RawRow> = (0..9).map(|n| raw(counted(&format!("w{n}"), n))).collect();
                rows.sort_by_key(|row| -row.0);
                forged.put_raw(STATE_AT, STATE, &rows, Packing::Plain);
                let extent = &mut forged.at(STATE_AT)["groups"][0];
                (extent["first_group"], extent["last_group"]) = (json!(0), json!(127));
                forged.seal();
            },
            "row group 0: expected key group",
        ),
        (
            "a schema that there is not",
            |forged| {
                let (group, key, value, _) = raw(counted("w1", 1));
                forged.put_raw(STATE_AT, STATE, &[(group, key, value, 2)], Packing::Plain);
                forged.seal();
            },
            "has schema 2, expected at most 1",
        ),
        (
            "a removal",
            |forged| {
                let (group, key, value, _) = raw(counted("w1", 1));
                forged.put_raw(STATE_AT, STATE, &[(group, key, value, 0)], Packing::Plain);
                forged.seal();
            },
            "removes a key, which only a file of changes may do",
        ),
        (
            "a repeated split",
            |forged| {
                let row = raw(position("a", &at(3, 1)));
                forged.put_raw(POSITIONS_AT, POSITIONS, &[row.clone(), row], Packing::Plain);
                forged.seal();
            },
            "are out of order or repeated (61 before 61)",
        ),
        (
            "a position that is no JSON",
            |forged| {
                forged.put_positions(&[position("a", "{\"offset\":")]);
                forged.seal();
            },
            "the position of split \"a\" is no JSON",
        ),
        (
            "a position that is nested deeply",
            |forged| {
                forged.put_positions(&[position("a", &"[".repeat(60_000))]);
                forged.seal();
            },
            "the position of split \"a\" is no JSON",
        ),
        (
            "the name of a split that is no text",
            |forged| {
                let (_, _, position) = position("a", "0");
                forged.put_raw(
                    POSITIONS_AT,
                    POSITIONS,
                    &[(0, Bytes::from_static(b"\xff"), position.into(), 1)],
                    Packing::Plain,
                );
                forged.seal();
            },
            "the name of a split is not UTF-8",
        ),
    ]);
}

/// A job that prints the lines of the files in `in/`, and a savepoint of it at the second line of `in/a.txt`.
fn printing(world: &World) -> Forged {
    let glob = world.path().join("in/*.txt").display().to_string();
    world.write("in/a.txt", "1\n2\n3\n");
    world.write(
        "job.toml",
        &format!(
            "name = \"forged\"\n[checkpoint]\ninterval = \"off\"\n[[source]]\nuid = \"lines\"\nconnector = \"file\"\n\
             path = {glob:?}\n[[sink]]\nuid = \"out\"\nconnector = \"print\"\ninputs = [\"lines\"]\n"
        ),
    );
    let mut forged = Forged::new(&world.path().join("sp"));
    forged.only_source(&glob);
    let a = world.path().join("in/a.txt").display().to_string();
    forged.put_positions(&[position(&a, &at(2, 1))]);
    forged.seal();
    forged
}

#[test]
fn a_restore_takes_no_more_than_is_verified() {
    let world = World::new();
    let run = ["run", "-s", "sp", "job.toml"];
    printing(&world);
    assert_eq!(watched(&world, &run).ran.exits(0).stdout, "2\n3\n");
    let attacks: [Attack; 7] = [
        (
            "1.8 GB of positions",
            |forged| {
                forged.put_raw(POSITIONS_AT, POSITIONS, &bomb(30_000, 60_000), Packing::Dictionary);
                forged.seal();
            },
            "row group 0 has rows of 1800390000 bytes, expected at most 268435456",
        ),
        (
            "a size",
            |forged| {
                let file = forged.at(POSITIONS_AT);
                (file["bytes"], file["footer"]["bytes"]) = (json!(HUGE), json!(HUGE - 4));
                (file["groups"], file["entries"], file["footer"]["offset"]) = (json!([]), json!(0), json!(4));
                forged.seal();
            },
            "what follows its row groups has",
        ),
        (
            "a pipe",
            |forged| replace(&forged.dir.join(POSITIONS), pipe),
            "is a pipe, expected a regular file",
        ),
        (
            "no JSON",
            |forged| {
                forged.put_positions(&[position("a", "offset")]);
                forged.seal();
            },
            "the position of split \"a\" is no JSON",
        ),
        (
            "a repeated split",
            |forged| {
                let row = raw(position("a", &at(2, 1)));
                forged.put_raw(POSITIONS_AT, POSITIONS, &[row.clone(), row], Packing::Plain);
                forged.seal();
            },
            "are out of order or repeated",
        ),
        (
            "a file outside of the glob",
            |forged| {
                forged.put_positions(&[position("/etc/passwd", &at(2, 0))]);
                forged.seal();
            },
            "/etc/passwd is not a file of the source, whose path is ",
        ),
        (
            "a way out of the glob",
            |forged| {
                let listed = json!([{ "split": "in/../../etc/passwd.txt", "position": {"offset": 2, "line": 0} }]);
                forged.at("/operators/0/source")["splits"] = listed;
                forged.put_positions(&[]);
                forged.seal();
            },
            "in/../../etc/passwd.txt is not a file of the source, whose path is ",
        ),
    ];
    let mut failed = vec![];
    for (name, attack, words) in attacks {
        let _ = fs::remove_dir_all(world.path().join("sp"));
        attack(&mut printing(&world));
        if let Err(wrong) = watched(&world, &run).check(words, Some(1)) {
            failed.push(format!("{name}: {wrong}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn only_what_is_named_is_disposed_of() {
    let world = World::new();
    let dispose = ["savepoint", "-d", "sp"];
    let forged = Forged::new(&world.path().join("sp"));
    let outside = world.write("outside/mine.txt", "mine");
    // A file of it is a link.
    let moved = world.path().join("outside/state");
    fs::rename(forged.dir.join(STATE), &moved).expect("moved");
    symlink(&moved, forged.dir.join(STATE)).expect("a link");
    watched(&world, &dispose).refuses("is a symbolic link, or behind one, which is not followed to remove anything");
    fs::remove_file(forged.dir.join(STATE)).expect("removed");
    fs::rename(&moved, forged.dir.join(STATE)).expect("moved back");
    // Its directory is one.
    symlink("sp", world.path().join("link")).expect("a link");
    watched(&world, &["savepoint", "-d", "link"])
        .refuses("link is a symbolic link, and what it points to is not removed");
    assert!(forged.dir.join("_metadata").exists() && forged.dir.join(STATE).exists());
    // Other files are in it.
    world.write("sp/operators/mine.txt", "mine");
    symlink(world.path().join("outside"), forged.dir.join("near")).expect("a link");
    let disposed = watched(&world, &[&dispose[..], &["--json"]].concat())
        .ran
        .exits(0)
        .json();
    assert_eq!(disposed["kept"], json!(["near", "operators/mine.txt"]));
    assert!(outside.exists() && forged.dir.join("operators/mine.txt").exists() && !forged.dir.join(STATE).exists());
    // A savepoint below a link is removed as any other.
    symlink("outside", world.path().join("other")).expect("a link");
    let below = Forged::new(&world.path().join("outside/sp"));
    watched(&world, &["savepoint", "-d", "other/sp"]).ran.exits(0);
    assert!(!below.dir.exists());
}
