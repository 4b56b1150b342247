//! The plugin: a short-lived process that the runtime starts for every sandbox.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::types::{CniError, Code, Command, NetConf, Reply, Request};
use super::{LOOPBACK, MESSAGE_BYTES_MAX, VERB_TIMEOUT, VERSION, VERSIONS};
use crate::link::{LinkError, loopback_up};
use crate::sys;

/// Runs one verb: reads the configuration from `stdin`, the rest from variables, writes the answer to `stdout`.
/// The result is the exit code.
pub fn main(stdin: impl Read, variable: &dyn Fn(&str) -> Option<String>, stdout: &mut dyn Write) -> u8 {
    let (text, code) = match verb(stdin, variable) {
        Ok(Value::Null) => return 0,
        Ok(result) => (result.to_string(), 0),
        Err(error) => (serde_json::to_string(&error).expect("an error is JSON"), 1),
    };
    // Nobody is left to tell when the runtime has closed our output.
    let _ = writeln!(stdout, "{text}");
    code
}

fn verb(stdin: impl Read, variable: &dyn Fn(&str) -> Option<String>) -> Result<Value, CniError> {
    let mut text = Vec::new();
    let limit = u64::try_from(MESSAGE_BYTES_MAX).expect("a small number");
    let read = stdin.take(limit).read_to_end(&mut text);
    read.map_err(|error| CniError::new(Code::Io, "read the configuration", error))?;
    let command = variable("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        return Ok(json!({ "cniVersion": VERSION, "supportedVersions": VERSIONS }));
    }
    let config: NetConf =
        serde_json::from_slice(&text).map_err(|error| CniError::new(Code::Decode, "read the configuration", error))?;
    if !VERSIONS.contains(&config.version()) {
        return Err(CniError::new(Code::Version, "unsupported CNI version", &config.cni_version));
    }
    let version = config.version().to_owned();
    let done = perform(&command, config, variable);
    done.map_err(|error| CniError { cni_version: version, ..error })
}

fn perform(command: &str, config: NetConf, variable: &dyn Fn(&str) -> Option<String>) -> Result<Value, CniError> {
    let command = match command {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        other => return Err(CniError::new(Code::Environment, "CNI_COMMAND is not a verb", other)),
    };
    let needed = |name: &str| {
        let missing = || CniError::new(Code::Environment, "a variable is missing", name);
        variable(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    };
    let request = Request {
        command,
        container_id: needed("CNI_CONTAINERID")?,
        // After a crash of the host the namespace may be gone when the sandbox is taken down.
        netns: if command == Command::Del { variable("CNI_NETNS").unwrap_or_default() } else { needed("CNI_NETNS")? }
            .into(),
        interface: needed("CNI_IFNAME")?,
        arguments: variable("CNI_ARGS").unwrap_or_default(),
        config,
    };
    let netns = File::open(&request.netns).map(OwnedFd::from);
    if request.config.kind == LOOPBACK {
        return loopback(&request, netns);
    }
    match (ask(&request, netns.as_ref().ok()), command) {
        (Ok(Reply::Done(result)), _) => Ok(result),
        (Ok(Reply::Failed(error)), _) => Err(error),
        // The link goes with its namespace and the agent reconciles its addresses when it starts: a sandbox must be
        // removable while the agent is down.
        (Err(_), Command::Del) => Ok(Value::Null),
        (Err(error), _) => Err(CniError::new(Code::TryAgainLater, "the network agent does not answer", error)),
    }
}

fn ask(request: &Request, netns: Option<&OwnedFd>) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(&request.config.socket)?;
    stream.set_read_timeout(Some(VERB_TIMEOUT))?;
    stream.set_write_timeout(Some(VERB_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let sent = sys::send_with(stream.as_fd(), &line, netns.map(AsFd::as_fd))?;
    stream.write_all(&line[sent..])?;
    let mut reply = Vec::new();
    let limit = u64::try_from(MESSAGE_BYTES_MAX).expect("a small number");
    stream.take(limit).read_to_end(&mut reply)?;
    Ok(serde_json::from_slice(&reply)?)
}

/// The loopback link needs no agent.
fn loopback(request: &Request, netns: io::Result<OwnedFd>) -> Result<Value, CniError> {
    if request.command == Command::Del {
        return Ok(Value::Null);
    }
    let netns = netns.map_err(|error| CniError::new(Code::UnknownContainer, "open the network namespace", error))?;
    let raised = sys::inside_blocking(netns, |handle| async move { loopback_up(&handle).await });
    raised.map_err(|error: LinkError| CniError::new(Code::Network, "raise the loopback link", base::Chain(&error)))?;
    if request.command == Command::Check {
        return Ok(Value::Null);
    }
    Ok(json!({
        "cniVersion": request.config.version(),
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": request.netns }],
        "ips": [{ "interface": 0, "address": "127.0.0.1/8" }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &str, stdin: &str, more: &[(&str, &str)]) -> (u8, Value) {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            _ => more.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        };
        let mut out = Vec::new();
        let code = main(stdin.as_bytes(), &variable, &mut out);
        (code, serde_json::from_slice(&out).unwrap_or(Value::Null))
    }

    #[test]
    fn answers_without_an_agent() {
        let conf = r#"{"cniVersion":"0.4.0","name":"n","type":"evenkeel-cni","socket":"/absent"}"#;
        let all = [("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/absent"), ("CNI_IFNAME", "eth0")];
        assert_eq!(run("VERSION", "", &[]).1["supportedVersions"][3], "1.0.0");
        let (code, error) = run("ADD", conf, &all);
        assert_eq!((code, error["code"].as_u64(), error["cniVersion"].as_str()), (1, Some(11), Some("0.4.0")));
        assert_eq!(run("DEL", conf, &all), (0, Value::Null));
        assert_eq!(run("ADD", conf, &all[..1]).1["code"], 4);
        assert_eq!(run("ADD", "{", &all).1["code"], 6);
        assert_eq!(run("DANCE", conf, &all).1["code"], 4);
        assert_eq!(run("ADD", r#"{"cniVersion":"9.9.9"}"#, &all).1["code"], 1);
    }
}
