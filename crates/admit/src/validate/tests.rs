//! One line per rule: what is wrong with a document, as a client reads it.

use api::{PatchType, Tree};
use serde_json::json;

use crate::testing::World;

fn world() -> World {
    let world = World::new(api::builtin::registry());
    world.seed(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    world.seed(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}),
    );
    world
}

fn check(tree: Tree, wanted: &str) {
    let refused = world().create(&tree).unwrap_err();
    assert_eq!((refused.code, refused.message.as_str()), (422, wanted), "{tree}");
}

fn of(version: &str, kind: &str, spec: Tree) -> Tree {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

fn deployment(template_label: &str) -> Tree {
    of(
        "apps/v1",
        "Deployment",
        json!({"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": template_label}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}),
    )
}

#[test]
fn an_unmasked_proc_needs_users_of_its_own() {
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "securityContext": {"procMount": "Unmasked"}}]});
    let why = "Pod \"x\" is invalid: spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": \
               `hostUsers` must be false to use `Unmasked`";
    check(of("v1", "Pod", spec), why);
}

#[test]
fn pods() {
    check(of("v1", "Pod", json!({"containers": []})), "Pod \"x\" is invalid: spec.containers: Required value");
    check(
        of("v1", "Pod", json!({"containers": [{"image": "i"}]})),
        "Pod \"x\" is invalid: spec.containers[0].name: Required value",
    );
    check(
        of(
            "v1",
            "Pod",
            json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
        ),
        "Pod \"x\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
    );
    check(
        of(
            "v1",
            "Pod",
            json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
        ),
        "Pod \"x\" is invalid: spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
    );
    check(
        of("v1", "Pod", json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]})),
        "Pod \"x\" is invalid: spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    );
}

#[test]
fn a_pod_changes_its_images_and_little_else() {
    let world = world();
    let pod = of("v1", "Pod", json!({"containers": [{"name": "c", "image": "i:1"}]}));
    world.create(&pod).unwrap();
    let image = json!({"spec": {"containers": [{"name": "c", "image": "i:2"}]}});
    world.patch(&pod, PatchType::Strategic, &image).unwrap();
    let refused = world.patch(&pod, PatchType::Merge, &json!({"spec": {"hostNetwork": true}})).unwrap_err();
    assert!(
        refused
            .message
            .starts_with("Pod \"x\" is invalid: spec: Forbidden: pod updates may not change fields other than"),
        "{refused}"
    );
}

#[test]
fn workloads_and_services() {
    check(
        deployment("c"),
        "Deployment.apps \"x\" is invalid: spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
    );
    check(of("v1", "Service", json!({})), "Service \"x\" is invalid: spec.ports: Required value");
    check(
        of("v1", "Service", json!({"ports": [{"port": 80, "nodePort": 30080}]})),
        "Service \"x\" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    );
    check(
        of(
            "batch/v1",
            "CronJob",
            json!({"schedule": "bad", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}),
        ),
        "CronJob.batch \"x\" is invalid: spec.schedule: Invalid value: \"bad\": expected exactly 5 fields, found 1: [bad]",
    );
    let world = world();
    let made = world.create(&deployment("b")).unwrap().object;
    let change =
        json!({"spec": {"selector": {"matchLabels": {"a": "c"}}, "template": {"metadata": {"labels": {"a": "c"}}}}});
    let refused = world.patch(&made, PatchType::Merge, &change).unwrap_err();
    assert!(
        refused.message.ends_with("spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"),
        "{refused}"
    );
}

#[test]
fn a_mount_may_name_a_claim_template() {
    let set = |claim: &str| {
        of(
            "apps/v1",
            "StatefulSet",
            json!({"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
                "volumeClaimTemplates": [{"metadata": {"name": claim}, "spec": {"accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}}}}],
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                    {"name": "c", "image": "i:1", "volumeMounts": [{"name": "data", "mountPath": "/v"}]}]}}}),
        )
    };
    world().create(&set("data")).unwrap();
    check(
        set("other"),
        "StatefulSet.apps \"x\" is invalid: spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
    );
}

#[test]
fn config_names_and_labels() {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "immutable": true, "data": {"a": "1"}});
    let world = world();
    world.create(&map).unwrap();
    let refused = world.patch(&map, PatchType::Merge, &json!({"data": {"a": "2"}})).unwrap_err();
    assert_eq!(
        refused.message,
        "ConfigMap \"x\" is invalid: data: Forbidden: field is immutable when `immutable` is set"
    );
    map["metadata"]["name"] = json!("Bad_Name");
    let refused = world.create(&map).unwrap_err();
    assert!(refused.message.starts_with("ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain"), "{refused}");
}

