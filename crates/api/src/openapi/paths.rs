//! The paths of a kind: what clients find kinds and supported parameters by.

use serde_json::{Map, json};

use super::Dialect;
use super::definitions::{gvk_tree, list_name_of, name_of};
use crate::{Kind, Tree, Verb, Verbs, builtin};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Parameters by verb: name and type.
const WRITE: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: [(&str, &str); 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

/// All path items of a kind.
pub(super) fn of(dialect: Dialect, kind: &Kind) -> Vec<(String, Tree)> {
    let gvr = kind.gvr();
    let namespace = kind.is_namespaced().then_some("{namespace}");
    let writer = Writer { dialect, kind };
    let name = name_of(kind);
    let collection = writer.collection(&name);
    let object = writer.object(kind.verbs, &name, &gvk_tree(kind, &kind.gvk.kind), "");
    let mut items = Vec::new();
    items.extend(collection.map(|item| (gvr.path(namespace, None), item)));
    let path = gvr.path(namespace, Some("{name}"));
    items.extend(object.map(|item| (path.clone(), item)));
    if kind.is_namespaced() && kind.verbs.has(Verb::List) {
        items.push((gvr.path(None, None), json!({ "get": writer.list() })));
    }
    for subresource in &kind.subresources {
        let gvk = &subresource.gvk;
        let body = if *gvk == kind.gvk {
            name.clone()
        } else {
            builtin::subresource_schema(kind, &subresource.name).map_or_else(String::new, |s| s.ty().name.to_string())
        };
        let tree = json!({ "group": gvk.group, "version": gvk.version, "kind": gvk.kind });
        let item = writer.object(subresource.verbs, &body, &tree, &subresource.name);
        items.extend(item.map(|item| (format!("{path}/{}", subresource.name), item)));
    }
    items
}

struct Writer<'a> {
    dialect: Dialect,
    kind: &'a Kind,
}

