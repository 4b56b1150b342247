//! `evenkeel replace NODE`: a new machine takes a lost one's place. On any server; the same command again goes on.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::{Gvr, Key, PatchType};
use base::Clock;
use jiff::{SignedDuration, Timestamp};
use keeper::{Claim, Layer};
use tokio::time::Instant;
use view::{Client, ClientError, PatchRequest};

use super::args::ReplaceArgs;
use super::refused;
use crate::layout::Layout;
use crate::pki::{Kubeconfig, Role, TokenText, hash_of_ca};
use crate::wire::keeper::layers;
use crate::wire::replace::{self, Card, Kept, Rack, Sighting, Workloads, sightings};
use crate::wire::{Records, SystemClock, admin};

/// The token for the new machine: long enough to carry it to the rack.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How long workloads may take to be what they were, once the node is ready.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(500);
/// Servers that must agree that the old machine is off.
const WITNESSES: usize = 2;

/// One replacement.
struct Replacing<'a> {
    args: &'a ReplaceArgs,
    layout: Layout,
    config: Kubeconfig,
    client: Client,
}

/// Why nothing is done.
struct Refusal(String);

pub async fn run(args: ReplaceArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    let config = Kubeconfig::load(&layout.kubeconfig()).context("does a server run on this machine?")?;
    let client = admin::client(&config)?;
    let replacing = Replacing { args: &args, layout, config, client };
    let rack = Rack::look(&replacing.client, SystemClock.now()).await?;
    let (servers, there, margin) = rack.margin();
    let cluster = &hash_of_ca(&replacing.config.ca_pem)[..12];
    replacing.say(&format!("cluster {cluster}: {there} of {servers} servers are there, {margin} more may be lost"));
    let kept = match Kept::read(&replacing.client, &args.node).await? {
        Some(kept) => kept,
        None => match replacing.decide(&rack).await? {
            Ok(kept) => kept,
            Err(Refusal(why)) => {
                println!("refused: {why}");
                return Ok(refused());
            }
        },
    };
    if args.dry_run {
        println!(
            "would remove {} ({}), keep its {} labels and {} taints, and print the one command for the new machine",
            kept.node,
            kept.fenced,
            kept.labels.len(),
            kept.taints.len()
        );
        return Ok(ExitCode::SUCCESS);
    }
    replacing.claim().await?;
    replacing.carry_out(kept).await
}

// === impl Replacing ===

