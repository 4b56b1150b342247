//! The agent: registers the node, keeps one worker per pod, lists the runtime, serves the kubelet API.
//!
//! Containers outlive it: draining stops the tasks and leaves every pod as it is.

use std::sync::{Arc, RwLock};

use api::Gvr;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use view::{Client, View, Watched};

use crate::cgroup::Cgroups;
use crate::config::{Config, Ports};
use crate::context::Context;
use crate::counts::Counts;
use crate::dispatch::Dispatcher;
use crate::events::Recorder;
use crate::images::Images;
use crate::limits;
use crate::lister::Lister;
use crate::logs;
use crate::machine;
use crate::objects::Objects;
use crate::pods::Pods;
use crate::pressure::meter::Meter;
use crate::pressure::monitor::Monitor;
use crate::reclaim::Reclaimer;
use crate::register::{Registrar, nodes};
use crate::runtime::Runtime;
use crate::server::Server;
use crate::volumes::{VolumesContext, tokens::Tokens};

pub struct Agent {
    config: Config,
    client: Client,
    runtime: Arc<dyn Runtime>,
    ports: Ports,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("create {}", .path.display())]
    Folder {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl Agent {
    pub fn new(config: Config, client: Client, runtime: Arc<dyn Runtime>, ports: Ports) -> Agent {
        Agent { config, client, runtime, ports }
    }

    /// Runs until drained. Pods keep running.
    pub async fn run(self, drain: CancellationToken) -> Result<(), AgentError> {
        let listen = self.config.listen;
        let listener = tokio::net::TcpListener::bind(listen).await;
        let listener = listener.map_err(|source| AgentError::Listen { address: listen, source })?;
        let context = self.build(&drain)?;
        let pods = Pods::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(Registrar::new(context.clone()).run(drain.clone()));
        let server = Server::new(context.clone(), pods.clone());
        tasks.spawn(server.serve(listener, drain.clone()));
        let look = Arc::new(Notify::new());
        tasks.spawn(Lister::new(context.clone(), pods.clone(), look.clone()).run(drain.clone()));
        tasks.spawn(Monitor::new(context.clone(), pods.clone()).run(drain.clone()));
        tasks.spawn(rotate_logs(context.clone(), pods.clone(), drain.clone()));
        if let Some(reclaimer) = Reclaimer::new(&context) {
            tasks.spawn(reclaimer.run(drain.clone()));
        }
        tasks.spawn(Dispatcher::new(context, pods, look, drain.clone()).run());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the agent panicked");
                drain.cancel();
            }
        }
        Ok(())
    }

    fn build(self, drain: &CancellationToken) -> Result<Arc<Context>, AgentError> {
        let Agent { config, client, runtime, ports } = self;
        let pods_root = config.data_dir.join("kubelet/pods");
        for path in [&pods_root, &config.log_dir, &config.seccomp_dir] {
            let failed = |source| AgentError::Folder { path: path.clone(), source };
            std::fs::create_dir_all(path).map_err(failed)?;
        }
        let objects = Arc::new(Objects::new(client.clone(), drain.clone()));
        let volumes = VolumesContext {
            client: client.clone(),
            objects: objects.clone(),
            tokens: Tokens::default(),
            clock: ports.clock.clone(),
            pods_root,
            local_path: config.local_path.clone(),
        };
        let events = Recorder::start(client.clone(), ports.clock.clone(), ports.rng.clone(), &config.node_name);
        let watched = vec![
            Watched::all(Gvr::new("", "v1", "services"), &[]),
            Watched::all(nodes(), &[]).with_fields(&format!("metadata.name={}", config.node_name)),
            Watched::all(Gvr::new("", "v1", "pods"), &[]).with_fields(&format!("spec.nodeName={}", config.node_name)),
        ];
        Ok(Arc::new(Context {
            view: View::start(&client, watched, drain),
            machine: machine::machine(&config),
            images: Images::new(runtime.clone(), ports.clock.clone()),
            meter: Meter::new(runtime.clone()),
            cgroups: Cgroups::detect(&config.cgroup_root),
            runtime_name: RwLock::new("containerd".to_owned()),
            handlers: RwLock::default(),
            counts: Counts::default(),
            pressure: watch::Sender::default(),
            config,
            ports,
            client,
            runtime,
            objects,
            volumes,
            events,
        }))
    }
}

async fn rotate_logs(context: Arc<Context>, pods: Pods, drain: CancellationToken) {
    loop {
        let sleep = tokio::time::sleep(limits::LOG_ROTATE_EVERY);
        if drain.run_until_cancelled(sleep).await.is_none() {
            return;
        }
        for view in pods.all() {
            let folder = context.log_directory(&crate::spec::names::PodName::of(&view.pod));
            for (name, container) in view.containers.iter().filter(|(_, container)| !container.id.is_empty()) {
                let path = folder.join(name).join(format!("{}.log", container.attempt));
                if !logs::rotate::is_due(&path) {
                    continue;
                }
                let now = context.ports.clock.now();
                if let Err(error) = logs::rotate::rotate(&*context.runtime, &container.id, &path, now).await {
                    tracing::warn!(path = %path.display(), %error, "log was not rotated");
                }
            }
        }
    }
}
