//! Pod Security: the baseline and restricted standards, per namespace label.

use api::{Status, Tree};

use crate::context::{Cx, Gathered};
use crate::doc;

const LABEL: &str = "pod-security.kubernetes.io/";
/// Volume sources that the restricted standard allows.
const RESTRICTED_VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
const BASELINE_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: [&str; 11] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(word: &str) -> Option<Level> {
        match word {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// What a namespace asks for in a mode (`enforce`, `warn`), and in which version's words.
fn level(cx: &Cx<'_>, mode: &str) -> (Level, String) {
    let namespace = cx.read("", "namespaces", "", &cx.request.namespace);
    let label = |name: &str| {
        let labels = namespace.as_ref().map(|namespace| &namespace.header.labels);
        labels.and_then(|labels| labels.get(name)).map(|value| value.to_string())
    };
    let version = label(&format!("{LABEL}{mode}-version")).unwrap_or_else(|| "latest".to_owned());
    let config = cx.ports.config;
    let exempt = config.pod_security_exempt.contains(&cx.request.namespace);
    let default = if exempt || mode != "enforce" { "privileged" } else { &config.pod_security_default };
    let word = label(&format!("{LABEL}{mode}"));
    // A word nobody knows means the strictest, as upstream reads it.
    let level = word.map_or(Level::parse(default), |word| Level::parse(&word)).unwrap_or(Level::Restricted);
    (level, version)
}

/// Pods that violate the enforced level are refused; the warned level only warns.
pub(super) fn enforce(cx: &Cx<'_>, pod: &Tree, old: Option<&Tree>, gathered: &mut Gathered) -> Result<(), Status> {
    if old.is_some_and(|old| doc::get(old, "spec") == doc::get(pod, "spec")) {
        return Ok(());
    }
    let (enforced, version) = level(cx, "enforce");
    let found = violations(enforced, pod);
    if !found.is_empty() {
        let why = format!("violates PodSecurity \"{}:{version}\": {}", enforced.as_str(), found.join(", "));
        return Err(cx.forbidden(doc::text(pod, "metadata.name"), &why));
    }
    let (warned, version) = level(cx, "warn");
    let found = violations(warned, pod);
    if !found.is_empty() {
        gathered.warnings.push(format!(
            "would violate PodSecurity \"{}:{version}\": {}",
            warned.as_str(),
            found.join(", ")
        ));
    }
    Ok(())
}

/// Workloads are never refused for their template; their pods will be.
pub(super) fn warn(cx: &Cx<'_>, tree: &Tree, old: Option<&Tree>, gathered: &mut Gathered) {
    let path = match cx.kind.gvk.kind.as_str() {
        "CronJob" => "spec.jobTemplate.spec.template",
        "PodTemplate" => "template",
        _ => "spec.template",
    };
    let Some(template) = doc::at(tree, path) else { return };
    if old.is_some_and(|old| doc::get(old, path) == template) {
        return;
    }
    let (warned, version) = level(cx, "warn");
    let found = violations(warned, template);
    if !found.is_empty() {
        gathered.warnings.push(format!(
            "would violate PodSecurity \"{}:{version}\": {}",
            warned.as_str(),
            found.join(", ")
        ));
    }
}

/// What a pod does that its level forbids, in upstream's words.
fn violations(level: Level, pod: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    if level >= Level::Baseline {
        baseline(pod, level, &mut found);
    }
    if level >= Level::Restricted {
        restricted(pod, &mut found);
    }
    found
}

fn containers(pod: &Tree) -> Vec<&Tree> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.iter().flat_map(|list| doc::items(doc::get(pod, "spec"), list)).collect()
}

/// `container "a"` or `containers "a", "b"`, of those that fail a test.
fn named(pod: &Tree, fails: impl Fn(&Tree) -> bool) -> Option<String> {
    let names: Vec<String> = containers(pod)
        .into_iter()
        .filter(|one| fails(one))
        .map(|one| format!("{:?}", doc::text(one, "name")))
        .collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("container {one}")),
        many => Some(format!("containers {}", many.join(", "))),
    }
}

fn words<'a>(tree: &'a Tree, path: &str) -> Vec<&'a str> {
    doc::items(tree, path).iter().filter_map(Tree::as_str).collect()
}

