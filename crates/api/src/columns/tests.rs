//! Rows as `kubectl get -o wide` shows them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{builtin, cells};
use crate::{Gvr, Kind, builtin as description};

fn kind(group: &str, version: &str, resource: &str) -> std::sync::Arc<Kind> {
    description::registry().resource(&Gvr::new(group, version, resource)).unwrap().clone()
}

fn row(group: &str, resource: &str, object: &Value) -> String {
    let now: Timestamp = "2026-01-02T00:05:30Z".parse().unwrap();
    let kind = kind(group, "v1", resource);
    let cells = cells(&kind, object, now);
    assert_eq!(cells.len(), kind.columns.len());
    cells.iter().map(super::plain).collect::<Vec<_>>().join(" | ")
}

#[test]
fn every_kind_fills_its_columns() {
    let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-02T00:00:00Z"}});
    let now: Timestamp = "2026-01-02T00:05:30Z".parse().unwrap();
    for kind in description::registry().iter() {
        let row = cells(kind, &object, now);
        assert_eq!(row.len(), kind.columns.len(), "{}", kind.gvk);
        let empty = kind.columns.iter().zip(&row).find(|(_, cell)| cell.is_null());
        assert!(empty.is_none(), "{}: {:?}", kind.gvk, empty.map(|(column, _)| &column.name));
    }
}

#[test]
fn a_running_pod() {
    let pod = json!({"metadata": {"name": "web-1", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
                "lastState": {"terminated": {"finishedAt": "2026-01-02T00:05:00Z"}}},
            {"name": "b", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
    assert_eq!(
        row("", "pods", &pod),
        "web-1 | 1/2 | CrashLoopBackOff | 2 (30s ago) | 5m30s | 10.0.0.1 | n1 | <none> | <none>"
    );
}

#[test]
fn pods_on_their_way() {
    let status = |status: Value, deleted: bool| {
        let mut pod = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-02T00:05:00Z"},
            "spec": {"initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]},
            "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:05:00Z");
        }
        row("", "pods", &pod).split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(status(json!({"phase": "Pending"}), false), "0/2 Pending 0");
    let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
    assert_eq!(status(init(json!({"waiting": {"reason": "PodInitializing"}})), false), "0/2 Init:0/2 0");
    assert_eq!(status(init(json!({"waiting": {"reason": "ImagePullBackOff"}})), false), "0/2 Init:ImagePullBackOff 0");
    assert_eq!(status(init(json!({"terminated": {"exitCode": 3}})), false), "0/2 Init:ExitCode:3 0");
    assert_eq!(status(json!({"phase": "Running"}), true), "0/2 Terminating 0");
    assert_eq!(status(json!({"phase": "Succeeded"}), true), "0/2 Succeeded 0");
    let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
    assert_eq!(status(gated, false), "0/2 SchedulingGated 0");
}

#[test]
fn services_and_workloads() {
    let service = json!({"metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.9", "selector": {"app": "web"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
    assert_eq!(
        row("", "services", &service),
        "s | LoadBalancer | 10.0.0.9 | <pending> | 80:30080/TCP,53/UDP | 24h | app=web"
    );
    let deployment = json!({"metadata": {"name": "d", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "i:1"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
    assert_eq!(row("apps", "deployments", &deployment), "d | 2/3 | 3 | 2 | 5m30s | a | i:1 | app=web");
    let node = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-02T00:00:00Z",
            "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0"}}});
    assert_eq!(
        row("", "nodes", &node),
        "n | Ready,SchedulingDisabled | control-plane | 5m30s | v1.36.0 | 1.2.3.4 | <none> | <unknown> | <unknown> | <unknown>"
    );
}

#[test]
fn events_say_when_who_and_how_often() {
    let core = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal",
        "reason": "Pulled", "message": "done\n", "lastTimestamp": "2026-01-02T00:05:00Z",
        "firstTimestamp": "2026-01-02T00:04:30Z", "count": 4, "source": {"component": "kubelet", "host": "n1"}});
    let wanted = "30s | Normal | Pulled | pod/p |  | kubelet, n1 | done | 60s | 4 | e";
    assert_eq!(row("", "events", &core), wanted);
}

#[test]
fn kinds_without_columns_show_when_they_were_made() {
    let names: Vec<_> = builtin("ClusterRole").into_iter().map(|column| (column.name, column.r#type)).collect();
    assert_eq!(names, [("Name".into(), "string".into()), ("Created At".into(), "date".into())]);
}
