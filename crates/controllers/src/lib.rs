//! The loops of the control plane as pure functions: what must change so that the cluster is as its objects say.
//!
//! One small file (or folder) per controller. A controller reads one immutable [`Snapshot`] and answers with a
//! [`Plan`]; it knows no clock, no client and no queue. The driver (`reconcile`) watches what `watches` declares, calls
//! `enqueue` for every change and `plan` for every key, performs the operations, and fences reads behind writes.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod config;
mod kit;

mod autoscale;
pub mod certificates;
mod cleanup;
mod clusterrole;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod gc;
mod job;
mod kinds;
mod loadbalancer;
mod namespace;
mod node;
mod quota;
mod replicaset;
mod serviceaccount;
mod statefulset;
mod volumes;

#[cfg(test)]
mod gc_tests;
#[cfg(test)]
mod testing;

pub use config::{Config, Ctx, Usage, UsageOf};
pub use kinds::every_kind;
pub use node::lost::LOST;

use api::{Gvr, Index, Key, Object, Plan, Snapshot};
use jiff::Timestamp;

/// One loop, as data. Built by [`all`], consumed by the driver.
pub struct Controller {
    /// `deployment`, `garbage-collector`: in logs, metrics and health.
    pub name: &'static str,
    /// Name of the source in events: `deployment-controller`.
    pub component: &'static str,
    /// Streams the snapshot must hold. Two controllers may declare one stream: its indexes are united by name.
    pub watches: Vec<Watch>,
    /// True where the snapshot must also hold a stream of *every* listable kind of `Ctx::registry` (custom ones too, as
    /// they come and go), with [`every_kind_indexes`]. Only headers are read of these: a metadata-only watch
    /// (`PartialObjectMetadata`) serves for kinds that nobody watches in full.
    pub every_kind: bool,
    /// Keys to look at after a change of one object. `old` is absent for a new object, `new` for a deleted one. Called
    /// with the snapshot after the change. Keys are the controller's own words: opaque to the driver.
    pub enqueue: fn(&Gvr, Option<&Object>, Option<&Object>, &Snapshot) -> Vec<Key>,
    /// Only called once every declared stream is synced.
    pub plan: fn(&Ctx, &Snapshot, &Key, Timestamp) -> Plan,
    /// Keys that may be worked on at once.
    pub workers: usize,
}

/// A stream that a controller reads.
#[derive(Clone, Debug)]
pub struct Watch {
    pub gvr: Gvr,
    pub indexes: Vec<Index>,
}

/// Indexes that every stream of an `every_kind` controller needs.
pub fn every_kind_indexes() -> Vec<Index> {
    vec![Index::OWNER, Index::UID]
}

/// Every controller, in the order of their names' importance at start.
pub fn all(config: &Config) -> Vec<Controller> {
    let mut all = vec![
        namespace::controller(),
        serviceaccount::accounts(),
        serviceaccount::root_ca(),
        deployment::controller(),
        replicaset::replica_sets(),
        replicaset::replication_controllers(),
        endpoints::slices(),
        endpoints::endpoints(),
        endpoints::mirroring(),
        statefulset::controller(),
        daemonset::controller(),
        job::controller(),
        cronjob::controller(),
        disruption::controller(),
        cleanup::finished_jobs(),
        cleanup::events(),
        cleanup::pods(),
        autoscale::controller(),
        quota::controller(),
        certificates::controller(),
        certificates::signing(),
        clusterrole::controller(),
        gc::controller(),
        node::lifecycle::controller(),
        node::eviction::controller(),
        volumes::claims(),
        volumes::volumes(),
        volumes::claim_protection(),
        volumes::volume_protection(),
        volumes::reclaimer(),
    ];
    if !config.cluster_cidrs.is_empty() {
        all.push(node::cidr::controller());
    }
    if config.local_path.is_some() {
        all.extend([volumes::classes(), volumes::provisioner()]);
    }
    if config.service_load_balancer {
        all.push(loadbalancer::controller());
    }
    all
}
