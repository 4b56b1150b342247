//! Round trips, bad bytes, and the shapes that differ from JSON.

use serde_json::json;

use super::{DecodeError, decode, encode, watch_frame};
use crate::{Gvk, Schema, Tree, builtin};

fn find(gvk: &Gvk) -> Option<Schema> {
    builtin::schema_of(&gvk.group, &gvk.version, &gvk.kind)
}

fn round(group: &str, version: &str, kind: &str, tree: &Tree) -> Tree {
    let gvk = Gvk::new(group, version, kind);
    let bytes = encode(&find(&gvk).unwrap(), &gvk, tree).unwrap();
    let (found, tree) = decode(find, &bytes).unwrap();
    assert_eq!(found, gvk);
    tree
}

#[test]
fn a_pod_survives() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "labels": {"x": "y"}, "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:x": {}}}}]},
        "spec": {
            "hostUsers": false, "terminationGracePeriodSeconds": 0, "nodeSelector": {"a": "b"},
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"port": "web", "path": "/"}, "periodSeconds": 5},
                "readinessProbe": {"tcpSocket": {"port": 8080}},
                "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "x", "defaultMode": 420}}],
            "securityContext": {"runAsUser": 0, "supplementalGroups": [1, 2]}},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    });
    assert_eq!(round("", "v1", "Pod", &pod), pod);
}

#[test]
fn shapes_that_are_bare_in_json_survive() {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AAEC", "e": ""}});
    assert_eq!(round("", "v1", "Secret", &secret), secret);
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {"user": "u", "extra": {"scopes": ["a", "b"]}}, "status": {"allowed": false}});
    assert_eq!(round("authorization.k8s.io", "v1", "SubjectAccessReview", &review), review);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "leaseTransitions": 0}});
    assert_eq!(round("coordination.k8s.io", "v1", "Lease", &lease), lease);
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x"},
        "spec": {"group": "g", "scope": "Namespaced", "names": {"plural": "xs", "kind": "X"}, "versions": [{"name": "v1",
            "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "string"}, "default": ["x"], "minItems": 0},
                "b": {"type": "object", "additionalProperties": {"type": "integer", "enum": [1, 2]}},
                "c": {"type": "object", "additionalProperties": false, "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    assert_eq!(round("apiextensions.k8s.io", "v1", "CustomResourceDefinition", &crd), crd);
}

#[test]
fn zeros_that_go_always_writes_are_absent_again() {
    let written = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "generateName": "", "generation": 0},
        "spec": {"hostNetwork": false, "nodeName": "", "containers": [{"name": "", "tty": false}]}});
    let read =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": ""}]}});
    assert_eq!(round("", "v1", "Pod", &written), read);
}

#[test]
fn bad_bytes_are_refused() {
    assert_eq!(decode(find, b"{}"), Err(DecodeError::Magic));
    assert!(matches!(decode(find, b"k8s\0"), Err(DecodeError::Kind { .. })));
    let gvk = Gvk::new("", "v1", "Pod");
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let bytes = encode(&find(&gvk).unwrap(), &gvk, &pod).unwrap();
    for cut in 0..bytes.len() {
        let _ = decode(find, &bytes[..cut]);
    }
    for at in 4..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let _ = decode(find, &bytes);
        }
    }
    let error = encode(&find(&gvk).unwrap(), &gvk, &json!({"spec": {"containers": [{"name": 1}]}})).unwrap_err();
    assert_eq!(error.to_string(), "spec.containers[0].name: expected a string");
}

#[test]
fn a_watch_frame_tells_its_length() {
    let frame = watch_frame("ADDED", &[7; 300]);
    assert_eq!(frame.len(), 4 + u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize);
    assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
}
