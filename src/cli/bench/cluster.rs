//! Which keys belong to which primary of a cluster. CLUSTER SLOTS says so, once: Redis and ringdove answer
//! it alike.

use super::super::Failure;
use super::plan::key_bytes;
use super::resp::RespTarget;
use ringdove::config::HostPort;
use ringdove::engine::ids::{SLOT_COUNT, Slot};
use ringdove::engine::resp::Reply;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Primaries of a cluster that can be loaded.
const PRIMARIES_MAX: usize = 1_000;
/// Keys that are looked at to find one of each primary: a primary of a single slot has some 60 of them.
const KEYS_TRIED: u64 = 1_000_000;

/// The keys that one primary serves.
#[derive(Clone)]
pub struct Share {
    slots: Slots,
    primary: u16,
}

impl Share {
    /// Whether a key is one of them.
    pub fn holds(&self, key: u64) -> bool {
        self.slots.primary(key) == self.primary
    }
}

/// The primary of each slot, by its number.
#[derive(Clone, Debug)]
struct Slots(Arc<[u16]>);

impl Slots {
    fn primary(&self, key: u64) -> u16 {
        self.0[usize::from(Slot::of(&key_bytes(key)).0)]
    }
}

/// The primaries of the cluster that a port belongs to. Each has some of so many keys, so that random ones
/// can be drawn for it.
///
/// Fails if the port can't be asked, has no good answer, or knows of no primary for some slot.
pub async fn primaries(asked: &RespTarget, keys: u64) -> Result<Vec<RespTarget>, Failure> {
    let of_whom = |Failure(why)| Failure(format!("{asked}: {why}"));
    let reply = asked.ask(&[b"CLUSTER", b"SLOTS"]).await.map_err(of_whom)?;
    let (addresses, slots) = table(&reply, &asked.address.host).map_err(of_whom)?;
    require_keys(&addresses, &slots, keys).map_err(of_whom)?;
    let target = |(address, primary)| asked.other(address, Share { slots: slots.clone(), primary });
    Ok(addresses.into_iter().zip(0..).map(target).collect())
}

/// Reads an answer to CLUSTER SLOTS: the primaries, and which slots they serve. They are at `host` where it
/// names none.
fn table(reply: &Reply, host: &str) -> Result<(Vec<HostPort>, Slots), Failure> {
    let malformed = || Failure("a malformed answer to CLUSTER SLOTS".to_owned());
    let Reply::Array(ranges) = reply else { return Err(malformed()) };
    let (mut addresses, mut primaries) = (Vec::new(), vec![None; SLOT_COUNT.into()]);
    for reply in ranges {
        let (slots, address) = range(reply, host).ok_or_else(malformed)?;
        let known = addresses.iter().position(|known| *known == address);
        let primary = known.unwrap_or(addresses.len());
        if primary == addresses.len() {
            addresses.push(address);
        }
        if primary == PRIMARIES_MAX {
            return Err(Failure(format!("more than {PRIMARIES_MAX} primaries")));
        }
        primaries[slots].fill(Some(primary as u16));
    }
    let unserved = primaries.iter().position(Option::is_none);
    match primaries.into_iter().collect::<Option<Arc<[u16]>>>() {
        Some(primaries) => Ok((addresses, Slots(primaries))),
        None => Err(Failure(format!("no primary serves slot {}", unserved.unwrap_or_default()))),
    }
}

/// Reads `[first slot, last slot, [host, port, …], replicas …]`.
fn range(reply: &Reply, host: &str) -> Option<(RangeInclusive<usize>, HostPort)> {
    let Reply::Array(range) = reply else { return None };
    let [Reply::Integer(first), Reply::Integer(last), Reply::Array(primary), ..] = &range[..] else {
        return None;
    };
    let [named, Reply::Integer(port), ..] = &primary[..] else { return None };
    let host = match named {
        Reply::Null => host,
        Reply::Bulk(named) if named.is_empty() => host,
        Reply::Bulk(named) => str::from_utf8(named).ok()?,
        _ => return None,
    };
    let address = HostPort { host: host.to_owned(), port: (*port).try_into().ok()? };
    let slots = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
    let is_within = slots.start() <= slots.end() && *slots.end() < SLOT_COUNT.into();
    // Only reading an address checks it.
    is_within.then_some((slots, address.to_string().parse().ok()?))
}

