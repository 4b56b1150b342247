//! Quality of service: Guaranteed, Burstable or BestEffort, by requests and limits of cpu and memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;

use super::resources::quantity;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

pub fn class(pod: &core::Pod) -> Qos {
    let given = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    match given {
        Some("Guaranteed") => return Qos::Guaranteed,
        Some("Burstable") => return Qos::Burstable,
        Some("BestEffort") => return Qos::BestEffort,
        _ => {}
    }
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let containers: Vec<_> = spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    let mut requested = false;
    let mut guaranteed = true;
    for container in containers {
        let empty = BTreeMap::new();
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|r| r.requests.as_ref()).unwrap_or(&empty);
        let limits = resources.and_then(|r| r.limits.as_ref()).unwrap_or(&empty);
        for name in ["cpu", "memory"] {
            let value = |map: &BTreeMap<_, _>| map.get(name).map(quantity).filter(|value| *value != 0);
            let (request, limit) = (value(requests), value(limits));
            requested |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (requested, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}
