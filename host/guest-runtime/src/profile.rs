//! Samples of a guest's stack, counted by the functions on it.
//!
//! While a [`Profiler`] is on, calls of its instances are sampled at every tick of the engine's epoch, which is then
//! [`SAMPLE_TICK`](crate::limits::SAMPLE_TICK) long. A guest notices a tick where a function or the body of a loop begins, and
//! that is where it is sampled; what the host does between two such places is seen at the second one.
//! While the profiler is off, a call reads one flag.
//!
//! Inlined functions are shown where the module has debug information, except those of Rust's own library.
//!
//! Guests choose their functions and their names, so everything that is kept is bounded: functions, their names, the depth of
//! a stack, and distinct stacks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::WasmBacktrace;

use crate::symbols::DebugInfo;
use crate::trap::{functions_at, is_of_library};

/// The most frames of a stack that the runtime looks at, the innermost ones.
pub(crate) const FRAMES_MAX: usize = 100;
/// The most functions of one sample, with inlined ones.
const DEPTH_MAX: usize = 200;
/// The most distinct functions of a profile.
const FUNCTIONS_MAX: usize = 4_096;
/// The most bytes of all names of functions.
const NAMES_BYTES_MAX: usize = 512 << 10;
/// The most nodes of the tree of calls.
const NODES_MAX: usize = 16_384;
/// The most places in a module's code whose functions are kept.
const PLACES_MAX: usize = 10_000;

/// Name of the function that stands for those beyond the limits.
pub const OTHERS: &str = "(other functions)";
/// Name of the function that stands for the outer part of a deep stack.
pub const CALLERS: &str = "(further callers)";

/// Name of the function that stands for the host while it copies what a call is given into the guest's memory.
pub const COPIES_IN: &str = "(the host copies arguments)";
/// Name of the function that stands for the host while it copies what a call returns out of the guest's memory.
pub const COPIES_OUT: &str = "(the host copies results)";

/// Samples of one guest as a tree of calls, and the calls that they were taken in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Names of functions, demangled. They are the guest's own, and may have any characters.
    pub functions: Vec<String>,
    /// Nodes of the tree. A node stands behind its parent.
    pub nodes: Vec<ProfileNode>,
    /// Number of samples.
    pub samples: u64,
    /// Number of samples with functions that are left out, since they are beyond a limit.
    pub cut: u64,
    /// Number of calls that have ended.
    pub calls: u64,
    /// Processor time of these calls, with that of copying what they are given and return.
    pub computed: Duration,
    /// Processor time of the host's answers to the guest in these calls; part of `computed`.
    pub answers: Duration,
}

/// A function, called along one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileNode {
    /// Position of its name in [`Profile::functions`].
    pub function: u32,
    /// Position of its caller in [`Profile::nodes`]; `None` for the outermost function.
    pub parent: Option<u32>,
    /// Number of samples in which it was the innermost function.
    pub samples: u64,
}

/// Profiles the instances that share it.
#[derive(Debug, Default)]
pub struct Profiler {
    on: AtomicBool,
    gathered: Mutex<Option<Gathered>>,
}

#[derive(Debug, Default)]
struct Gathered {
    tree: Tree,
    /// Functions at places in the code of each module, by offset.
    places: Vec<(Arc<DebugInfo>, Places)>,
    /// Processor time of taking samples.
    sampling: Duration,
}

/// Functions at places in a module's code, innermost first.
type Places = HashMap<usize, Box<[u32]>>;

impl Profiler {
    /// Starts a profile. Returns false, and changes nothing, if one is under way.
    #[must_use]
    pub fn start(&self) -> bool {
        let mut gathered = self.gathered();
        if gathered.is_some() {
            return false;
        }
        *gathered = Some(Gathered::default());
        self.on.store(true, Ordering::Relaxed);
        true
    }

    /// Ends the profile, and returns it; `None` if none is under way.
    pub fn stop(&self) -> Option<Profile> {
        let mut gathered = self.gathered();
        self.on.store(false, Ordering::Relaxed);
        let Gathered { tree, sampling, .. } = gathered.take()?;
        let mut profile = tree.profile;
        profile.computed = profile.computed.saturating_sub(sampling);
        profile.answers = profile.answers.saturating_sub(sampling);
        Some(profile)
    }

