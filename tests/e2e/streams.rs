//! Streams as people use them: a terminal in a container, attach, following logs, forwarded ports; over WebSocket,
//! kubectl's choice since 1.31, and over SPDY, which older clients speak.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Case, Dialogue, Tool, eventually};

use crate::kubectl::IMAGE;
use crate::session::Session;

pub const CASES: [Case<Session>; 5] = [
    Case { name: "streams_exec_terminal", run: exec_terminal },
    Case { name: "streams_attach", run: attach },
    Case { name: "streams_exec_spdy_and_websocket", run: exec_both },
    Case { name: "streams_port_forward_both", run: port_forward_both },
    Case { name: "streams_logs_follow", run: logs_follow },
];

const BOUND: Duration = Duration::from_secs(30);

/// Larger than every queue on the way.
const BULK_BYTES: usize = 3 << 20;

/// The same client over each of the two stream protocols.
fn both(kubectl: &Tool) -> [(&'static str, Tool); 2] {
    ["false", "true"].map(|websocket| {
        let mut tool = kubectl.clone();
        for variable in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            tool.environment.push((variable.into(), websocket.into()));
        }
        (if websocket == "true" { "WebSocket" } else { "SPDY" }, tool)
    })
}

/// kubectl under a terminal of script(1) that is 33 by 77 and becomes 40 by 100 once `resize` exists.
fn under_terminal(kubectl: &Tool, words: &str, resize: &str) -> anyhow::Result<Dialogue> {
    let leading: Vec<String> = kubectl.leading.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let line = format!(
        "stty rows 33 cols 77; (while ! test -e {resize}; do sleep 0.1; done; stty -F /dev/tty rows 40 cols 100) & \
         exec {} {} {words}",
        kubectl.program.display(),
        leading.join(" "),
    );
    let mut script = Tool::new("script");
    script.environment = kubectl.environment.clone();
    Dialogue::with(script.spawn_with(&["--quiet", "--return", "--flush", "--command", &line, "/dev/null"])?)
}

fn exec_terminal(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("s-terminal")?;
    kubectl.ok(&format!("run p --image={IMAGE} -- sleep 9999"))?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=60s")?;
    for (name, kubectl) in both(&kubectl) {
        let resize = session.file(&format!("resize-{name}")).display().to_string();
        let mut shell = under_terminal(&kubectl, "exec -it p -- env PS1=ready: sh", &resize)?;
        talk(&mut shell, &resize).with_context(|| name)?;
        let status = shell.end(BOUND)?;
        ensure!(status.code() == Some(5), "{name}: the shell's exit code arrives: {status}");
    }
    Ok(())
}

fn talk(shell: &mut Dialogue, resize: &str) -> anyhow::Result<()> {
    shell.expect("ready:", BOUND)?;
    shell.say("tty\n")?;
    shell.expect("/dev/pts/", BOUND)?;
    // The first size travels on a stream of its own, so it may arrive after the prompt.
    shell.say("until test \"$(stty size)\" = '33 77'; do sleep 0.1; done; echo first-$((40 + 2))\n")?;
    shell.expect("first-42", BOUND)?;
    std::fs::write(resize, "")?;
    shell.say("until test \"$(stty size)\" = '40 100'; do sleep 0.1; done; echo second-$((40 + 2))\n")?;
    shell.expect("second-42", BOUND)?;
    shell.say("echo sleeping; sleep 9999\n")?;
    shell.expect("sleeping\r\n", BOUND)?;
    // An interrupt key reaches the program in the container, not kubectl.
    shell.say("\x03")?;
    shell.expect("ready:", BOUND)?;
    shell.say("exit 5\n")
}

fn attach(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("s-attach")?;
    let reader = |name: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"restartPolicy":"Never",
            "terminationGracePeriodSeconds":0,"containers":[{{"name":"c","image":"{IMAGE}","stdin":true,
            "stdinOnce":true,"command":["sh","-c","while read line; do echo heard $line; done; echo end"]}}]}}}}"#
        )
    };
    for (name, kubectl) in both(&kubectl) {
        let pod = name.to_lowercase();
        kubectl.ok_fed("create -f -", &reader(&pod))?;
        kubectl.ok(&format!("wait pod/{pod} --for=condition=Ready --timeout=60s"))?;
        let mut attached = Dialogue::with(kubectl.spawn(&format!("attach -i {pod}"))?)?;
        attached.say("one\n")?;
        attached.expect("heard one", BOUND).context(name)?;
        attached.say("two\n")?;
        attached.expect("heard two", BOUND).context(name)?;
        attached.hush();
        attached.expect("end", BOUND).with_context(|| format!("{name}: the end of the input arrives"))?;
        ensure!(attached.end(BOUND)?.success(), "{name}");
        kubectl.ok(&format!("wait pod/{pod} --for=jsonpath={{.status.phase}}=Succeeded --timeout=60s"))?;
        ensure!(kubectl.ok(&format!("logs {pod}"))?.ends_with("heard one\nheard two\nend\n"));
    }
    let said = kubectl.call(&["attach", "nobody"], "")?.failed()?;
    ensure!(said.contains("pods \"nobody\" not found"), "{said}");
    Ok(())
}

