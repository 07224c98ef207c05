//! Changes to JSON that keep it JSON: a value somewhere is replaced, removed, doubled, or copied from elsewhere.

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Draws a value at some bound.
fn odd(random: &mut Random, words: &[&str]) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(random.length(70_000)),
        7 => json!(0.5),
        8 => json!([]),
        9 => json!({}),
        10 => json!(""),
        _ => json!(random.pick(words)),
    }
}

/// Returns the number of values, including the root.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(entries) => entries.values().map(size).sum(),
        _ => 0,
    }
}

/// Returns the value with this number, counted from the root, depth first.
fn nth(value: &mut Value, mut number: usize) -> Option<&mut Value> {
    if number == 0 {
        return Some(value);
    }
    number -= 1;
    let children: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(entries) => Box::new(entries.iter_mut().map(|(_, value)| value)),
        _ => return None,
    };
    for child in children {
        let inside = size(child);
        if number < inside {
            return nth(child, number);
        }
        number -= inside;
    }
    None
}

/// Makes one change. `words` are strings with a meaning.
pub fn change(random: &mut Random, root: &mut Value, words: &[&str]) {
    let count = size(root);
    let from = random.below(count);
    let copied = nth(root, from).cloned().unwrap_or_default();
    let to = random.below(count);
    let Some(value) = nth(root, to) else { return };
    match (random.below(6), &mut *value) {
        (0, _) => *value = odd(random, words),
        (1, _) => *value = copied,
        (2, Value::Array(items)) if !items.is_empty() => {
            let at = random.below(items.len());
            if random.one_in(2) {
                items.remove(at);
            } else {
                let item = items[at].clone();
                items.insert(at, item);
            }
        }
        (3, Value::Array(items)) if items.len() > 1 => {
            let (a, b) = (random.below(items.len()), random.below(items.len()));
            items.swap(a, b);
        }
        (2 | 3, Value::Object(entries)) => change_entries(random, entries, copied, words),
        (_, Value::Number(number)) => {
            let step = i64::try_from(random.below(5)).unwrap_or(0) - 2;
            *value = match (number.as_u64(), number.as_i64()) {
                (Some(n), _) if random.one_in(4) => json!(n.wrapping_mul(2)),
                (Some(n), _) => json!(n.wrapping_add_signed(step)),
                (_, Some(n)) => json!(n.wrapping_add(step)),
                _ => odd(random, words),
            };
        }
        (_, Value::String(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            crate::mutate::bytes(random, &mut bytes, b"/../\\\0\"x");
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (_, Value::Bool(flag)) => *flag = !*flag,
        _ => *value = odd(random, words),
    }
}

fn change_entries(random: &mut Random, entries: &mut Map<String, Value>, copied: Value, words: &[&str]) {
    let keys: Vec<String> = entries.keys().cloned().collect();
    if keys.is_empty() || random.one_in(2) {
        entries.insert((*random.pick(words)).to_owned(), copied);
    } else {
        entries.remove(random.pick(&keys));
    }
}
