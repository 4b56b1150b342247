//! The Node authorizer: an agent reads what the pods bound to its node refer to, and nothing else of that kind.

use std::sync::OnceLock;

use api::Tree;
use api::k8s_openapi::api::rbac::v1::PolicyRule;

use super::rbac::allows;
use super::{Attributes, Decision};
use crate::context::place_of;
use crate::ports::{Reader, storage_of};
use crate::request::User;
use crate::{bootstrap, doc};

pub const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";

/// The node that a user is, if it is one.
pub(crate) fn identity(user: &User) -> Option<&str> {
    let in_group = user.groups.iter().any(|group| group == NODES_GROUP);
    user.name.strip_prefix(NODE_USER_PREFIX).filter(|name| in_group && !name.is_empty())
}

/// Decides for nodes; has no opinion about anybody else.
pub fn node(attributes: &Attributes<'_>, reader: &dyn Reader) -> Decision {
    let Some(name) = identity(attributes.user) else { return Decision::NoOpinion(String::new()) };
    if !attributes.is_resource() {
        return Decision::NoOpinion(String::new());
    }
    let graph = Graph { node: name, reader };
    let related = match (attributes.group, attributes.resource, attributes.subresource) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes", "")
        | ("", "serviceaccounts", "token" | "")
        | ("resource.k8s.io", "resourceclaims", "") => graph.reaches(attributes),
        ("", "persistentvolumeclaims", "status") => graph.reaches(attributes),
        ("storage.k8s.io", "volumeattachments", "") => graph.attached(attributes.name),
        ("coordination.k8s.io", "leases", "") => return own_lease(attributes, name),
        ("storage.k8s.io", "csinodes", "") => {
            return own(attributes, name, "can only access CSINode with the same name as the requesting node");
        }
        _ => return by_rules(attributes),
    };
    if !related {
        let why = format!("no relationship found between node '{name}' and this object");
        return Decision::NoOpinion(why);
    }
    by_rules(attributes)
}

/// Without a name (or for creation by `generateName`) there is no object to be related to.
fn by_rules(attributes: &Attributes<'_>) -> Decision {
    if rules().iter().any(|rule| allows(rule, attributes)) {
        return Decision::Allow(String::new());
    }
    Decision::NoOpinion(String::new())
}

fn own(attributes: &Attributes<'_>, node: &str, why: &str) -> Decision {
    if attributes.verb != "create" && attributes.name != node {
        return Decision::NoOpinion(why.to_owned());
    }
    by_rules(attributes)
}

fn own_lease(attributes: &Attributes<'_>, node: &str) -> Decision {
    if attributes.namespace != "kube-node-lease" {
        return Decision::NoOpinion("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    own(attributes, node, "can only access node lease with the same name as the requesting node")
}

/// The rules of the bootstrap role, which no binding hands out.
fn rules() -> &'static [PolicyRule] {
    static RULES: OnceLock<Vec<PolicyRule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let role = bootstrap::cluster_role("system:node").unwrap_or_default();
        serde_json::from_value(doc::get(&role, "rules").clone()).unwrap_or_default()
    })
}

/// What a node's pods refer to, worked out from the pods when asked.
struct Graph<'a> {
    node: &'a str,
    reader: &'a dyn Reader,
}

