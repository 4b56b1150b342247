//! What commands share that have the servers change something and look on: the servers do it, and closing the command
//! changes nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::keeper::who;
use super::refused;
use crate::layout::Layout;
use crate::wire::admin;

const LOOK: Duration = Duration::from_secs(1);
/// A server that starts again answers within this time.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What a server answered.
pub enum Asked<T> {
    Done(T),
    Refused(String),
}

pub async fn look<T: DeserializeOwned>(layout: &Layout, path: &str) -> Result<T> {
    match exchange(layout, Method::GET, path).await? {
        Asked::Done(shown) => Ok(shown),
        Asked::Refused(why) => bail!("{why}"),
    }
}

pub async fn exchange<T: DeserializeOwned>(layout: &Layout, method: Method, path: &str) -> Result<Asked<T>> {
    let answer = admin::ask(layout, method, path).await?;
    let text = || String::from_utf8_lossy(&answer.body).into_owned();
    match answer.status {
        status if status.is_success() => Ok(Asked::Done(serde_json::from_slice(&answer.body)?)),
        StatusCode::CONFLICT => Ok(Asked::Refused(text())),
        status => bail!("the server answered {status}: {}", text()),
    }
}

/// Wishes for something at a path that grants wishes.
pub async fn ask<T: DeserializeOwned>(layout: &Layout, path: &str, word: &str) -> Result<Asked<T>> {
    exchange(layout, Method::POST, &format!("{path}?wish={word}&by={}", plain(&who()))).await
}

/// Fit for a query: whoever is called otherwise is called by the letters of it.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_ascii_alphanumeric() || "@.-_".contains(*letter)).collect()
}

/// Says what changes until something is reached; answers how it is then.
pub async fn look_on<T: DeserializeOwned>(
    (layout, path): (&Layout, &str),
    quiet: bool,
    line: impl Fn(&T) -> String,
    reached: impl Fn(&T) -> bool,
) -> Result<T> {
    let (mut said, mut heard) = (String::new(), Instant::now());
    loop {
        match look(layout, path).await {
            Ok(shown) if reached(&shown) => return Ok(shown),
            Ok(shown) => {
                let line = line(&shown);
                if line != said && !quiet {
                    println!("{line}");
                }
                (said, heard) = (line, Instant::now());
            }
            Err(failure) if SILENCE_MAX <= heard.elapsed() => return Err(failure),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub fn refuse(why: &str) -> ExitCode {
    eprintln!("refused: {why}");
    refused()
}
