//! Load over RESP: one connection a client, one write and one wait a batch.

use super::super::Failure;
use super::cluster::Share;
use super::pace::Pace;
use super::plan::{Budget, Ops, Plan, key_bytes};
use super::report::Measured;
use ringdove::config::{HostPort, Password};
use ringdove::engine::ids::SLOT_COUNT;
use ringdove::engine::resp::{Reply, ReplyLimits};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a question may take until it is answered.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer to one, in bytes: a range of Redis Cluster with a few replicas takes some 300, and
/// there are at most 16,384.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const ANSWER_LIMITS: ReplyLimits = ReplyLimits { bulk_bytes_max: 1 << 10, entries_max: SLOT_COUNT as usize };

/// A Redis port, what it takes to be let in, and which keys it is asked for.
#[derive(Clone)]
pub struct RespTarget {
    pub address: HostPort,
    greeting: Arc<[u8]>,
    /// All keys if there is none.
    share: Option<Share>,
}

impl RespTarget {
    /// Reads the password, if there is one to read.
    pub fn new(address: HostPort, pass_file: Option<&Path>) -> Result<RespTarget, Failure> {
        let mut greeting = Vec::new();
        if let Some(path) = pass_file {
            let password = Password::read(path).map_err(Failure)?;
            push_command(&mut greeting, &[b"AUTH", password.expose()]);
        }
        Ok(RespTarget { address, greeting: greeting.into(), share: None })
    }

    /// Another port of the same cluster, with its share of the keys.
    pub fn other(&self, address: HostPort, share: Share) -> RespTarget {
        RespTarget { address, share: Some(share), ..self.clone() }
    }

    /// Whether it is asked for a key.
    pub fn serves(&self, key: u64) -> bool {
        self.share.as_ref().is_none_or(|share| share.holds(key))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((&*self.address.host, self.address.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Asks one question and gives the answer, if that isn't an error.
    pub async fn ask(&self, words: &[&[u8]]) -> Result<Reply, Failure> {
        let asking = async {
            let mut stream = self.connect().await?;
            let mut request = self.greeting.to_vec();
            push_command(&mut request, words);
            stream.write_all(&request).await?;
            let mut buffer = Vec::new();
            if !self.greeting.is_empty() {
                answer(&mut stream, &mut buffer).await?;
            }
            answer(&mut stream, &mut buffer).await
        };
        let late = |_| Failure(format!("no answer within {ASK_TIMEOUT:?}"));
        tokio::time::timeout(ASK_TIMEOUT, asking).await.map_err(late).flatten()
    }
}

/// Reads one reply, which begins in `buffer`.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Reply, Failure> {
    loop {
        if let Some((reply, length)) = Reply::parse(buffer, &ANSWER_LIMITS)? {
            buffer.drain(..length);
            return match reply {
                // Quoted: it may hold what a terminal would obey.
                Reply::Error(said) => Err(Failure(format!("it says {said:?}"))),
                reply => Ok(reply),
            };
        }
        if buffer.len() > ANSWER_BYTES_MAX {
            return Err(Failure(format!("an answer longer than {ANSWER_BYTES_MAX} bytes")));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

impl fmt::Display for RespTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Runs these clients, by their numbers, on this thread until the budget is spent. Each stays with one of
/// the ports.
pub async fn load(
    ports: &[RespTarget],
    plan: &Plan,
    budget: &Arc<Budget>,
    clients: impl Iterator<Item = u32>,
) -> Result<Measured, Failure> {
    let mut running = tokio::task::JoinSet::new();
    for number in clients {
        let target = ports[number as usize % ports.len()].clone();
        let (plan, budget) = (plan.clone(), budget.clone());
        running.spawn(async move {
            let measured = client_loop(&target, &plan, &budget, number.into()).await;
            measured.map_err(|error| Failure(format!("{target}: {error}")))
        });
    }
    let mut all = Measured::default();
    while let Some(ended) = running.join_next().await {
        all.add(&ended.map_err(|_| Failure("a client panicked".to_owned()))??);
    }
    Ok(all)
}

async fn client_loop(target: &RespTarget, plan: &Plan, budget: &Budget, seed: u64) -> io::Result<Measured> {
    let mut stream = target.connect().await?;
    let (mut measured, mut ops) = (Measured::default(), Ops::new(seed));
    let (mut batch, mut request, mut replies) = (Vec::new(), Vec::new(), Replies::default());
    if !target.greeting.is_empty() {
        stream.write_all(&target.greeting).await?;
        replies.read(&mut stream, 1, |error| measured.error(error)).await?;
    }
    let mut pace = Pace::of(plan, ops.fraction());
    loop {
        ops.next_batch(plan, budget, |key| target.serves(key), &mut batch);
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
    ) -> io::Result<()> {
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
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The length of the reply at the start of `bytes`, once it is complete.
fn reply_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "this is not a Redis port");
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
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let target = RespTarget::new(address, None).unwrap();
        tokio::spawn(moody_server(listener));
        let plan = Plan { clients: 2, pipeline: 4, ..Plan::sample("0:1") };
        let measured = load(&[target], &plan, &Arc::new(Budget::requests(64)), 0..2).await.unwrap();
        let json: serde_json::Value = serde_json::from_str(&measured.json()).unwrap();
        assert_eq!(json["set"]["commands"], 64);
        assert_eq!(json["get"]["commands"], 0);
        // Each connection errs on every second command, whatever its share of the budget.
        assert_eq!(json["errors"]["OOM"], 32);
    }
}
