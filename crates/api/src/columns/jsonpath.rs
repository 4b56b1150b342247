//! The JSONPath dialect of printer columns and scale paths: names, indexes, `[*]`, and equality filters.

use jiff::Timestamp;
use serde_json::json;

use super::age;
use crate::{Column, Tree};

/// Steps of one path; paths come from custom resource definitions.
const STEPS_MAX: usize = 64;

/// Text that is no path of the dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is not a simple JSONPath")]
pub struct PathError {
    path: String,
}

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(i64),
    All,
    /// `[?(@.type=="Ready")]`: elements whose member at the path prints as the text.
    Where {
        path: Vec<String>,
        equal: bool,
        value: String,
    },
}

/// Reads `.spec.replicas`, `.a[0]`, `.a[*].b`, `.a[?(@.type=="Ready")].status`, `.a\.b` and `['a.b']`.
///
/// # Errors
/// Text of another form.
pub fn parse(text: &str) -> Result<Path, PathError> {
    steps(text).filter(|steps| steps.len() <= STEPS_MAX).map(Path).ok_or_else(|| PathError { path: text.to_owned() })
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let text = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = bracket(after)?;
            steps.push(in_bracket(inside)?);
            rest = after;
            continue;
        }
        rest = rest.strip_prefix('.').or_else(|| steps.is_empty().then_some(rest))?;
        let (name, after) = name(rest);
        match name.as_str() {
            "" if after.is_empty() && steps.is_empty() => {}
            "" if after.starts_with('[') => {}
            "" => return None,
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Name(name)),
        }
        rest = after;
    }
    Some(steps)
}

fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// What stands up to the closing bracket, quotes respected.
fn bracket(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, ']') => return Some((&text[..at], &text[at + 1..])),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    None
}

fn in_bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquote(text) {
        return Some(Step::Name(name.to_owned()));
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    let filter = text.strip_prefix("?(")?.strip_suffix(')')?.trim();
    let (left, equal, right) = match filter.split_once("==") {
        Some((left, right)) => (left, true, right),
        None => filter.split_once("!=").map(|(left, right)| (left, false, right))?,
    };
    let path = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
    let right = right.trim();
    Some(Step::Where { path, equal, value: unquote(right).unwrap_or(right).to_owned() })
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

/// All values that a path leads to.
pub fn find<'a>(path: &Path, tree: &'a Tree) -> Vec<&'a Tree> {
    path.0.iter().fold(vec![tree], |nodes, step| nodes.into_iter().flat_map(|node| step.take(node)).collect())
}

impl Path {
    /// The names of a path that is nothing but names.
    pub fn names(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Name(name) = step { Some(name.as_str()) } else { None }).collect()
    }
}

impl Step {
    fn take<'a>(&self, node: &'a Tree) -> Vec<&'a Tree> {
        match self {
            Step::Name(name) => node.get(name).into_iter().collect(),
            Step::Index(index) => {
                let items = node.as_array().map_or(&[][..], Vec::as_slice);
                let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
                let at = if *index < 0 { length + index } else { *index };
                usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            Step::All => children(node),
            Step::Where { path, equal, value } => {
                let holds = |item: &&Tree| {
                    let found = path.iter().try_fold(*item, |node, name| node.get(name));
                    found.is_some_and(|found| (super::plain(found) == *value) == *equal)
                };
                children(node).into_iter().filter(holds).collect()
            }
        }
    }
}

fn children(node: &Tree) -> Vec<&Tree> {
    match node {
        Tree::Array(items) => items.iter().collect(),
        Tree::Object(members) => members.values().collect(),
        _ => Vec::new(),
    }
}

/// The cell of a custom kind's column: null where the path leads nowhere or to another type.
pub(super) fn cell(column: &Column, object: &Tree, now: Timestamp) -> Tree {
    let Ok(path) = parse(&column.path) else { return Tree::Null };
    let found = find(&path, object);
    let Some(first) = found.first().filter(|value| !value.is_null()) else { return Tree::Null };
    match column.r#type.as_str() {
        "string" => {
            let words: Vec<String> = found.iter().map(|value| super::plain(value)).collect();
            json!(words.join(" "))
        }
        "integer" => first.as_i64().or_else(|| truncated(first)).map_or(Tree::Null, |number| json!(number)),
        "number" => first.as_number().map_or(Tree::Null, |number| Tree::Number(number.clone())),
        "boolean" => first.as_bool().map_or(Tree::Null, |value| json!(value)),
        "date" => match first.as_str().map(str::parse::<Timestamp>) {
            Some(Ok(at)) => json!(age::between(at, now)),
            Some(Err(_)) => json!("<invalid>"),
            None => Tree::Null,
        },
        _ => Tree::Null,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a number in an integer column prints without its fraction")]
fn truncated(value: &Tree) -> Option<i64> {
    value.as_f64().map(|number| number as i64)
}

#[cfg(test)]
mod tests {
    use super::{find, parse};
    use serde_json::{Value, json};

    fn check(path: &str, wanted: &[Value]) {
        let tree = json!({"spec": {"replicas": 3, "a.b": "dot", "list": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "No"}]}});
        let found: Vec<Value> = find(&parse(path).unwrap(), &tree).into_iter().cloned().collect();
        assert_eq!(found, wanted, "{path}");
    }

    #[test]
    fn paths_lead_to_values() {
        check(".spec.replicas", &[json!(3)]);
        check("{.spec.replicas}", &[json!(3)]);
        check(r".spec.a\.b", &[json!("dot")]);
        check(".spec['a.b']", &[json!("dot")]);
        check(".spec.list[0].type", &[json!("Ready")]);
        check(".spec.list[-1].type", &[json!("X")]);
        check(".spec.list[*].status", &[json!("True"), json!("No")]);
        check(r#".spec.list[?(@.type=="Ready")].status"#, &[json!("True")]);
        check(".spec.absent.deeper", &[]);
    }

    #[test]
    fn other_text_is_refused() {
        for bad in [".a[", ".a[?(x)]", ".a..b", ".a[b]"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
