//! The node agent: one worker per pod, volumes, probes, status, and the kubelet HTTP API, over a runtime port.

pub mod runtime;
