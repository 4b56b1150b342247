//! `evenkeel wrong`: what is wrong first, what changed, what may still fail, and one next command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use base::Clock;
use keeper::wrong::{Answer, Facts, answer};

use super::args::WrongArgs;
use crate::layout::Layout;
use crate::pki::Kubeconfig;
use crate::wire::SystemClock;
use crate::wire::facts::Look;

pub async fn run(args: WrongArgs) -> Result<ExitCode> {
    let layout = args.common.layout();
    let facts = look(&layout, &args.common.config, args.kubeconfig.as_deref()).await?;
    let said = answer(&facts, SystemClock.now());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&said)?);
    } else if args.short {
        print!("{}", said.short());
    } else {
        print!("{}", said.text());
    }
    Ok(exit(&said))
}

/// What can be known from this machine, or through the kubeconfig that was named.
pub async fn look(layout: &Layout, config: &Path, kubeconfig: Option<&Path>) -> Result<Facts> {
    let path: PathBuf = kubeconfig.map_or_else(|| layout.kubeconfig(), Path::to_path_buf);
    let joined = layout.agent_tls().exists() && !layout.server_tls().exists();
    let access = if path.exists() { Some(Kubeconfig::load(&path)?) } else { None };
    ensure!(
        access.is_some() || joined,
        "no server was ever started here: {} is not there; start one with evenkeel install, or name another machine's \
         with --kubeconfig",
        path.display()
    );
    let prober = std::env::current_exe().ok();
    Look { layout: layout.clone(), config: config.to_owned(), access, prober }.whole().await
}

/// 0 fine, 2 attention, 4 a person must choose.
pub fn exit(answer: &Answer) -> ExitCode {
    ExitCode::from(answer.exit)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use keeper::wrong::ALL;

    use super::super::Cli;

    /// Verbs of the keeper that come with its driver; what it alone can report is answered with them.
    const OF_THE_DRIVER: [&str; 3] = ["back", "journal", "resume"];

    /// Every command of ours that an answer can print is one that this program has.
    #[test]
    fn printed_commands_parse() {
        let mut tried = 0;
        for code in ALL {
            let quoted = code.otherwise.split('`').skip(1).step_by(2);
            let own = std::iter::once(code.command).chain(quoted).filter(|text| text.starts_with("evenkeel "));
            for command in own {
                let first = command.split(['|', '&']).next().unwrap();
                // A placeholder stands for one word, without spaces.
                let words: Vec<String> = first.split_whitespace().map(|word| word.replace(['{', '}'], "")).collect();
                if OF_THE_DRIVER.contains(&words[1].as_str()) && Cli::command().find_subcommand(&words[1]).is_none() {
                    continue;
                }
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{}: {command}: {}", code.name, parsed.unwrap_err());
                tried += 1;
            }
        }
        assert!(40 <= tried, "only {tried} commands were tried");
    }
}
