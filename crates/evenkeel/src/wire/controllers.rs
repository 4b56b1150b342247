//! The controllers under the driver: one view for all, streams united by kind, indexes by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Gvr, Index, Key, Registry, Snapshot};
use arc_swap::ArcSwap;
use base::Clock;
use controllers::{Config, Controller, Ctx};
use jiff::Timestamp;
use reconcile::{Driver, Health, Leadership, Loop};
use view::{Change, Client, Drain, Form, View, Watched};

use super::kinds;

/// The controllers' driver, ready to run.
pub struct Controllers {
    pub driver: Driver,
    pub health: Health,
    /// Follows kinds as they come and go, for those who watch every kind.
    pub kinds: kinds::Kinds,
    context: Arc<ArcSwap<Ctx>>,
}

// === impl Controllers ===

impl Controllers {
    /// Has pods trust other authorities from the next plan on.
    pub fn root_ca(&self) -> impl Fn(&str) + Send + use<> {
        let context = self.context.clone();
        move |pem: &str| {
            context.rcu(|ctx| {
                let config = Config { root_ca: pem.to_owned(), ..Config::clone(&ctx.config) };
                Ctx { config: Arc::new(config), ..Ctx::clone(ctx) }
            });
        }
    }
}

/// What the controllers are wired to.
pub struct Parts {
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub config: Config,
    pub registry: Arc<dyn Fn() -> Arc<Registry> + Send + Sync>,
    pub leadership: Leadership,
    /// Signs approved certificate requests.
    pub signer: Option<Arc<dyn controllers::certificates::Signer>>,
}

/// The names of all loops of the process, the scheduler's included.
pub fn names(config: &Config) -> Vec<&'static str> {
    let controllers = controllers::all(config).into_iter().map(|one| one.name);
    controllers.chain(["scheduler"]).collect()
}

pub fn build(parts: Parts, drain: &Drain) -> Controllers {
    let all = controllers::all(&parts.config);
    let registry = (parts.registry)();
    let streams = streams(&all);
    let every = all.iter().any(|one| one.every_kind);
    let watched = streams.iter().map(|(gvr, indexes)| Watched::all(gvr.clone(), indexes)).collect();
    let view = View::start(&parts.client, watched, drain);
    let kinds = kinds::Kinds::new(view.clone(), parts.registry.clone(), streams.into_keys().collect());
    if every {
        kinds.follow(&registry);
    }
    let started = parts.clock.now();
    let context = Arc::new(ArcSwap::from_pointee(Ctx {
        config: Arc::new(parts.config),
        registry,
        started,
        missed: Arc::default(),
        usage: None,
        signer: parts.signer,
    }));
    kinds.keep(context.clone());
    let mut driver = Driver::new(view, parts.client, parts.clock).led_by(parts.leadership);
    for one in all {
        driver = driver.add(looped(one, context.clone()));
    }
    let health = driver.health();
    Controllers { driver, health, kinds, context }
}

fn looped(one: Controller, context: Arc<ArcSwap<Ctx>>) -> Loop {
    let Controller { name, component, watches, every_kind, enqueue, plan, workers } = one;
    Loop {
        name,
        component,
        // Of a loop that reads every kind, kinds that come later must not hold it up; it waits for those it names.
        reads: if every_kind { Vec::new() } else { watches.into_iter().map(|watch| watch.gvr).collect() },
        enqueue: Arc::new(move |change: &Change, snapshot: &Snapshot| {
            enqueue(&change.gvr, change.old.as_deref(), change.new.as_deref(), snapshot)
        }),
        plan: Arc::new(move |snapshot: &Snapshot, key: &Key, now: Timestamp| plan(&context.load(), snapshot, key, now)),
        workers,
    }
}

/// What the view must hold: every declared stream once, with the indexes of all who read it.
fn streams(all: &[Controller]) -> BTreeMap<Gvr, Vec<Index>> {
    let mut streams: BTreeMap<Gvr, Vec<Index>> = BTreeMap::new();
    let every = all.iter().any(|one| one.every_kind);
    for watch in all.iter().flat_map(|one| &one.watches) {
        let indexes = streams.entry(watch.gvr.clone()).or_default();
        let common = if every { controllers::every_kind_indexes() } else { Vec::new() };
        for index in watch.indexes.iter().copied().chain(common) {
            if indexes.iter().all(|known| known.name != index.name) {
                indexes.push(index);
            }
        }
    }
    streams
}

/// The stream of a kind that nobody reads in full.
pub fn header_only(gvr: Gvr) -> (Watched, Form) {
    (Watched::all(gvr, &controllers::every_kind_indexes()), Form::Metadata)
}
