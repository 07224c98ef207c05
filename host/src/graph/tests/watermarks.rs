//! `watermark` of sources and operators, and its move from sources without event times to their readers.

use super::*;
use crate::graph::job_graph::WatermarkStrategy;

fn strategy(max_out_of_orderness: u64, idleness: Option<u64>, timestamp: Option<usize>) -> Option<WatermarkStrategy> {
    Some(WatermarkStrategy {
        max_out_of_orderness: Duration::from_secs(max_out_of_orderness),
        idleness: idleness.map(Duration::from_secs),
        timestamp,
    })
}

fn node(word: &str, uid: &str, settings: &str) -> String {
    format!("[[{word}]]\nuid = \"{uid}\"\n{settings}\n")
}

/// Returns a file source with `settings` as its fifth line.
fn lines(uid: &str, settings: &str) -> String {
    node(
        "source",
        uid,
        &format!("connector = \"file\"\npath = \"a\"\n{settings}"),
    )
}

/// Returns a generator with the fields `page`, a string, and `time` and `user`, numbers; `settings` is its last line.
fn generator(settings: &str) -> String {
    let fields = "fields = [{ name = \"page\", type = \"string\", len = 3 }, { name = \"time\", type = \"u64\", sequence = 0 }, { name = \"user\", type = \"u64\", range = [0, 9] }]";
    node(
        "source",
        "gen",
        &format!("connector = \"generator\"\n{fields}\n{settings}"),
    )
}

fn operator(uid: &str, inputs: &str, settings: &str) -> String {
    node(
        "operator",
        uid,
        &format!("module = \"m\"\ninputs = {inputs}\n{settings}"),
    )
}

fn sink(inputs: &str) -> String {
    node("sink", "out", &format!("connector = \"print\"\ninputs = {inputs}"))
}

fn job(nodes: &[String]) -> String {
    format!("name = \"j\"\n{}", nodes.concat())
}

fn watermark(graph: &JobGraph, uid: &str) -> Option<WatermarkStrategy> {
    graph.node(uid).unwrap().watermark.clone()
}

#[test]
fn a_generator_with_a_field_of_time_makes_them_itself() {
    let text = job(&[
        generator("watermark = { max-out-of-orderness = \"5s\", idleness = \"30s\", timestamp = \"time\" }"),
        operator("o", "[\"gen\"]", ""),
        sink("[\"o\"]"),
    ]);
    let graph = good(&text, &overrides());
    assert_eq!(watermark(&graph, "gen"), strategy(5, Some(30), Some(1)));
    assert_eq!(watermark(&graph, "o"), None);
    assert_eq!(graph.settings["gen.watermark.timestamp"].value, "\"time\"");
    assert_eq!(graph.settings["gen.watermark.idleness"].origin, SettingOrigin::JobFile);
    for uid in ["gen", "o", "out"] {
        assert_eq!(
            watermark(&good(&text.replace("watermark", "rate = 3 #"), &overrides()), uid),
            None
        );
    }
}

#[test]
fn a_source_without_event_times_hands_its_strategy_on() {
    let text = job(&[
        lines("a", "watermark = { max-out-of-orderness = \"5s\" }"),
        lines("b", ""),
        operator("first", "[\"a\", \"b\"]", ""),
        operator(
            "own",
            "[{ from = \"a\", by = \"rebalance\" }]",
            "watermark = { idleness = \"1m\" }",
        ),
        operator("behind", "[\"first\", \"own\"]", ""),
        sink("[\"behind\", \"a\"]"),
    ]);
    let graph = good(&text, &overrides());
    assert_eq!(watermark(&graph, "a"), None, "it has no times to make them from");
    assert_eq!(watermark(&graph, "first"), strategy(5, None, None));
    assert_eq!(watermark(&graph, "own"), strategy(0, Some(60), None));
    assert_eq!(watermark(&graph, "behind"), None);
    assert_eq!(watermark(&graph, "out"), None);
    let setting = |key: &str| {
        let setting = &graph.settings[key];
        (setting.value.as_str(), setting.origin.word())
    };
    assert_eq!(setting("a.watermark.max-out-of-orderness"), ("\"5s\"", "job file"));
    assert_eq!(setting("first.watermark.max-out-of-orderness"), ("\"5s\"", "job file"));
    assert_eq!(setting("own.watermark.max-out-of-orderness"), ("\"0s\"", "default"));
    // A generator without a field for the event time is treated as a file source is.
    let text = job(&[
        generator("watermark = {}"),
        operator("o", "[\"gen\"]", ""),
        sink("[\"o\"]"),
    ]);
    let graph = good(&text, &overrides());
    assert_eq!(
        [watermark(&graph, "gen"), watermark(&graph, "o")],
        [None, strategy(0, None, None)]
    );
    let set = Overrides {
        set: vec!["gen.watermark.timestamp=user".into()],
        ..overrides()
    };
    let graph = good(&text, &set);
    assert_eq!(
        [watermark(&graph, "gen"), watermark(&graph, "o")],
        [strategy(0, None, Some(2)), None]
    );
    assert_eq!(
        graph.settings["gen.watermark.timestamp"].origin,
        SettingOrigin::CommandLine
    );
}