impl Graph<'_> {
    fn reaches(&self, attributes: &Attributes<'_>) -> bool {
        let (namespace, name) = (attributes.namespace, attributes.name);
        if name.is_empty() {
            return false;
        }
        match attributes.resource {
            "secrets" => {
                self.any_pod(namespace, |pod| refers(pod, name, &SECRETS)) || self.volume_secret(namespace, name)
            }
            "configmaps" => {
                name == "kube-root-ca.crt" && self.any_pod(namespace, |_| true)
                    || self.any_pod(namespace, |pod| refers(pod, name, &CONFIG_MAPS))
            }
            "serviceaccounts" => self.any_pod(namespace, |pod| doc::text(pod, "spec.serviceAccountName") == name),
            "persistentvolumeclaims" => self.uses_claim(namespace, name),
            "persistentvolumes" => self.uses_volume(name),
            "resourceclaims" => self.any_pod(namespace, |pod| uses_resource_claim(pod, name)),
            _ => false,
        }
    }

    fn any_pod(&self, namespace: &str, test: impl Fn(&Tree) -> bool) -> bool {
        // A cheap look at the bytes spares parsing the pods of other nodes.
        let word = format!("\"nodeName\":{:?}", self.node);
        let mine = self.reader.list(&storage_of("", "pods"), Some(namespace)).into_iter();
        let mut mine = mine.filter(|pod| contains(&pod.bytes, word.as_bytes())).map(|pod| pod.tree());
        mine.any(|pod| doc::text(&pod, "spec.nodeName") == self.node && test(&pod))
    }

    fn uses_claim(&self, namespace: &str, name: &str) -> bool {
        self.any_pod(namespace, |pod| {
            let owner = doc::text(pod, "metadata.name");
            doc::items(pod, "spec.volumes").iter().any(|volume| {
                doc::text(volume, "persistentVolumeClaim.claimName") == name
                    || doc::has(volume, "ephemeral") && format!("{owner}-{}", doc::text(volume, "name")) == name
            })
        })
    }

    fn uses_volume(&self, name: &str) -> bool {
        let Some(volume) = self.reader.get(&place_of("", "persistentvolumes", "", name)) else { return false };
        let tree = volume.tree();
        let claim = doc::get(&tree, "spec.claimRef");
        self.uses_claim(doc::text(claim, "namespace"), doc::text(claim, "name"))
    }

    /// A secret that a bound volume names for its driver.
    fn volume_secret(&self, namespace: &str, name: &str) -> bool {
        self.reader.list(&storage_of("", "persistentvolumes"), None).iter().any(|volume| {
            if !contains(&volume.bytes, format!("{name:?}").as_bytes()) {
                return false;
            }
            let tree = volume.tree();
            let drivers = doc::entries(&tree, "spec").filter_map(|(_, source)| source.as_object());
            let mut references = drivers.flat_map(|source| source.iter()).filter(|(key, _)| key.ends_with("SecretRef"));
            references
                .any(|(_, secret)| doc::text(secret, "name") == name && doc::text(secret, "namespace") == namespace)
                && self.uses_volume(&volume.key.name)
        })
    }

    fn attached(&self, name: &str) -> bool {
        let attachment = self.reader.get(&place_of("storage.k8s.io", "volumeattachments", "", name));
        attachment.is_some_and(|object| doc::text(&object.tree(), "spec.nodeName") == self.node)
    }
}

/// Where a pod names objects of one kind: fields of volumes, of environment sources, of the spec.
struct References {
    volume: (&'static str, &'static str),
    projected: &'static str,
    env_from: &'static str,
    key_ref: &'static str,
}

const SECRETS: References = References {
    volume: ("secret", "secretName"),
    projected: "secret.name",
    env_from: "secretRef.name",
    key_ref: "valueFrom.secretKeyRef.name",
};
const CONFIG_MAPS: References = References {
    volume: ("configMap", "name"),
    projected: "configMap.name",
    env_from: "configMapRef.name",
    key_ref: "valueFrom.configMapKeyRef.name",
};

fn refers(pod: &Tree, name: &str, kind: &References) -> bool {
    let (source, field) = kind.volume;
    let in_volume = |volume: &Tree| {
        doc::text(volume, &format!("{source}.{field}")) == name
            || doc::items(volume, "projected.sources").iter().any(|part| doc::text(part, kind.projected) == name)
            || source == "secret" && volume_secret_refs(volume).any(|secret| secret == name)
    };
    let in_container = |container: &Tree| {
        doc::items(container, "envFrom").iter().any(|from| doc::text(from, kind.env_from) == name)
            || doc::items(container, "env").iter().any(|env| doc::text(env, kind.key_ref) == name)
    };
    let pulls = doc::items(pod, "spec.imagePullSecrets").iter().any(|pull| doc::text(pull, "name") == name);
    doc::items(pod, "spec.volumes").iter().any(in_volume)
        || ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .any(|list| doc::items(doc::get(pod, "spec"), list).iter().any(in_container))
        || source == "secret" && pulls
}

/// `secretRef`, `nodePublishSecretRef` and their like of any volume source.
fn volume_secret_refs(volume: &Tree) -> impl Iterator<Item = &str> {
    let sources = volume.as_object().into_iter().flatten().filter_map(|(_, source)| source.as_object());
    let fields = sources.flat_map(|source| source.iter()).filter(|(key, _)| key.to_lowercase().ends_with("secretref"));
    fields.map(|(_, secret)| doc::text(secret, "name"))
}

fn uses_resource_claim(pod: &Tree, name: &str) -> bool {
    doc::items(pod, "spec.resourceClaims").iter().any(|claim| doc::text(claim, "resourceClaimName") == name)
        || doc::items(pod, "status.resourceClaimStatuses")
            .iter()
            .any(|claim| doc::text(claim, "resourceClaimName") == name)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}
