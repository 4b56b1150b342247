//! How a pod's parts are called on the machine.

use k8s_openapi::api::core::v1 as core;

/// Longest host name Linux takes.
const HOSTNAME_BYTES_MAX: usize = 63;

/// The parts of a pod's metadata that names are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl PodName {
    pub fn of(pod: &core::Pod) -> PodName {
        let meta = &pod.metadata;
        PodName {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// `NAMESPACE_NAME_UID`: the folder of a pod's logs.
    pub fn log_folder(&self) -> String {
        format!("{}_{}_{}", self.namespace, self.name, self.uid)
    }

    /// The pod that a folder of logs is of; None for a folder of somebody else's.
    pub fn uid_of_log_folder(folder: &str) -> Option<&str> {
        let mut parts = folder.split('_');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(_), Some(uid), None) if !uid.is_empty() => Some(uid),
            _ => None,
        }
    }
}

/// Host name and domain of a pod: (`web-0`, `nginx.default.svc.cluster.local` or empty).
pub fn hostname(pod: &core::Pod, cluster_domain: &str) -> (String, String) {
    let name = PodName::of(pod);
    let spec = pod.spec.as_ref();
    if let Some(whole) = spec.and_then(|spec| spec.hostname_override.as_ref()) {
        return (whole.clone(), String::new());
    }
    let own = spec.and_then(|spec| spec.hostname.clone()).filter(|own| !own.is_empty());
    let mut host = own.unwrap_or(name.name);
    host.truncate(HOSTNAME_BYTES_MAX);
    let host = host.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.and_then(|spec| spec.subdomain.clone()).filter(|subdomain| !subdomain.is_empty());
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", name.namespace));
    (host, domain.unwrap_or_default())
}

/// The host name inside the pod: qualified where `setHostnameAsFQDN` asks for it.
pub fn inner_hostname(pod: &core::Pod, cluster_domain: &str) -> Result<String, super::SpecError> {
    let (host, domain) = hostname(pod, cluster_domain);
    let qualified = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or(false);
    if !qualified || domain.is_empty() {
        return Ok(host);
    }
    let whole = format!("{host}.{domain}");
    if HOSTNAME_BYTES_MAX < whole.len() {
        let message = format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long (64 characters is the max, {} characters requested)",
            whole.len()
        );
        return Err(super::SpecError::new(message));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::PodName;

    #[test]
    fn folders_of_logs_name_their_pod() {
        assert_eq!(PodName::uid_of_log_folder("ns_web-0_1234-56"), Some("1234-56"));
        for other in ["web-0", "a_b", "a_b_", "a_b_c_d"] {
            assert_eq!(PodName::uid_of_log_folder(other), None, "{other}");
        }
    }
}
