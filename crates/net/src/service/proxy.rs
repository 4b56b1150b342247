//! Keeps the kernel's table equal to what the cluster says.
//!
//! Rules outlive the agent: a table that is there stays as it is until the view is complete, and is then replaced in one
//! transaction; afterwards only differences are applied. Without a table (a machine that just started) one without
//! services is put in place at once, so that pods can leave the node.

use std::sync::Arc;
use std::time::Duration;

use base::Chain;
use tokio::sync::watch;
use tokio::time::Instant;
use view::{Drain, View};

use super::conntrack::{self, Backends};
use super::kept::Rules;
use super::nft::{self, NftError};
use super::rules;
use super::state::{self, ServiceState, host_ports, services};
use super::table::Table;
use crate::address::Record;
use crate::config::{Config, PodNetwork};
use crate::detector::Silent;

/// Changes within this time become one transaction.
const GATHER: Duration = Duration::from_millis(20);
/// Least time between two transactions: a storm of changes costs a bounded share of the CPU.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(2);

/// How the table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyStatus {
    /// The view is not complete yet.
    Waiting,
    Synced {
        services: usize,
        endpoints: usize,
        transactions: u64,
    },
    Failing {
        error: String,
    },
}

/// The only writer of the table.
pub struct Proxy {
    config: Config,
    view: View,
    records: watch::Receiver<Arc<Vec<Record>>>,
    silent: watch::Receiver<Silent>,
    /// What the kernel has, as far as we put it there.
    rules: Rules,
    backends: Backends,
    transactions: u64,
    status: watch::Sender<ProxyStatus>,
}

// === impl Proxy ===

impl Proxy {
    pub fn new(
        config: Config,
        view: View,
        records: watch::Receiver<Arc<Vec<Record>>>,
        silent: watch::Receiver<Silent>,
        rules: Rules,
    ) -> Proxy {
        let status = watch::Sender::new(ProxyStatus::Waiting);
        Proxy { config, view, records, silent, rules, backends: Backends::default(), transactions: 0, status }
    }

    pub fn status(&self) -> watch::Receiver<ProxyStatus> {
        self.status.subscribe()
    }

    pub async fn run(mut self, drain: Drain) {
        let mut snapshots = self.view.subscribe();
        self.first_table().await;
        loop {
            let started = Instant::now();
            let outcome = self.sync().await;
            let wait = if outcome.is_ok() { INTERVAL_MIN } else { RETRY };
            tokio::select! { biased;
                () = drain.cancelled() => return,
                () = tokio::time::sleep_until(started + wait) => {}
            }
            if outcome.is_ok() {
                tokio::select! { biased;
                    () = drain.cancelled() => return,
                    changed = snapshots.changed() => if changed.is_err() { return },
                    // Without pods of our own making the sender is gone; services go on.
                    Ok(()) = self.records.changed() => {}
                    // Somebody changed our table, and it is to be ours again.
                    () = self.rules.asked() => self.rules.set(None),
                    Ok(()) = self.silent.changed() => {}
                }
                tokio::time::sleep(GATHER).await;
            }
            snapshots.mark_unchanged();
            self.records.mark_unchanged();
            self.silent.mark_unchanged();
        }
    }

    /// Something to leave the node by, where nothing is left from before.
    async fn first_table(&mut self) {
        match nft::exists(&self.config.names().table).await {
            Ok(true) => {}
            Ok(false) => {
                let state = self.state(Vec::new());
                if let Err(error) = self.apply(rules::table(&state)).await {
                    tracing::error!(err = %Chain(&error), "the first rules were not applied");
                }
            }
            Err(error) => tracing::error!(err = %Chain(&error), "nftables"),
        }
    }

    /// One pass; Ok also where there was nothing to do.
    async fn sync(&mut self) -> Result<(), NftError> {
        let snapshot = self.view.snapshot();
        // A restart must not take away services that are only not listed yet. Pods' host ports need no view.
        let ready = snapshot.synced();
        if !ready && self.rules.applied().is_none() {
            return Ok(());
        }
        let own: Vec<_> = self.config.dns.iter().flat_map(|dns| dns.addresses.clone()).collect();
        let served = ready && self.config.service_proxy;
        let mut services = if served { services(&snapshot, &self.config.node_name, &own) } else { Vec::new() };
        services.iter_mut().for_each(|service| service.leave_out(&self.silent.borrow()));
        let mut state = self.state(services);
        state.zone = state::zone(&snapshot, &self.config.node_name);
        let table = rules::table(&state);
        let result = if self.rules.applied().as_deref() == Some(&table) { Ok(()) } else { self.apply(table).await };
        match &result {
            Ok(()) => {
                self.forget_flows(&state).await;
                if ready {
                    let endpoints = state.services.iter().map(|service| service.endpoints.len()).sum();
                    let (services, transactions) = (state.services.len(), self.transactions);
                    self.publish(ProxyStatus::Synced { services, endpoints, transactions });
                }
            }
            Err(error) => {
                let error = Chain(error).to_string();
                tracing::error!(err = %error, "rules were not applied");
                self.publish(ProxyStatus::Failing { error });
            }
        }
        result
    }

    fn state(&self, services: Vec<super::ServicePort>) -> ServiceState {
        let names = self.config.names();
        let bridge = (self.config.pod_network == PodNetwork::Bridge).then(|| names.bridge.clone());
        ServiceState {
            names,
            cluster_cidrs: self.config.cluster_cidrs.clone(),
            service_cidrs: self.config.service_cidrs.clone(),
            bridge,
            node: self.config.node_name.clone(),
            zone: None,
            services,
            host_ports: host_ports(&self.records.borrow()),
        }
    }

    /// A difference where one is possible; the whole where not, or where somebody changed our table.
    async fn apply(&mut self, table: Table) -> Result<(), NftError> {
        self.transactions += 1;
        if let Some(delta) = self.rules.applied().and_then(|old| table.delta(&old)) {
            match nft::apply(&delta.main).await {
                Ok(()) => {
                    if !delta.after.is_empty()
                        && let Err(error) = nft::apply(&delta.after).await
                    {
                        // Chains without use cost nothing; the next whole replacement takes them along.
                        tracing::debug!(err = %Chain(&error), "old chains stay");
                        self.rules.set(None);
                        return self.replace(table).await;
                    }
                    self.rules.set(Some(table));
                    return Ok(());
                }
                Err(error) => tracing::warn!(err = %Chain(&error), "replacing the whole table"),
            }
        }
        self.replace(table).await
    }

    async fn replace(&mut self, table: Table) -> Result<(), NftError> {
        self.rules.set(None);
        nft::apply(&table.render()).await?;
        self.rules.set(Some(table));
        Ok(())
    }

    async fn forget_flows(&mut self, state: &ServiceState) {
        let backends = Backends::of(&state.services);
        if backends == self.backends {
            return;
        }
        self.backends = backends.clone();
        let removed = tokio::task::spawn_blocking(move || conntrack::forget_stale(&backends)).await;
        match removed.unwrap_or_else(|_| Err(std::io::Error::other("the task panicked"))) {
            Ok(0) => {}
            Ok(flows) => tracing::debug!(flows, "forgot flows to endpoints that are gone"),
            Err(error) => tracing::warn!(err = %error, "cannot forget flows to endpoints that are gone"),
        }
    }

    fn publish(&self, status: ProxyStatus) {
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }
}