fn exec_both(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("s-exec")?;
    kubectl.ok(&format!("run p --image={IMAGE} -- sleep 9999"))?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=60s")?;
    let bulk = "0123456789abcde\n".repeat(BULK_BYTES / 16);
    for (name, kubectl) in both(&kubectl) {
        let back = kubectl.ok_fed("exec -i p -- cat", &bulk).context(name)?;
        ensure!(back == bulk, "{name}: {} of {} bytes came back", back.len(), bulk.len());
        let said = kubectl.call(&["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], "")?;
        ensure!(!said.success && said.stdout == "out\n" && said.stderr.starts_with("err\n"), "{name}: {said:?}");
        ensure!(said.stderr.contains("exit code 3"), "{name}: {said:?}");
        let said = kubectl.call(&["exec", "p", "--", "no-such-program"], "")?.failed()?;
        ensure!(said.contains("executable file not found"), "{name}: {said}");
        let said = kubectl.call(&["exec", "p", "-c", "other", "--", "true"], "")?.failed()?;
        ensure!(said.contains("container other is not valid for pod p"), "{name}: {said}");
    }
    Ok(())
}

fn port_forward_both(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("s-forward")?;
    let words = "mkdir /www; head -c 3145728 /dev/zero > /www/bulk; exec busybox httpd -f -p 8080 -h /www";
    kubectl.ok_with(&["run", "p", &format!("--image={IMAGE}"), "--command", "--", "sh", "-c", words])?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=60s")?;
    for (name, kubectl) in both(&kubectl) {
        let mut forward = Dialogue::with(kubectl.spawn("port-forward p :8080 :8081 --address=127.0.0.1")?)?;
        let mut port = || -> anyhow::Result<String> {
            forward.expect("127.0.0.1:", BOUND)?;
            forward.expect(" -> ", BOUND)
        };
        let (open, shut) = (port()?, port()?);
        let fetch = || -> anyhow::Result<()> {
            let mut stream = TcpStream::connect(format!("127.0.0.1:{open}"))?;
            stream.set_read_timeout(Some(BOUND))?;
            stream.write_all(b"GET /bulk HTTP/1.0\r\n\r\n")?;
            let mut page = Vec::new();
            stream.read_to_end(&mut page)?;
            ensure!(page.len() > BULK_BYTES, "{} bytes arrived", page.len());
            Ok(())
        };
        // The image's server may be a moment behind its container's start.
        eventually("the forwarded page", BOUND, fetch).context(name)?;
        std::thread::scope(|scope| {
            let fetches: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
            fetches.into_iter().try_for_each(|fetch| fetch.join().expect("a fetch does not panic"))
        })
        .with_context(|| format!("{name}: at once"))?;
        let refused = TcpStream::connect(format!("127.0.0.1:{shut}"))?;
        forward.expect("refused", BOUND).with_context(|| format!("{name}: a port that nobody listens on"))?;
        refused.shutdown(Shutdown::Both).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}

fn logs_follow(session: &Session) -> anyhow::Result<()> {
    let kubectl = session.namespaced("s-logs")?;
    let words = "for i in 1 2 3; do echo line $i; done; until test -e /go; do sleep 0.1; done; echo last";
    let image = format!("--image={IMAGE}");
    kubectl.ok_with(&["run", "p", &image, "--restart=Never", "--labels=a=b", "--command", "--", "sh", "-c", words])?;
    kubectl.ok("wait pod/p --for=condition=Ready --timeout=60s")?;
    let mut one = Dialogue::with(kubectl.spawn("logs -f p --tail=2")?)?;
    let mut chosen = Dialogue::with(kubectl.spawn("logs -f -l a=b --prefix --timestamps")?)?;
    let skipped = one.expect("line 2", BOUND)?;
    ensure!(!skipped.contains("line 1"), "{skipped:?}");
    chosen.expect("[pod/p/p] ", BOUND)?;
    chosen.expect("line 3", BOUND)?;
    kubectl.ok("exec p -- touch /go")?;
    one.expect("last", BOUND)?;
    chosen.expect("last", BOUND)?;
    ensure!(one.end(BOUND)?.success() && chosen.end(BOUND)?.success(), "followers end with the container");
    ensure!(kubectl.ok("logs p --since=1h --limit-bytes=6")? == "line 1");
    Ok(())
}
