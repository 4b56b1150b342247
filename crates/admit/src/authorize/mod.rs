//! May this user do that? Pure evaluators over a reader: RBAC, and the Node authorizer.

mod node;
mod rbac;
mod rules;

use base::SmolStr;

use crate::User;

pub(crate) use node::identity as node_identity;
pub use node::{NODES_GROUP, node};
pub use rbac::{allows, rbac};
pub(crate) use rules::rules_of;
pub use rules::{Rules, covers, rules_for};

/// What is asked. A non-resource request has a `path` and nothing else beside the verb.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub user: &'a User,
    /// `get`, `list`, `create`, ...; for non-resource requests the lower-case HTTP method.
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Non-resource URL; empty for resource requests.
    pub path: &'a str,
}

/// What an evaluator says. The first that allows or denies wins; nobody having an opinion is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

/// Members may do everything, always: without it a broken role could lock everybody out.
pub const MASTERS: &str = "system:masters";

// === impl Attributes ===

impl Attributes<'_> {
    pub fn is_resource(&self) -> bool {
        self.path.is_empty()
    }

    /// The sentence of a refusal, as it follows `... is forbidden: `.
    pub fn refusal(&self, why: &str) -> String {
        let user = &self.user.name;
        let mut text = if self.is_resource() {
            let sub = if self.subresource.is_empty() { String::new() } else { format!("/{}", self.subresource) };
            let scope = match self.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let resource = format!("{}{sub}", self.resource);
            format!("User {user:?} cannot {} resource {resource:?} in API group {:?} {scope}", self.verb, self.group)
        } else {
            format!("User {user:?} cannot {} path {:?}", self.verb, self.path)
        };
        if !why.is_empty() {
            text.push_str(": ");
            text.push_str(why);
        }
        text
    }

    /// The 403 that a refused request gets.
    pub fn forbidden(&self, why: &str) -> api::Status {
        let refusal = self.refusal(why);
        if self.is_resource() {
            return api::Status::forbidden(self.group, self.resource, self.name, &refusal);
        }
        let message = format!("forbidden: {refusal}");
        api::Status::new(api::Reason::Forbidden, message).about("", "", "")
    }
}

// === impl Decision ===

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }
}

/// The authorizers in order: masters, Node, RBAC.
pub fn authorize(attributes: &Attributes<'_>, reader: &dyn crate::Reader) -> Decision {
    if attributes.user.groups.iter().any(|group| group == MASTERS) {
        return Decision::Allow(String::new());
    }
    match node(attributes, reader) {
        Decision::NoOpinion(why) => match rbac(attributes, reader) {
            Decision::NoOpinion(text) if text.is_empty() => Decision::NoOpinion(why),
            decision => decision,
        },
        decision => decision,
    }
}

pub(crate) fn user_name_of_account(namespace: &str, name: &str) -> SmolStr {
    base::format_smolstr!("system:serviceaccount:{namespace}:{name}")
}

#[cfg(test)]
mod tests;