    /// Returns true while a profile is under way.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Counts a call that has ended, with its processor time and the part of that in which the host answered the guest or
    /// took samples.
    pub(crate) fn called(&self, computed: Duration, answers: Duration) {
        if let Some(gathered) = &mut *self.gathered() {
            let profile = &mut gathered.tree.profile;
            profile.calls += 1;
            profile.computed += computed;
            profile.answers += answers;
        }
    }

    /// Counts the stack of a guest. `debug` is the debug information of its module.
    pub(crate) fn sample(&self, stack: &WasmBacktrace, debug: &Arc<DebugInfo>) {
        if let Some(gathered) = &mut *self.gathered() {
            gathered.sample(stack, debug);
        }
    }

    /// Adds processor time that was spent on samples.
    pub(crate) fn sampled(&self, took: Duration) {
        if let Some(gathered) = &mut *self.gathered() {
            gathered.sampling += took;
        }
    }

    fn gathered(&self) -> MutexGuard<'_, Option<Gathered>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn sample(&mut self, stack: &WasmBacktrace, debug: &Arc<DebugInfo>) {
        let Self { tree, places, .. } = self;
        let known = places.iter().position(|(of, _)| Arc::ptr_eq(of, debug));
        let at = known.unwrap_or_else(|| {
            places.push((Arc::clone(debug), Places::new()));
            places.len() - 1
        });
        let Some((_, places)) = places.get_mut(at) else { return };
        if let Some(copies) = copies_of_the_host(stack) {
            let copies = tree.function(copies);
            tree.add_stack(&[copies], false);
            return;
        }
        let mut functions = vec![];
        for frame in stack.frames() {
            // Without an offset, functions of different modules could not be told apart: they are named each time.
            let named = |tree: &mut Tree| -> Box<[u32]> {
                let mut frames = functions_at(frame, debug);
                let outer = frames.pop();
                // Iterators and arithmetic that were inlined count for what they were written in.
                let inlined = frames.iter().filter(|frame| !is_of_library(frame));
                inlined
                    .chain(&outer)
                    .map(|frame| tree.function(&frame.function))
                    .collect()
            };
            match frame.module_offset() {
                Some(offset) => {
                    if places.len() >= PLACES_MAX {
                        places.clear();
                    }
                    functions.extend_from_slice(places.entry(offset).or_insert_with(|| named(tree)));
                }
                None => functions.extend_from_slice(&named(tree)),
            }
        }
        let is_deep = stack.frames().len() >= FRAMES_MAX;
        tree.add_stack(&functions, is_deep);
    }
}

/// Returns the name for what the host did until the guest noticed the tick, if the guest has only begun a function that the
/// host calls between two copies: one that gives room for a column, or one that takes back a call's results.
fn copies_of_the_host(stack: &WasmBacktrace) -> Option<&'static str> {
    let [frame] = stack.frames() else { return None };
    match frame.func_name()? {
        "cabi_realloc" => Some(COPIES_IN),
        name if name.starts_with("cabi_post_") => Some(COPIES_OUT),
        _ => None,
    }
}

/// A profile that grows, with what is needed to find its parts.
#[derive(Debug, Default)]
pub struct Tree {
    profile: Profile,
    by_name: HashMap<String, u32>,
    names_bytes: usize,
    /// Nodes by caller and function.
    children: HashMap<(Option<u32>, u32), u32>,
}

impl Tree {
    /// Adds all samples and calls of another profile.
    pub fn add(&mut self, other: &Profile) {
        let functions: Vec<u32> = other.functions.iter().map(|name| self.function(name)).collect();
        // Nodes of this tree by those of the other one; false for those that are counted for an ancestor.
        let mut nodes: Vec<(Option<u32>, bool)> = Vec::with_capacity(other.nodes.len());
        for node in &other.nodes {
            let parent = node.parent.and_then(|parent| nodes.get(parent as usize).copied());
            let (parent, has_parent) = parent.unwrap_or((None, true));
            let function = functions.get(node.function as usize).copied().unwrap_or_default();
            let child = if has_parent { self.child(parent, function) } else { None };
            let (at, whole) = (child.or(parent), child.is_some());
            self.count(at, node.samples, whole);
            nodes.push((at, whole));
        }
        let profile = &mut self.profile;
        profile.cut += other.cut;
        profile.calls += other.calls;
        profile.computed += other.computed;
        profile.answers += other.answers;
    }

