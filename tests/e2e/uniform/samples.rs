//! A small valid object of every kind. A kind without one fails the walk: add a line here.

use serde_json::{Value, json};

/// An object name this kind accepts.
pub fn name(kind: &str, tag: &str) -> String {
    match kind {
        "CustomResourceDefinition" => format!("walk{tag}s.uniform.evenkeel.test"),
        "APIService" => format!("v1.{tag}.uniform.evenkeel.test"),
        "IPAddress" => match tag {
            "json" => "10.43.200.1".to_owned(),
            "yaml" => "10.43.200.2".to_owned(),
            "protobuf" => "10.43.200.3".to_owned(),
            _ => "10.43.200.4".to_owned(),
        },
        _ => format!("walk-{tag}"),
    }
}

pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The object, or None for a kind that has no sample.
pub fn object(group: &str, version: &str, kind: &str, name: &str) -> Option<Value> {
    let mut object = body(group, kind, name)?;
    object["apiVersion"] = json!(api_version(group, version));
    object["kind"] = json!(kind);
    object["metadata"]["name"] = json!(name);
    Some(object)
}

fn body(group: &str, kind: &str, name: &str) -> Option<Value> {
    workload(kind).or_else(|| storage(kind)).or_else(|| policy(kind)).or_else(|| other(group, kind, name))
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "walk"}}, "spec": pod_spec()})
}

/// A pod that no node takes: the walk is about the API.
fn pod_spec() -> Value {
    json!({"schedulingGates": [{"name": "evenkeel.test/never"}],
        "containers": [{"name": "c", "image": "evenkeel.local/busybox:1", "ports": [{"containerPort": 80}]}]})
}

fn workload(kind: &str) -> Option<Value> {
    let selector = json!({"matchLabels": {"app": "walk"}});
    Some(match kind {
        "Pod" => json!({"spec": pod_spec()}),
        "PodTemplate" => json!({"template": template()}),
        "ReplicationController" => {
            json!({"spec": {"replicas": 0, "selector": {"app": "walk"}, "template": template()}})
        }
        "ReplicaSet" | "Deployment" => json!({"spec": {"replicas": 0, "selector": selector, "template": template()}}),
        "StatefulSet" => {
            json!({"spec": {"replicas": 0, "serviceName": "walk", "selector": selector, "template": template()}})
        }
        "DaemonSet" => {
            let mut template = template();
            template["spec"]["nodeSelector"] = json!({"evenkeel.test/no": "node"});
            json!({"spec": {"selector": selector, "template": template}})
        }
        "Job" => {
            let mut template = template();
            template["spec"]["restartPolicy"] = json!("Never");
            json!({"spec": {"suspend": true, "template": template}})
        }
        "CronJob" => {
            let mut template = template();
            template["spec"]["restartPolicy"] = json!("Never");
            json!({"spec": {"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}})
        }
        "ControllerRevision" => json!({"revision": 1, "data": {"a": "b"}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}}})
        }
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        _ => return None,
    })
}

fn storage(kind: &str) -> Option<Value> {
    let capacity = json!({"storage": "1Mi"});
    Some(match kind {
        "PersistentVolume" => json!({"spec": {"capacity": capacity, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none", "hostPath": {"path": "/var/tmp/walk"}}}),
        "PersistentVolumeClaim" => json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "resources": {"requests": capacity}}}),
        "StorageClass" => json!({"provisioner": "evenkeel.test/none"}),
        "CSIDriver" => json!({"spec": {"attachRequired": false}}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "none"}),
        "VolumeAttachment" => json!({"spec": {"attacher": "evenkeel.test", "nodeName": "none",
            "source": {"persistentVolumeName": "none"}}}),
        "VolumeAttributesClass" => json!({"driverName": "evenkeel.test", "parameters": {"a": "b"}}),
        _ => return None,
    })
}

fn policy(kind: &str) -> Option<Value> {
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "walk"});
    let webhook = json!([{"name": "walk.evenkeel.test", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{"apiGroups": ["none.evenkeel.test"], "apiVersions": ["v1"], "resources": ["none"], "operations": ["CREATE"]}]}]);
    let constraints = json!({"resourceRules": [{"apiGroups": ["none.evenkeel.test"], "apiVersions": ["v1"],
        "resources": ["none"], "operations": ["CREATE"]}]});
    Some(match kind {
        "Role" | "ClusterRole" => json!({"rules": [rule]}),
        "RoleBinding" => json!({"roleRef": role("Role"), "subjects": []}),
        "ClusterRoleBinding" => json!({"roleRef": role("ClusterRole"), "subjects": []}),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => json!({"webhooks": webhook}),
        "ValidatingAdmissionPolicy" => {
            json!({"spec": {"matchConstraints": constraints, "validations": [{"expression": "true"}]}})
        }
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "walk", "validationActions": ["Audit"]}}),
        "MutatingAdmissionPolicy" => json!({"spec": {"matchConstraints": constraints, "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "walk"}}),
        "FlowSchema" => json!({"spec": {"matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "exempt"}}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
        "PriorityClass" => json!({"value": 7}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "100"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "1000"}}}),
        _ => return None,
    })
}

fn other(group: &str, kind: &str, name: &str) -> Option<Value> {
    Some(match kind {
        "Namespace" | "ConfigMap" | "ServiceAccount" => json!({}),
        "Secret" => json!({"data": {"a": "Yg=="}}),
        "Node" => json!({"spec": {"unschedulable": true}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}], "selector": {"app": "walk"}}}),
        "Endpoints" => json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]}),
        "EndpointSlice" => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]})
        }
        "Event" => event(group),
        "Lease" => json!({"spec": {"holderIdentity": "walk", "leaseDurationSeconds": 10}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "walk", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "evenkeel.test/none"}}),
        "IPAddress" => json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "none"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.99.0.0/24"]}}),
        "RuntimeClass" => json!({"handler": "runc"}),
        "CertificateSigningRequest" => json!({"spec": {"signerName": "evenkeel.test/none", "usages": ["client auth"],
            "request": REQUEST}}),
        "CustomResourceDefinition" => {
            let (plural, group) = name.split_once('.')?;
            let singular = plural.strip_suffix('s')?;
            json!({"spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": singular, "kind": format!("W{}", &singular[1..])},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
        }
        "APIService" => {
            let (version, group) = name.split_once('.')?;
            json!({"spec": {"group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "none"}}})
        }
        "DeviceClass" => {
            json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'walk.evenkeel.test'"}}]}})
        }
        "ResourceClaim" => json!({"spec": devices()}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": devices()}}),
        "ResourceSlice" => json!({"spec": {"driver": "walk.evenkeel.test", "nodeName": "none",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d"}]}}),
        _ => return None,
    })
}

fn devices() -> Value {
    json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "walk"}}]}})
}

fn event(group: &str) -> Value {
    let about = json!({"kind": "ConfigMap", "namespace": "uniform", "name": "none"});
    let mut event = json!({"reason": "Walk", "type": "Normal", "action": "Walking",
        "reportingInstance": "walk", "eventTime": "2026-01-01T00:00:00.000000Z"});
    // The core group's event is the older shape of the same object.
    let (regarding, controller) =
        if group.is_empty() { ("involvedObject", "reportingComponent") } else { ("regarding", "reportingController") };
    event[regarding] = about;
    event[controller] = json!("evenkeel.test/walk");
    event
}

/// A certificate request for a name that no signer signs.
const REQUEST: &str = include_str!("request.base64");
