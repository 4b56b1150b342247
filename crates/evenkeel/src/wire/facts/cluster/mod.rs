//! What the cluster's record says, through the API: lists in, facts out. What is made of the lists is pure.

mod drift;
mod images;
mod keeping;
mod nodes;
mod objects;
mod pods;
mod workloads;

use std::net::{IpAddr, SocketAddr, UdpSocket};

use api::{Gvr, Tree};
use base::{Chain, Clock};
use futures::future::{FutureExt, join4, join5};
use jiff::Timestamp;
use keeper::wrong::{API, Fact, Missing, Name, RECORD, What};
use serde_json::Value;
use view::{Client, ClientError, ListOptions};

use super::NO_ANSWER;
use super::reach::Target;
use crate::wire::SystemClock;

/// Lists of one look. One that was refused or late is a reason.
#[derive(Default)]
pub struct Lists {
    pub nodes: List,
    pub leases: List,
    pub pods: List,
    pub deployments: List,
    pub replica_sets: List,
    pub stateful_sets: List,
    pub daemon_sets: List,
    pub budgets: List,
    pub namespaces: List,
    pub claims: List,
    pub volumes: List,
    pub validating: List,
    pub mutating: List,
    pub slices: List,
    /// Who may do everything.
    pub bindings: List,
    /// ConfigMaps of `kube-system`: of backups, of runs, of people.
    pub records: List,
}

/// Objects of one kind, or why there are none.
#[derive(Default)]
pub struct List {
    what: &'static str,
    pub items: Vec<Tree>,
    why: Option<String>,
}

// === impl Lists ===

impl Lists {
    /// All of them at once. Each has a place of its own on the heap: together they would be more than a stack holds.
    pub async fn read(client: &Client) -> Lists {
        let list = |gvr: Gvr, what| list(client, gvr, what, ListOptions::default()).boxed();
        let apps = |resource: &str| Gvr::new("apps", "v1", resource);
        let core = |resource: &str| Gvr::new("", "v1", resource);
        let hooks = |resource: &str| Gvr::new("admissionregistration.k8s.io", "v1", resource);
        let records = ListOptions { namespace: Some("kube-system"), ..ListOptions::default() };
        let (workloads, rest, more) = tokio::join!(
            join4(
                list(apps("deployments"), "deployments"),
                list(apps("replicasets"), "replica sets"),
                list(apps("statefulsets"), "stateful sets"),
                list(apps("daemonsets"), "daemon sets"),
            ),
            join5(
                list(core("nodes"), "nodes"),
                list(core("pods"), "pods"),
                list(core("namespaces"), "namespaces"),
                list(core("persistentvolumeclaims"), "claims"),
                list(core("persistentvolumes"), "volumes"),
            ),
            async {
                tokio::join!(
                    leases(client).boxed(),
                    list(Gvr::new("policy", "v1", "poddisruptionbudgets"), "disruption budgets"),
                    list(hooks("validatingwebhookconfigurations"), "webhooks"),
                    list(hooks("mutatingwebhookconfigurations"), "webhooks"),
                    list(Gvr::new("discovery.k8s.io", "v1", "endpointslices"), "endpoints"),
                    list(Gvr::new("rbac.authorization.k8s.io", "v1", "clusterrolebindings"), "administrators"),
                    self::list(client, core("configmaps"), "the records of backups and runs", records).boxed(),
                )
            },
        );
        let (deployments, replica_sets, stateful_sets, daemon_sets) = workloads;
        let (nodes, pods, namespaces, claims, volumes) = rest;
        let (leases, budgets, validating, mutating, slices, bindings, records) = more;
        Lists {
            nodes,
            leases,
            pods,
            deployments,
            replica_sets,
            stateful_sets,
            daemon_sets,
            budgets,
            namespaces,
            claims,
            volumes,
            validating,
            mutating,
            slices,
            bindings,
            records,
        }
    }

    pub async fn nodes_only(client: &Client) -> Lists {
        let nodes = list(client, Gvr::new("", "v1", "nodes"), "nodes", ListOptions::default()).await;
        Lists { nodes, ..Lists::default() }
    }

    fn all(&self) -> [&List; 16] {
        [
            &self.nodes,
            &self.leases,
            &self.pods,
            &self.deployments,
            &self.replica_sets,
            &self.stateful_sets,
            &self.daemon_sets,
            &self.budgets,
            &self.namespaces,
            &self.claims,
            &self.volumes,
            &self.validating,
            &self.mutating,
            &self.slices,
            &self.bindings,
            &self.records,
        ]
    }

