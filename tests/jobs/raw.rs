//! An operator that was written against the WIT package alone runs as any other.

use crate::setup::{component, counts, show, stop, tsv, wait_for_out, words_job};
use crate::support::World;

/// `lines → split → count → out`, where `count` has no SDK.
fn raw_job() -> String {
    let [sdk, raw] = ["count", "raw"].map(|guest| component(guest).to_str().expect("UTF-8"));
    words_job("raw", "update")
        .replace(sdk, raw)
        .replace("format = \"tsv\"", "format = \"lines\"")
}

#[test]
fn it_counts_and_tells_of_the_end() {
    let world = World::new();
    world.write("in/words.txt", "b a b\na b\n");
    world.write(
        "job.toml",
        &raw_job().replace("mode = \"watch\"\npoll = \"10ms\"\n", ""),
    );
    world.run(&["run", "job.toml"]).exits(0);
    let mut lines = world.committed("out");
    lines.sort();
    assert_eq!(lines, ["a 1", "a 2", "a 2.", "b 1", "b 2", "b 3", "b 3."]);
}

#[test]
fn it_goes_on_from_an_operator_of_the_sdk_and_the_other_way_round() {
    let world = World::new();
    world.write("raw.toml", &raw_job());
    world.write("sdk.toml", &words_job("sdk", "update"));
    world.write("in/words.txt", "a b a\n");
    let job = world.start(&["raw.toml"]);
    wait_for_out(&world, &job, 3);
    let (saved, _) = stop(&world, job);
    assert_eq!(tsv(&counts(&show(&world, &saved))), ["a\t2", "b\t1"]);

    world.write("in/words.txt", "a b a\nb\n");
    let job = world.start(&["-s", &saved, "sdk.toml", "--set", "out.path=sdk"]);
    wait_for_out(&world, &job, 1);
    let (saved, _) = stop(&world, job);
    assert_eq!(world.committed("sdk"), ["b\t2"]);

    world.write("in/words.txt", "a b a\nb\na\n");
    let job = world.start(&["-s", &saved, "raw.toml", "--set", "out.path=raw"]);
    wait_for_out(&world, &job, 1);
    stop(&world, job);
    assert_eq!(world.committed("raw"), ["a 3"]);
}
