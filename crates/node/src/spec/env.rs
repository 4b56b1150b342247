//! A container's environment: service variables, `envFrom`, `env` with references, in upstream's order. Pure: what it
//! refers to is fetched before and handed in.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::SpecError;
use super::expand::expand;
use super::resources;

/// A ConfigMap or Secret that a container refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    ConfigMap(String),
    Secret(String),
}

/// What was fetched; None where the object does not exist.
pub type Sources = BTreeMap<Source, Option<BTreeMap<String, Vec<u8>>>>;

/// What a pod's fields refer to beside its own record.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub node_name: String,
    pub host_ips: Vec<String>,
    pub pod_ips: Vec<String>,
    /// Stand in for a limit that is not set.
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
    pub allocatable_storage_bytes: i64,
}

/// The objects that `env` and `envFrom` need, each once.
pub fn references(container: &core::Container) -> Vec<Source> {
    let mut found = Vec::new();
    for from in container.env_from.iter().flatten() {
        found.extend(from.config_map_ref.as_ref().map(|r| Source::ConfigMap(r.name.clone())));
        found.extend(from.secret_ref.as_ref().map(|r| Source::Secret(r.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        found.extend(from.config_map_key_ref.as_ref().map(|r| Source::ConfigMap(r.name.clone())));
        found.extend(from.secret_key_ref.as_ref().map(|r| Source::Secret(r.name.clone())));
    }
    found.sort();
    found.dedup();
    found
}

/// Variables in the order they are set.
pub fn build(
    pod: &core::Pod,
    container: &core::Container,
    services: &BTreeMap<String, String>,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, SpecError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut vars: BTreeMap<String, String> = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        add_all(&mut vars, from, namespace, sources)?;
    }
    // Later variables see earlier ones, service variables come last in precedence.
    let mut own: Vec<String> = Vec::new();
    let mut scope = services.clone();
    scope.extend(vars.clone());
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &scope)),
            (_, Some(from)) => from_reference(pod, container, from, sources, facts)?,
            _ => Some(String::new()),
        };
        // An optional reference to nothing sets nothing.
        let Some(value) = value else { continue };
        own.retain(|name| *name != var.name);
        own.push(var.name.clone());
        scope.insert(var.name.clone(), value.clone());
        vars.insert(var.name.clone(), value);
    }
    let mut list: Vec<(String, String)> = Vec::new();
    for (name, value) in services {
        if !vars.contains_key(name) {
            list.push((name.clone(), value.clone()));
        }
    }
    list.extend(vars.iter().filter(|(name, _)| !own.contains(name)).map(|(name, value)| (name.clone(), value.clone())));
    list.extend(own.into_iter().map(|name| (name.clone(), vars[&name].clone())));
    Ok(list)
}

fn add_all(
    vars: &mut BTreeMap<String, String>,
    from: &core::EnvFromSource,
    namespace: &str,
    sources: &Sources,
) -> Result<(), SpecError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let reference = match (&from.config_map_ref, &from.secret_ref) {
        (Some(map), _) => Some((Source::ConfigMap(map.name.clone()), map.optional)),
        (None, Some(secret)) => Some((Source::Secret(secret.name.clone()), secret.optional)),
        (None, None) => None,
    };
    let Some((source, optional)) = reference else { return Ok(()) };
    let Some(data) = sources.get(&source).and_then(Option::as_ref) else {
        return if optional == Some(true) { Ok(()) } else { Err(source.not_found(namespace)) };
    };
    for (key, value) in data {
        let name = format!("{prefix}{key}");
        if is_variable_name(&name) {
            vars.insert(name, String::from_utf8_lossy(value).into_owned());
        }
    }
    Ok(())
}

/// Printable ASCII without `=` (relaxed validation, GA in 1.34).
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

impl Source {
    pub fn not_found(&self, _namespace: &str) -> SpecError {
        match self {
            Source::ConfigMap(name) => SpecError::new(format!("configmap {name:?} not found")),
            Source::Secret(name) => SpecError::new(format!("secret {name:?} not found")),
        }
    }

