//! The scheduler under the driver: one key, one plan at a time, bindings that fail one by one.

use std::sync::{Arc, Mutex};

use api::{Key, Op, Snapshot};
use base::Clock;
use jiff::Timestamp;
use reconcile::{Driver, Health, Leadership, Loop};
use schedule::{Config, Scheduler};
use view::{Change, Client, Drain, View, Watched};

/// The scheduler's driver, ready to run.
pub fn driver(
    client: Client,
    clock: Arc<dyn Clock>,
    leadership: Leadership,
    host: &str,
    drain: &Drain,
) -> (Driver, Health) {
    let watches = Scheduler::watches();
    let watched = watches.iter().map(|watch| Watched::all(watch.gvr.clone(), &watch.indexes)).collect();
    let view = View::start(&client, watched, drain);
    let scheduler = Arc::new(Mutex::new(Scheduler::new(Config::default())));
    let planner = scheduler.clone();
    let one = Loop {
        name: "scheduler",
        component: "default-scheduler",
        reads: watches.into_iter().map(|watch| watch.gvr).collect(),
        // Told that it should look, never what changed: its rows are compared with the snapshot.
        enqueue: Arc::new(|_: &Change, _: &Snapshot| vec![Key::cluster("all")]),
        plan: Arc::new(move |snapshot: &Snapshot, _: &Key, now: Timestamp| {
            planner.lock().expect("a plan that panicked is not run again").plan(snapshot, now)
        }),
        workers: 1,
    };
    let failed_clock = clock.clone();
    let failed = Arc::new(move |op: &Op, _: &view::ClientError| {
        if let Op::Post { key, .. } | Op::Patch { key, .. } | Op::Delete { key, .. } = op {
            let now = failed_clock.now();
            scheduler.lock().expect("a plan that panicked is not run again").failed(key, now);
        }
    });
    let driver = Driver::new(view, client, clock).led_by(leadership).on_host(host).add_independent(one, failed);
    let health = driver.health();
    (driver, health)
}
