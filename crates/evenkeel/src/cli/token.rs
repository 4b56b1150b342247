//! `evenkeel token`: what machines join with. Tokens are the cluster's: any server makes, lists and deletes them.

use anyhow::{Context, Result, bail};
use base::Clock;

use super::args::{TokenArgs, TokenCommand};
use super::output::table;
use crate::pki::{Kubeconfig, Role, TokenText, hash_of_ca};
use crate::wire::{Records, Refused, SystemClock, admin};

pub async fn run(args: &TokenArgs) -> Result<()> {
    let layout = args.common.layout();
    let config = Kubeconfig::load(&layout.kubeconfig()).context("does a server run on this machine?")?;
    let records = Records::new(admin::client(&config)?);
    let now = SystemClock.now();
    match &args.command {
        TokenCommand::Create { ttl, role, description } => {
            let role = match role.as_str() {
                "agent" => Role::Agent,
                "server" => Role::Server,
                other => bail!("{other:?} is no role: agent or server"),
            };
            let expires = ttl.is_positive().then(|| now + *ttl);
            let secret = records.create(role, None, expires, description, now).await?;
            println!("{}", TokenText { ca_hash: hash_of_ca(&config.ca_pem), role, secret }.reveal());
        }
        TokenCommand::List => {
            let tokens = records.tokens(now).await?;
            let rows = tokens.into_iter().map(|token| {
                let expires = token.expires.map_or_else(|| "never".to_owned(), |at| at.to_string());
                vec![token.id, token.role.as_str().to_owned(), expires, token.description]
            });
            print!("{}", table(&["ID", "ROLE", "EXPIRES", "DESCRIPTION"], &rows.collect::<Vec<_>>()));
            if let Some(refused) = Refused::noted(&layout) {
                eprintln!("{}", sentence(&refused));
            }
        }
        TokenCommand::Delete { id } => {
            if !records.delete(id).await? {
                bail!("there is no token {id}");
            }
        }
    }
    Ok(())
}

fn sentence(refused: &Refused) -> String {
    let Refused { count, first, last, from, why } = refused;
    let from = from.map_or_else(|| "somewhere".to_owned(), |from| from.to_string());
    let minute = |at: &jiff::Timestamp| at.strftime("%Y-%m-%d %H:%MZ").to_string();
    format!(
        "this server refused {count} requests to join since {}, the last at {} from {from}: {why}",
        minute(first),
        minute(last)
    )
}
