//! Plain HTTP/1.1 on a blocking socket, for an application's own addresses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 1 << 20;

/// One keep-alive connection.
pub struct Http {
    stream: BufReader<TcpStream>,
}

// === impl Http ===

impl Http {
    /// Connects, and gives every further step as long.
    pub fn connect(address: &str, port: u16, timeout: Duration) -> anyhow::Result<Http> {
        let address: SocketAddr = format!("{address}:{port}").parse()?;
        let stream = TcpStream::connect_timeout(&address, timeout).context("connect")?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Http { stream: BufReader::new(stream) })
    }

    /// The code and the body of the answer.
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: saas\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes()).context("send the request")?;
        let code = self.line()?.split(' ').nth(1).context("no status code")?.parse().context("the status code")?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                None => break,
                Some(("content-length", text)) => length = text.parse().context("the content length")?,
                Some(_) => {}
            }
        }
        ensure!(length <= BODY_BYTES_MAX, "a body of {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).context("read the body")?;
        Ok((code, String::from_utf8(body).context("the body")?))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).context("read the answer")?;
        ensure!(read != 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }
}
