//! What was changed in the cluster of what a file brought. The managed fields of an object tell: a field that a file set
//! belongs to the folder until somebody else changes it, and then to them. Pure.

use api::Tree;

/// Who applies what lies in the folder.
pub const MANAGER: &str = "evenkeel-manifests";
/// Fields that are named; of more only how many.
const NAMED_MAX: usize = 3;

/// An object that is not as its file left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// `web.yaml: Deployment shop/web`.
    pub name: String,
    /// What was done to it, and by whom.
    pub change: String,
    /// It was done through a subresource, as by `kubectl scale` or an autoscaler: not to be taken back.
    pub scaled: bool,
}

/// The fields that the folder has in an object, as the API tells them.
pub fn own_fields(object: &Tree) -> Option<Tree> {
    let own = entries(object).find(|entry| word(entry, "manager") == MANAGER && word(entry, "operation") == "Apply")?;
    own.get("fieldsV1").cloned()
}

/// What became of the fields that the folder had; None where it has them all.
pub fn edit(name: String, had: &Tree, object: &Tree) -> Option<Edited> {
    let has = own_fields(object).unwrap_or_default();
    let mut lost = Vec::new();
    missing(had, &has, &mut Vec::new(), &mut lost);
    let first = lost.first()?;
    let taker = taker(first, object);
    let fields: Vec<String> = lost.iter().take(NAMED_MAX).map(|path| told(path)).collect();
    let more = lost.len().checked_sub(NAMED_MAX).filter(|more| *more != 0);
    let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
    let change = match taker {
        Some(entry) => {
            format!("{}{more} set by {} at {}", fields.join(", "), word(entry, "manager"), word(entry, "time"))
        }
        None => format!("{}{more} removed", fields.join(", ")),
    };
    let scaled =
        lost.iter().all(|path| self::taker(path, object).is_some_and(|entry| !word(entry, "subresource").is_empty()));
    Some(Edited { name, change, scaled })
}

/// The paths of `had` that `has` lacks: of a part that is gone as a whole, its first.
fn missing(had: &Tree, has: &Tree, at: &mut Vec<String>, lost: &mut Vec<Vec<String>>) {
    for (key, inner) in had.as_object().into_iter().flatten().filter(|(key, _)| *key != ".") {
        at.push(key.clone());
        match has.get(key) {
            Some(has) => missing(inner, has, at, lost),
            None if is_leaf(inner) => lost.push(at.clone()),
            None => missing(inner, &Tree::Null, at, lost),
        }
        at.pop();
    }
}

fn is_leaf(fields: &Tree) -> bool {
    fields.as_object().is_none_or(|fields| fields.keys().all(|key| key == "."))
}

/// Who has a field now, the last who changed it first.
fn taker<'a>(path: &[String], object: &'a Tree) -> Option<&'a Tree> {
    let others = entries(object).filter(|entry| word(entry, "manager") != MANAGER);
    let having = others.filter(|entry| {
        let start = entry.get("fieldsV1");
        path.iter().fold(start, |fields, key| fields.and_then(|fields| fields.get(key))).is_some()
    });
    having.max_by(|a, b| word(a, "time").cmp(word(b, "time")))
}

/// `spec.template.spec.containers[name=web].image`.
fn told(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        match key.split_once(':') {
            Some(("f", name)) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Some((_, part)) => text.push_str(&format!("[{}]", part.replace(['{', '}', '"'], "").replace(':', "="))),
            None => text.push_str(key),
        }
    }
    text
}

fn entries(object: &Tree) -> impl Iterator<Item = &Tree> {
    object.pointer("/metadata/managedFields").and_then(Tree::as_array).into_iter().flatten()
}

fn word<'a>(tree: &'a Tree, key: &str) -> &'a str {
    tree.get(key).and_then(Tree::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use api::Tree;
    use serde_json::json;

    use super::{edit, own_fields};

    fn object(entries: &Tree) -> Tree {
        json!({"metadata": {"managedFields": entries}})
    }

    fn entry(manager: &str, operation: &str, subresource: &str, fields: Tree) -> Tree {
        json!({"manager": manager, "operation": operation, "subresource": subresource,
            "time": "2026-03-01T12:00:00Z", "fieldsV1": fields})
    }

    #[test]
    fn fields_tell_who_took_them() {
        let all = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers":
            {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}}}}}}});
        let applied = object(&json!([entry("evenkeel-manifests", "Apply", "", all.clone())]));
        let had = own_fields(&applied).unwrap();
        assert_eq!(had, all);
        assert_eq!(edit("x".into(), &had, &applied), None);
        let rest = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers":
            {"k:{\"name\":\"web\"}": {".": {}}}}}}});
        let image = json!({"f:spec": {"f:template": {"f:spec": {"f:containers":
            {"k:{\"name\":\"web\"}": {"f:image": {}}}}}}});
        let edited = object(&json!([
            entry("evenkeel-manifests", "Apply", "", rest),
            entry("kubectl-edit", "Update", "", image),
        ]));
        let found = edit("web.yaml: Deployment shop/web".into(), &had, &edited).unwrap();
        let wanted = "spec.template.spec.containers[name=web].image set by kubectl-edit at 2026-03-01T12:00:00Z";
        assert_eq!((found.change.as_str(), found.scaled), (wanted, false));
    }

    #[test]
    fn what_a_scale_takes_is_told_apart_and_a_removal_has_no_taker() {
        let had = json!({"f:spec": {"f:replicas": {}}});
        let scaled = object(&json!([entry("kubectl", "Update", "scale", had.clone())]));
        assert!(edit("x".into(), &had, &scaled).unwrap().scaled);
        let removed = edit("x".into(), &had, &object(&json!([]))).unwrap();
        assert_eq!((removed.change.as_str(), removed.scaled), ("spec.replicas removed", false));
    }
}