    fn key_missing(&self, namespace: &str, key: &str) -> SpecError {
        match self {
            Source::ConfigMap(name) => {
                SpecError::new(format!("couldn't find key {key} in ConfigMap {namespace}/{name}"))
            }
            Source::Secret(name) => SpecError::new(format!("couldn't find key {key} in Secret {namespace}/{name}")),
        }
    }
}

fn from_reference(
    pod: &core::Pod,
    container: &core::Container,
    from: &core::EnvVarSource,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, SpecError> {
    if let Some(field) = &from.field_ref {
        return field_value(pod, &field.field_path, facts).map(Some);
    }
    if let Some(field) = &from.resource_field_ref {
        return resource_value(pod, Some(container), field, facts).map(Some);
    }
    let reference = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(map), _) => Some((Source::ConfigMap(map.name.clone()), &map.key, map.optional)),
        (None, Some(secret)) => Some((Source::Secret(secret.name.clone()), &secret.key, secret.optional)),
        (None, None) => None,
    };
    let Some((source, key, optional)) = reference else { return Ok(Some(String::new())) };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let optional = optional == Some(true);
    let Some(data) = sources.get(&source).and_then(Option::as_ref) else {
        return if optional { Ok(None) } else { Err(source.not_found(namespace)) };
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(source.key_missing(namespace, key)),
    }
}

/// A `fieldPath` of the downward API.
pub fn field_value(pod: &core::Pod, path: &str, facts: &Facts) -> Result<String, SpecError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(SpecError::new(format!("fieldPath {path:?} is not supported"))),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec.map(|spec| text(&spec.service_account_name)).unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(SpecError::new(format!("unsupported fieldPath: {other}"))),
    })
}

/// `key="value"` lines in key order, values quoted as Go's `%q`.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A `resourceFieldRef`, of the container it names or of `own`.
pub fn resource_value(
    pod: &core::Pod,
    own: Option<&core::Container>,
    field: &core::ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, SpecError> {
    let container = match field.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => own,
        Some(name) => crate::pod::order::container(pod, name),
    };
    let Some(container) = container else {
        let name = field.container_name.as_deref().unwrap_or_default();
        return Err(SpecError::new(format!("container {name} not found")));
    };
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let wanted = field.resource.as_str();
    let (side, name) = wanted.split_once('.').unwrap_or(("", wanted));
    let fallback = match name {
        "cpu" => i128::from(facts.allocatable_cpu_milli),
        "memory" => i128::from(facts.allocatable_memory_bytes) * 1000,
        "ephemeral-storage" => i128::from(facts.allocatable_storage_bytes) * 1000,
        _ => 0,
    };
    let value = |map: Option<&BTreeMap<String, _>>| map.and_then(|map| map.get(name)).map(resources::quantity);
    let milli = match side {
        "limits" => value(limits).filter(|value| *value != 0).unwrap_or(fallback),
        "requests" => value(requests).or_else(|| value(limits)).unwrap_or(0),
        _ => return Err(SpecError::new(format!("unsupported container resource : {wanted}"))),
    };
    let divisor = field.divisor.as_ref().map(resources::quantity).filter(|divisor| *divisor != 0).unwrap_or(1000);
    Ok(((milli + divisor - 1).div_euclid(divisor)).to_string())
}

// === services ===

/// The variables that tell a pod of the services it may use. The `kubernetes` service is always told.
pub fn service_variables<'a>(
    services: impl Iterator<Item = &'a core::Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let (Some(name), Some(of)) = (&meta.name, &meta.namespace) else { continue };
        let master = of == "default" && name == "kubernetes";
        if master || (links && of == namespace) {
            add_service(&mut vars, name, service);
        }
    }
    vars
}