    /// Returns the profile.
    #[must_use]
    pub fn into_profile(self) -> Profile {
        self.profile
    }

    /// Returns the position of a name, and takes it in where there is room.
    fn function(&mut self, name: &str) -> u32 {
        if self.profile.functions.is_empty() {
            self.take_in(OTHERS);
            self.take_in(CALLERS);
        }
        if let Some(&at) = self.by_name.get(name) {
            return at;
        }
        let has_room = self.profile.functions.len() < FUNCTIONS_MAX && self.names_bytes + name.len() <= NAMES_BYTES_MAX;
        if has_room { self.take_in(name) } else { 0 }
    }

    fn take_in(&mut self, name: &str) -> u32 {
        let at = self.profile.functions.len() as u32;
        self.profile.functions.push(name.to_owned());
        self.by_name.insert(name.to_owned(), at);
        self.names_bytes += name.len();
        at
    }

    /// Counts a stack, innermost function first. `is_deep` is true if it has more functions than these.
    fn add_stack(&mut self, stack: &[u32], is_deep: bool) {
        let shown = stack.get(..DEPTH_MAX).unwrap_or(stack);
        let callers = (is_deep || shown.len() < stack.len()).then(|| self.function(CALLERS));
        let (mut at, mut whole) = (None, true);
        for &function in callers.iter().chain(shown.iter().rev()) {
            match self.child(at, function) {
                Some(child) => at = Some(child),
                None => {
                    whole = false;
                    break;
                }
            }
        }
        self.count(at, 1, whole);
    }

    /// Returns the node of a function below its caller; `None` if there is no room for it.
    fn child(&mut self, parent: Option<u32>, function: u32) -> Option<u32> {
        if let Some(&at) = self.children.get(&(parent, function)) {
            return Some(at);
        }
        let has_room = self.profile.nodes.len() < NODES_MAX;
        has_room.then(|| self.new_child(parent, function))
    }

    fn new_child(&mut self, parent: Option<u32>, function: u32) -> u32 {
        let nodes = &mut self.profile.nodes;
        *self.children.entry((parent, function)).or_insert_with(|| {
            nodes.push(ProfileNode {
                function,
                parent,
                samples: 0,
            });
            nodes.len() as u32 - 1
        })
    }

