//! `evenkeel token`: what machines join with.

use anyhow::{Context, Result, bail};
use base::Clock;

use super::args::{TokenArgs, TokenCommand};
use super::output::table;
use crate::pki::{Role, TokenStore, read};
use crate::wire::SystemClock;

pub fn run(args: &TokenArgs) -> Result<()> {
    let layout = args.common.layout();
    let store = TokenStore::new(layout.join_tokens());
    let now = SystemClock.now();
    match &args.command {
        TokenCommand::Create { ttl, role, description } => {
            let role = match role.as_str() {
                "agent" => Role::Agent,
                "server" => Role::Server,
                other => bail!("{other:?} is no role: agent or server"),
            };
            let ca = read(&layout.server_tls().join("server-ca.crt"))?;
            let ca = ca.context("this machine is no server, or has not been started yet")?;
            let life = ttl.is_positive().then_some(*ttl);
            let (_, text) = store.create(role, None, life, description, &ca, now)?;
            println!("{}", text.reveal());
        }
        TokenCommand::List => {
            let rows: Vec<Vec<String>> = store
                .list()?
                .into_iter()
                .map(|token| {
                    let expires = match token.expires {
                        None => "never".to_owned(),
                        Some(_) if !token.is_valid(now) => "expired".to_owned(),
                        Some(at) => at.to_string(),
                    };
                    vec![token.id, token.role.as_str().to_owned(), expires, token.description]
                })
                .collect();
            print!("{}", table(&["ID", "ROLE", "EXPIRES", "DESCRIPTION"], &rows));
        }
        TokenCommand::Delete { id } => {
            if !store.delete(id)? {
                bail!("there is no token {id}");
            }
        }
    }
    Ok(())
}
