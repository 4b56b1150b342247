//! Security contexts of pod and container as what the runtime enforces.

use std::path::Path;

use k8s_openapi::api::core::v1 as core;

use super::SpecError;
use crate::runtime::{
    ContainerSecurity, Image, NamespaceMode, Namespaces, SandboxSecurity, SecurityProfile, SelinuxOptions,
    UserNamespace,
};

/// Paths hidden or read-only in every container with the default `procMount`.
const MASKED: [&str; 13] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/fs/selinux",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub fn namespaces(pod: &core::Pod) -> Namespaces {
    let Some(spec) = &pod.spec else { return Namespaces::default() };
    let mode = |host: Option<bool>| if host == Some(true) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = if spec.host_pid == Some(true) {
        NamespaceMode::Node
    } else if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    Namespaces { network: mode(spec.host_network), ipc: mode(spec.host_ipc), pid, user: None }
}

/// `hostUsers: false`: 65,536 ids of the host for this pod alone, found by its slot.
pub fn user_namespace(pod: &core::Pod, slot: Option<u32>) -> Option<UserNamespace> {
    let wanted = pod.spec.as_ref()?.host_users == Some(false);
    let slot = slot.filter(|_| wanted)?;
    Some(UserNamespace { host_id: 65_536 * (slot + 1), container_id: 0, length: 65_536 })
}

pub fn seccomp(profile: Option<&core::SeccompProfile>, root: &Path) -> SecurityProfile {
    match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => SecurityProfile::RuntimeDefault,
        Some("Localhost") => {
            let file = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            SecurityProfile::Localhost(root.join(file).to_string_lossy().into_owned())
        }
        _ => SecurityProfile::Unconfined,
    }
}

fn apparmor(profile: &core::AppArmorProfile) -> SecurityProfile {
    match profile.type_.as_str() {
        "Localhost" => SecurityProfile::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        "Unconfined" => SecurityProfile::Unconfined,
        _ => SecurityProfile::RuntimeDefault,
    }
}

fn selinux(options: &core::SELinuxOptions) -> SelinuxOptions {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    SelinuxOptions {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

pub fn sandbox(pod: &core::Pod, seccomp_root: &Path) -> SandboxSecurity {
    let spec = pod.spec.as_ref();
    let context = spec.and_then(|spec| spec.security_context.as_ref());
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let privileged =
        containers.into_iter().any(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    SandboxSecurity {
        namespaces: namespaces(pod),
        run_as_user: context.and_then(|context| context.run_as_user),
        run_as_group: context.and_then(|context| context.run_as_group),
        supplemental_groups: groups(pod, &[]),
        readonly_rootfs: false,
        privileged,
        // The sandbox itself runs nothing of the user's.
        seccomp: match seccomp(context.and_then(|context| context.seccomp_profile.as_ref()), seccomp_root) {
            SecurityProfile::Unconfined => SecurityProfile::RuntimeDefault,
            profile => profile,
        },
        selinux: context.and_then(|context| context.se_linux_options.as_ref()).map(selinux),
    }
}

/// fsGroup, supplementalGroups and the groups that volumes bring.
fn groups(pod: &core::Pod, volume_groups: &[i64]) -> Vec<i64> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let mut groups: Vec<i64> = context.iter().flat_map(|c| c.supplemental_groups.iter().flatten().copied()).collect();
    groups.extend(context.and_then(|context| context.fs_group));
    groups.extend_from_slice(volume_groups);
    groups.sort_unstable();
    groups.dedup();
    groups
}

pub fn container(
    pod: &core::Pod,
    context: Option<&core::SecurityContext>,
    image: &Image,
    seccomp_root: &Path,
    volume_groups: &[i64],
) -> Result<ContainerSecurity, SpecError> {
    let pod_context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let user = context.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user));
    let non_root = context.and_then(|c| c.run_as_non_root).or(pod_context.and_then(|c| c.run_as_non_root));
    if non_root == Some(true) {
        check_non_root(user, image)?;
    }
    let privileged = context.is_some_and(|c| c.privileged == Some(true));
    let capabilities = context.and_then(|c| c.capabilities.as_ref());
    let own_seccomp = context.and_then(|c| c.seccomp_profile.as_ref());
    let profile = own_seccomp.or(pod_context.and_then(|c| c.seccomp_profile.as_ref()));
    let own_apparmor = context.and_then(|c| c.app_armor_profile.as_ref());
    let own_selinux = context.and_then(|c| c.se_linux_options.as_ref());
    let unmasked = context.is_some_and(|c| c.proc_mount.as_deref() == Some("Unmasked"));
    let paths = |list: &[&str]| {
        if privileged || unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() }
    };
    Ok(ContainerSecurity {
        privileged,
        namespaces: namespaces(pod),
        target_container: String::new(),
        run_as_user: user.or(image.uid),
        run_as_username: if user.is_none() && image.uid.is_none() { image.username.clone() } else { String::new() },
        run_as_group: context.and_then(|c| c.run_as_group).or(pod_context.and_then(|c| c.run_as_group)),
        supplemental_groups: groups(pod, volume_groups),
        strict_groups: pod_context.is_some_and(|c| c.supplemental_groups_policy.as_deref() == Some("Strict")),
        readonly_rootfs: context.is_some_and(|c| c.read_only_root_filesystem == Some(true)),
        no_new_privs: context.is_some_and(|c| c.allow_privilege_escalation == Some(false)) && !privileged,
        capabilities_add: capabilities.iter().flat_map(|c| c.add.iter().flatten().cloned()).collect(),
        capabilities_drop: capabilities.iter().flat_map(|c| c.drop.iter().flatten().cloned()).collect(),
        seccomp: if privileged { SecurityProfile::Unconfined } else { seccomp(profile, seccomp_root) },
        apparmor: own_apparmor.or(pod_context.and_then(|c| c.app_armor_profile.as_ref())).map(apparmor),
        selinux: own_selinux.or(pod_context.and_then(|c| c.se_linux_options.as_ref())).map(selinux),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READONLY),
    })
}

fn check_non_root(user: Option<i64>, image: &Image) -> Result<(), SpecError> {
    match (user, image.uid) {
        (Some(0), _) => Err(SpecError::new("container's runAsUser breaks non-root policy")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(SpecError::new("container has runAsNonRoot and image will run as root")),
        (None, None) if image.username.is_empty() => {
            Err(SpecError::new("container has runAsNonRoot and image will run as root"))
        }
        (None, None) => {
            let name = &image.username;
            let text = format!(
                "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
            );
            Err(SpecError::new(text))
        }
        (None, Some(_)) => Ok(()),
    }
}
