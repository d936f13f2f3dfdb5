//! Load over RESP: one connection a client, one write and one wait a batch.

use super::super::Failure;
use super::pace::Pace;
use super::plan::{Budget, Ops, Plan, key_bytes};
use super::report::Measured;
use ringdove::config::Password;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A Redis port and what it takes to be let in.
#[derive(Clone)]
pub struct RespTarget {
    address: String,
    greeting: Arc<[u8]>,
}

impl RespTarget {
    /// Reads the password, if there is one to read.
    pub fn new(address: String, pass_file: Option<&Path>) -> Result<RespTarget, Failure> {
        let mut greeting = Vec::new();
        if let Some(path) = pass_file {
            let password = Password::read(path).map_err(Failure)?;
            push_command(&mut greeting, &[b"AUTH", password.expose()]);
        }
        Ok(RespTarget { address, greeting: greeting.into() })
    }
}

impl fmt::Display for RespTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// Runs so many clients on this thread until the budget is spent.
pub async fn load(
    target: &RespTarget,
    plan: &Plan,
    budget: &Arc<Budget>,
    clients: u32,
    seed: u64,
) -> Result<Measured, Failure> {
    let mut running = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (target, plan, budget) = (target.clone(), plan.clone(), budget.clone());
        running.spawn(async move { client_loop(&target, &plan, &budget, seed + u64::from(client)).await });
    }
    let mut all = Measured::default();
    while let Some(ended) = running.join_next().await {
        let measured = ended.map_err(|_| Failure("a client panicked".to_owned()))?;
        all.add(&measured.map_err(|error| Failure(format!("{target}: {error}")))?);
    }
    Ok(all)
}

async fn client_loop(
    target: &RespTarget,
    plan: &Plan,
    budget: &Budget,
    seed: u64,
) -> std::io::Result<Measured> {
    let mut stream = TcpStream::connect(&target.address).await?;
    stream.set_nodelay(true)?;
    let (mut measured, mut ops) = (Measured::default(), Ops::new(seed));
    let (mut batch, mut request, mut replies) = (Vec::new(), Vec::new(), Replies::default());
    if !target.greeting.is_empty() {
        stream.write_all(&target.greeting).await?;
        replies.read(&mut stream, 1, |error| measured.error(error)).await?;
    }
    let mut pace = Pace::of(plan, ops.fraction());
    loop {
        ops.next_batch(plan, budget, &mut batch);
        if batch.is_empty() {
            return Ok(measured);
        }
        request.clear();
        for op in &batch {
            push_command(&mut request, &plan.words(*op, &key_bytes(op.key())));
        }
        let start = match &mut pace {
            Some(pace) => pace.next().await,
            None => Instant::now(),
        };
        stream.write_all(&request).await?;
        replies.read(&mut stream, batch.len(), |error| measured.error(error)).await?;
        measured.batch(&batch, start.elapsed());
    }
}

/// Appends a command as an array of bulk strings.
fn push_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads replies without keeping them.
#[derive(Default)]
struct Replies {
    buffer: Vec<u8>,
}

/// The longest reply line, in bytes: a server that sends longer ones isn't one.
const LINE_BYTES_MAX: usize = 64 << 10;

impl Replies {
    /// Reads `count` replies to GET, SET or AUTH and reports the errors among them.
    async fn read(
        &mut self,
        stream: &mut TcpStream,
        mut count: usize,
        mut on_error: impl FnMut(&[u8]),
    ) -> std::io::Result<()> {
        let mut at = 0;
        loop {
            while count > 0
                && let Some(length) = reply_length(&self.buffer[at..])?
            {
                if self.buffer[at] == b'-' {
                    on_error(&self.buffer[at..at + length]);
                }
                at += length;
                count -= 1;
            }
            if count == 0 {
                self.buffer.drain(..at);
                return Ok(());
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The length of the reply at the start of `bytes`, once it is complete.
fn reply_length(bytes: &[u8]) -> std::io::Result<Option<usize>> {
    let foreign = || std::io::Error::new(std::io::ErrorKind::InvalidData, "this is not a Redis port");
    let Some(&kind) = bytes.first() else { return Ok(None) };
    if !b"+-:$_".contains(&kind) {
        return Err(foreign());
    }
    let Some(line) = bytes.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() > LINE_BYTES_MAX { Err(foreign()) } else { Ok(None) };
    };
    if kind != b'$' {
        return Ok(Some(line + 1));
    }
    let length = std::str::from_utf8(&bytes[1..line]).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let whole = match length {
        Some(-1) => line + 1,
        Some(length @ 0..) => line + 1 + length as usize + 2,
        _ => return Err(foreign()),
    };
    Ok((bytes.len() >= whole).then_some(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn reply_lengths() {
        let check = |text: &str| reply_length(text.as_bytes()).unwrap();
        assert_eq!(check("+OK\r\n+OK\r\n"), Some(5));
        assert_eq!(check("$3\r\nabc\r\n"), Some(9));
        assert_eq!(check("$3\r\nabc\r"), None);
        assert_eq!(check("$-1\r\n"), Some(5));
        assert_eq!(check("$0\r\n\r\n"), Some(6));
        assert_eq!(check("-ERR x\r\n"), Some(8));
        assert_eq!(check(""), None);
        for foreign in ["HTTP/1.1 400", "$x\r\n", "$-7\r\n"] {
            assert!(reply_length(foreign.as_bytes()).is_err(), "{foreign}");
        }
    }

    /// Answers `+OK` to every second command and `-OOM` to the others, a few bytes at a time.
    async fn moody_server(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut buffer, mut answered) = (vec![0; 4096], 0);
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    for _ in buffer[..read].iter().filter(|&&byte| byte == b'*') {
                        let reply = if answered % 2 == 0 { &b"+OK\r\n"[..] } else { b"-OOM no memory\r\n" };
                        answered += 1;
                        for part in reply.chunks(3) {
                            if stream.write_all(part).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    }

    #[tokio::test]
    async fn every_command_is_sent_and_every_error_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = RespTarget::new(listener.local_addr().unwrap().to_string(), None).unwrap();
        tokio::spawn(moody_server(listener));
        let plan = Plan { clients: 2, pipeline: 4, ..Plan::sample("0:1") };
        let measured = load(&target, &plan, &Arc::new(Budget::requests(64)), 2, 1).await.unwrap();
        let json: serde_json::Value = serde_json::from_str(&measured.json()).unwrap();
        assert_eq!(json["set"]["commands"], 64);
        assert_eq!(json["get"]["commands"], 0);
        // Each connection errs on every second command, whatever its share of the budget.
        assert_eq!(json["errors"]["OOM"], 32);
    }
}