/// Refuses a primary that has none of the keys: its clients would look for one for ever.
fn require_keys(addresses: &[HostPort], slots: &Slots, keys: u64) -> Result<(), Failure> {
    let mut without: BTreeSet<u16> = (0..addresses.len() as u16).collect();
    let mut tried = 0..keys.min(KEYS_TRIED);
    while !without.is_empty()
        && let Some(key) = tried.next()
    {
        without.remove(&slots.primary(key));
    }
    match without.first() {
        None => Ok(()),
        Some(&primary) => {
            let address = &addresses[usize::from(primary)];
            Err(Failure(format!("none of {} keys belongs to {address}: try more --keys", tried.end)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringdove::engine::resp::ReplyLimits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Redis Cluster's words for slots of a primary with a replica.
    fn slots(first: i64, last: i64, host: &str, port: i64) -> String {
        let node = |port| format!("*4\r\n${}\r\n{host}\r\n:{port}\r\n$2\r\nid\r\n*0\r\n", host.len());
        format!("*4\r\n:{first}\r\n:{last}\r\n{}{}", node(port), node(port + 1))
    }

    fn answer(ranges: &[String]) -> String {
        format!("*{}\r\n{}", ranges.len(), ranges.concat())
    }

    fn read(answer: &str) -> Result<(Vec<HostPort>, Slots), String> {
        let (reply, _) = Reply::parse(answer.as_bytes(), &ReplyLimits::default()).unwrap().unwrap();
        table(&reply, "asked").map_err(|Failure(why)| why)
    }

    #[test]
    fn each_slot_has_its_primary() {
        let (addresses, Slots(primaries)) = read(&answer(&[
            slots(0, 99, "10.0.0.1", 7000),
            slots(100, 100, "", 7000),
            slots(101, 8_191, "::1", 7000),
            slots(8_192, 16_383, "10.0.0.1", 7000),
        ]))
        .unwrap();
        let addresses: Vec<_> = addresses.iter().map(HostPort::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1:7000", "asked:7000", "[::1]:7000"]);
        assert_eq!(
            [0, 99, 100, 101, 8_191, 8_192, 16_383].map(|slot| primaries[slot]),
            [0, 0, 1, 2, 2, 0, 0]
        );
    }

    #[test]
    fn hosts_may_be_left_out() {
        let (addresses, _) = read("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$-1\r\n:7000\r\n").unwrap();
        assert_eq!(addresses[0].to_string(), "asked:7000");
    }

    #[test]
    fn malformed_answers_are_refused() {
        let of_one = |range: String| answer(&[range]);
        for malformed in [
            "+OK\r\n".to_owned(),
            "*1\r\n:0\r\n".to_owned(),
            "*1\r\n*0\r\n".to_owned(),
            "*1\r\n*3\r\n:0\r\n:16383\r\n*0\r\n".to_owned(),
            "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n:1\r\n:7000\r\n".to_owned(),
            "*1\r\n*3\r\n:0\r\n+16383\r\n*2\r\n$1\r\na\r\n:7000\r\n".to_owned(),
            of_one(slots(-1, 16_383, "a", 7000)),
            of_one(slots(0, 16_384, "a", 7000)),
            of_one(slots(2, 1, "a", 7000)),
            of_one(slots(0, i64::MAX, "a", 7000)),
            of_one(slots(0, 16_383, "a", 65_536)),
            of_one(slots(0, 16_383, "a", -1)),
            of_one(slots(0, 16_383, "\x1b[31m", 7000)),
            of_one(slots(0, 16_383, "a b", 7000)),
        ] {
            assert_eq!(read(&malformed).unwrap_err(), "a malformed answer to CLUSTER SLOTS", "{malformed:?}");
        }
    }

    #[test]
    fn every_slot_needs_a_primary_and_every_primary_a_key() {
        assert_eq!(read(&answer(&[])).unwrap_err(), "no primary serves slot 0");
        let gap = answer(&[slots(0, 99, "a", 1), slots(101, 16_383, "b", 1)]);
        assert_eq!(read(&gap).unwrap_err(), "no primary serves slot 100");
        let many: Vec<_> = (0..16_384).map(|slot| slots(slot, slot, "a", slot)).collect();
        assert_eq!(read(&answer(&many)).unwrap_err(), "more than 1000 primaries");
        let (addresses, slots) =
            read(&answer(&[slots(0, 16_382, "a", 1), slots(16_383, 16_383, "b", 1)])).unwrap();
        let Failure(why) = require_keys(&addresses, &slots, 3).unwrap_err();
        assert_eq!(why, "none of 3 keys belongs to b:1: try more --keys");
        assert!(require_keys(&addresses, &slots, u64::MAX).is_ok());
    }

    /// What is said of a port with this answer.
    async fn asked(answer: String) -> Result<Vec<RespTarget>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 28];
            stream.read_exact(&mut question).await.unwrap();
            assert_eq!(&question, b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
            for part in answer.as_bytes().chunks(10) {
                stream.write_all(part).await.unwrap();
            }
        });
        let target = RespTarget::new(address.to_string().parse().unwrap(), None).unwrap();
        let said = primaries(&target, 1_000).await;
        said.map_err(|Failure(why)| why.replacen(&address.to_string(), "it", 1))
    }

    #[tokio::test]
    async fn a_port_is_asked() {
        let halves = [slots(0, 8_191, "", 7000), slots(8_192, 16_383, "", 7001)];
        let found = asked(answer(&halves)).await.unwrap();
        let addresses: Vec<_> = found.iter().map(RespTarget::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:7000", "127.0.0.1:7001"]);
        for key in 0..1_000 {
            assert_eq!(found.iter().filter(|target| target.serves(key)).count(), 1, "{key}");
        }
        for (answer, why) in [
            (
                "-ERR This instance has cluster support disabled\r\n",
                "it says \"ERR This instance has cluster support disabled\"",
            ),
            ("*99999999\r\n", "reply beyond the limits"),
            ("HTTP/1.1 400\r\n", "unknown reply type 0x48"),
            ("*1\r\n", "unexpected end of file"),
            ("*1\r\n+OK\r\n", "a malformed answer to CLUSTER SLOTS"),
        ] {
            assert_eq!(asked(answer.to_owned()).await.err().unwrap(), format!("it: {why}"));
        }
    }
}