fn add_service(vars: &mut BTreeMap<String, String>, name: &str, service: &core::Service) {
    let Some(spec) = &service.spec else { return };
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let (Some(first), false) = (spec.ports.as_ref().and_then(|ports| ports.first()), ip.is_empty() || ip == "None")
    else {
        return;
    };
    let upper = name.to_uppercase().replace('-', "_");
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    vars.insert(format!("{upper}_SERVICE_HOST"), ip.to_owned());
    vars.insert(format!("{upper}_SERVICE_PORT"), first.port.to_string());
    for port in spec.ports.iter().flatten() {
        if let Some(name) = port.name.as_ref().filter(|name| !name.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            vars.insert(format!("{upper}_SERVICE_PORT_{name}"), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let prefix = format!("{upper}_PORT_{}_{}", port.port, protocol.to_uppercase());
        let url = format!("{lower}://{host}:{}", port.port);
        vars.entry(format!("{upper}_PORT")).or_insert_with(|| url.clone());
        vars.insert(prefix.clone(), url);
        vars.insert(format!("{prefix}_PROTO"), lower);
        vars.insert(format!("{prefix}_PORT"), port.port.to_string());
        vars.insert(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: serde_json::Value) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}, "annotations": {"a": "x\"y"}},
            "spec": {"serviceAccountName": "robot", "containers": [container]},
        }))
        .unwrap()
    }

    fn check(container: serde_json::Value) -> Result<Vec<(String, String)>, SpecError> {
        let pod = pod(container);
        let mut sources = Sources::new();
        let data = BTreeMap::from([("key".to_owned(), b"value".to_vec()), ("b=d".to_owned(), b"no".to_vec())]);
        sources.insert(Source::ConfigMap("cm".into()), Some(data.clone()));
        sources.insert(Source::Secret("s".into()), Some(data));
        sources.insert(Source::Secret("gone".into()), None);
        let services = BTreeMap::from([("KUBERNETES_SERVICE_HOST".to_owned(), "10.43.0.1".to_owned())]);
        let facts = Facts {
            node_name: "n1".into(),
            pod_ips: vec!["10.42.0.5".into(), "fd00::5".into()],
            allocatable_cpu_milli: 2000,
            allocatable_memory_bytes: 4 << 30,
            ..Facts::default()
        };
        let container = pod.spec.clone().unwrap().containers.remove(0);
        build(&pod, &container, &services, &sources, &facts)
    }

    fn text(list: &[(String, String)]) -> String {
        list.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn values_references_and_expansion() {
        let list = check(json!({"name": "c", "resources": {"requests": {"cpu": "250m"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(KUBERNETES_SERVICE_HOST)-$$(A)-$(P_key)-$(LATER)"},
            {"name": "LATER", "value": "z"},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "key", "optional": true}}},
        ]}));
        assert_eq!(
            text(&list.unwrap()),
            "KUBERNETES_SERVICE_HOST=10.43.0.1 P_key=value A=1 B=1-10.43.0.1-$(A)-value-$(LATER) LATER=z \
             IPS=10.42.0.5,fd00::5 APP=web CPU=250 MEM=4096 S=value"
        );
    }

    #[test]
    fn a_missing_object_or_key_is_named() {
        let error = |env: serde_json::Value| {
            check(json!({"name": "c", "env": [{"name": "X", "valueFrom": env}]})).unwrap_err().message
        };
        assert_eq!(error(json!({"secretKeyRef": {"name": "gone", "key": "k"}})), "secret \"gone\" not found");
        assert_eq!(
            error(json!({"configMapKeyRef": {"name": "cm", "key": "k"}})),
            "couldn't find key k in ConfigMap shop/cm"
        );
    }

    #[test]
    fn service_links() {
        let service: core::Service = serde_json::from_value(json!({
            "metadata": {"name": "my-db", "namespace": "shop"},
            "spec": {"clusterIP": "10.43.0.7", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
        }))
        .unwrap();
        let vars = service_variables([&service].into_iter(), "shop", true);
        assert_eq!(vars["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(vars["MY_DB_PORT"], "tcp://10.43.0.7:5432");
        assert_eq!(vars["MY_DB_PORT_5432_TCP_ADDR"], "10.43.0.7");
        assert!(service_variables([&service].into_iter(), "shop", false).is_empty());
    }
}
