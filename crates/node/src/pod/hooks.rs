//! Lifecycle hooks: postStart and preStop, by exec, HTTP or sleep.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use crate::context::Context;
use crate::probes::http;

/// A hook that has no limit of its own is held to the grace period; without one, to this.
const POST_START_MAX: Duration = Duration::from_secs(600);

/// The container a hook runs for.
pub struct HookOf<'a> {
    pub pod: &'a core::Pod,
    pub container: &'a core::Container,
    pub id: &'a str,
    pub pod_ip: &'a str,
}

pub async fn post_start(context: &Context, of: &HookOf<'_>) -> Result<(), String> {
    let hook = of.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    match hook {
        None => Ok(()),
        Some(hook) => run(context, of, hook, POST_START_MAX).await,
    }
}

/// Runs preStop for at most `grace`.
pub async fn pre_stop(context: &Context, of: &HookOf<'_>, grace: Duration) -> Result<(), String> {
    let hook = of.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    match hook {
        None => Ok(()),
        Some(hook) => match tokio::time::timeout(grace, run(context, of, hook, grace)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("it took longer than the grace period of {} s", grace.as_secs())),
        },
    }
}

async fn run(context: &Context, of: &HookOf<'_>, hook: &core::LifecycleHandler, limit: Duration) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = context.runtime.exec_sync(of.id, &command, limit).await.map_err(|error| error.to_string())?;
        if output.exit_code != 0 {
            let text = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr })
                .into_owned();
            return Err(format!("command '{}' exited with {}: {text}", command.join(" "), output.exit_code));
        }
    } else if let Some(get) = &hook.http_get {
        let target = http::Target::of(get, of.container, of.pod_ip)?;
        http::get(&target, limit.min(Duration::from_secs(30))).await.map(|_| ())?;
    } else if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}
