//! A profile as text: folded stacks, or an SVG flame graph. Pure.
//!
//! Names of functions are a guest's, and may have any characters: they are escaped for terminals, for the lines of folded
//! stacks and for XML. The SVG needs no other file; its script only moves what is drawn.
//! Flame graphs and folded stacks are Brendan Gregg's ("The Flame Graph", CACM 59.6, 2016).

use std::fmt::Write as _;

use crate::api::types::ProfileReport;
use crate::escape::one_line;

/// Height of a frame, in pixels.
const ROW: usize = 18;
/// Height of the title above the frames, and of the margin below them.
const HEAD: usize = 64;
const FOOT: usize = 12;
/// Part of all samples that a frame must have to be drawn: a tenth of a pixel on a wide screen.
const SHARE_MIN: f64 = 0.000_05;
/// The most characters of a label within a frame.
const LABEL_CHARS_MAX: usize = 120;

/// One frame: a function, called along one path.
#[derive(Debug)]
struct Frame<'a> {
    name: &'a str,
    /// Samples of it and of all that it calls.
    all: u64,
    /// Samples in which it was the innermost function.
    own: u64,
    /// Positions of the functions that it calls.
    children: Vec<usize>,
}

/// The tree of calls of a profile. Its root is the operator.
#[derive(Debug)]
pub(super) struct FlameGraph<'a> {
    report: &'a ProfileReport,
    /// The root first, and every frame behind its caller.
    frames: Vec<Frame<'a>>,
}

/// A function, with the share of the samples in which it was the innermost one.
#[derive(Debug, PartialEq)]
pub(super) struct Hot<'a> {
    pub(super) name: &'a str,
    pub(super) share: f64,
}

impl<'a> FlameGraph<'a> {
    /// Reads the tree of a report.
    ///
    /// # Errors
    /// The contradiction, if a frame has no name or does not stand behind its caller.
    pub(super) fn new(report: &'a ProfileReport) -> Result<Self, String> {
        let root = Frame {
            name: report.uid.as_str(),
            all: 0,
            own: 0,
            children: vec![],
        };
        let mut frames = vec![root];
        let mut parents = vec![0];
        for (at, frame) in report.frames.iter().enumerate() {
            let name = report.functions.get(frame.function as usize);
            let name =
                name.ok_or_else(|| format!("frame {at} is of function {}, which has no name", frame.function))?;
            let parent = match frame.parent {
                None => 0,
                Some(parent) if (parent as usize) < at => parent as usize + 1,
                Some(parent) => return Err(format!("frame {at} stands before its caller, frame {parent}")),
            };
            frames.push(Frame {
                name,
                all: frame.samples,
                own: frame.samples,
                children: vec![],
            });
            parents.push(parent);
        }
        for at in (1..frames.len()).rev() {
            let (parent, all) = (parents[at], frames[at].all);
            frames[parent].all += all;
            frames[parent].children.push(at);
        }
        for at in 0..frames.len() {
            let mut children = std::mem::take(&mut frames[at].children);
            children.sort_by_key(|&child| frames[child].name);
            frames[at].children = children;
        }
        Ok(Self { report, frames })
    }

