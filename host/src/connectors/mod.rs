//! The connectors of this host, each in a room of its own: settings, splits, reader, writer, committer.
//!
//! A room implements the contract in [`crate::connector`] and is registered by one line below; nothing else in the host
//! names it. `format` is shared by all sinks that write text.

pub mod format;

use crate::graph::connectors::Connectors;

/// Declares each room, and registers its `CONNECTOR`. Messages list connectors in this order.
macro_rules! rooms {
    ($($room:ident,)+) => {
        $(pub mod $room;)+

        /// The connectors that this host has.
        pub static BUILT_IN: Connectors = Connectors(&[$($room::CONNECTOR),+]);
    };
}

rooms! {
    file,
    generator,
    print,
    blackhole,
}
