//! The built-in description: every type of Kubernetes 1.36 that is generally available, and the rows of its kinds.
//!
//! Read from the table the build wrote, once per process; cheap to ask from anywhere.

mod kinds;
mod read;

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, LazyLock, OnceLock};

use base::SmolStr;
use flate2::read::ZlibDecoder;

use crate::schema::{Schema, Table, TypeId};
use crate::{Kind, Registry};

pub use kinds::groups;

static TABLE_BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/table.bin"));
static TEXT_BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/texts.bin"));

/// The Kubernetes version that this build serves.
pub const KUBERNETES_VERSION: &str = "v1.36.2";

/// What servers and nodes say that they are, with the version of the program behind it: `v1.36.2+evenkeel.0.1.0`.
pub fn git_version() -> String {
    format!("{KUBERNETES_VERSION}+evenkeel.{}", env!("CARGO_PKG_VERSION"))
}

struct Builtin {
    table: Arc<Table>,
    by_name: HashMap<SmolStr, TypeId>,
}

static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| {
    let table = Arc::new(read::table(&inflate(TABLE_BYTES)));
    let ids = table.types.iter().enumerate();
    let by_name =
        ids.map(|(id, ty)| (ty.name.clone(), TypeId(u32::try_from(id).expect("a few hundred types")))).collect();
    Builtin { table, by_name }
});

/// All built-in kinds, in a new registry. Custom kinds are added to a clone of it.
pub fn registry() -> Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(kinds::all()));
    REGISTRY.clone()
}

/// A type by its OpenAPI definition name: `io.k8s.api.core.v1.Pod`.
pub fn schema(name: &str) -> Option<Schema> {
    BUILTIN.by_name.get(name).map(|id| Schema::new(BUILTIN.table.clone(), *id))
}

/// The schema of `meta/v1` types, by their short name: `ObjectMeta`, `Status`, `DeleteOptions`.
pub fn meta_schema(kind: &str) -> Option<Schema> {
    schema(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))
}

/// The whole table, for those who walk it.
pub fn table() -> &'static Arc<Table> {
    &BUILTIN.table
}

/// The text of a type or field of the built-in table; empty for 0. The first call unpacks all texts.
pub fn description(offset: u32) -> &'static str {
    static TEXTS: OnceLock<String> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| String::from_utf8(inflate(TEXT_BYTES)).expect("the build wrote UTF-8"));
    let rest = texts.get(offset as usize..).unwrap_or_default();
    rest.split('\0').next().unwrap_or_default()
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ZlibDecoder::new(bytes).read_to_end(&mut out).expect("the build wrote it");
    out
}

/// The kind whose bodies a subresource takes, when that is not the parent's: `Scale`, `Eviction`, `TokenRequest`.
pub fn subresource_schema(kind: &Kind, subresource: &str) -> Option<Schema> {
    let gvk = &kind.subresource(subresource)?.gvk;
    if *gvk == kind.gvk { Some(kind.schema.clone()) } else { schema_of(&gvk.group, &gvk.version, &gvk.kind) }
}

/// A type by group, version and kind, also of kinds that are no resources (`Scale`, `DeleteOptions`, lists).
pub fn schema_of(group: &str, version: &str, kind: &str) -> Option<Schema> {
    schema(&definition_name(group, version, kind))
}

/// The OpenAPI definition name that upstream gives a kind.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    if matches!(
        kind,
        "Status" | "DeleteOptions" | "APIVersions" | "APIGroupList" | "APIGroup" | "APIResourceList" | "WatchEvent"
    ) && version == "v1"
        && group.is_empty()
    {
        return format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
    }
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
        "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}"),
        "rbac.authorization.k8s.io" => format!("io.k8s.api.rbac.{version}.{kind}"),
        "flowcontrol.apiserver.k8s.io" => format!("io.k8s.api.flowcontrol.{version}.{kind}"),
        "meta.k8s.io" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"),
        group => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
    }
}

#[cfg(test)]
mod tests {
    use super::{description, schema};
    use crate::FieldType;

    #[test]
    fn the_table_knows_pods() {
        let pod = schema("io.k8s.api.core.v1.Pod").unwrap();
        let spec = pod.field("spec").unwrap();
        assert_eq!(spec.number, 2);
        assert!(description(spec.description).contains("desired behavior of the pod"));
        let spec = pod.child(&spec.ty).unwrap();
        assert_eq!(spec.field("restartPolicy").unwrap().default, Some("Always".into()));
        let volumes = spec.field("volumes").unwrap();
        let volume = spec.child(&volumes.ty).unwrap();
        assert_eq!(volumes.patch.merge_key, "name");
        assert!(volumes.patch.retain_keys);
        assert!(
            matches!(volume.field("emptyDir").unwrap().ty, FieldType::Struct(_)),
            "seen through the inlined struct"
        );
    }

    #[test]
    fn types_that_are_no_resources_are_there() {
        for name in [
            "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
            "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
            "io.k8s.api.autoscaling.v1.Scale",
            "io.k8s.api.policy.v1.Eviction",
            "io.k8s.api.authentication.v1.TokenRequest",
            "io.k8s.api.core.v1.PodList",
        ] {
            assert!(schema(name).is_some(), "{name}");
        }
    }
}
