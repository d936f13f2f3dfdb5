//! The few words of HTTP that asking an admin server takes.

use ringdove::drivers::admin_http::{ClusterStatus, PartitionsStatus};
use serde::de::DeserializeOwned;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Sends `request` as it is and reads until the server closes.
pub fn send(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Asks for `path` by `method`.
pub fn ask(address: SocketAddr, method: &str, path: &str) -> Result<Answer, String> {
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    let answer = send(address, request.as_bytes()).map_err(|error| format!("{address}{path}: {error}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no status code")?;
    Ok(Answer { status, body: body.to_owned() })
}

/// Gets `path`.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    ask(address, "GET", path)
}

fn json<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, String> {
    let answer = get(address, path)?;
    serde_json::from_str(&answer.body).map_err(|error| format!("{path} ({}): {error}", answer.status))
}

/// `/v1/cluster`.
pub fn cluster(address: SocketAddr) -> Result<ClusterStatus, String> {
    json(address, "/v1/cluster")
}

/// `/v1/partitions`.
pub fn partitions(address: SocketAddr) -> Result<PartitionsStatus, String> {
    json(address, "/v1/partitions")
}
