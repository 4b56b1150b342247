//! What a pod asks of its node.

use base::SmolStr;
use k8s_openapi::api::core::v1 as core;

use super::Amounts;

/// Host address, protocol and port that a container wants for itself.
pub type HostPort = (SmolStr, SmolStr, i32);

/// The largest of what the containers need together and what init containers need one after the other, beside the
/// sidecars started before; plus overhead. Requests of the pod as a whole take precedence. While a resize is under way
/// a container counts with the larger of what it asks for and what it holds.
pub fn requests(pod: &core::Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let mut total = Amounts::default();
    for container in &spec.containers {
        total.add(&of_container(pod, container));
    }
    let mut sidecars = Amounts::default();
    let mut start = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let mut now = sidecars.clone();
        now.add(&of_container(pod, container));
        start.raise_to(&now);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = now;
        }
    }
    total.add(&sidecars);
    total.raise_to(&start);
    total.0.extend(asked(spec.resources.as_ref()).0);
    total.add(&Amounts::parse(spec.overhead.as_ref()));
    total.0.insert("pods".into(), 1);
    total
}

fn asked(resources: Option<&core::ResourceRequirements>) -> Amounts {
    Amounts::parse(resources.and_then(|all| all.requests.as_ref()))
}

fn of_container(pod: &core::Pod, container: &core::Container) -> Amounts {
    let mut amounts = asked(container.resources.as_ref());
    let status = pod.status.as_ref();
    let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
    let mut held = lists.into_iter().flatten().flatten().flatten();
    if let Some(held) = held.find(|status| status.name == container.name) {
        amounts.raise_to(&Amounts::parse(held.allocated_resources.as_ref()));
    }
    amounts
}

pub fn host_ports(pod: &core::Pod) -> Vec<HostPort> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.into_iter().flat_map(|spec| &spec.containers).chain(sidecars);
    let all = containers.flat_map(|container| container.ports.iter().flatten());
    let hosted = all.filter_map(|port| Some((port, port.host_port.filter(|number| *number > 0)?)));
    hosted
        .map(|(port, number)| {
            let address = port.host_ip.as_deref().filter(|address| !address.is_empty()).unwrap_or("0.0.0.0");
            (address.into(), port.protocol.as_deref().unwrap_or("TCP").into(), number)
        })
        .collect()
}

/// Whether two wishes for host ports exclude each other.
pub fn clash(one: &HostPort, other: &HostPort) -> bool {
    let everywhere = |address: &str| address == "0.0.0.0" || address == "::";
    let address = one.0 == other.0 || everywhere(&one.0) || everywhere(&other.0);
    address && one.1 == other.1 && one.2 == other.2
}
