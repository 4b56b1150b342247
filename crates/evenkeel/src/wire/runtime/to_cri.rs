//! The node's wishes in CRI's types.

use container::v1;
use node::runtime::{
    ContainerConfig, ContainerSecurity, DnsConfig, NamespaceMode, Namespaces, PortMapping, Propagation, Protocol,
    RegistryAuth, Resources, SandboxConfig, SandboxSecurity, SecurityProfile, SelinuxOptions,
};

pub fn sandbox(config: &SandboxConfig) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: config.name.clone(),
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.display().to_string(),
        dns_config: config.dns.as_ref().map(dns),
        port_mappings: config.port_mappings.iter().map(port).collect(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(sandbox_security(&config.security)),
            sysctls: config.sysctls.clone().into_iter().collect(),
            ..v1::LinuxPodSandboxConfig::default()
        }),
        ..v1::PodSandboxConfig::default()
    }
}

fn dns(config: &DnsConfig) -> v1::DnsConfig {
    v1::DnsConfig {
        servers: config.servers.clone(),
        searches: config.searches.clone(),
        options: config.options.clone(),
    }
}

fn port(mapping: &PortMapping) -> v1::PortMapping {
    let protocol = match mapping.protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    };
    v1::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.clone(),
    }
}

fn sandbox_security(security: &SandboxSecurity) -> v1::LinuxSandboxSecurityContext {
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(&security.namespaces, "")),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: security.run_as_user.map(number),
        run_as_group: security.run_as_group.map(number),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        privileged: security.privileged,
        seccomp: Some(profile(&security.seccomp)),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

fn namespaces(wanted: &Namespaces, target: &str) -> v1::NamespaceOption {
    let user = wanted.user.as_ref().map(|user| {
        let mapping = v1::IdMapping { host_id: user.host_id, container_id: user.container_id, length: user.length };
        v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: vec![mapping], gids: vec![mapping] }
    });
    v1::NamespaceOption {
        network: mode(wanted.network),
        pid: mode(wanted.pid),
        ipc: mode(wanted.ipc),
        target_id: target.to_owned(),
        userns_options: user,
    }
}

fn mode(mode: NamespaceMode) -> i32 {
    match mode {
        NamespaceMode::Pod => v1::NamespaceMode::Pod,
        NamespaceMode::Container => v1::NamespaceMode::Container,
        NamespaceMode::Node => v1::NamespaceMode::Node,
        NamespaceMode::Target => v1::NamespaceMode::Target,
    }
    .into()
}

fn profile(profile: &SecurityProfile) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, reference) = match profile {
        SecurityProfile::Unconfined => (ProfileType::Unconfined, String::new()),
        SecurityProfile::RuntimeDefault => (ProfileType::RuntimeDefault, String::new()),
        SecurityProfile::Localhost(reference) => (ProfileType::Localhost, reference.clone()),
    };
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref: reference }
}

fn selinux(options: &SelinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.r#type.clone(),
        level: options.level.clone(),
    }
}

fn number(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

pub fn container(config: &ContainerConfig) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(v1::ImageSpec {
            image: config.image_ref.clone(),
            user_specified_image: config.image_name.clone(),
            ..v1::ImageSpec::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: config.mounts.iter().map(mount).collect(),
        devices: config.devices.iter().map(device).collect(),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        log_path: config.log_path.display().to_string(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(security(&config.security)),
        }),
        ..v1::ContainerConfig::default()
    }
}

fn mount(mount: &node::runtime::Mount) -> v1::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
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

fn device(device: &node::runtime::Device) -> v1::Device {
    v1::Device {
        container_path: device.container_path.clone(),
        host_path: device.host_path.display().to_string(),
        permissions: device.permissions.clone(),
    }
}

pub fn resources(wanted: &Resources) -> v1::LinuxContainerResources {
    let pages = wanted.hugepages.iter();
    v1::LinuxContainerResources {
        cpu_period: wanted.cpu_period_us,
        cpu_quota: wanted.cpu_quota_us,
        cpu_shares: wanted.cpu_shares,
        memory_limit_in_bytes: wanted.memory_limit_bytes,
        oom_score_adj: wanted.oom_score_adj,
        cpuset_cpus: wanted.cpuset_cpus.clone(),
        cpuset_mems: wanted.cpuset_mems.clone(),
        hugepage_limits: pages
            .map(|(size, limit)| v1::HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        unified: wanted.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: wanted.memory_swap_limit_bytes,
    }
}

fn security(security: &ContainerSecurity) -> v1::LinuxContainerSecurityContext {
    let capabilities = v1::Capability {
        add_capabilities: security.capabilities_add.clone(),
        drop_capabilities: security.capabilities_drop.clone(),
        ..v1::Capability::default()
    };
    let groups =
        if security.strict_groups { v1::SupplementalGroupsPolicy::Strict } else { v1::SupplementalGroupsPolicy::Merge };
    v1::LinuxContainerSecurityContext {
        capabilities: Some(capabilities),
        privileged: security.privileged,
        namespace_options: Some(namespaces(&security.namespaces, &security.target_container)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: security.run_as_user.map(number),
        run_as_group: security.run_as_group.map(number),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: groups.into(),
        no_new_privs: security.no_new_privs,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: Some(profile(&security.seccomp)),
        apparmor: security.apparmor.as_ref().map(profile),
        ..v1::LinuxContainerSecurityContext::default()
    }
}

pub fn auth(auth: &RegistryAuth) -> v1::AuthConfig {
    v1::AuthConfig {
        username: auth.username.clone(),
        password: auth.password.clone(),
        auth: auth.auth.clone(),
        server_address: auth.server_address.clone(),
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
    }
}