    /// Returns the functions that were the innermost ones most often, over all paths to them.
    pub(super) fn hottest(&self, most: usize) -> Vec<Hot<'a>> {
        let mut own = std::collections::BTreeMap::<&str, u64>::new();
        for frame in &self.frames {
            *own.entry(frame.name).or_default() += frame.own;
        }
        let mut own: Vec<(&str, u64)> = own.into_iter().filter(|(_, own)| *own > 0).collect();
        own.sort_by_key(|(_, own)| std::cmp::Reverse(*own));
        own.truncate(most);
        let share = |(name, own)| Hot {
            name,
            share: self.share(own),
        };
        own.into_iter().map(share).collect()
    }

    /// Writes a line for each distinct stack: its functions, outermost first, and the number of its samples. Tools for flame
    /// graphs read it.
    pub(super) fn folded(&self) -> String {
        let mut text = String::new();
        let mut path = vec![];
        self.walk(0, 0, &mut |depth, _, frame| {
            path.truncate(depth);
            // A semicolon is what separates functions.
            path.push(one_line(frame.name).replace(';', ","));
            if frame.own > 0 {
                let _ = writeln!(text, "{} {}", path.join(";"), frame.own);
            }
        });
        text
    }

    /// Draws the flame graph: each frame as wide as its samples, on top of its caller. A click widens a frame.
    pub(super) fn svg(&self, denominators: &[String]) -> String {
        let mut depth_max = 0;
        self.walk(0, 0, &mut |depth, _, frame| {
            if self.share(frame.all) >= SHARE_MIN {
                depth_max = depth_max.max(depth);
            }
        });
        let height = HEAD + (depth_max + 1) * ROW + FOOT;
        let title = format!("{}: operator \"{}\"", self.report.name, self.report.uid);
        let mut svg = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100%\" height=\"{height}\" font-family=\"ui-monospace, monospace\" font-size=\"12\">\n<title>{0}</title>\n<style>#frames svg {{ cursor: pointer }} #frames svg:hover rect {{ stroke: #222; stroke-width: 1 }}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fdfdfb\"/>\n<text x=\"8\" y=\"20\" font-size=\"15\">{0}</text>\n",
            xml(&title)
        );
        for (line, text) in denominators.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<text x=\"8\" y=\"{}\" fill=\"#555\">{}</text>",
                38 + 16 * line,
                xml(text)
            );
        }
        svg.push_str("<g id=\"frames\">\n");
        self.walk(0, 0, &mut |depth, left, frame| {
            if self.share(frame.all) >= SHARE_MIN {
                let y = HEAD + (depth_max - depth) * ROW;
                self.draw(&mut svg, frame, left, y);
            }
        });
        let _ = write!(
            svg,
            "</g>\n<script><![CDATA[{}]]></script>\n</svg>\n",
            include_str!("flame_graph.js")
        );
        svg
    }

    fn draw(&self, svg: &mut String, frame: &Frame<'_>, left: u64, y: usize) {
        let name = one_line(frame.name);
        let label: String = name.chars().take(LABEL_CHARS_MAX).collect();
        let _ = writeln!(
            svg,
            "<svg x=\"{:.4}%\" y=\"{y}\" width=\"{:.4}%\" height=\"{}\" data-x=\"{left}\" data-w=\"{}\"><title>{}: {} of {} samples, {:.2} %; {} of its own</title><rect width=\"100%\" height=\"100%\" rx=\"1\" fill=\"{}\"/><text x=\"4\" y=\"12\">{}</text></svg>",
            100.0 * self.share(left),
            100.0 * self.share(frame.all),
            ROW - 1,
            frame.all,
            xml(&name),
            frame.all,
            self.frames[0].all,
            100.0 * self.share(frame.all),
            frame.own,
            color(frame.name),
            xml(&label),
        );
    }

    fn share(&self, samples: u64) -> f64 {
        samples as f64 / self.frames[0].all.max(1) as f64
    }

    /// Visits every frame below one and that one itself, callers first, with its depth and the samples to its left.
    fn walk(&self, at: usize, left: u64, visit: &mut impl FnMut(usize, u64, &Frame<'_>)) {
        // The depth is not bounded by this program, so its own stack must not grow with it.
        let mut next = vec![(at, 0, left)];
        while let Some((at, depth, left)) = next.pop() {
            let frame = &self.frames[at];
            visit(depth, left, frame);
            let mut right = left + frame.all;
            for &child in frame.children.iter().rev() {
                right -= self.frames[child].all;
                next.push((child, depth + 1, right));
            }
        }
    }
}

/// Returns a warm color that a name has in every graph; grey for what is no function.
fn color(name: &str) -> String {
    if name.starts_with('(') {
        return "#cfcfcf".to_owned();
    }
    let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    let part = |shift: u32, from: u64, span: u64| from + (hash >> shift) % span;
    format!(
        "#{:02x}{:02x}{:02x}",
        part(0, 222, 34),
        part(16, 120, 110),
        part(32, 60, 50)
    )
}