#[test]
fn what_is_handed_on_must_be_used_and_be_one() {
    let (graph, warnings) = parse_with(&job(&[lines("a", "watermark = {}"), sink("[\"a\"]")]), &overrides()).unwrap();
    assert_eq!(watermark(&graph, "a"), None);
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "job.toml:6: source \"a\": watermark has no effect: its records have no event time, and no operator reads them; remove it"
        ]
    );
    let two = |first: &str, second: &str, own: &str| {
        job(&[
            lines("a", &format!("watermark = {{ idleness = \"{first}\" }}")),
            lines("b", &format!("watermark = {{ idleness = \"{second}\" }}")),
            operator("o", "[\"a\", \"b\"]", own),
            sink("[\"o\"]"),
        ])
    };
    assert_eq!(
        watermark(&good(&two("1m", "60s", ""), &overrides()), "o"),
        strategy(0, Some(60), None)
    );
    let own = "watermark = { max-out-of-orderness = \"1s\" }";
    assert_eq!(
        watermark(&good(&two("1m", "2m", own), &overrides()), "o"),
        strategy(1, None, None)
    );
    refused(
        &two("1m", "2m", ""),
        &[
            "job.toml:12: operator \"o\": takes its watermark from \"a\" and from \"b\", and they differ; give it its own, watermark = { max-out-of-orderness = \"5s\" }",
        ],
    );
}

#[test]
fn strategies_that_cannot_be() {
    refused(
        &job(&[
            lines("a", "watermark = { timestamp = \"time\", idlenes = \"1s\" }"),
            lines("b", "watermark = \"5s\""),
            operator(
                "o",
                "[\"a\", \"b\"]",
                "watermark = { max-out-of-orderness = 5, idleness = \"0s\", timestamp = \"x\" }",
            ),
            node("sink", "out", "connector = \"print\"\ninputs = [\"o\"]\nwatermark = {}"),
        ]),
        &[
            "job.toml:6: source \"a\": watermark: timestamp names a field of a generator, and lines have no event time; the operators that read them emit it; remove it",
            "job.toml:6: source \"a\": watermark: unknown key \"idlenes\"; did you mean \"idleness\"?",
            "job.toml:11: source \"b\": watermark: expected a table, found \"5s\"; write watermark = { max-out-of-orderness = \"5s\" }",
            "job.toml:16: operator \"o\": watermark: max-out-of-orderness: expected a duration, found 5; write max-out-of-orderness = \"0s\"",
            "job.toml:16: operator \"o\": watermark: idleness: expected a duration above zero, found \"0s\"; write idleness = \"30s\"",
            "job.toml:16: operator \"o\": watermark: timestamp names a field of a generator, and an operator emits the event times itself; remove it",
            "job.toml:21: sink \"out\": unknown key \"watermark\"; expected \"uid\", \"parallelism\", \"inputs\" or \"connector\"",
        ],
    );
    for (field, remedy) in [
        ("tme", "found \"tme\"; did you mean \"time\"?"),
        ("page", "found \"page\"; expected \"time\" or \"user\""),
    ] {
        refused(
            &job(&[
                generator(&format!("watermark = {{ timestamp = \"{field}\" }}")),
                sink("[\"gen\"]"),
            ]),
            &[&format!(
                "job.toml:6: source \"gen\": watermark: timestamp: expected the name of a u64 field, milliseconds since 1970, {remedy}"
            )],
        );
    }
}
