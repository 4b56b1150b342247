//! `evenkeel replace NODE`: a new machine takes a lost one's place. On any server; the same command again goes on.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::{Gvr, Key, PatchType};
use base::Clock;
use jiff::SignedDuration;
use keeper::replace::{Holder, Next, Replacement, Seen, Wait};
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
const VERIFY_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);
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

/// A replacement as far as this command knows it.
struct Work {
    kept: Kept,
    part: Replacement,
    code: ExitCode,
}

/// What came of one look.
enum Turn {
    On,
    Waits(&'static str),
    Over,
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
        let mut kept = Kept::of(machine, object.as_ref());
        kept.fenced = fenced;
        kept.before = Workloads::count(&self.client).await?;
        kept.times.last_word = replace::last_word(&self.client, node).await?;
        kept.times.noticed =
            object.as_ref().map(replace::ready).filter(|(ready, _)| !ready).and_then(|(_, since)| since);
        kept.times.decided = Some(SystemClock.now());
        if !self.args.dry_run && !kept.write(&self.client).await? {
            let first = Kept::read(&self.client, node).await?;
            return Ok(Ok(first.context("somebody else began and ended the same meanwhile")?));
        }
        Ok(Ok(kept))
    }

    async fn carry_out(&self, kept: Kept) -> Result<ExitCode> {
        let deadline = Instant::now() + self.args.timeout.unsigned_abs();
        let part = Replacement::new(kept.times);
        let mut work = Work { kept, part, code: ExitCode::SUCCESS };
        loop {
            let waits = match self.turn(&mut work).await {
                Ok(Turn::On) => continue,
                Ok(Turn::Over) => return Ok(work.code),
                Ok(Turn::Waits(what)) => what,
                // An API that is away for a moment is no failure.
                Err(error) if is_passing(&error) => "the API",
                Err(error) => return Err(error),
            };
            // Workloads have a time of their own.
            let more = work.part.times.caught_up.map_or(Duration::ZERO, |_| VERIFY_TIMEOUT.unsigned_abs() + LOOK);
            if deadline + more <= Instant::now() {
                bail!("waited for {waits}; run the same command again to go on");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One look, and what follows from it.
    async fn turn(&self, work: &mut Work) -> Result<Turn> {
        let seen = self.look(&work.kept).await?;
        let next = work.part.next(&seen);
        match next {
            Next::Wait(wait) => return Ok(Turn::Waits(told(wait))),
            Next::Ended => return Ok(Turn::Over),
            Next::Remove if !self.remove(&work.kept).await? => return Ok(Turn::Waits("the old machine to be out")),
            Next::Restore if !self.restore(&work.kept).await? => return Ok(Turn::Waits("its labels and taints")),
            Next::Remove | Next::Restore => {}
            Next::Offer => {
                let command = self.offer(&work.kept).await?;
                let Kept { node, fenced, .. } = &work.kept;
                self.say(&format!("{node}: {fenced}; it is out. On the new machine, within an hour:"));
                self.say(&format!("  {command}"));
                work.part.done(next, SystemClock.now());
                let turn = self.note(work).await?.unwrap_or(Turn::On);
                return Ok(if self.args.no_wait { Turn::Over } else { turn });
            }
            Next::Note(_) => {
                work.part.done(next, SystemClock.now());
                return Ok(self.note(work).await?.unwrap_or(Turn::On));
            }
            Next::KeepCard => work.code = self.keep_card(&work.kept).await?,
            Next::ReleaseLayer => layers::release(&self.client, &self.work()).await?,
            Next::Forget => work.kept.remove(&self.client).await?,
        }
        work.part.done(next, SystemClock.now());
        Ok(Turn::On)
    }

    async fn look(&self, kept: &Kept) -> Result<Seen> {
        let rack = Rack::look(&self.client, SystemClock.now()).await?;
        let node = replace::node(&self.client, &kept.node).await?;
        let holder = match rack.machine(&kept.node).and_then(|machine| machine.machine.as_ref()) {
            None => Holder::Nobody,
            machine if machine == kept.machine.as_ref() => Holder::Old,
            Some(_) => Holder::New,
        };
        let joined = match kept.role {
            Role::Agent => node.is_some(),
            Role::Server => rack.serves(&kept.node),
        };
        Ok(Seen {
            holder,
            registered: node.is_some(),
            joined,
            ready: node.as_ref().is_some_and(|node| replace::ready(node).0),
            restored: node.as_ref().is_some_and(|node| kept.is_restored(node)),
            settled: self.has_settled(kept).await?,
        })
    }

    async fn has_settled(&self, kept: &Kept) -> Result<bool> {
        let Some(caught_up) = kept.times.caught_up else { return Ok(false) };
        let late = VERIFY_TIMEOUT < SystemClock.now().duration_since(caught_up);
        Ok(late || Workloads::count(&self.client).await?.is_whole())
    }

    /// The old machine is out; false where something is still waited for.
    async fn remove(&self, kept: &Kept) -> Result<bool> {
        match admin::remove_machine(&self.layout, &kept.node, kept.machine.as_ref()).await {
            Ok(leaving) => Ok(leaving.gone),
            // Somebody else removed it meanwhile, and perhaps another one has joined.
            Err(_) if self.is_out(kept).await? => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn is_out(&self, kept: &Kept) -> Result<bool> {
        let seen = self.look(kept).await?;
        Ok(seen.holder == Holder::New || seen.holder == Holder::Nobody && !seen.registered)
    }

    /// The one command for the new machine.
    async fn offer(&self, kept: &Kept) -> Result<String> {
        let now = SystemClock.now();
        let secret = Records::new(self.client.clone()).create_for(&kept.node, kept.role, now + TOKEN_LIFE, now).await?;
        let token = TokenText { ca_hash: hash_of_ca(&self.config.ca_pem), role: kept.role, secret }.reveal();
        let rack = Rack::look(&self.client, now).await?;
        let (_, server) =
            rack.living.iter().find(|(name, _)| *name != kept.node).context("no server holds its lease")?;
        let verb = if kept.role == Role::Server { "server" } else { "agent" };
        Ok(format!("evenkeel {verb} --server=https://{server} --token={token} --node-name={}", kept.node))
    }

    /// Makes durable what was reached. Where somebody else wrote it first, goes on from what he wrote.
    async fn note(&self, work: &mut Work) -> Result<Option<Turn>> {
        work.kept.times = work.part.times;
        if work.kept.write(&self.client).await? {
            return Ok(None);
        }
        let Some(kept) = Kept::read(&self.client, &work.kept.node).await? else {
            self.say("somebody else has brought this replacement to its end");
            return Ok(Some(Turn::Over));
        };
        work.part.reread(kept.times);
        work.kept = kept;
        Ok(Some(Turn::On))
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
    async fn keep_card(&self, kept: &Kept) -> Result<ExitCode> {
        let after = Workloads::count(&self.client).await?;
        let card = Card { kept, after };
        replace::store(&self.client, &card).await?;
        if self.args.json {
            println!("{:#}", card.tree())
        } else {
            println!("{}", card.text())
        }
        Ok(if after.is_whole() || kept.before.ready <= after.ready { ExitCode::SUCCESS } else { super::attention() })
    }
}

fn told(wait: Wait) -> &'static str {
    match wait {
        Wait::Asked => "the new machine to ask",
        Wait::Joined => "it to join",
        Wait::Ready => "its node to be ready",
        Wait::Settled => "workloads to be what they were",
    }
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
