//! What several lanes run on their clusters: a pod on a node, a page and somebody who asks for it without end, and the
//! application with what is broken on purpose around it.

use serde_json::{Value, json};

const IMAGE: &str = "evenkeel.local/busybox:1";

/// In the namespace `shop`.
const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      terminationGracePeriodSeconds: 0
      nodeName: HERE
      containers: [{name: c, image: "evenkeel.local/busybox:1", command: [sleep, "9999"]}]
"#;

/// A namespace that does not go away once it is deleted.
pub const STAYS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: old}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: old, finalizers: [foo.example/cleanup]}
"#;

/// A webhook that nobody answers for. What it is asked about nothing here creates.
pub const WEBHOOK: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: policy}
webhooks:
- name: policy.example.com
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  clientConfig: {service: {namespace: shop, name: policy}}
  rules: [{apiGroups: ["example.com"], apiVersions: [v1], operations: [CREATE], resources: [things]}]
"#;

/// The application of the lanes that break things, on this node.
pub fn shop(node: &str) -> String {
    SHOP.replace("HERE", node)
}

/// A pod in `shop` whose image nobody has.
pub fn unpullable(node: &str) -> String {
    let container = json!({"name": "c", "image": "127.0.0.1:9/none:1"});
    let spec = json!({"terminationGracePeriodSeconds": 0, "nodeName": node, "containers": [container]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pull", "namespace": "shop"}, "spec": spec})
        .to_string()
}

/// A pod that only is there, on this node.
pub fn sleeper(name: &str, node: &str) -> String {
    pod(name, json!({"nodeName": node, "containers": [container(&["sleep", "99999"])]}))
}

/// A pod that says where it is from and goes on, on this node whatever keeps others away.
pub fn greeter(name: &str, node: &str) -> String {
    let says = format!("echo from {name}; exec sleep 9999");
    let tolerations = json!([{"operator": "Exists"}]);
    pod(name, json!({"nodeName": node, "tolerations": tolerations, "containers": [container(&["sh", "-c", &says])]}))
}

/// A container that answers with a page on port 8080.
pub fn web() -> String {
    let serve = "mkdir /www; echo page > /www/index.html; exec busybox httpd -f -p 8080 -h /www";
    let mut container = container(&["sh", "-c", serve]);
    container["readinessProbe"] = json!({"httpGet": {"port": 8080}, "periodSeconds": 2});
    container.to_string()
}

/// A container that asks the Service `web` without end, and logs `failed ...` for each request that is not answered.
pub fn asker() -> String {
    let ask = r#"
until busybox wget -q -O /dev/null http://web; do busybox usleep 100000; done
n=0
while :; do
  busybox wget -q -O /dev/null http://web || echo "failed after $n"
  n=$((n + 1)); [ $((n % 50)) = 0 ] && echo "asked $n"
  busybox usleep 40000
done
"#;
    container(&["sh", "-c", ask]).to_string()
}

fn container(command: &[&str]) -> Value {
    json!({"name": "c", "image": IMAGE, "command": command})
}

fn pod(name: &str, mut spec: Value) -> String {
    spec["terminationGracePeriodSeconds"] = json!(0);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}