    /// Counts samples of a node. `whole` is false if their stack goes on below it.
    fn count(&mut self, at: Option<u32>, samples: u64, whole: bool) {
        if samples == 0 {
            return;
        }
        // The one node that is beyond the limit.
        let at = at.unwrap_or_else(|| {
            let others = self.function(OTHERS);
            self.new_child(None, others)
        });
        if let Some(node) = self.profile.nodes.get_mut(at as usize) {
            node.samples += samples;
            self.profile.samples += samples;
        }
        if !whole {
            self.profile.cut += samples;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(profile: &Profile) -> Vec<(String, u64)> {
        let path = |node: &ProfileNode| {
            let mut names = vec![];
            let mut at = Some(*node);
            while let Some(node) = at {
                names.push(profile.functions[node.function as usize].as_str());
                at = node.parent.map(|parent| profile.nodes[parent as usize]);
            }
            names.reverse();
            (names.join(";"), node.samples)
        };
        profile.nodes.iter().filter(|node| node.samples > 0).map(path).collect()
    }

    fn add(tree: &mut Tree, stack: &[&str]) {
        let stack: Vec<u32> = stack.iter().map(|name| tree.function(name)).collect();
        tree.add_stack(&stack, false);
    }

    fn is(stacks: &[(&str, u64)]) -> Vec<(String, u64)> {
        stacks
            .iter()
            .map(|(stack, count)| ((*stack).to_owned(), *count))
            .collect()
    }

    #[test]
    fn equal_stacks_are_counted_together() {
        let mut tree = Tree::default();
        for stack in [
            &["leaf", "process"][..],
            &["process"],
            &["leaf", "process"],
            &["leaf", "open"],
        ] {
            add(&mut tree, stack);
        }
        let profile = tree.into_profile();
        assert_eq!(
            stacks(&profile),
            is(&[("process", 1), ("process;leaf", 2), ("open;leaf", 1)])
        );
        assert_eq!((profile.samples, profile.cut), (4, 0));
    }

    #[test]
    fn profiles_of_subtasks_add_up() {
        let mut one = Tree::default();
        add(&mut one, &["leaf", "process"]);
        let mut other = Tree::default();
        add(&mut other, &["open"]);
        add(&mut other, &["leaf", "process"]);
        other.profile.calls = 3;
        other.profile.computed = Duration::from_millis(5);
        let other = other.into_profile();
        let mut all = Tree::default();
        for profile in [&one.into_profile(), &other, &other] {
            all.add(profile);
        }
        let all = all.into_profile();
        assert_eq!(stacks(&all), is(&[("process;leaf", 3), ("open", 2)]));
        assert_eq!(
            (all.samples, all.calls, all.computed),
            (5, 6, Duration::from_millis(10))
        );
    }

    #[test]
    fn functions_beyond_the_limits_are_one() {
        let mut tree = Tree::default();
        for n in 0..FUNCTIONS_MAX + 10 {
            add(&mut tree, &[&format!("f{n}"), "process"]);
        }
        let profile = tree.into_profile();
        assert_eq!(profile.functions.len(), FUNCTIONS_MAX);
        assert!(stacks(&profile).contains(&("process;(other functions)".to_owned(), 13)));
        let mut tree = Tree::default();
        let long = "x".repeat(NAMES_BYTES_MAX / 4);
        for n in 0..10 {
            add(&mut tree, &[&format!("{long}{n}")]);
        }
        let profile = tree.into_profile();
        assert!(profile.functions.iter().map(String::len).sum::<usize>() <= NAMES_BYTES_MAX);
        assert_eq!(profile.samples, 10);
    }

    #[test]
    fn stacks_beyond_the_limits_are_counted_for_what_is_kept_of_them() {
        let mut tree = Tree::default();
        let names: Vec<String> = (0..DEPTH_MAX + 5).map(|n| format!("f{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        add(&mut tree, &names);
        assert_eq!(tree.profile.nodes.len(), DEPTH_MAX + 1);
        assert_eq!(tree.profile.functions[tree.profile.nodes[0].function as usize], CALLERS);
        for n in 0..NODES_MAX {
            let (a, b) = (format!("a{}", n % 1000), format!("b{}", n / 1000));
            add(&mut tree, &[&a, &b, "process"]);
        }
        let profile = tree.into_profile();
        assert_eq!(profile.nodes.len(), NODES_MAX);
        assert_eq!(profile.samples, 1 + NODES_MAX as u64);
        assert!(profile.cut > 0 && profile.cut < 300, "{}", profile.cut);
        // Each subtask may have as many; their sum has no more.
        let mut all = Tree::default();
        add(&mut all, &["elsewhere"]);
        all.add(&profile);
        let mut more = Tree::default();
        add(&mut more, &["process", "of another root"]);
        all.add(&more.into_profile());
        let all = all.into_profile();
        assert_eq!((all.nodes.len(), all.samples), (NODES_MAX + 1, 3 + NODES_MAX as u64));
        assert!(stacks(&all).contains(&(OTHERS.to_owned(), 1)));
    }

    #[test]
    fn one_profile_at_a_time() {
        let profiler = Profiler::default();
        assert!(!profiler.is_on() && profiler.stop().is_none());
        profiler.called(Duration::ZERO, Duration::ZERO);
        assert!(profiler.start() && !profiler.start() && profiler.is_on());
        profiler.called(Duration::from_millis(7), Duration::from_millis(3));
        profiler.sampled(Duration::from_millis(1));
        let profile = profiler.stop().expect("it was on");
        assert_eq!(profile.calls, 1);
        assert_eq!(
            (profile.computed, profile.answers),
            (Duration::from_millis(6), Duration::from_millis(2))
        );
        assert!(!profiler.is_on() && profiler.start());
        assert_eq!(profiler.stop(), Some(Profile::default()));
    }
}