#[test]
fn custom_resources_follow_their_schema() {
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {},
                "scale": {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string", "pattern": "^[a-z]+$"},
                        "crew": {"type": "integer", "minimum": 1, "default": 2},
                        "sail": {"type": "string", "enum": ["up", "down"]}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}});
    let mut world = world();
    let made = world.create(&crd).unwrap().object;
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    world.registry.insert(std::sync::Arc::new(api::crd::kind_of(&made, "v1", 1).unwrap()));
    let boat = |spec: Tree| of("example.com/v1", "Boat", spec);
    let refused = world.create(&boat(json!({"crew": 0, "sail": "half", "oars": 2}))).unwrap_err();
    for part in [
        "spec.name: Required value",
        "spec.crew: Invalid value: 0: spec.crew in body should be greater than or equal to 1",
        "spec.sail: Unsupported value: \"half\": supported values: \"up\", \"down\"",
    ] {
        assert!(refused.message.contains(part), "{refused}");
    }
    let refused = world.create(&boat(json!({"name": 7}))).unwrap_err();
    assert!(
        refused
            .message
            .contains("spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\""),
        "{refused}"
    );
    let made = world.create(&boat(json!({"name": "a", "oars": 2}))).unwrap();
    assert_eq!(made.object["spec"], json!({"crew": 2, "name": "a"}));
    assert_eq!(made.warnings, ["unknown field \"spec.oars\""]);
    let applied = world.apply(&boat(json!({"name": "b"})), "ann", true).unwrap().object;
    assert_eq!((&applied["metadata"]["generation"], &applied["spec"]["name"]), (&json!(2), &json!("b")));
}

#[test]
fn what_the_description_declares_is_refused_in_upstreams_words() {
    let pod = |extra: Tree| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        spec.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
        of("v1", "Pod", spec)
    };
    let node = |term: Tree| {
        pod(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}))
    };
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    for (tree, wanted) in [
        (
            pod(json!({"volumes": [{"name": "v", "nfs": {"server": "s"}}, {"name": "w", "rbd": {"monitors": ["m"]}}]})),
            "[spec.volumes[0].nfs.path: Required value, spec.volumes[1].rbd.image: Required value]".to_owned(),
        ),
        (
            pod(json!({"securityContext": {"seccompProfile": {}}})),
            "spec.securityContext.seccompProfile.type: Required value: type is required when seccompProfile is set".to_owned(),
        ),
        (
            pod(json!({"securityContext": {"fsGroupChangePolicy": "Never"}})),
            "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"".to_owned(),
        ),
        (
            node(json!({"nodeSelectorTerms": []})),
            format!("{at}.nodeSelectorTerms: Required value: must have at least one node selector term"),
        ),
        (
            node(json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]})),
            format!("{at}.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        ),
        (
            node(json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Near"}]}]})),
            format!("{at}.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator"),
        ),
    ] {
        check(tree, &format!("Pod \"x\" is invalid: {wanted}"));
    }
}

#[test]
fn pods_run_as_somebody_and_ask_the_kernel_politely() {
    let refused = |context: Tree| {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "securityContext": context});
        world().create(&of("v1", "Pod", spec)).unwrap_err().message
    };
    let sysctls = refused(
        json!({"sysctls": [{"name": "foo-", "value": "bar"}, {"name": "kernel.shmmax", "value": "1"},
        {"name": "bar..", "value": "42"}, {"name": "kernel.sem", "value": "2"}, {"name": "kernel.sem", "value": "3"}]}),
    );
    for part in [
        "sysctls[0].name: Invalid value: \"foo-\"",
        "sysctls[2].name: Invalid value: \"bar..\"",
        "Duplicate value: \"kernel.sem\"",
    ] {
        assert!(sysctls.contains(part), "{sysctls}");
    }
    assert!(!sysctls.contains("\"kernel.shmmax\""), "{sysctls}");
    assert!(
        refused(json!({"runAsUser": -1})).contains("runAsUser: Invalid value: -1: must be between 0 and 2147483647")
    );
    assert!(
        refused(json!({"seccompProfile": {"type": "Localhost"}}))
            .ends_with("localhostProfile: Required value: must be set when seccomp type is Localhost")
    );
    let both = json!({"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}]});
    let refused = world().create(&of("v1", "Pod", both)).unwrap_err().message;
    assert!(refused.ends_with("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"), "{refused}");
}

#[test]
fn lists_that_upstream_only_merges_by_key_may_repeat_a_key() {
    let repeated = json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "A"}, {"name": "A"}],
        "ports": [{"containerPort": 1}, {"containerPort": 1}]}], "hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]});
    world().create(&of("v1", "Pod", repeated)).unwrap();
}

