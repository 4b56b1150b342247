//! Startup, readiness and liveness probes of one running container: a task each, thresholds counted here.
//!
//! Only changes reach the pod's state machine.

pub mod grpc;
pub mod http;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::context::Context;
use crate::pod::{Run, What};
use crate::runtime::RuntimeError;
use crate::spec::names::PodName;

/// The probes of one container; dropping it ends them.
pub struct Prober {
    id: String,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// Outcome of one try; `Err` carries what users read.
type Outcome = Result<(), String>;

struct Task {
    context: Arc<Context>,
    pod: Arc<core::Pod>,
    container: core::Container,
    probe: core::Probe,
    kind: Kind,
    id: String,
    pod_ip: String,
    news: mpsc::Sender<What>,
    started: watch::Sender<bool>,
    ready: bool,
}

impl Prober {
    pub fn start(
        context: &Arc<Context>,
        pod: &Arc<core::Pod>,
        container: &core::Container,
        run: &Run,
        pod_ip: &str,
        news: mpsc::Sender<What>,
    ) -> Prober {
        let (started, _) = watch::channel(run.started);
        let mut tasks = JoinSet::new();
        let probes = [
            (Kind::Startup, &container.startup_probe),
            (Kind::Readiness, &container.readiness_probe),
            (Kind::Liveness, &container.liveness_probe),
        ];
        for (kind, probe) in probes {
            let Some(probe) = probe.clone() else { continue };
            if kind == Kind::Startup && run.started {
                continue;
            }
            let task = Task {
                context: context.clone(),
                pod: pod.clone(),
                container: container.clone(),
                probe,
                kind,
                id: run.id.clone(),
                pod_ip: pod_ip.to_owned(),
                news: news.clone(),
                started: started.clone(),
                ready: run.ready,
            };
            let since = run.since.map(|since| context.ports.clock.now().duration_since(since));
            let ran = since.and_then(|ran| Duration::try_from(ran).ok()).unwrap_or_default();
            tasks.spawn(task.run(ran));
        }
        Prober { id: run.id.clone(), _tasks: tasks }
    }

    pub fn id(&self) -> &str {
        &self.id
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value != 0).unwrap_or(default),
    )
}

impl Task {
    /// `ran`: how long the container runs already; the initial delay counts from its start.
    async fn run(mut self, ran: Duration) {
        if self.kind != Kind::Startup {
            let mut started = self.started.subscribe();
            if started.wait_for(|started| *started).await.is_err() {
                return;
            }
        }
        let delay = seconds(self.probe.initial_delay_seconds, 0).saturating_sub(ran);
        tokio::time::sleep(delay).await;
        let mut every = tokio::time::interval(seconds(self.probe.period_seconds, 10));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut row = Row::default();
        loop {
            every.tick().await;
            let outcome = self.attempt().await;
            let (pod, container) = (PodName::of(&self.pod), &self.container.name);
            self.context.counts.probed(&pod, container, self.kind.word(), outcome.is_ok());
            if let Err(message) = &outcome {
                self.event(message);
            }
            if !self.judge(&mut row, outcome).await {
                return;
            }
        }
    }

    fn event(&self, message: &str) {
        let text = format!("{} probe failed: {message}", self.kind.word());
        self.context.event(&self.pod, Some(&self.container.name), true, "Unhealthy", &text);
    }

    /// False when this probe has nothing more to find out.
    async fn judge(&mut self, row: &mut Row, outcome: Outcome) -> bool {
        let healthy = outcome.is_ok();
        let length = row.add(healthy);
        let default = if healthy { 1 } else { 3 };
        let threshold = if healthy { self.probe.success_threshold } else { self.probe.failure_threshold };
        if length < threshold.and_then(|value| u32::try_from(value).ok()).filter(|value| *value != 0).unwrap_or(default)
        {
            return true;
        }
        let (name, id) = (self.container.name.clone(), self.id.clone());
        match (self.kind, healthy) {
            (Kind::Startup, true) => {
                let _ = self.news.send(What::Startup { name, id }).await;
                self.started.send_replace(true);
                false
            }
            (Kind::Readiness, ready) => {
                if self.ready != ready {
                    self.ready = ready;
                    let _ = self.news.send(What::Readiness { name, id, ready }).await;
                }
                true
            }
            (Kind::Startup | Kind::Liveness, false) => {
                let grace_seconds = self.probe.termination_grace_period_seconds;
                let message = format!("failed {} probe, will be restarted", self.kind.word().to_lowercase());
                let _ = self.news.send(What::Unhealthy { name, id, message, grace_seconds }).await;
                false
            }
            (Kind::Liveness, true) => true,
        }
    }