fn baseline(pod: &Tree, level: Level, found: &mut Vec<String>) {
    let spec = doc::get(pod, "spec");
    let host: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| doc::is_true(spec, field))
        .map(|field| format!("{field}=true"))
        .collect();
    if !host.is_empty() {
        found.push(format!("host namespaces ({})", host.join(", ")));
    }
    if let Some(who) = named(pod, |one| doc::is_true(one, "securityContext.privileged")) {
        found.push(format!("privileged ({who} must not set securityContext.privileged=true)"));
    }
    if level == Level::Baseline {
        let beyond = |one: &Tree| {
            words(one, "securityContext.capabilities.add").iter().any(|c| !BASELINE_CAPABILITIES.contains(c))
        };
        if let Some(who) = named(pod, beyond) {
            found.push(format!("non-default capabilities ({who} must not include more than the default set in securityContext.capabilities.add)"));
        }
        let paths: Vec<String> = doc::items(spec, "volumes")
            .iter()
            .filter(|volume| doc::has(volume, "hostPath"))
            .map(|volume| format!("{:?}", doc::text(volume, "name")))
            .collect();
        if !paths.is_empty() {
            let what = if paths.len() == 1 { "volume" } else { "volumes" };
            found.push(format!("hostPath volumes ({what} {})", paths.join(", ")));
        }
    }
    let host_port =
        |one: &Tree| doc::items(one, "ports").iter().any(|port| doc::int(port, "hostPort").unwrap_or(0) != 0);
    if let Some(who) = named(pod, host_port) {
        found.push(format!("hostPort ({who} uses hostPorts)"));
    }
    let unmasked = |one: &Tree| doc::text(one, "securityContext.procMount") == "Unmasked";
    if let Some(who) = named(pod, unmasked) {
        found.push(format!("procMount ({who} must not set securityContext.procMount)"));
    }
    let unsafe_sysctls: Vec<String> = doc::items(spec, "securityContext.sysctls")
        .iter()
        .map(|sysctl| doc::text(sysctl, "name"))
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .map(str::to_owned)
        .collect();
    if !unsafe_sysctls.is_empty() {
        found.push(format!("forbidden sysctls ({})", unsafe_sysctls.join(", ")));
    }
    let unconfined =
        |holder: &Tree, field: &str| doc::text(holder, &format!("securityContext.{field}.type")) == "Unconfined";
    if level == Level::Baseline
        && (unconfined(spec, "seccompProfile") || named(pod, |one| unconfined(one, "seccompProfile")).is_some())
    {
        found.push("seccompProfile (must not set securityContext.seccompProfile.type to \"Unconfined\")".to_owned());
    }
    if unconfined(spec, "appArmorProfile") || named(pod, |one| unconfined(one, "appArmorProfile")).is_some() {
        found.push("forbidden AppArmor profile (must not set AppArmor profile type to \"Unconfined\")".to_owned());
    }
}

fn restricted(pod: &Tree, found: &mut Vec<String>) {
    let spec = doc::get(pod, "spec");
    let escalates = |one: &Tree| doc::get(one, "securityContext.allowPrivilegeEscalation") != false;
    if let Some(who) = named(pod, escalates) {
        found.push(format!(
            "allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
        ));
    }
    let mut capabilities = Vec::new();
    if let Some(who) = named(pod, |one| !words(one, "securityContext.capabilities.drop").contains(&"ALL")) {
        capabilities.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    let adds = |one: &Tree| words(one, "securityContext.capabilities.add").iter().any(|c| *c != "NET_BIND_SERVICE");
    if let Some(who) = named(pod, adds) {
        capabilities
            .push(format!("{who} must not include more than \"NET_BIND_SERVICE\" in securityContext.capabilities.add"));
    }
    if !capabilities.is_empty() {
        found.push(format!("unrestricted capabilities ({})", capabilities.join("; ")));
    }
    let other = |volume: &&Tree| {
        let mut sources = volume.as_object().into_iter().flatten().filter(|(name, _)| *name != "name");
        sources.any(|(source, _)| !RESTRICTED_VOLUMES.contains(&source.as_str()))
    };
    let volumes: Vec<String> = doc::items(spec, "volumes")
        .iter()
        .filter(other)
        .map(|volume| format!("{:?}", doc::text(volume, "name")))
        .collect();
    if !volumes.is_empty() {
        found.push(format!("restricted volume types (volumes {} use restricted volume types)", volumes.join(", ")));
    }
    let pod_flag = doc::get(spec, "securityContext.runAsNonRoot");
    let rootless = |one: &Tree| match doc::get(one, "securityContext.runAsNonRoot") {
        Tree::Null => *pod_flag == true,
        flag => *flag == true,
    };
    if let Some(who) = named(pod, |one| !rootless(one)) {
        found.push(format!("runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"));
    }
    let root = |holder: &Tree| doc::int(holder, "securityContext.runAsUser") == Some(0);
    if root(spec) || named(pod, root).is_some() {
        found.push("runAsUser=0 (pod or container must not set runAsUser=0)".to_owned());
    }
    let profile = |holder: &Tree| doc::text(holder, "securityContext.seccompProfile.type").to_owned();
    let good = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let of_pod = profile(spec);
    let open = |one: &Tree| {
        let own = profile(one);
        if own.is_empty() { !good(&of_pod) } else { !good(&own) }
    };
    if let Some(who) = named(pod, open) {
        found.push(format!("seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"));
    }
}
