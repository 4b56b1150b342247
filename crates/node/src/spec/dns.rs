//! `dnsPolicy` and `dnsConfig` as the resolver settings the runtime writes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use crate::runtime::DnsConfig;

/// Limits of upstream's validation (`MaxDNSNameservers`, `MaxDNSSearchPaths`).
const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;

/// The machine's `resolv.conf`.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => {
                config.searches = words.filter(|word| *word != ".").map(str::to_owned).collect()
            }
            Some("options") => config.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    config
}

pub fn config(pod: &core::Pod, cluster_dns: &[IpAddr], cluster_domain: &str, host: &DnsConfig) -> DnsConfig {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" => None,
        "Default" => Some(false),
        "ClusterFirst" => Some(!host_network),
        _ => Some(true),
    };
    let mut config = match cluster {
        None => DnsConfig::default(),
        Some(true) if !cluster_dns.is_empty() => {
            let own = ["svc.", ""].map(|prefix| format!("{prefix}{cluster_domain}"));
            let mut searches = vec![format!("{namespace}.svc.{cluster_domain}")];
            searches.extend(own);
            searches.extend(host.searches.iter().cloned());
            let servers = cluster_dns.iter().map(IpAddr::to_string).collect();
            DnsConfig { servers, searches, options: vec!["ndots:5".into()] }
        }
        Some(_) => host.clone(),
    };
    if let Some(extra) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        add(&mut config, extra);
    }
    dedup(&mut config.servers);
    dedup(&mut config.searches);
    config.servers.truncate(SERVERS_MAX);
    config.searches.truncate(SEARCHES_MAX);
    let mut bytes = 0;
    config.searches.retain(|search| {
        bytes += search.len() + 1;
        bytes <= SEARCH_BYTES_MAX
    });
    config
}

fn add(config: &mut DnsConfig, extra: &core::PodDNSConfig) {
    config.servers.extend(extra.nameservers.iter().flatten().cloned());
    config.searches.extend(extra.searches.iter().flatten().cloned());
    for option in extra.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        let prefix = format!("{name}:");
        config.options.retain(|have| have != name && !have.starts_with(&prefix));
        config.options.push(match &option.value {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.clone(),
        });
    }
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(spec: serde_json::Value) -> String {
        let pod: core::Pod = serde_json::from_value(json!({"metadata": {"namespace": "shop"}, "spec": spec})).unwrap();
        let host = parse("search lab.example\nnameserver 9.9.9.9\noptions edns0\n");
        let config = config(&pod, &["10.43.0.10".parse().unwrap()], "cluster.local", &host);
        format!("{} | {} | {}", config.servers.join(" "), config.searches.join(" "), config.options.join(" "))
    }

    #[test]
    fn policies() {
        let cluster = "10.43.0.10 | shop.svc.cluster.local svc.cluster.local cluster.local lab.example | ndots:5";
        let host = "9.9.9.9 | lab.example | edns0";
        assert_eq!(render(json!({"containers": []})), cluster);
        assert_eq!(render(json!({"containers": [], "hostNetwork": true})), host);
        assert_eq!(
            render(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})),
            cluster
        );
        assert_eq!(render(json!({"containers": [], "dnsPolicy": "Default"})), host);
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
            "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(render(own), "1.1.1.1 | a.b | ndots:2 edns0");
    }
}
