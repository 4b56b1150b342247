//! Table rows as `kubectl get` prints them.
//!
//! Which columns a kind has is data (`table.txt`); most cells are a path into the object. What needs more than a path
//! is a small function here, by kind; custom kinds have JSONPaths.

mod age;
mod autoscaling;
mod cluster;
mod jsonpath;
mod network;
mod pods;
mod storage;
mod workloads;

use jiff::Timestamp;
use serde_json::json;

use crate::{Column, Kind, Tree, meta};

pub use age::human_duration;
pub use jsonpath::{PathError, find as find_path, parse as parse_path};

const TABLE: &str = include_str!("table.txt");
const AGE: &str = "Age";
const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

/// The columns of a built-in kind. Kinds without a line of their own show when they were made.
pub fn builtin(kind: &str) -> Vec<Column> {
    let mut columns = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let (name, words) = line.split_once(':').expect("a line names its kind");
        if name.trim_end_matches('+') == kind {
            read_line(words, &mut columns);
        }
    }
    if columns.is_empty() {
        columns.push(column("Name", 0));
        columns.push(Column { r#type: "date".into(), ..column("Created_At=metadata.creationTimestamp", 0) });
    }
    columns
}

fn read_line(words: &str, columns: &mut Vec<Column>) {
    let mut priority = 0;
    for word in words.split_whitespace() {
        if word == "|" {
            priority = 1;
        } else {
            columns.push(column(word, priority));
        }
    }
}

fn column(word: &str, priority: i32) -> Column {
    let (head, path) = word.split_once('=').unwrap_or((word, ""));
    let (title, ty) = head.split_once(':').unwrap_or((head, "string"));
    let (format, path) = if title == "Name" { ("name", "metadata.name") } else { ("", path) };
    Column {
        name: title.replace('_', " ").into(),
        r#type: ty.into(),
        format: format.into(),
        description: describe(title).into(),
        priority,
        path: path.into(),
    }
}

fn describe(title: &str) -> String {
    match title {
        "Name" => "Name of the object, unique within its namespace.".to_owned(),
        AGE | "Created_At" => "When the object was created.".to_owned(),
        title => format!("{} of the object.", title.replace('_', " ")),
    }
}

/// One row: a cell per column of the kind.
pub fn cells(kind: &Kind, object: &Tree, now: Timestamp) -> Vec<Tree> {
    if kind.custom {
        return kind.columns.iter().map(|column| jsonpath::cell(column, object, now)).collect();
    }
    let mut computed = computed(&kind.gvk.kind, object, now).into_iter();
    let cell = |column: &Column| match (column.name.as_str(), column.path.as_str()) {
        (AGE, _) => json!(age::since(meta::tree_at(object, "metadata.creationTimestamp"), now)),
        ("Name", _) if kind.gvk.kind == "StorageClass" => json!(storage::class_name(object)),
        (_, "") => computed.next().unwrap_or(Tree::Null),
        (_, path) => meta::tree_at(object, path).cloned().unwrap_or_else(|| absent(&column.r#type)),
    };
    kind.columns.iter().map(cell).collect()
}

fn absent(ty: &str) -> Tree {
    match ty {
        "integer" => json!(0),
        "boolean" => json!(false),
        _ => json!(""),
    }
}

/// The cells that no path gives, in the order of their columns.
fn computed(kind: &str, object: &Tree, now: Timestamp) -> Vec<Tree> {
    match kind {
        "Pod" => pods::pod(object, now),
        "PodTemplate" => pods::template(object),
        "PodDisruptionBudget" => workloads::disruption_budget(object),
        "ReplicaSet" | "ReplicationController" => workloads::replica_set(object),
        "Deployment" => workloads::deployment(object),
        "StatefulSet" => workloads::stateful_set(object),
        "DaemonSet" => workloads::daemon_set(object),
        "Job" => workloads::job(object, now),
        "CronJob" => workloads::cron_job(object, now),
        "ControllerRevision" => workloads::controller_revision(object),
        "HorizontalPodAutoscaler" => autoscaling::autoscaler(object),
        "Service" => network::service(object),
        "Endpoints" => network::endpoints(object),
        "EndpointSlice" => network::endpoint_slice(object),
        "Ingress" => network::ingress(object),
        "IngressClass" => network::ingress_class(object),
        "NetworkPolicy" => vec![json!(label_selector(object.get("spec").and_then(|spec| spec.get("podSelector"))))],
        "IPAddress" => network::ip_address(object),
        "ServiceCIDR" => vec![json!(texts(meta::list_at(object, "spec.cidrs")).join(","))],
        "PersistentVolume" => storage::volume(object),
        "PersistentVolumeClaim" => storage::claim(object),
        "StorageClass" => storage::class(object),
        "CSIDriver" => storage::driver(object),
        "CSINode" => vec![count(object, "spec.drivers")],
        "CSIStorageCapacity" => vec![object.get("capacity").cloned().unwrap_or_else(|| json!("<unset>"))],
        "VolumeAttachment" => storage::attachment(object),
        "ResourceClaim" => storage::resource_claim(object),
        "ResourceSlice" => vec![json!(meta::str_at(object, "spec.nodeName"))],
        "Node" => cluster::node(object),
        "Event" => cluster::event(object, now),
        "ComponentStatus" => cluster::component_status(object),
        "ConfigMap" => vec![json!(size(object, "data") + size(object, "binaryData"))],
        "Secret" => vec![json!(size(object, "data"))],
        "ServiceAccount" => vec![count(object, "secrets")],
        "ResourceQuota" => cluster::quota(object),
        "RoleBinding" | "ClusterRoleBinding" => cluster::role_binding(object),
        "CertificateSigningRequest" => cluster::signing_request(object),
        "APIService" => cluster::api_service(object),
        "PriorityClass" => vec![json!(meta::bool_at(object, "globalDefault"))],
        "FlowSchema" => cluster::flow_schema(object),
        "PriorityLevelConfiguration" => cluster::priority_level(object),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => vec![count(object, "webhooks")],
        "ValidatingAdmissionPolicy" => cluster::policy(object, "spec.validations"),
        "MutatingAdmissionPolicy" => cluster::policy(object, "spec.mutations"),
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => cluster::policy_binding(object),
        _ => Vec::new(),
    }
}

fn count(object: &Tree, path: &str) -> Tree {
    json!(meta::list_at(object, path).len())
}

fn size(object: &Tree, path: &str) -> usize {
    meta::tree_at(object, path).and_then(Tree::as_object).map_or(0, serde_json::Map::len)
}

fn number(object: &Tree, path: &str) -> i64 {
    meta::i64_at(object, path).unwrap_or_default()
}

fn texts(list: &[Tree]) -> Vec<&str> {
    list.iter().filter_map(Tree::as_str).collect()
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// Text and numbers as they print, for values that may be either.
fn plain(value: &Tree) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `a=b,c=d`, or `<none>`.
fn labels(map: Option<&Tree>) -> String {
    let members = map.and_then(Tree::as_object).into_iter().flatten();
    let pairs: Vec<String> = members.map(|(key, value)| format!("{key}={}", plain(value))).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

fn label_selector(selector: Option<&Tree>) -> String {
    let text = match selector.map(crate::LabelSelector::from_tree) {
        None => String::new(),
        Some(Ok(selector)) => selector.to_string(),
        Some(Err(_)) => "<error>".to_owned(),
    };
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// Names and images of the containers of a pod template, each joined by commas.
fn containers(spec: Option<&Tree>) -> [Tree; 2] {
    let containers = spec.map_or(&[][..], |spec| meta::list_at(spec, "containers"));
    let join = |field: &str| containers.iter().map(|one| meta::str_at(one, field)).collect::<Vec<_>>().join(",");
    [json!(join("name")), json!(join("image"))]
}

#[cfg(test)]
mod tests;
