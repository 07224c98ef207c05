//! Renders the job graph for people: as text, and as a Mermaid diagram.

use std::fmt::Write as _;

use super::job_graph::{Artifact, JobGraph, Node, NodeKind, Partitioning};
use super::plan::{Chain, Plan};

/// Returns the output of `regraft graph`: chains, their nodes, and the edges between them.
#[must_use]
pub fn text(graph: &JobGraph) -> String {
    let mut out = format!(
        "job {} (parallelism {}, max {})\n",
        graph.name, graph.parallelism, graph.max_parallelism
    );
    for (number, chain) in Plan::new(graph).chains().iter().enumerate() {
        let _ = writeln!(out, "\nchain {} x {}", number + 1, chain.parallelism);
        for (position, idx) in chain.nodes.iter().enumerate() {
            let Some(node) = graph.nodes.get(*idx) else { continue };
            let _ = writeln!(out, "  {} {} ({})", word(node), node.uid, detail(node));
            if position > 0 {
                continue;
            }
            for input in &node.inputs {
                let port = input
                    .port
                    .as_ref()
                    .map(|port| format!(" port {port}"))
                    .unwrap_or_default();
                let _ = writeln!(out, "    from {}{port} by {}", uid(graph, input.from), by(input.by));
            }
        }
    }
    out
}

/// Returns the output of `regraft graph --mermaid`: a flowchart with chains as boxes.
#[must_use]
pub fn mermaid(graph: &JobGraph) -> String {
    let mut out = String::from("flowchart LR\n");
    for (number, Chain { nodes, parallelism, .. }) in Plan::new(graph).chains().iter().enumerate() {
        let _ = writeln!(out, "  subgraph chain{}[\"x {parallelism}\"]", number + 1);
        for idx in nodes {
            let Some(node) = graph.nodes.get(*idx) else { continue };
            let (open, close) = match node.kind {
                NodeKind::Source(_) => ("([", "])"),
                NodeKind::Operator(_) => ("[", "]"),
                NodeKind::Sink(_) => ("[/", "/]"),
            };
            let _ = writeln!(
                out,
                "    n{idx}{open}\"{}<br/>{}\"{close}",
                node.uid,
                escape(&detail(node))
            );
        }
        out.push_str("  end\n");
    }
    for (idx, node) in graph.nodes.iter().enumerate() {
        for input in &node.inputs {
            let port = input
                .port
                .as_ref()
                .map(|port| format!(" {}", escape(port)))
                .unwrap_or_default();
            let _ = writeln!(out, "  n{} -->|\"{}{port}\"| n{idx}", input.from, by(input.by));
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "#quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn uid(graph: &JobGraph, idx: usize) -> &str {
    graph.nodes.get(idx).map_or("?", |node| node.uid.as_str())
}

const fn word(node: &Node) -> &'static str {
    match node.kind {
        NodeKind::Source(_) => "source",
        NodeKind::Operator(_) => "operator",
        NodeKind::Sink(_) => "sink",
    }
}

const fn by(by: Partitioning) -> &'static str {
    match by {
        Partitioning::Forward => "forward",
        Partitioning::Key => "key",
        Partitioning::Rebalance => "rebalance",
        Partitioning::Broadcast => "broadcast",
    }
}

fn detail(node: &Node) -> String {
    match &node.kind {
        NodeKind::Source(source) => source.connector.label(),
        NodeKind::Operator(operator) => match &operator.artifact {
            Artifact::Module(path) => format!("module {}", last_part(&path.to_string_lossy())),
            Artifact::Crate(path) => format!("crate {}", last_part(&path.to_string_lossy())),
        },
        NodeKind::Sink(sink) => sink.connector.label(),
    }
}

/// Returns the last part of a path, which is what its author calls it.
pub(crate) fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}
