//! A savepoint is input: it may come from anyone, and every checksum in it may be made to fit.

use crate::forge::Forged;
use crate::support::World;
use crate::watched::watched;

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
