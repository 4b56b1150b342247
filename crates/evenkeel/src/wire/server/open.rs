//! The state read and the API server put together, with the paths of this program's own beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use base::Clock;
use reconcile::Health;
use tokio::sync::watch;

use super::{Beside, Opened, Setup};
use crate::wire::agreed::ClusterFlags;
use crate::wire::apiserver::{self as parts, Tls};
use crate::wire::etcd::{DatastorePath, EngineKind, Managed};
use crate::wire::extensions::Extensions;
use crate::wire::facts::FactsPath;
use crate::wire::join::Join;
use crate::wire::join::server::Side;
use crate::wire::keeper::{self, Keeping};
use crate::wire::replace::FencePath;
use crate::wire::restart::Restart;
use crate::wire::rotation::encryption::Encryption;
use crate::wire::rotation::{self, Authorities, WishPath};
use crate::wire::{SystemClock, controllers, inprocess, keyring};

impl Setup {
    /// Reads the state and puts the API server together.
    pub(super) async fn open(
        &self,
        (engine, kind): (Arc<dyn store::Engine>, EngineKind),
        managed: Option<&Managed>,
        beside: &Beside,
    ) -> Result<Opened> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store =
            store::Store::open(engine, keyring(&self.layout)?, clock.clone()).await.context("read the state")?;
        rotation::catch_up(&store, &self.pki).context("go along with the cluster's authorities")?;
        let tls = Tls::new(self.pki.clone(), self.names.clone(), &SystemClock)?;
        let authorities = Arc::new(WishPath::new(Authorities(self.pki.clone())));
        let (layout, cluster) = (self.layout.clone(), self.pki.current().cluster[..12].to_owned());
        let encryption = Arc::new(WishPath::new(Encryption { layout, cluster }));
        let join = Arc::new(Join::new(&self.layout, self.pki.clone(), self.cluster.clone(), clock, store.clone()));
        let (revoked, revocations) = watch::channel(BTreeSet::new());
        let (health, healthy) = watch::channel(Health::default());
        let made = parts::Parts {
            store,
            pki: self.pki.clone(),
            extension: Arc::new(Extensions(vec![
                join.clone(),
                Arc::new(FactsPath { layout: self.layout.clone(), config: self.args.common.config.clone() }),
                Arc::new(FencePath { own: self.name.clone() }),
                authorities.clone(),
                encryption.clone(),
                Arc::new(DatastorePath { settings: self.etcd(), kind, restart: beside.restart.clone() }),
                beside.backups.paths(),
                beside.keeping.slot.clone(),
            ])),
            revoked: revocations,
            nodes: tls.proxy()?,
            advertise: self.advertise(),
            health: healthy,
            checks: managed.map(Managed::check).into_iter().collect(),
            loops: controllers::names(&self.controllers_config()),
        };
        let server = parts::build(&self.args, &self.layout, made)?;
        let client = inprocess::administrator(&server, "evenkeel");
        join.attach(client.clone(), self.side(kind, managed, &beside.restart));
        authorities.client.get_or_init(|| client.clone());
        encryption.client.get_or_init(|| client.clone());
        Ok(Opened { server, tls, health, revoked, client })
    }

    /// What this server gives to others that join.
    pub(super) fn side(&self, kind: EngineKind, managed: Option<&Managed>, restart: &Restart) -> Side {
        Side {
            settings: self.etcd(),
            kind,
            etcd: managed.cloned(),
            restart: restart.clone(),
            shared: ClusterFlags::of(&self.args),
        }
    }

    /// What the keeper reaches the cluster through.
    pub(super) fn keeper_parts(
        &self,
        server: &::apiserver::Server,
        keeping: &Keeping,
        tls: &Tls,
        etcd: Option<Managed>,
    ) -> keeper::Parts {
        let (layout, config) = (self.layout.clone(), self.args.common.config.clone());
        keeper::Parts {
            name: self.name.clone(),
            cluster: self.pki.current().cluster[..12].to_owned(),
            clock: Arc::new(SystemClock),
            client: inprocess::administrator(server, "evenkeel-keeper"),
            agents: Arc::new(keeper::NodePorts { tls: tls.kubelets() }),
            programs: keeping.node.releases.clone(),
            replicas: Arc::new(keeper::OfEtcd(etcd)),
            machines: Arc::new(keeper::OfFacts { layout, config }),
            backup: keeping.bundles(server.store().clone(), &self.name),
        }
    }
}