impl Writer<'_> {
    fn collection(&self, name: &str) -> Option<Tree> {
        let verbs = self.kind.verbs;
        let mut item = Map::new();
        if verbs.has(Verb::List) {
            item.insert("get".into(), self.list());
        }
        let gvk = gvk_tree(self.kind, &self.kind.gvk.kind);
        if verbs.has(Verb::Create) {
            item.insert("post".into(), self.operation("create", "post", name, Some(name), &WRITE, &gvk));
        }
        if verbs.has(Verb::DeleteCollection) {
            let options = format!("{META}DeleteOptions");
            let parameters: Vec<_> = LIST.iter().chain(&DELETE).copied().collect();
            let status = format!("{META}Status");
            let operation = self.operation("delete", "deletecollection", &status, Some(&options), &parameters, &gvk);
            item.insert("delete".into(), operation);
        }
        self.finish(item, false)
    }

    fn list(&self) -> Tree {
        let gvk = gvk_tree(self.kind, &self.kind.gvk.kind);
        self.operation("list", "list", &list_name_of(self.kind), None, &LIST, &gvk)
    }

    /// The item of an object or of one of its subresources.
    fn object(&self, verbs: Verbs, name: &str, gvk: &Tree, subresource: &str) -> Option<Tree> {
        let options = format!("{META}DeleteOptions");
        let mut item = Map::new();
        if verbs.has(Verb::Get) {
            item.insert("get".into(), self.operation("read", "get", name, None, &[], gvk));
        }
        if verbs.has(Verb::Update) {
            item.insert("put".into(), self.operation("replace", "put", name, Some(name), &WRITE, gvk));
        }
        if verbs.has(Verb::Patch) {
            let mut operation = self.operation("patch", "patch", name, None, &PATCH, gvk);
            self.patch_body(&mut operation);
            item.insert("patch".into(), operation);
        }
        if verbs.has(Verb::Create) && !subresource.is_empty() {
            item.insert("post".into(), self.operation("create", "post", name, Some(name), &WRITE, gvk));
        }
        if verbs.has(Verb::Delete) {
            let answer = if subresource.is_empty() { format!("{META}Status") } else { name.to_owned() };
            item.insert("delete".into(), self.operation("delete", "delete", &answer, Some(&options), &DELETE, gvk));
        }
        self.finish(item, true)
    }

    /// The parameters that stand in the path itself.
    fn finish(&self, mut item: Map<String, Tree>, named: bool) -> Option<Tree> {
        if item.is_empty() {
            return None;
        }
        let mut parameters = Vec::new();
        for (name, present) in [("name", named), ("namespace", self.kind.is_namespaced())] {
            if present {
                let mut parameter = self.typed("string");
                parameter["name"] = json!(name);
                parameter["in"] = json!("path");
                parameter["required"] = json!(true);
                parameters.push(parameter);
            }
        }
        parameters.push(self.parameter("pretty", "string"));
        item.insert("parameters".into(), json!(parameters));
        Some(Tree::Object(item))
    }

    fn typed(&self, ty: &str) -> Tree {
        match self.dialect {
            Dialect::V2 => json!({ "type": ty, "uniqueItems": true }),
            Dialect::V3 => json!({ "schema": { "type": ty, "uniqueItems": true } }),
        }
    }

    fn parameter(&self, name: &str, ty: &str) -> Tree {
        let mut parameter = self.typed(ty);
        parameter["name"] = json!(name);
        parameter["in"] = json!("query");
        parameter
    }

    fn operation(
        &self,
        word: &str,
        action: &str,
        answer: &str,
        body: Option<&str>,
        parameters: &[(&str, &str)],
        gvk: &Tree,
    ) -> Tree {
        let kind = &self.kind.gvk.kind;
        let parameters: Vec<Tree> = parameters.iter().map(|(name, ty)| self.parameter(name, ty)).collect();
        let mut operation = json!({
            "description": format!("{word} {kind}"),
            "parameters": parameters,
            "responses": { "200": self.response(answer), "401": { "description": "Unauthorized" } },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        });
        match (body.filter(|name| !name.is_empty()), self.dialect) {
            (Some(name), Dialect::V3) => {
                let schema = self.dialect.reference(name);
                operation["requestBody"] = json!({ "content": { "*/*": { "schema": schema } } });
            }
            (Some(name), Dialect::V2) => self.push_body(&mut operation, &self.dialect.reference(name)),
            (None, _) => {}
        }
        if self.dialect == Dialect::V2 {
            operation["consumes"] = json!(["*/*"]);
            operation["produces"] = json!(MEDIA_TYPES);
        }
        operation
    }

    fn push_body(&self, operation: &mut Tree, schema: &Tree) {
        let body = json!({ "name": "body", "in": "body", "required": true, "schema": schema });
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.push(body);
        }
    }

    fn patch_body(&self, operation: &mut Tree) {
        let schema = json!({ "type": "object" });
        if self.dialect == Dialect::V2 {
            self.push_body(operation, &schema);
            operation["consumes"] = json!(PATCH_TYPES);
            return;
        }
        let content: Map<String, Tree> =
            PATCH_TYPES.iter().map(|ty| ((*ty).to_owned(), json!({ "schema": schema }))).collect();
        operation["requestBody"] = json!({ "content": content, "required": true });
    }

    fn response(&self, name: &str) -> Tree {
        if name.is_empty() {
            return json!({ "description": "OK" });
        }
        let schema = self.dialect.reference(name);
        match self.dialect {
            Dialect::V2 => json!({ "description": "OK", "schema": schema }),
            Dialect::V3 => {
                let content: Map<String, Tree> =
                    MEDIA_TYPES.iter().map(|ty| ((*ty).to_owned(), json!({ "schema": schema }))).collect();
                json!({ "description": "OK", "content": content })
            }
        }
    }
}