impl Replacing<'_> {
    /// What is for people does not mix with what is for programs.
    fn say(&self, text: &str) {
        if self.args.json { eprintln!("{text}") } else { println!("{text}") }
    }

    fn work(&self) -> String {
        format!("replace {}", self.args.node)
    }

    /// Nobody begins to change another layer meanwhile. A repair waits for nobody itself: a run that is open touches no
    /// node while this one is away.
    async fn claim(&self) -> Result<()> {
        let now = SystemClock.now();
        let claim = Claim::new(Layer::Hardware, &self.work(), "somebody", now);
        if let Err(held) = layers::claim(&self.client, &claim, now).await? {
            self.say(&format!("{held}; this goes on, because it repairs"));
        }
        Ok(())
    }

    /// Whether it may be done, and what is kept of the node.
    async fn decide(&self, rack: &Rack) -> Result<Result<Kept, Refusal>> {
        let node = &self.args.node;
        let machine = rack.machine(node).with_context(|| format!("no machine of this cluster is called {node}"))?;
        if machine.is_server() && !rack.holds_without(node) {
            return Ok(Err(Refusal(format!(
                "without {node} too few servers are there to keep the state; bring another one back first, and if most are \
                 lost for good: evenkeel recover quorum"
            ))));
        }
        let others: Vec<SocketAddr> =
            rack.living.iter().filter(|(name, _)| name != node).map(|(_, address)| *address).collect();
        let seen = match machine.addresses.first() {
            Some(address) => sightings(&self.config, &others, *address).await,
            None => Vec::new(),
        };
        let fenced = match fenced(node, machine.addresses.first(), &seen, self.args.fenced.as_deref()) {
            Ok(fenced) => fenced,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let object = replace::node(&self.client, node).await?;
        let mut kept = Kept { fenced, ..Kept::of(machine, object.as_ref()) };
        kept.before = Workloads::count(&self.client).await?;
        kept.times.last_word = replace::last_word(&self.client, node).await?;
        kept.times.noticed =
            object.as_ref().map(replace::ready).filter(|(ready, _)| !ready).and_then(|(_, since)| since);
        kept.times.decided = Some(SystemClock.now());
        if !self.args.dry_run {
            kept.write(&self.client).await?;
        }
        Ok(Ok(kept))
    }

    async fn carry_out(&self, mut kept: Kept) -> Result<ExitCode> {
        let deadline = Instant::now() + self.args.timeout.unsigned_abs();
        if kept.times.asked.is_none() && !self.is_taken(&kept).await? {
            self.remove(&kept, deadline).await?;
            self.offer(&mut kept).await?;
            if self.args.no_wait {
                return Ok(ExitCode::SUCCESS);
            }
        }
        self.until(deadline, "the new machine to ask", async || self.is_taken(&kept).await).await?;
        stamp(&mut kept.times.asked);
        kept.write(&self.client).await?;
        self.until(deadline, "it to join", async || self.has_joined(&kept).await).await?;
        stamp(&mut kept.times.joined);
        kept.write(&self.client).await?;
        self.until(deadline, "its node to be ready", async || self.is_ready(&kept).await).await?;
        self.until(deadline, "its labels and taints", async || self.restore(&kept).await).await?;
        stamp(&mut kept.times.caught_up);
        kept.write(&self.client).await?;
        self.verify(kept).await
    }

    /// The old machine is out. One that a new one has replaced already is not touched.
    async fn remove(&self, kept: &Kept, deadline: Instant) -> Result<()> {
        let node = &kept.node;
        self.until(deadline, "the old machine to be out", async || {
            match admin::remove_node(&self.layout, node, true).await {
                Ok(leaving) => Ok(leaving.gone),
                // An earlier call removed it.
                Err(_) if self.is_out(node).await? => Ok(true),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn is_out(&self, node: &str) -> Result<bool> {
        let rack = Rack::look(&self.client, SystemClock.now()).await?;
        Ok(rack.machine(node).is_none_or(|machine| machine.machine.is_none())
            && replace::node(&self.client, node).await?.is_none())
    }

    async fn offer(&self, kept: &mut Kept) -> Result<()> {
        let now = SystemClock.now();
        let secret = Records::new(self.client.clone()).create_for(&kept.node, kept.role, now + TOKEN_LIFE, now).await?;
        let token = TokenText { ca_hash: hash_of_ca(&self.config.ca_pem), role: kept.role, secret }.reveal();
        let rack = Rack::look(&self.client, now).await?;
        let (_, server) =
            rack.living.iter().find(|(name, _)| *name != kept.node).context("no server holds its lease")?;
        let verb = if kept.role == Role::Server { "server" } else { "agent" };
        stamp(&mut kept.times.offered);
        kept.write(&self.client).await?;
        self.say(&format!("{}: {}; it is out. On the new machine, within an hour:", kept.node, kept.fenced));
        self.say(&format!("  evenkeel {verb} --server=https://{server} --token={token} --node-name={}", kept.node));
        Ok(())
    }

    /// Whether another machine has the name.
    async fn is_taken(&self, kept: &Kept) -> Result<bool> {
        let rack = Rack::look(&self.client, SystemClock.now()).await?;
        let machine = rack.machine(&kept.node).and_then(|machine| machine.machine.as_ref());
        Ok(machine.is_some() && machine != kept.machine.as_ref())
    }

    async fn has_joined(&self, kept: &Kept) -> Result<bool> {
        if kept.role == Role::Agent {
            return Ok(replace::node(&self.client, &kept.node).await?.is_some());
        }
        Ok(Rack::look(&self.client, SystemClock.now()).await?.serves(&kept.node))
    }

    async fn is_ready(&self, kept: &Kept) -> Result<bool> {
        let node = replace::node(&self.client, &kept.node).await?;
        Ok(node.is_some_and(|node| replace::ready(&node).0))
    }

    async fn restore(&self, kept: &Kept) -> Result<bool> {
        let Some(node) = replace::node(&self.client, &kept.node).await? else { return Ok(false) };
        let (gvr, key, body) = (Gvr::new("", "v1", "nodes"), Key::cluster(&kept.node), kept.restores(&node));
        let patch = PatchRequest { gvr: &gvr, key: &key, subresource: None, patch: PatchType::Merge, body: &body };
        match self.client.patch(&patch).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error).context("give the node its labels and taints"),
        }
    }

    /// Workloads are as many as before, or it is said that they are not.
    async fn verify(&self, mut kept: Kept) -> Result<ExitCode> {
        let deadline = Instant::now() + VERIFY_TIMEOUT;
        let mut after = Workloads::count(&self.client).await?;
        while !after.is_whole() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
            after = Workloads::count(&self.client).await?;
        }
        stamp(&mut kept.times.verified);
        let card = Card { kept: &kept, after };
        replace::store(&self.client, &card).await?;
        if self.args.json {
            println!("{:#}", card.tree())
        } else {
            println!("{}", card.text())
        }
        kept.remove(&self.client).await?;
        layers::release(&self.client, &self.work()).await?;
        Ok(if after.is_whole() || kept.before.ready <= after.ready { ExitCode::SUCCESS } else { super::attention() })
    }

    /// Looks again until it is so. An API that is away for a moment is no failure.
    async fn until(&self, deadline: Instant, what: &str, mut so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        loop {
            match so().await {
                Ok(true) => return Ok(()),
                Err(error) if !is_passing(&error) => return Err(error),
                Ok(false) | Err(_) => {}
            }
            if deadline <= Instant::now() {
                bail!("waited for {what}; run the same command again to go on");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn stamp(time: &mut Option<Timestamp>) {
    time.get_or_insert_with(|| SystemClock.now());
}

fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::retryable)
}

/// Why the old machine counts as off, or why it does not.
fn fenced(node: &str, address: Option<&IpAddr>, seen: &[Sighting], typed: Option<&str>) -> Result<String, Refusal> {
    if typed == Some(node) {
        return Ok("off by the word of a person".to_owned());
    }
    let at = address.map_or_else(|| "an unknown address".to_owned(), IpAddr::to_string);
    let by = |filter: &dyn Fn(&&Sighting) -> bool| {
        seen.iter().filter(|one| filter(one)).map(|one| one.by.clone()).collect::<Vec<_>>().join(", ")
    };
    let heard = by(&|one| !one.answers.is_empty());
    if !heard.is_empty() {
        let what = seen.iter().flat_map(|one| one.answers.clone()).next().unwrap_or_default();
        return Err(Refusal(format!(
            "the old machine still answers {heard} at {at} ({what}); switch it off, and run this again. Where something else \
             has its address now: --fenced {node}"
        )));
    }
    if seen.len() < WITNESSES {
        return Err(Refusal(format!(
            "{} server could look, and two must see that {node} is silent; look yourself whether it is off, then: --fenced {node}",
            seen.len()
        )));
    }
    Ok(format!("silent at {at} as {} see it", by(&|_| true)))
}

#[cfg(test)]
mod tests {
    use super::{Refusal, fenced};
    use crate::wire::replace::Sighting;

    #[test]
    fn a_machine_counts_as_off_by_two_servers_or_by_a_persons_word() {
        let sighting = |by: &str, answers: &[&str]| Sighting {
            by: by.to_owned(),
            answers: answers.iter().map(|text| (*text).to_owned()).collect(),
        };
        let (silent, heard) = ([sighting("a", &[]), sighting("b", &[])], [sighting("a", &[]), sighting("b", &["ssh"])]);
        assert!(fenced("n", None, &silent, None).is_ok_and(|why| why.contains("a, b")));
        let Err(Refusal(why)) = fenced("n", None, &heard, None) else { panic!("it answers") };
        assert!(why.contains("still answers b") && why.contains("ssh"), "{why}");
        assert!(fenced("n", None, &silent[..1], None).is_err(), "one is not enough");
        assert!(fenced("n", None, &silent[..1], Some("m")).is_err(), "another's name");
        assert!(fenced("n", None, &[], Some("n")).is_ok());
    }
}
