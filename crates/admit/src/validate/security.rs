//! Who a pod runs as and what it may ask of the kernel: security contexts and sysctls.

use std::collections::BTreeSet;

use api::Tree;
use serde_json::json;

use crate::causes::{At, Causes};
use crate::doc;

/// Users and groups are at most this.
const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_LENGTH_MAX: usize = 253;
const SYSCTL_RULE: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The context of a whole pod.
pub(super) fn pod(spec: &Tree, at: &At, causes: &mut Causes) {
    let Some(context) = doc::at(spec, "securityContext") else { return };
    let at = at.child("securityContext");
    common(context, &at, causes);
    id(context, "fsGroup", &at, causes);
    for (index, group) in doc::items(context, "supplementalGroups").iter().enumerate() {
        check_id(group, &at.child("supplementalGroups").index(index), causes);
    }
    let host_network = doc::is_true(spec, "hostNetwork");
    let mut seen = BTreeSet::new();
    for (index, sysctl) in doc::items(context, "sysctls").iter().enumerate() {
        let at = at.child("sysctls").index(index);
        let name = doc::text(sysctl, "name");
        if name.is_empty() {
            continue;
        }
        if !is_sysctl(name) {
            causes.invalid_text(&at.child("name"), name, SYSCTL_RULE);
        } else if !seen.insert(name) {
            causes.duplicate(&at.child("name"), &json!(name));
        }
        if host_network && name.replace('/', ".").starts_with("net.") {
            causes.invalid_text(&at.child("name"), name, "may not be specified when 'hostNetwork' is true");
        }
    }
}

/// The context of one container.
pub(super) fn container(one: &Tree, at: &At, causes: &mut Causes) {
    let Some(context) = doc::at(one, "securityContext") else { return };
    let at = at.child("securityContext");
    common(context, &at, causes);
    if doc::at(context, "allowPrivilegeEscalation") != Some(&Tree::Bool(false)) {
        return;
    }
    let refuse = |what: &str| format!("cannot set `allowPrivilegeEscalation` to false and {what}");
    if doc::is_true(context, "privileged") {
        causes.invalid(&at, context, &refuse("`privileged` to true"));
    }
    if doc::items(context, "capabilities.add").iter().any(|name| name == "CAP_SYS_ADMIN") {
        causes.invalid(&at, context, &refuse("`capabilities.Add` CAP_SYS_ADMIN"));
    }
}

fn common(context: &Tree, at: &At, causes: &mut Causes) {
    id(context, "runAsUser", at, causes);
    id(context, "runAsGroup", at, causes);
    for (profile, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile_tree) = doc::at(context, profile) else { continue };
        localhost(profile_tree, name, &at.child(profile).child("localhostProfile"), causes);
    }
}

/// A profile of the node's own is named by a path below the node's folder of profiles.
fn localhost(profile: &Tree, name: &str, at: &At, causes: &mut Causes) {
    let path = doc::text(profile, "localhostProfile");
    let local = doc::text(profile, "type") == "Localhost";
    match (local, path.is_empty()) {
        (true, true) => causes.required(at, &format!("must be set when {name} type is Localhost")),
        (false, false) => causes.invalid_text(at, path, &format!("can only be set when {name} type is Localhost")),
        (true, false) if name == "seccomp" => {
            if path.starts_with('/') {
                causes.invalid_text(at, path, "must be a relative path");
            } else if path.split('/').any(|part| part == "..") {
                causes.invalid_text(at, path, "must not contain '..'");
            }
        }
        _ => {}
    }
}

fn id(context: &Tree, field: &str, at: &At, causes: &mut Causes) {
    if let Some(value) = doc::at(context, field) {
        check_id(value, &at.child(field), causes);
    }
}

fn check_id(value: &Tree, at: &At, causes: &mut Causes) {
    if !value.as_i64().is_some_and(|id| (0..=ID_MAX).contains(&id)) {
        causes.invalid(at, value, "must be between 0 and 2147483647, inclusive");
    }
}

/// Parts of lower-case letters, digits and dashes, divided by dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
            && bytes.iter().all(|byte| plain(*byte) || matches!(byte, b'-' | b'_'))
    };
    name.len() <= SYSCTL_LENGTH_MAX && name.split(['.', '/']).all(part)
}