#[test]
fn declared_lists_unions_formats_and_changes() {
    let slice = |devices: Tree| {
        of(
            "resource.k8s.io/v1",
            "ResourceSlice",
            json!({"driver": "a.b", "nodeName": "n", "devices": devices,
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}),
        )
    };
    let attribute = |value: Tree| slice(json!([{"name": "d", "attributes": {"x": value}}]));
    check(
        attribute(json!({})),
        "ResourceSlice.resource.k8s.io \"x\" is invalid: spec.devices[0].attributes.x: Invalid value: \"\": must specify one of: `bool`, `int`, `string`, `version`",
    );
    check(
        attribute(json!({"int": 1, "bool": true})),
        "ResourceSlice.resource.k8s.io \"x\" is invalid: spec.devices[0].attributes.x: Invalid value: \"{bool, int}\": must specify exactly one of: `bool`, `int`, `string`, `version`",
    );
    let claim = |requests: Tree| of("resource.k8s.io/v1", "ResourceClaim", json!({"devices": {"requests": requests}}));
    let request = |name: &str| json!({"name": name, "exactly": {"deviceClassName": "c"}});
    check(
        claim(json!([request("a"), request("a")])),
        "ResourceClaim.resource.k8s.io \"x\" is invalid: spec.devices.requests[1]: Duplicate value: {\"name\":\"a\"}",
    );
    let world = world();
    world.create(&claim(json!([request("a")]))).unwrap();
    let changed =
        world.patch(&claim(json!([])), PatchType::Merge, &json!({"spec": {"devices": {"requests": [request("b")]}}}));
    assert!(changed.unwrap_err().message.ends_with("field is immutable"));
    let many: Vec<Tree> = (0..33).map(|n| request(&format!("r{n}"))).collect();
    check(
        claim(json!(many)),
        "ResourceClaim.resource.k8s.io \"x\" is invalid: spec.devices.requests: Too many: 33: must have at most 32 items",
    );
}

#[test]
fn statuses_are_judged_where_upstream_judges_them() {
    let world = world();
    let made = world.create(&deployment("b")).unwrap().object;
    let status = |status: Tree| {
        let verb =
            crate::WriteVerb::Patch { patch: PatchType::Merge, body: crate::testing::body(&json!({"status": status})) };
        let mut request = world.request(&made, "x", verb);
        request.subresource = request.kind.subresource("status").cloned();
        world.run(request)
    };
    assert_eq!(
        status(json!({"replicas": 1, "readyReplicas": 2, "unavailableReplicas": -1})).unwrap_err().message,
        "Deployment.apps \"x\" is invalid: [status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0, status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas]"
    );
    assert!(status(json!({"replicas": "1"})).is_err());
    status(json!({"replicas": 2, "readyReplicas": 1})).unwrap();
}

#[test]
fn certificate_requests_are_read() {
    use base64::Engine as _;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let masters = encode(include_str!("../../../controllers/src/certificates/masters.csr.pem"));
    let request = |request: &str, signer: &str| {
        of(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            json!({"request": request, "signerName": signer,
            "usages": ["client auth"], "expirationSeconds": 60}),
        )
    };
    let name = "CertificateSigningRequest.certificates.k8s.io \"x\" is invalid:";
    check(
        request(&encode("system:masters"), "example.com/s"),
        &format!(
            "{name} [spec.request: Invalid value: \"c3lzdGVtOm1hc3RlcnM=\": PEM block type must be CERTIFICATE REQUEST, spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)]"
        ),
    );
    let mut legacy = request(&masters, "kubernetes.io/legacy-unknown");
    legacy["spec"]["expirationSeconds"] = json!(600);
    check(
        legacy.clone(),
        &format!(
            "{name} spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version"
        ),
    );
    legacy["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
    let refused = world().create(&legacy).unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.ends_with("signer with system:masters group is not allowed"), "{refused}");
}

#[test]
fn containers_ask_for_whole_devices_and_known_resources() {
    let refused = |resources: Tree| {
        let spec = json!({"containers": [{"name": "c", "image": "i", "resources": resources}]});
        world().create(&of("v1", "Pod", spec)).map(|_| ()).map_err(|status| status.message)
    };
    // Requests follow limits, so most errors come twice.
    for (resources, wanted) in [
        (
            json!({"limits": {"example.com/gpu": "500m"}}),
            "limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
        ),
        (
            json!({"limits": {"gpu": "1"}}),
            "limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
        ),
        (
            json!({"requests": {"example.com/gpu": "1"}}),
            "limits: Required value: Limit must be set for non overcommitable resources",
        ),
    ] {
        let message = refused(resources).unwrap_err();
        assert!(message.contains(&format!("spec.containers[0].resources.{wanted}")), "{message}");
    }
    refused(json!({"limits": {"example.com/gpu": 2, "hugepages-2Mi": "4Mi", "cpu": "1"}})).unwrap();
}

#[test]
fn autoscalers_say_what_they_scale_by() {
    let refused = |metrics: Tree| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let spec = json!({"maxReplicas": 3, "scaleTargetRef": target, "metrics": metrics});
        world()
            .create(&of("autoscaling/v2", "HorizontalPodAutoscaler", spec))
            .map(|_| ())
            .map_err(|status| status.message)
    };
    let at = "HorizontalPodAutoscaler.autoscaling \"x\" is invalid: spec.metrics[0]";
    let cpu = |target: Tree| json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    assert_eq!(
        refused(json!([{"type": "Resource"}])).unwrap_err(),
        format!("{at}.resource: Required value: must populate information for the given metric source")
    );
    assert_eq!(
        refused(cpu(json!({"type": "Utilization", "averageUtilization": 0}))).unwrap_err(),
        format!("{at}.resource.target.averageUtilization: Invalid value: 0: must be greater than 0")
    );
    assert_eq!(
        refused(cpu(json!({"type": "Utilization"}))).unwrap_err(),
        format!(
            "{at}.resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
        )
    );
    refused(cpu(json!({"type": "AverageValue", "averageValue": "100m"}))).unwrap();
}