    /// What was not answered. Where nothing was, that is one thing.
    pub fn missing(&self) -> Vec<Missing> {
        let missing = |list: &List| Some(Missing { what: list.what.to_owned(), why: list.why.clone()? });
        let all: Vec<Missing> = self.all().into_iter().filter_map(missing).collect();
        if all.len() == self.all().len() {
            let why = all.into_iter().next().map(|first| first.why).unwrap_or_default();
            return vec![Missing { what: RECORD.to_owned(), why }];
        }
        all
    }
}

async fn list(client: &Client, gvr: Gvr, what: &'static str, options: ListOptions<'_>) -> List {
    match client.list(&gvr, &options).await {
        Ok(page) => {
            let items = page.items.iter().map(|object| object.tree()).collect();
            List { what, items, why: None }
        }
        Err(error) => List { what, items: Vec::new(), why: Some(reason(&error)) },
    }
}

async fn leases(client: &Client) -> List {
    let options = ListOptions { namespace: Some("kube-node-lease"), ..ListOptions::default() };
    list(client, Gvr::new("coordination.k8s.io", "v1", "leases"), "node leases", options).await
}

fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Timeout(after) => format!("not within {} ms", after.as_millis()),
        ClientError::Status(status) => status.message.clone(),
        other => Chain(other).to_string(),
    }
}

/// How the API that was asked is.
pub async fn api(client: &Client) -> Option<What> {
    let (ready, why, text) = match client.raw("/readyz?verbose").await {
        Ok(text) => (true, String::new(), String::from_utf8_lossy(&text).into_owned()),
        Err(ClientError::Status(status)) => {
            let failed = status.message.lines().filter_map(|line| line.strip_prefix("[-]"));
            let failed = failed.filter(|line| line.contains("failed")).map(str::to_owned).next();
            (false, failed.unwrap_or_else(|| "not ready".to_owned()), status.message)
        }
        Err(error) => (false, format!("{NO_ANSWER}: {}", reason(&error)), String::new()),
    };
    let loops = text.lines().filter_map(|line| line.strip_prefix("[-]"));
    let loops = loops.filter(|line| line.starts_with("loop/")).filter_map(|line| line.split(' ').next());
    Some(What::Api { ready, why, loops: loops.map(str::to_owned).collect() })
}

/// Where every machine of the record is; a server's API is at the port of the one that was asked.
pub fn targets(lists: &Lists, port: u16) -> Vec<Target> {
    let now = SystemClock.now();
    lists.nodes.items.iter().filter_map(|node| nodes::target(node, port, now)).collect()
}

/// The name of the server that was asked: by its address, which may be this machine's, or the only one.
pub fn asked(lists: &Lists, host: &str, own: &str) -> Name {
    let is_it = |target: &&Target| {
        let address: Option<IpAddr> = host.parse().ok();
        target.api.map(|api| api.ip()) == address
    };
    let targets = targets(lists, 0);
    let servers: Vec<&Target> = targets.iter().filter(|target| target.api.is_some()).collect();
    let found = targets.iter().find(is_it).or_else(|| if let [one] = servers[..] { Some(one) } else { None });
    let is_here = || host.parse::<IpAddr>().is_ok_and(|address| UdpSocket::bind((address, 0)).is_ok());
    found.map_or_else(|| if is_here() { own.into() } else { host.into() }, |target| target.node.clone())
}

/// Everything that the lists say.
pub fn facts(lists: &Lists, now: Timestamp) -> Vec<Fact> {
    let record = |about: Name, what: What| Fact { by: API.into(), about, at: now, what };
    let all = nodes::facts(lists, now).into_iter().chain(workloads::facts(lists)).chain(pods::facts(lists, now));
    all.chain(objects::facts(lists, now))
        .chain(keeping::facts(lists))
        .chain(drift::facts(lists))
        .map(|(about, what)| record(about, what))
        .collect()
}

// === reading trees ===

fn text<'a>(tree: &'a Value, pointer: &str) -> &'a str {
    tree.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(tree: &Value, pointer: &str) -> Option<u32> {
    tree.pointer(pointer)?.as_u64()?.try_into().ok()
}

fn time(tree: &Value, pointer: &str) -> Option<Timestamp> {
    text(tree, pointer).parse().ok()
}

fn list_at<'a>(tree: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    tree.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// `namespace/name`.
fn full_name(tree: &Value) -> Name {
    format!("{}/{}", text(tree, "/metadata/namespace"), text(tree, "/metadata/name")).into()
}

fn condition<'a>(tree: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(tree, "/status/conditions").find(|one| one["type"] == kind)
}

fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
