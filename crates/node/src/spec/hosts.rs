//! `/etc/hosts` of a pod.

use k8s_openapi::api::core::v1 as core;

use super::names;

const HEAD: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";
const HOST_HEAD: &str = "# Kubernetes-managed hosts file (host network).\n";

/// The whole file. `host_file` is the machine's own, used with the host's network.
pub fn file(pod: &core::Pod, ips: &[String], cluster_domain: &str, host_file: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text = String::new();
    if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
        text.push_str(HOST_HEAD);
        text.push_str(host_file);
    } else {
        text.push_str(HEAD);
        let (host, domain) = names::hostname(pod, cluster_domain);
        for ip in ips {
            if domain.is_empty() {
                text.push_str(&format!("{ip}\t{host}\n"));
            } else {
                text.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
            }
        }
    }
    let aliases = spec.and_then(|spec| spec.host_aliases.as_ref()).into_iter().flatten();
    let mut first = true;
    for alias in aliases {
        if std::mem::take(&mut first) {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_the_pod_and_its_aliases() {
        let pod: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"containers": [], "subdomain": "nginx", "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]},
        }))
        .unwrap();
        let text = file(&pod, &["10.42.0.9".into()], "cluster.local", "");
        assert!(text.contains("10.42.0.9\tweb-0.nginx.shop.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n10.0.0.1\ta\tb\n"), "{text}");
    }
}
