//! Every built-in kind through every verb and media type, on objects that the schema itself suggests.

use std::collections::BTreeMap;

use api::{FieldType, Kind, Schema, Verb};
use http::Method;
use serde_json::{Map, Value, json};

use crate::kit::{Client, Cluster};

/// Deeper than any required field of a built-in kind.
const DEPTH_MAX: usize = 8;

/// A minimal object: required fields by their types, and what validation asks for beyond the schema.
fn minimal(kind: &Kind, name: &str) -> Value {
    let mut object = filled(&kind.schema, 0);
    let map = object.as_object_mut().unwrap();
    map.insert("apiVersion".into(), json!(kind.gvk.api_version()));
    map.insert("kind".into(), json!(kind.gvk.kind));
    let mut metadata = json!({"name": name});
    if kind.is_namespaced() {
        metadata["namespace"] = json!("default");
    }
    map.insert("metadata".into(), metadata);
    map.remove("status");
    merge(&mut object, &extra(kind, name));
    object
}

fn filled(schema: &Schema, depth: usize) -> Value {
    let mut map = Map::new();
    if depth < DEPTH_MAX {
        for field in schema.ty().fields.iter().filter(|field| field.required && !field.name.is_empty()) {
            map.insert(field.name.to_string(), value(schema, &field.ty, depth + 1));
        }
    }
    Value::Object(map)
}

