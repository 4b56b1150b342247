//! What k3s calls things: aliases where the meaning is the same, and flags that are accepted and do nothing here.

/// Flags of k3s that this program does not have, and whether each takes a value. Each warns once and never fails.
const IGNORED: &[(&str, bool)] = &[
    ("agent-token", true),
    ("agent-token-file", true),
    ("airgap-extra-registry", true),
    ("alsologtostderr", false),
    ("cluster-reset", false),
    ("cluster-reset-restore-path", true),
    ("default-runtime", true),
    ("disable-apiserver-lb", false),
    ("disable-cloud-controller", false),
    ("disable-controller-manager", false),
    ("disable-default-registry-endpoint", false),
    ("disable-helm-controller", false),
    ("disable-kube-proxy", false),
    ("disable-network-policy", false),
    ("disable-scheduler", false),
    ("docker", false),
    ("egress-selector-mode", true),
    ("embedded-registry", false),
    ("enable-pprof", false),
    ("etcd-disable-snapshots", false),
    ("etcd-expose-metrics", false),
    ("flannel-backend", true),
    ("flannel-conf", true),
    ("flannel-external-ip", false),
    ("flannel-iface", true),
    ("flannel-ipv6-masq", false),
    ("helm-job-image", true),
    ("kube-apiserver-arg", true),
    ("kube-cloud-controller-manager-arg", true),
    ("kube-controller-manager-arg", true),
    ("kube-proxy-arg", true),
    ("kube-scheduler-arg", true),
    ("kubelet-arg", true),
    ("lb-server-port", true),
    ("log", true),
    ("node-external-dns", true),
    ("node-internal-dns", true),
    ("nonroot-devices", false),
    ("pause-image", true),
    ("prefer-bundled-bin", false),
    ("protect-kernel-defaults", false),
    ("rootless", false),
    ("secrets-encryption", false),
    ("secrets-encryption-provider", true),
    ("selinux", false),
    ("servicelb-namespace", true),
    ("snapshotter", true),
    ("supervisor-metrics", false),
    ("system-default-registry", true),
    ("vmodule", true),
    ("write-kubeconfig-group", true),
];

/// Whether an ignored flag takes a value; None where it is no flag of k3s that is ignored.
pub fn ignored(name: &str) -> Option<bool> {
    IGNORED.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|at| IGNORED[at].1)
}

/// Environment variables of k3s that stand for a flag of ours under another name.
pub fn env_alias(name: &str) -> Option<&'static str> {
    match name {
        "K3S_TOKEN" => Some("token"),
        "K3S_TOKEN_FILE" => Some("token-file"),
        "K3S_URL" => Some("server"),
        "K3S_DATA_DIR" => Some("data-dir"),
        "K3S_NODE_NAME" => Some("node-name"),
        "K3S_KUBECONFIG_OUTPUT" => Some("write-kubeconfig"),
        "K3S_KUBECONFIG_MODE" => Some("write-kubeconfig-mode"),
        "K3S_CONFIG_FILE" => Some("config"),
        "K3S_DATASTORE_ENDPOINT" => Some("datastore-endpoint"),
        "K3S_DEBUG" => Some("debug"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(super::IGNORED.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!(super::ignored("flannel-backend"), Some(true));
        assert_eq!(super::ignored("docker"), Some(false));
        assert_eq!(super::ignored("data-dir"), None);
    }
}
