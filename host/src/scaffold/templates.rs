//! The templates of a new job: its files, with placeholders.
//!
//! Operators with more than a few lines are those of `examples/`, so the code that users start from is tested.

/// A template of a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Lines of text, split into words and counted.
    WordCount,
    /// Clicks, gathered into sessions by event time.
    Sessions,
    /// A stream, joined with a table.
    Join,
    /// One operator that passes lines on.
    Empty,
}

/// The content of a template.
#[derive(Debug)]
pub(super) struct Content {
    /// Guest crates: the directory, the source of `src/lib.rs`, and the other crates that its tests use.
    pub(super) crates: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// All other files of this template, with their text.
    pub(super) files: &'static [(&'static str, &'static str)],
}

/// Files of every job.
pub(super) const COMMON: [(&str, &str); 2] = [
    (".gitignore", include_str!("template/gitignore")),
    ("Cargo.toml", include_str!("template/workspace.toml")),
];

/// The manifest of a guest crate.
pub(super) const MANIFEST: &str = include_str!("template/crate.toml");

impl Template {
    /// Returns the content of the template.
    pub(super) const fn content(self) -> &'static Content {
        match self {
            Self::WordCount => &Content {
                crates: &[
                    ("split", include_str!("template/word-count/split.rs"), &[]),
                    (
                        "count",
                        include_str!("../../../examples/word-count/count/src/lib.rs"),
                        &[],
                    ),
                ],
                files: &[
                    ("job.toml", include_str!("template/word-count/job.toml")),
                    ("README.md", include_str!("template/word-count/README.md")),
                    ("input/sample.txt", include_str!("template/word-count/sample.txt")),
                ],
            },
            Self::Sessions => &Content {
                crates: &[
                    (
                        "parse",
                        include_str!("../../../examples/sessions/parse/src/lib.rs"),
                        &[],
                    ),
                    (
                        "sessionize",
                        include_str!("../../../examples/sessions/sessionize/src/lib.rs"),
                        &["parse"],
                    ),
                ],
                files: &[
                    ("job.toml", include_str!("../../../examples/sessions/job.toml")),
                    ("README.md", include_str!("template/sessions/README.md")),
                    (
                        "input/clicks.tsv",
                        include_str!("../../../examples/sessions/input/clicks.tsv"),
                    ),
                    ("expected.tsv", include_str!("../../../examples/sessions/expected.tsv")),
                ],
            },
            Self::Join => &Content {
                crates: &[(
                    "enrich",
                    include_str!("../../../examples/enrichment/enrich/src/lib.rs"),
                    &[],
                )],
                files: &[
                    ("job.toml", include_str!("../../../examples/enrichment/job.toml")),
                    ("README.md", include_str!("template/join/README.md")),
                    (
                        "input/orders-a.tsv",
                        include_str!("../../../examples/enrichment/input/orders-a.tsv"),
                    ),
                    (
                        "input/orders-b.tsv",
                        include_str!("../../../examples/enrichment/input/orders-b.tsv"),
                    ),
                    (
                        "input/users.tsv",
                        include_str!("../../../examples/enrichment/input/users.tsv"),
                    ),
                    (
                        "expected.tsv",
                        include_str!("../../../examples/enrichment/expected.tsv"),
                    ),
                ],
            },
            Self::Empty => &Content {
                crates: &[("operator", include_str!("template/empty/operator.rs"), &[])],
                files: &[
                    ("job.toml", include_str!("template/empty/job.toml")),
                    ("README.md", include_str!("template/empty/README.md")),
                    ("input/sample.txt", include_str!("template/word-count/sample.txt")),
                ],
            },
        }
    }
}