fn value(schema: &Schema, ty: &FieldType, depth: usize) -> Value {
    match ty {
        FieldType::String => json!("x"),
        FieldType::Bool => json!(true),
        FieldType::Int32 | FieldType::Int64 => json!(1),
        FieldType::Double => json!(1.0),
        FieldType::Bytes => json!("eA=="),
        FieldType::Quantity => json!("1"),
        FieldType::IntOrString => json!(1),
        FieldType::Time => json!("2026-01-01T00:00:00Z"),
        FieldType::MicroTime => json!("2026-01-01T00:00:00.000000Z"),
        FieldType::Duration => json!("1s"),
        FieldType::FieldsV1 | FieldType::RawExtension | FieldType::Any => json!({}),
        FieldType::Struct(_) => schema.child(ty).map_or(json!({}), |child| filled(&child, depth)),
        FieldType::List(inner) => json!([value(schema, inner, depth)]),
        FieldType::Map(_) => json!({}),
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// What the validation of a kind wants that its schema does not say.
fn extra(kind: &Kind, name: &str) -> Value {
    let labels = json!({"app": "x"});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let never = json!({"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}});
    let selector = json!({"matchLabels": labels});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let hook = json!([{"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "clientConfig": {"url": "https://127.0.0.1:1/x"}}]);
    match kind.gvk.kind.as_str() {
        "Pod" => json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}),
        "PodTemplate" => json!({"template": pod}),
        "ReplicationController" => json!({"spec": {"selector": labels, "template": pod}}),
        "Deployment" | "ReplicaSet" | "DaemonSet" => json!({"spec": {"selector": selector, "template": pod}}),
        "StatefulSet" => json!({"spec": {"selector": selector, "template": pod, "serviceName": "s"}}),
        "Job" => json!({"spec": {"template": never}}),
        "CronJob" => json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": never}}}}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Event" if kind.gvk.group.is_empty() => {
            json!({"involvedObject": {"namespace": "default", "name": "x", "kind": "Pod"}})
        }
        "Event" => json!({"regarding": {"namespace": "default", "name": "x", "kind": "Pod"}, "action": "Testing",
            "reason": "Tested", "type": "Normal", "reportingController": "example.com/t", "reportingInstance": "t-1",
            "eventTime": "2026-01-01T00:00:00.000000Z"}),
        "PersistentVolume" => {
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}})
        }
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
        }
        "CertificateSigningRequest" => {
            json!({"spec": {"request": REQUEST, "signerName": "example.com/signer", "usages": ["client auth"]}})
        }
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/c"}}),
        "IPAddress" => {
            json!({"metadata": {"name": "10.43.77.7"}, "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "x"}}})
        }
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.99.0.0/24"]}}),
        "ClusterRoleBinding" | "RoleBinding" => {
            json!({"roleRef": role, "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]})
        }
        "ClusterRole" | "Role" => json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        "CSINode" => json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "n"}]}}),
        "CSIDriver" => json!({"spec": {}}),
        "StorageClass" => json!({"provisioner": "example.com/p"}),
        "VolumeAttachment" => {
            json!({"spec": {"attacher": "example.com/a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        "VolumeAttributesClass" => json!({"driverName": "example.com", "parameters": {"a": "b"}}),
        "CSIStorageCapacity" => json!({"storageClassName": "fast", "nodeTopology": {}}),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => json!({"webhooks": hook}),
        "ValidatingAdmissionPolicy" => {
            json!({"spec": {"failurePolicy": "Ignore", "validations": [{"expression": "true"}],
            "matchConstraints": {"resourceRules": [{"apiGroups": ["none.example"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}]}}})
        }
        "ValidatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p", "validationActions": ["Audit"]}}),
        "MutatingAdmissionPolicy" => json!({"spec": {"failurePolicy": "Ignore", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}],
            "matchConstraints": {"resourceRules": [{"apiGroups": ["none.example"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}]}}}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p"}}),
        "CustomResourceDefinition" => {
            json!({"metadata": {"name": "ships.example.org"}, "spec": {"group": "example.org", "scope": "Cluster", "conversion": null,
            "names": {"plural": "ships", "kind": "Ship", "singular": "ship", "listKind": "ShipList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
        }
        "APIService" => {
            json!({"metadata": {"name": "v1.none.example"}, "spec": {"group": "none.example", "version": "v1",
            "groupPriorityMinimum": 100, "versionPriority": 100, "insecureSkipTLSVerify": true, "service": {"name": "s", "namespace": "default"}}})
        }
        "FlowSchema" => {
            json!({"spec": {"priorityLevelConfiguration": {"name": "global-default"}, "matchingPrecedence": 100}})
        }
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Exempt", "limited": null}}),
        "RuntimeClass" => json!({"handler": "runc"}),
        "ResourceSlice" => {
            json!({"spec": {"driver": "example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
        }
        "ResourceClaim" => json!({"spec": {}}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": {}}}),
        "DeviceClass" => json!({"spec": {}}),
        "DeviceTaintRule" => json!({"spec": {"taint": {"key": "example.com/k", "effect": "NoSchedule"}}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "Secret" => json!({"stringData": {"k": "v"}}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Container"}]}}),
        "PriorityClass" => json!({"value": 5}),
        "ControllerRevision" => json!({"data": {"a": "b"}, "revision": 1}),
        "Lease" => json!({"metadata": {"name": name}, "spec": {}}),
        _ => json!({}),
    }
}

/// A PKCS#10 request for CN=jane, in PEM, in base64.
const REQUEST: &str = include_str!("request.b64");

/// One kind and what went wrong with it.
type Faults = BTreeMap<String, String>;

#[tokio::test]
async fn every_kind_takes_every_verb_in_every_encoding() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
    let mut faults = Faults::new();
    let mut walked = 0;
    for kind in cluster.server.registry().iter() {
        if kind.custom || !kind.verbs.has(Verb::Create) || !kind.verbs.has(Verb::Get) {
            continue;
        }
        walked += 1;
        if let Err(fault) = walk(&admin, kind).await {
            faults.insert(kind.gvr().to_string(), fault);
        }
    }
    assert!(walked > 50, "{walked} kinds");
    assert!(faults.is_empty(), "{} of {walked} kinds:\n{}", faults.len(), show(&faults));
}

fn show(faults: &Faults) -> String {
    faults.iter().map(|(kind, fault)| format!("  {kind}: {fault}\n")).collect()
}

async fn walk(admin: &Client, kind: &Kind) -> Result<(), String> {
    let object = minimal(kind, "x-1");
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let collection = kind.gvr().path(kind.is_namespaced().then_some("default"), None);
    let one = format!("{collection}/{name}");
    let expect = |what: &str, answer: crate::kit::Answer, code: u16| -> Result<crate::kit::Answer, String> {
        if answer.code.as_u16() == code {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&answer.bytes);
        Err(format!("{what}: {} {}", answer.code, text.chars().take(400).collect::<String>()))
    };
    let before = expect("list", admin.get(&collection).await, 200)?.json();
    let from = before["metadata"]["resourceVersion"].as_str().ok_or("list without a revision")?.to_owned();
    let mut events = admin.watch(&format!("{collection}?watch=1&resourceVersion={from}")).await;

    expect("dry create", admin.post(&format!("{collection}?dryRun=All"), &object).await, 201)?;
    expect("dry run left nothing", admin.get(&one).await, 404)?;
    let created = expect("create", admin.post(&collection, &object).await, 201)?.json();
    let at = |tree: &Value| tree["metadata"]["resourceVersion"].as_str().unwrap_or("0").parse::<u64>().unwrap_or(0);
    if at(&created) <= from.parse().unwrap_or(0) {
        return Err("the revision did not grow".into());
    }
    if events.line().await != format!("ADDED {name}") {
        return Err("the watch did not see it first".into());
    }
    read_back(admin, kind, &one, &collection).await?;

    let label = json!({"metadata": {"labels": {"touched": "1"}}});
    let patched = expect("merge patch", admin.merge(&one, &label).await, 200)?.json();
    if at(&patched) <= at(&created) {
        return Err("a patch did not grow the revision".into());
    }
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let patch = json!({"metadata": {"labels": {"touched": "2"}}}).to_string();
    expect("strategic patch", admin.send(Method::PATCH, &one, &strategic, patch).await, 200)?;
    let json_patch = [("content-type", "application/json-patch+json")];
    let patch = json!([{"op": "replace", "path": "/metadata/labels/touched", "value": "3"}]).to_string();
    expect("json patch", admin.send(Method::PATCH, &one, &json_patch, patch).await, 200)?;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let mut applied = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": name, "labels": {"applied": "1"}}});
    if kind.is_namespaced() {
        applied["metadata"]["namespace"] = json!("default");
    }
    let path = format!("{one}?fieldManager=test");
    expect("apply", admin.send(Method::PATCH, &path, &apply, applied.to_string()).await, 200)?;
    let mut current = expect("get", admin.get(&one).await, 200)?.json();
    current["metadata"]["labels"]["touched"] = json!("4");
    expect("update", admin.put(&one, &current).await, 200)?;
    end(admin, kind, &one, &collection).await
}

/// Every encoding and shape reads, and what protobuf and YAML wrote is taken back.
async fn read_back(admin: &Client, kind: &Kind, one: &str, collection: &str) -> Result<(), String> {
    for accept in [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ] {
        for path in [one, collection] {
            let answer = admin.send(Method::GET, path, &[("accept", accept)], "").await;
            if answer.code != 200 || answer.bytes.is_empty() {
                return Err(format!("{accept} of {path}: {} {}", answer.code, String::from_utf8_lossy(&answer.bytes)));
            }
        }
    }
    let want = admin.get(one).await.json();
    for media_type in ["application/vnd.kubernetes.protobuf", "application/yaml"] {
        let read = admin.send(Method::GET, one, &[("accept", media_type)], "").await;
        let written = admin.send(Method::PUT, one, &[("content-type", media_type)], read.bytes).await;
        if written.code != 200 {
            return Err(format!("PUT as {media_type}: {} {}", written.code, String::from_utf8_lossy(&written.bytes)));
        }
        let have = written.json();
        let revision = |tree: &Value| tree["metadata"]["resourceVersion"].clone();
        if revision(&have) != revision(&want) {
            return Err(format!("{media_type} does not come back as it went: {have} for {want} ({})", kind.gvk));
        }
    }
    Ok(())
}

async fn end(admin: &Client, kind: &Kind, one: &str, collection: &str) -> Result<(), String> {
    let answer = admin.delete(&format!("{one}?gracePeriodSeconds=0")).await;
    if !answer.code.is_success() {
        return Err(format!("delete: {} {}", answer.code, String::from_utf8_lossy(&answer.bytes)));
    }
    // Kinds with finalizers of their own only begin to go.
    let held = matches!(
        kind.gvk.kind.as_str(),
        "Namespace" | "CustomResourceDefinition" | "PersistentVolume" | "PersistentVolumeClaim" | "ServiceCIDR"
    );
    let left = admin.get(one).await.code;
    if left != 404 && !held {
        return Err(format!("still there after its deletion: {left}"));
    }
    if kind.verbs.has(Verb::DeleteCollection) {
        let answer = admin.delete(&format!("{collection}?labelSelector=none")).await;
        if answer.code != 200 {
            return Err(format!("delete collection: {} {}", answer.code, String::from_utf8_lossy(&answer.bytes)));
        }
    }
    Ok(())
}
