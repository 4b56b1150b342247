//! From the node's words to CRI's.

use std::collections::{BTreeMap, HashMap};

use container::v1;
use container::v1::security_profile::ProfileType;
use node::runtime as port;

pub fn map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub fn sandbox(config: &port::SandboxConfig) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    };
    let linux = v1::LinuxPodSandboxConfig {
        cgroup_parent: config.cgroup_parent.clone(),
        security_context: Some(sandbox_security(&config.security)),
        sysctls: map(&config.sysctls),
        ..v1::LinuxPodSandboxConfig::default()
    };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.display().to_string(),
        dns_config: config.dns.as_ref().map(|dns| v1::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
        labels: map(&config.labels),
        annotations: map(&config.annotations),
        linux: Some(linux),
        ..v1::PodSandboxConfig::default()
    }
}

fn port_mapping(mapping: &port::PortMapping) -> v1::PortMapping {
    let protocol = match mapping.protocol {
        port::Protocol::Tcp => v1::Protocol::Tcp,
        port::Protocol::Udp => v1::Protocol::Udp,
        port::Protocol::Sctp => v1::Protocol::Sctp,
    };
    v1::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.clone(),
    }
}

fn sandbox_security(security: &port::SandboxSecurity) -> v1::LinuxSandboxSecurityContext {
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&security.namespaces, "")),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        privileged: security.privileged,
        seccomp: Some(profile(&security.seccomp)),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

fn namespaces(namespaces: &port::Namespaces, target: &str) -> v1::NamespaceOption {
    let mode = |mode: port::NamespaceMode| -> i32 {
        match mode {
            port::NamespaceMode::Pod => v1::NamespaceMode::Pod.into(),
            port::NamespaceMode::Container => v1::NamespaceMode::Container.into(),
            port::NamespaceMode::Node => v1::NamespaceMode::Node.into(),
            port::NamespaceMode::Target => v1::NamespaceMode::Target.into(),
        }
    };
    let user = namespaces.user.as_ref().map(|user| {
        let mapping = v1::IdMapping { host_id: user.host_id, container_id: user.container_id, length: user.length };
        v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: vec![mapping], gids: vec![mapping] }
    });
    v1::NamespaceOption {
        network: mode(namespaces.network),
        pid: mode(namespaces.pid),
        ipc: mode(namespaces.ipc),
        target_id: target.to_owned(),
        userns_options: user,
    }
}

fn number(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

fn selinux(options: &port::SelinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.r#type.clone(),
        level: options.level.clone(),
    }
}

fn profile(profile: &port::SecurityProfile) -> v1::SecurityProfile {
    let (kind, local) = match profile {
        port::SecurityProfile::Unconfined => (ProfileType::Unconfined, ""),
        port::SecurityProfile::RuntimeDefault => (ProfileType::RuntimeDefault, ""),
        port::SecurityProfile::Localhost(name) => (ProfileType::Localhost, name.as_str()),
    };
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref: local.to_owned() }
}

pub fn container(config: &port::ContainerConfig) -> v1::ContainerConfig {
    let image = v1::ImageSpec {
        image: config.image_ref.clone(),
        user_specified_image: config.image_name.clone(),
        ..v1::ImageSpec::default()
    };
    let linux = v1::LinuxContainerConfig {
        resources: Some(resources(&config.resources)),
        security_context: Some(container_security(&config.security)),
    };
    let mut annotations = map(&config.annotations);
    if !config.stop_signal.is_empty() {
        // CRI before 1.34 has no field for it; containerd reads this annotation where it knows it.
        annotations.insert("io.kubernetes.container.stop-signal".to_owned(), config.stop_signal.clone());
    }
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(image),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        devices: config.devices.iter().map(device).collect(),
        labels: map(&config.labels),
        annotations,
        log_path: config.log_path.display().to_string(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(linux),
        ..v1::ContainerConfig::default()
    }
}

fn mount(mount: &port::Mount) -> v1::Mount {
    let propagation = match mount.propagation {
        port::Propagation::Private => v1::MountPropagation::PropagationPrivate,
        port::Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        port::Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    v1::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.display().to_string(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        recursive_read_only: mount.recursive_readonly,
        ..v1::Mount::default()
    }
}

fn device(device: &port::Device) -> v1::Device {
    v1::Device {
        container_path: device.container_path.clone(),
        host_path: device.host_path.display().to_string(),
        permissions: device.permissions.clone(),
    }
}

pub fn resources(resources: &port::Resources) -> v1::LinuxContainerResources {
    let pages = resources.hugepages.iter();
    v1::LinuxContainerResources {
        cpu_period: resources.cpu_period_us,
        cpu_quota: resources.cpu_quota_us,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit_bytes,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: pages
            .map(|(size, limit)| v1::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: map(&resources.unified),
        memory_swap_limit_in_bytes: resources.memory_swap_limit_bytes,
    }
}

fn container_security(security: &port::ContainerSecurity) -> v1::LinuxContainerSecurityContext {
    let policy = match security.strict_groups {
        true => v1::SupplementalGroupsPolicy::Strict,
        false => v1::SupplementalGroupsPolicy::Merge,
    };
    let capabilities = v1::Capability {
        add_capabilities: security.capabilities_add.clone(),
        drop_capabilities: security.capabilities_drop.clone(),
        ..v1::Capability::default()
    };
    v1::LinuxContainerSecurityContext {
        capabilities: Some(capabilities),
        privileged: security.privileged,
        namespace_options: Some(namespaces(&security.namespaces, &security.target_container)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: policy.into(),
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: Some(profile(&security.seccomp)),
        apparmor: security.apparmor.as_ref().map(profile),
        ..v1::LinuxContainerSecurityContext::default()
    }
}

pub fn auth(auth: &port::RegistryAuth) -> v1::AuthConfig {
    v1::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}
