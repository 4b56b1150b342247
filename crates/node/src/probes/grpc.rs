//! The gRPC health check (`grpc.health.v1.Health/Check`) by hand: one h2 request, one two-field message.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::limits;

const SERVING: u64 = 1;

pub async fn check(host: &str, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, ask(host, port, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("timeout: health rpc did not complete within {limit:?}")),
    }
}

async fn ask(host: &str, port: u16, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("error: {error}");
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("timeout: failed to connect service \"{host}:{port}\": {error}"))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(request_bytes(service)))
        .map_err(|error| failed(&error))?;
    let talk = async {
        let reply = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let headers = reply.headers().clone();
        let collected = Limited::new(reply.into_body(), limits::PROBE_BODY_BYTES_MAX).collect().await;
        let collected = collected.map_err(|error| failed(&error))?;
        let code =
            |map: &http::HeaderMap| map.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        let code = collected.trailers().and_then(code).or_else(|| code(&headers)).unwrap_or(2);
        judge(code, &collected.to_bytes())
    };
    let driving = async {
        let _ = connection.await;
        std::future::pending::<()>().await
    };
    tokio::select! { biased; outcome = talk => outcome, () = driving => Err("connection closed".to_owned()) }
}

/// A gRPC frame around `HealthCheckRequest { service = 1 }`.
fn request_bytes(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a service name is short"));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while 0x80 <= value {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn judge(code: u32, body: &[u8]) -> Result<(), String> {
    match code {
        0 => {}
        12 => {
            return Err(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()
            );
        }
        code => return Err(format!("error: health rpc probe failed: rpc error: code = {code}")),
    }
    // HealthCheckResponse { status = 1 }: tag 0x08, then a varint; absent is UNKNOWN.
    let status = match body.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    };
    if status == SERVING { Ok(()) } else { Err(format!("service unhealthy (responded with {:?})", word(status))) }
}

fn word(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_judged() {
        assert_eq!(&request_bytes("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request_bytes("db")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        assert_eq!(judge(0, &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(judge(0, &[0, 0, 0, 0, 2, 8, 2]).unwrap_err().contains("NOT_SERVING"));
        assert!(judge(0, &[0, 0, 0, 0, 0]).is_err());
        assert!(judge(12, &[]).is_err());
    }
}
