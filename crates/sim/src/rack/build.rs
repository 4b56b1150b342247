//! How a rack is put together: machines with servers in them, the ways between them, and people.

use std::collections::BTreeMap;
use std::sync::Arc;

use admit::User;
use anyhow::{Context, Result};
use bytes::Bytes;
use keeper::Role;
use rcgen::KeyPair;
use tokio::sync::{Mutex, mpsc, watch};
use view::{Client, Transport};

use super::judge::Judge;
use super::life::Life;
use super::machine::{Event, Machine};
use super::person::Person;
use super::wires::{Net, Wires};
use super::{Place, Rack, Report};
use crate::record::Record;
use crate::server::{Shared, SimServer};
use crate::transport::{AnyOf, Door, Way};
use crate::world::{Seeds, Weather, below};

const MACHINES: [(&str, Role); 4] =
    [("s0", Role::Server), ("s1", Role::Server), ("s2", Role::Server), ("a0", Role::Agent)];
const PEOPLE: [&str; 2] = ["anna", "ben"];
/// The program that lies on all of them in the beginning.
const FIRST: &[u8] = b"0.1.0 first";

/// What everything is made from.
struct Parts {
    seeds: Seeds,
    shared: Arc<Shared>,
    /// Of the servers, in their order.
    doors: Vec<Arc<Door>>,
}

// === impl Rack ===

impl Rack {
    pub(super) fn new(seed: u64) -> Result<Rack> {
        // Other numbers than those that the control plane draws from the same seed.
        let seeds = Seeds::new(!seed);
        let weather = Weather::draw(&*seeds.split());
        let record = Record::new(weather);
        let judge = Judge::new(record.clone());
        let program = Bytes::from_static(FIRST);
        let made = MACHINES.map(|(name, role)| Machine::new(name, role, &program, judge.clone(), seeds.split()));
        let machines: BTreeMap<String, Arc<Machine>> =
            made.iter().map(|(machine, _)| (machine.name.clone(), machine.clone())).collect();
        let rng = seeds.split();
        let one_in = |choices: [u64; 3]| choices[usize::try_from(below(&*rng, 3)).expect("a small number")];
        let net = Net::new(machines, weather, one_in([40, 120, 1000]), one_in([20, 80, 400]));
        let servers = net.machines.values().filter(|machine| machine.role == Role::Server);
        let servers: Vec<SimServer> = servers.map(|own| server(own, &net, &seeds)).collect();
        let doors = servers.iter().map(SimServer::door).collect();
        let signing_key = KeyPair::generate().context("draw a signing key")?.serialize_pem();
        let shared = Arc::new(Shared { record: record.clone(), signing_key });
        let parts = Parts { seeds, shared, doors };
        let people = PEOPLE.map(|name| parts.person(name)).into();
        let mut servers: BTreeMap<String, SimServer> =
            servers.into_iter().map(|server| (server.name.clone(), server)).collect();
        let places = made.into_iter().zip(1..).map(|((machine, events), number)| {
            let server = servers.remove(&machine.name);
            parts.place(machine, server, number, events)
        });
        let places = places.collect();
        Ok(Rack { record, judge, net, places, people, weather, rng, report: Report { seed, ..Report::default() } })
    }
}

fn server(own: &Arc<Machine>, net: &Arc<Net>, seeds: &Seeds) -> SimServer {
    let mut server = SimServer::new(&own.name, seeds.split().next_u64(), net.weather);
    server.clock = own.clock.clone();
    server.keeping = Some(Arc::new(Wires { own: own.clone(), net: net.clone(), rng: seeds.split() }));
    server
}

// === impl Parts ===

impl Parts {
    fn ways(&self, user: &str, group: &str) -> Vec<Arc<dyn Transport>> {
        let groups = vec![group.into(), "system:authenticated".into()];
        let user = User { name: user.into(), groups, ..User::default() };
        self.doors.iter().map(|door| door.transport(user.clone(), Way::Lossy, self.seeds.split())).collect()
    }

    fn person(&self, name: &'static str) -> Person {
        Person { name, servers: self.ways(name, "system:masters"), rng: self.seeds.split() }
    }

    /// A machine that lives from now on.
    fn place(
        &self,
        machine: Arc<Machine>,
        server: Option<SimServer>,
        number: u8,
        events: mpsc::Receiver<Event>,
    ) -> Place {
        let server = server.map(|server| Arc::new(Mutex::new(server)));
        let (power, bad) = (watch::Sender::new(true), watch::Sender::new(None));
        let user = format!("system:node:{}", machine.name);
        let transport = Arc::new(AnyOf { servers: self.ways(&user, "system:nodes"), rng: self.seeds.split() });
        let life = Life {
            machine: machine.clone(),
            number,
            shared: self.shared.clone(),
            server: server.clone(),
            client: Client::new(transport, &format!("{user}/0")).with_rng(self.seeds.split()),
            rng: self.seeds.split(),
            power: power.subscribe(),
            bad: bad.subscribe(),
        };
        tokio::spawn(life.run(events));
        Place { machine, server, power, bad }
    }
}
