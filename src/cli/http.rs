//! The few words of HTTP that reading a node's admin server takes.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Gets `path` from `address` (`HOST:PORT`) and gives the body of a successful answer.
pub async fn get(address: &str, path: &str) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the body ends with the connection, so chunks needn't be understood.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(io::Error::other(format!("no node answers at {address} (--admin): {error}")));
        }
        Err(_) => {
            return Err(io::Error::other(format!("{address} takes longer than {TIMEOUT:?} to answer")));
        }
    };
    body(answer).map_err(|reason| io::Error::other(format!("{address}: {reason}")))
}

/// Splits the body from a successful answer.
fn body(mut answer: Vec<u8>) -> Result<Vec<u8>, String> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end.filter(|_| answer.starts_with(b"HTTP/1.")) else {
        return Err("this is not a node's admin address".to_owned());
    };
    let body = answer.split_off(end + 4);
    let status = String::from_utf8_lossy(&answer[8..end]);
    match status.trim_start().starts_with("200") {
        true => Ok(body),
        false => Err(String::from_utf8_lossy(&body).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_refusals() {
        let check = |answer: &str| body(answer.as_bytes().to_vec());
        assert_eq!(check("HTTP/1.1 200 OK\r\na: b\r\n\r\n{}"), Ok(b"{}".to_vec()));
        assert_eq!(check("HTTP/1.0 503 x\r\n\r\nstopping\n"), Err("stopping".to_owned()));
        for foreign in ["", "-ERR unknown command\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(check(foreign).unwrap_err().contains("not a node's admin address"));
        }
    }
}
