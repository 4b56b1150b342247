//! API priority and fairness: levels and the schemas that sort requests into them.

use api::Tree;
use serde_json::json;

const VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const EVERYBODY: [&str; 2] = ["g:system:unauthenticated", "g:system:authenticated"];

pub(super) fn levels() -> Vec<Tree> {
    // Name, shares, lendable percent, queues, hand size; without queues the level rejects.
    let limited = [
        ("catch-all", 5, 0, None),
        ("global-default", 20, 50, Some((128, 6))),
        ("leader-election", 10, 0, Some((16, 4))),
        ("node-high", 40, 25, Some((64, 6))),
        ("system", 30, 33, Some((64, 6))),
        ("workload-high", 40, 50, Some((128, 6))),
        ("workload-low", 100, 90, Some((128, 6))),
    ];
    let exempt = json!({"exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}, "type": "Exempt"});
    let mut levels = vec![object("PriorityLevelConfiguration", "exempt", exempt)];
    for (name, shares, lendable, queues) in limited {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
            }
        };
        let spec = json!({
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response},
        });
        levels.push(object("PriorityLevelConfiguration", name, spec));
    }
    levels
}

pub(super) fn schemas() -> Vec<Tree> {
    let by = |name: &'static str, level, precedence, distinguisher, subjects: &[&str], rules| {
        schema(name, level, precedence, distinguisher, subjects, rules)
    };
    let managers = ["u:system:kube-controller-manager", "u:system:kube-scheduler", "s:kube-system/*"];
    let probes = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
    let leases = json!([{
        "verbs": ["get", "create", "update"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"],
    }]);
    let nodes = json!([
        {"verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": ["*"], "clusterScope": true},
        {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["*"]},
    ]);
    vec![
        by("exempt", "exempt", 1, "", &["g:system:masters"], everything()),
        by("probes", "exempt", 2, "", &EVERYBODY, json!({"nonResourceRules": probes})),
        by("system-leader-election", "leader-election", 100, "ByUser", &managers, json!({"resourceRules": leases})),
        by("system-node-high", "node-high", 400, "ByUser", &["g:system:nodes"], json!({"resourceRules": nodes})),
        by("system-nodes", "system", 500, "ByUser", &["g:system:nodes"], everything()),
        by("kube-controller-manager", "workload-high", 800, "ByNamespace", &managers[..1], everything()),
        by("kube-scheduler", "workload-high", 800, "ByNamespace", &managers[1..2], everything()),
        by("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &managers[2..], everything()),
        by("service-accounts", "workload-low", 9000, "ByUser", &["g:system:serviceaccounts"], everything()),
        by("global-default", "global-default", 9900, "ByUser", &EVERYBODY, everything()),
        by("catch-all", "catch-all", 10000, "ByUser", &EVERYBODY, everything()),
    ]
}

fn everything() -> Tree {
    json!({
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
        }],
    })
}

fn schema(name: &str, level: &str, precedence: i64, distinguisher: &str, subjects: &[&str], mut rules: Tree) -> Tree {
    rules["subjects"] = subjects.iter().map(|word| subject(word)).collect();
    let mut spec = json!({
        "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rules],
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

fn subject(word: &str) -> Tree {
    match word.split_once(':') {
        Some(("g", name)) => json!({"kind": "Group", "group": {"name": name}}),
        Some(("u", name)) => json!({"kind": "User", "user": {"name": name}}),
        _ => {
            let (namespace, name) = word.trim_start_matches("s:").split_once('/').unwrap_or(("", "*"));
            json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}})
        }
    }
}

fn object(kind: &str, name: &str, spec: Tree) -> Tree {
    let annotations = json!({"apf.kubernetes.io/autoupdate-spec": "true"});
    json!({"apiVersion": VERSION, "kind": kind, "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}
