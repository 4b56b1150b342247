//! Limits of scratch space that a pod sets itself: of an `emptyDir`, of a container, of all containers. Pure.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::rank::evicted;
use super::usage::PodUsage;
use crate::pod::Outcome;
use crate::spec::resources;

const STORAGE: &str = "ephemeral-storage";
/// What an eviction for these limits is counted under.
pub const SIGNAL: &str = "ephemeralpodfs.limit";

/// Whether there is anything to measure.
pub fn has_limits(pod: &core::Pod) -> bool {
    let spec = pod.spec.as_ref();
    let volumes = spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sized = |volume: &core::Volume| volume.empty_dir.as_ref().is_some_and(|empty| empty.size_limit.is_some());
    volumes.into_iter().any(sized) || containers(pod).any(|container| limit(container).is_some())
}

/// The end of a pod that takes more than it may; None where it does not.
pub fn judge(pod: &core::Pod, usage: &PodUsage) -> Option<Outcome> {
    empty_dirs(pod, usage).or_else(|| whole(pod, usage)).or_else(|| one_container(pod, usage)).map(evicted)
}

fn containers(pod: &core::Pod) -> impl Iterator<Item = &core::Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

fn limit(container: &core::Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)
}

fn bytes(quantity: &Quantity) -> i64 {
    i64::try_from(resources::quantity(quantity) / 1000).unwrap_or(i64::MAX)
}

fn empty_dirs(pod: &core::Pod, usage: &PodUsage) -> Option<String> {
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let sized = volumes.filter_map(|volume| Some((&volume.name, volume.empty_dir.as_ref()?.size_limit.as_ref()?)));
    let over = |(name, limit): &(&String, &Quantity)| {
        let used = usage.empty_dirs.get(*name).map_or(0, |du| du.bytes);
        0 < bytes(limit) && bytes(limit) < used
    };
    let (name, limit) = sized.into_iter().find(over)?;
    Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.0))
}

/// The sum of those limits that are set binds what all containers and volumes take together.
fn whole(pod: &core::Pod, usage: &PodUsage) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let limits: Vec<i64> = spec.containers.iter().chain(sidecars).filter_map(limit).map(bytes).collect();
    let inits = spec.init_containers.iter().flatten().filter_map(limit).map(bytes);
    let total = limits.iter().sum::<i64>().max(inits.max().unwrap_or(0));
    if total == 0 || usage.storage().bytes <= total {
        return None;
    }
    let total = api::Quantity::from_bytes(total);
    Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "))
}

fn one_container(pod: &core::Pod, usage: &PodUsage) -> Option<String> {
    let limited = containers(pod).filter_map(|container| Some((&container.name, limit(container)?)));
    let over = |(name, limit): &(&String, &Quantity)| {
        usage.containers.get(*name).is_some_and(|used| bytes(limit) < used.layer.bytes + used.logs.bytes)
    };
    let (name, limit) = limited.into_iter().find(over)?;
    Some(format!("Container {name} exceeded its local ephemeral storage limit {:?}. ", limit.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::usage::{ContainerUsage, Du};
    use serde_json::{Value, json};

    const MIB: i64 = 1 << 20;

    /// Two containers with limits of 10 and 20 MiB and a volume of at most 5 MiB; what they take in MiB.
    fn check(layers: [i64; 2], volume: i64, wanted: &str) {
        let container = |name: &str, limit: &str| {
            let limits: Value = json!({"ephemeral-storage": limit});
            json!({"name": name, "resources": {"limits": limits}})
        };
        let pod: core::Pod = serde_json::from_value(json!({"spec": {
            "containers": [container("a", "10Mi"), container("b", "20Mi")],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "5Mi"}}, {"name": "w", "emptyDir": {}}],
        }}))
        .unwrap();
        let used = |mib: i64| Du { bytes: mib * MIB, inodes: 1 };
        let container = |mib: i64| ContainerUsage { layer: used(mib), ..ContainerUsage::default() };
        let usage = PodUsage {
            containers: [("a".to_owned(), container(layers[0])), ("b".to_owned(), container(layers[1]))].into(),
            empty_dirs: [("v".to_owned(), used(volume))].into(),
            ..PodUsage::default()
        };
        assert!(has_limits(&pod));
        assert_eq!(judge(&pod, &usage).map(|outcome| outcome.message).unwrap_or_default(), wanted);
    }

    #[test]
    fn a_pod_that_takes_more_than_it_may_is_told_of_what() {
        check([10, 15], 5, "");
        check([1, 1], 6, "Usage of EmptyDir volume \"v\" exceeds the limit \"5Mi\". ");
        check([10, 20], 5, "Pod ephemeral local storage usage exceeds the total limit of containers 30Mi. ");
        check([11, 1], 0, "Container a exceeded its local ephemeral storage limit \"10Mi\". ");
    }
}