/// Returns text as XML has it in elements and attributes. Characters that XML does not allow are replaced.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A report with these frames: function, caller, samples.
    fn report(functions: &[&str], frames: &[(u32, Option<u32>, u64)]) -> ProfileReport {
        let frames: Vec<_> = frames
            .iter()
            .map(|(function, parent, samples)| json!({"function": function, "parent": parent, "samples": samples}))
            .collect();
        serde_json::from_value(json!({
            "job_id": "00000000000000000000000000000007", "name": "words", "uid": "count", "subtask": null, "subtasks": 2,
            "duration_ms": 10_000, "interval_ms": 1, "from_version": 1, "version": 1, "restarts": 0, "status": "RUNNING",
            "calls": 9, "computed_ms": 4.0, "answers_ms": 1.0, "samples": 4, "cut": 0,
            "functions": functions, "frames": frames,
        }))
        .expect("a report")
    }

    fn words() -> ProfileReport {
        let functions = ["process", "hash", "Vec<[u8; 4]>::push", "open"];
        report(
            &functions,
            &[
                (0, None, 1),
                (1, Some(0), 4),
                (2, Some(0), 2),
                (3, None, 0),
                (1, Some(3), 1),
            ],
        )
    }

    #[test]
    fn stacks_are_folded_with_the_operator_as_their_root() {
        let report = words();
        let graph = FlameGraph::new(&report).expect("a tree");
        let expected = "count;open;hash 1\ncount;process 1\ncount;process;Vec<[u8, 4]>::push 2\ncount;process;hash 4\n";
        assert_eq!(graph.folded(), expected);
    }

    #[test]
    fn the_hottest_functions_are_counted_over_all_paths() {
        let report = words();
        let graph = FlameGraph::new(&report).expect("a tree");
        let hot = |name, share| Hot { name, share };
        assert_eq!(graph.hottest(2), [hot("hash", 0.625), hot("Vec<[u8; 4]>::push", 0.25)]);
    }

    #[test]
    fn a_frame_is_as_wide_as_its_samples_and_stands_on_its_caller() {
        let report = words();
        let svg = FlameGraph::new(&report).expect("a tree").svg(&["8 samples".to_owned()]);
        for line in [
            "height=\"130\" font-family",
            "<text x=\"8\" y=\"38\" fill=\"#555\">8 samples</text>",
            "<svg x=\"0.0000%\" y=\"100\" width=\"100.0000%\" height=\"17\" data-x=\"0\" data-w=\"8\"><title>count: 8 of 8 samples, 100.00 %; 0 of its own</title>",
            "<svg x=\"12.5000%\" y=\"82\" width=\"87.5000%\" height=\"17\" data-x=\"1\" data-w=\"7\"><title>process: 7 of 8 samples, 87.50 %; 1 of its own</title>",
            "<svg x=\"50.0000%\" y=\"64\" width=\"50.0000%\" height=\"17\" data-x=\"4\" data-w=\"4\"><title>hash: 4 of 8",
            ">Vec&lt;[u8; 4]&gt;::push</text>",
        ] {
            assert!(svg.contains(line), "{line}\n{svg}");
        }
    }

    #[test]
    fn names_of_a_guest_are_only_text() {
        let hostile = "]]></script><script>alert(1)//\u{1b}[2J\n\"'&\u{202e}\u{ffff};";
        let report = report(&[hostile], &[(0, None, 3)]);
        let graph = FlameGraph::new(&report).expect("a tree");
        let svg = graph.svg(&[]);
        let name = "]]&gt;&lt;/script&gt;&lt;script&gt;alert(1)//\\u{1b}[2J\\n&quot;&#39;&amp;\\u{202e}\u{fffd};";
        assert!(svg.contains(&format!("<title>{name}: 3 of 3")), "{svg}");
        assert_eq!(svg.matches("<script>").count(), 1);
        assert!(svg.chars().all(|c| c == '\n' || !c.is_control()));
        let folded = graph.folded();
        assert_eq!(
            (folded.lines().count(), folded.matches(';').count()),
            (1, 1),
            "{folded}"
        );
    }

    #[test]
    fn a_tree_that_contradicts_itself_is_refused() {
        let refused = |frames: &[(u32, Option<u32>, u64)]| {
            let report = report(&["a"], frames);
            FlameGraph::new(&report).expect_err("no tree")
        };
        assert_eq!(refused(&[(0, Some(0), 1)]), "frame 0 stands before its caller, frame 0");
        assert_eq!(refused(&[(1, None, 1)]), "frame 0 is of function 1, which has no name");
    }

    #[test]
    fn a_deep_tree_is_drawn() {
        let frames: Vec<(u32, Option<u32>, u64)> = (0..100_000).map(|at: u32| (0, at.checked_sub(1), 1)).collect();
        let report = report(&["f"], &frames);
        let graph = FlameGraph::new(&report).expect("a tree");
        assert!(graph.svg(&[]).len() > 1000);
    }
}