    async fn attempt(&self) -> Outcome {
        let limit = seconds(self.probe.timeout_seconds, 1);
        if let Some(exec) = &self.probe.exec {
            return self.exec(exec, limit).await;
        }
        if let Some(get) = &self.probe.http_get {
            let target = http::Target::of(get, &self.container, &self.pod_ip)?;
            let answer = http::get(&target, limit).await?;
            return answer.judge();
        }
        if let Some(socket) = &self.probe.tcp_socket {
            let host = socket.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| self.pod_ip.clone());
            return tcp(&host, port_of(&socket.port, &self.container)?, limit).await;
        }
        if let Some(grpc) = &self.probe.grpc {
            let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port {}", grpc.port))?;
            return grpc::check(&self.pod_ip, port, grpc.service.as_deref().unwrap_or_default(), limit).await;
        }
        Ok(())
    }

    async fn exec(&self, exec: &core::ExecAction, limit: Duration) -> Outcome {
        let command = exec.command.clone().unwrap_or_default();
        // The runtime keeps the time; ours only guards against one that does not.
        let work = self.context.runtime.exec_sync(&self.id, &command, limit);
        match tokio::time::timeout(limit + Duration::from_secs(2), work).await {
            Ok(Ok(output)) if output.exit_code == 0 => Ok(()),
            Ok(Ok(output)) => {
                let mut text = output.stdout;
                text.extend_from_slice(&output.stderr);
                text.truncate(crate::limits::PROBE_BODY_BYTES_MAX);
                Err(String::from_utf8_lossy(&text).into_owned())
            }
            Ok(Err(RuntimeError::Timeout { .. })) | Err(_) => {
                Err(format!("command timed out: {:?} timed out after {}s", command.join(" "), limit.as_secs()))
            }
            Ok(Err(error)) => Err(error.to_string()),
        }
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// Equal outcomes in a row.
#[derive(Debug, Default)]
struct Row {
    healthy: bool,
    length: u32,
}

impl Row {
    fn add(&mut self, healthy: bool) -> u32 {
        self.length = if self.healthy == healthy { self.length + 1 } else { 1 };
        self.healthy = healthy;
        self.length
    }
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Outcome {
    let host = host.trim_matches(['[', ']']);
    match tokio::time::timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
        Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// A number, or the name of one of the container's ports.
pub fn port_of(port: &IntOrString, container: &core::Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports: BTreeMap<&str, i32> = container
                .ports
                .iter()
                .flatten()
                .filter_map(|port| Some((port.name.as_deref()?, port.container_port)))
                .collect();
            match ports.get(name.as_str()) {
                Some(number) => *number,
                None => {
                    name.parse().map_err(|_| format!("couldn't find port {name:?} in container {}", container.name))?
                }
            }
        }
    };
    u16::try_from(number).ok().filter(|number| *number != 0).ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_equal_outcomes() {
        let mut row = Row::default();
        let lengths: Vec<u32> = [false, false, true, true, false].into_iter().map(|healthy| row.add(healthy)).collect();
        assert_eq!(lengths, [1, 2, 1, 2, 1]);
    }

    #[test]
    fn ports_by_name() {
        let ports = vec![core::ContainerPort { name: Some("http".into()), container_port: 80, ..Default::default() }];
        let container = core::Container { ports: Some(ports), ..Default::default() };
        assert_eq!(port_of(&IntOrString::String("http".into()), &container), Ok(80));
        assert_eq!(port_of(&IntOrString::String("81".into()), &container), Ok(81));
        assert!(port_of(&IntOrString::String("no".into()), &container).is_err());
        assert!(port_of(&IntOrString::Int(0), &container).is_err());
    }
}
