//! Pods that the cases of the program need, and what is read of them.

use e2e::Tool;

pub const SLEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sleeper}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: sleeper, image: "evenkeel.local/busybox:1", command: [sleep, "9999"]}]
"#;

/// How often a pod's first container was started again.
pub fn restarts(kubectl: &Tool, pod: &str) -> anyhow::Result<String> {
    kubectl.ok(&format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].restartCount}}"))
}

/// Why a pod's first container waits.
pub fn waiting(kubectl: &Tool, pod: &str) -> anyhow::Result<String> {
    kubectl.ok(&format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].state.waiting.reason}}"))
}
