//! `evenkeel access`: who and what can get in, and what takes it away again.
//!
//! What is listed comes from where it is kept: join tokens and machines from the cluster's records, people from bindings and
//! certificates that were asked for through the API, this machine's own kubeconfig from its file. SSH is not ours: its keys
//! are counted, so that nobody forgets them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use api::{Gvr, Key, Tree};
use base::Clock;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keeper::wrong::answer;
use serde::Serialize;
use serde_json::json;
use view::{Client, ListOptions};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::args::{AccessArgs, AccessCommand};
use super::output::table;
use super::refused;
use super::wrong::look;
use crate::layout::Layout;
use crate::pki::{Kubeconfig, certificates};
use crate::wire::{Records, SystemClock, admin};

/// The role that may do everything.
const ADMIN: &str = "cluster-admin";

/// One way in.
#[derive(Debug, Serialize)]
struct Way {
    /// As `revoke` takes it.
    name: String,
    who: String,
    until: String,
    /// What takes it away.
    away: String,
}

#[derive(Debug, Serialize)]
struct Report {
    head: String,
    ways: Vec<Way>,
}

pub async fn run(args: AccessArgs) -> Result<ExitCode> {
    let layout = args.ask.common.layout();
    let path = args.ask.kubeconfig.clone().unwrap_or_else(|| layout.kubeconfig());
    let client = admin::client(&Kubeconfig::load(&path).context("does a server run on this machine?")?)?;
    let facts = look(&layout, &args.ask.common.config, args.ask.kubeconfig.as_deref()).await?;
    let now = SystemClock.now();
    if let Some(AccessCommand::Revoke { what, dry_run }) = &args.command {
        println!("{}", answer(&facts, now).head());
        return revoke(&client, what, *dry_run).await;
    }
    let records = Records::new(client.clone());
    let mut ways = bindings(&client).await?;
    ways.extend(requests(&client, now).await?);
    ways.extend(own(&path));
    ways.extend(machines_and_tokens(&records, now).await?);
    ways.extend(ssh());
    ways.extend(kit(&layout));
    let report = Report { head: answer(&facts, now).head(), ways };
    if args.ask.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let row = |way: &Way| vec![way.name.clone(), way.who.clone(), way.until.clone(), way.away.clone()];
        let rows: Vec<Vec<String>> = report.ways.iter().map(row).collect();
        println!("{}", report.head);
        print!("{}", table(&["WAY IN", "WHO", "UNTIL", "TAKEN AWAY BY"], &rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes away what is the cluster's own to take away.
async fn revoke(client: &Client, what: &str, dry_run: bool) -> Result<ExitCode> {
    let Some((kind, name)) = what.split_once('/') else {
        bail!("{what:?} is no way in: KIND/NAME, as the list names it")
    };
    if dry_run && matches!(kind, "token" | "binding") {
        println!("{what} would be taken away; nothing was done");
        return Ok(ExitCode::SUCCESS);
    }
    match kind {
        "token" => {
            anyhow::ensure!(Records::new(client.clone()).delete(name).await?, "there is no token {name}");
            println!("no machine joins with token {name} any more; those that did stay");
        }
        "binding" => {
            anyhow::ensure!(!name.starts_with("system:") && name != ADMIN, "{name} is the cluster's own");
            let gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
            client.delete(&gvr, &Key::cluster(name), &json!({})).await.with_context(|| format!("remove {name}"))?;
            println!("binding {name} is gone; whoever it let in may no longer do anything by it");
        }
        "machine" => {
            println!("a machine leaves with its pods moved first: evenkeel node remove {name}");
            return Ok(refused());
        }
        _ => {
            println!("{what} ends with its certificate; all certificates of the old authority end with a new one");
            return Ok(refused());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// People and groups that may do everything.
async fn bindings(client: &Client) -> Result<Vec<Way>> {
    let gvr = Gvr::new("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
    let page = client.list(&gvr, &ListOptions::default()).await.context("list the bindings")?;
    let trees: Vec<Tree> = page.items.iter().map(|item| item.tree()).collect();
    Ok(trees.iter().filter(|binding| text(binding, "/roleRef/name") == ADMIN).map(binding).collect())
}

fn binding(binding: &Tree) -> Way {
    let name = text(binding, "/metadata/name");
    let subjects = binding.pointer("/subjects").and_then(Tree::as_array).into_iter().flatten();
    let subjects = subjects.map(|subject| format!("{} {}", text(subject, "/kind"), text(subject, "/name")));
    let own = name == ADMIN;
    Way {
        name: format!("binding/{name}"),
        who: subjects.collect::<Vec<_>>().join(", "),
        until: "for ever".to_owned(),
        away: if own { "it is the cluster's own".to_owned() } else { "evenkeel access revoke".to_owned() },
    }
}

/// Client certificates that were issued through the API and are valid.
async fn requests(client: &Client, now: Timestamp) -> Result<Vec<Way>> {
    let gvr = Gvr::new("certificates.k8s.io", "v1", "certificatesigningrequests");
    let page = client.list(&gvr, &ListOptions::default()).await.context("list the requests for certificates")?;
    let trees: Vec<Tree> = page.items.iter().map(|item| item.tree()).collect();
    Ok(trees.iter().filter_map(|request| issued(request, now)).collect())
}

fn issued(request: &Tree, now: Timestamp) -> Option<Way> {
    let pem = STANDARD.decode(request.pointer("/status/certificate")?.as_str()?).ok()?;
    let (who, ends) = subject(std::str::from_utf8(&pem).ok()?)?;
    (now < ends).then(|| Way {
        name: format!("certificate/{}", text(request, "/metadata/name")),
        who: format!("{who}, asked for by {}", text(request, "/spec/username")),
        until: day(ends),
        away: "its end, or a new authority".to_owned(),
    })
}

/// The kubeconfig that is used here.
fn own(path: &Path) -> Option<Way> {
    let config = Kubeconfig::load(path).ok()?;
    let (who, ends) = subject(&config.user.certificate_pem)?;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    Some(Way {
        name: format!("kubeconfig/{}", path.display()),
        who: format!("{who}; whoever reads the file (mode {mode:04o}), and every copy"),
        until: format!("{}; renewed here", day(ends)),
        away: "its end, or a new authority".to_owned(),
    })
}

async fn machines_and_tokens(records: &Records, now: Timestamp) -> Result<Vec<Way>> {
    let machines = records.machines().await?.into_iter().map(|recorded| recorded.machine);
    let machines = machines.filter(|machine| machine.machine.is_some()).map(|machine| Way {
        name: format!("machine/{}", machine.node),
        who: format!("{} since {}", machine.role.as_str(), day(machine.first_seen)),
        until: "it leaves".to_owned(),
        away: format!("evenkeel node remove {}", machine.node),
    });
    let tokens = records.tokens(now).await?.into_iter().map(|token| {
        let only = token.node.map(|node| format!(" named {node}")).unwrap_or_default();
        Way {
            name: format!("token/{}", token.id),
            who: format!("any machine{only} that holds it joins as {}; {}", token.role.as_str(), token.description),
            until: token.expires.map_or_else(|| "for ever".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string()),
            away: "evenkeel access revoke".to_owned(),
        }
    });
    Ok(machines.chain(tokens).collect())
}

/// Keys that open a shell on this machine: not ours, and a way in all the same.
fn ssh() -> Vec<Way> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().filter_map(|line| {
        let parts: Vec<&str> = line.split(':').collect();
        let (user, home) = (parts.first()?, parts.get(5)?);
        let path = Path::new(home).join(".ssh/authorized_keys");
        let keys = fs::read_to_string(&path).ok()?;
        let count = keys.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
        (count != 0).then(|| Way {
            name: format!("ssh/{user}"),
            who: format!("{count} keys in {}, on this machine", path.display()),
            until: "for ever".to_owned(),
            away: "not Evenkeel's: edit the file".to_owned(),
        })
    });
    found.collect()
}

/// The recovery kit opens every bundle, and with it every key.
fn kit(layout: &Layout) -> Option<Way> {
    layout.recovery_kit().exists().then(|| Way {
        name: format!("kit/{}", layout.recovery_kit().display()),
        who: "whoever reads the recovery kit opens every backup".to_owned(),
        until: "it is carried away".to_owned(),
        away: "carry it off this machine".to_owned(),
    })
}

/// Whom a certificate names, and when it ends.
fn subject(pem: &str) -> Option<(String, Timestamp)> {
    let chain = certificates(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let ends = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some((certificate.subject().to_string(), ends))
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn text<'a>(tree: &'a Tree, pointer: &str) -> &'a str {
    tree.pointer(pointer).and_then(Tree::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::binding;

    #[test]
    fn what_is_the_clusters_own_is_not_offered() {
        let of = |name: &str| json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "anna"}]});
        let way = binding(&of("anna-admin"));
        assert_eq!((way.who.as_str(), way.away.as_str()), ("User anna", "evenkeel access revoke"));
        assert_ne!(binding(&of("cluster-admin")).away, way.away);
    }
}
