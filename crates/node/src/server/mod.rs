//! The kubelet HTTP API.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::agent::Pods;
use crate::context::Context;

pub struct Server {
    context: Arc<Context>,
    pods: Pods,
}

impl Server {
    pub fn new(context: Arc<Context>, pods: Pods) -> Server {
        Server { context, pods }
    }

    pub async fn serve(self, _listener: TcpListener, drain: CancellationToken) {
        drain.cancelled().await;
        let _ = (self.context, self.pods);
    }
}
