//! Clients that write unique keys, and know which of them were acknowledged.

use super::resp::Resp;
use ringdove::engine::resp::Reply;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two writes of one client, so that the load leaves the nodes some of the machine.
const PACE: Duration = Duration::from_millis(2);
/// Keys asked for at once when checking.
const CHECK_BATCH: usize = 500;

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Written>>,
}

/// What came of it.
#[derive(Default)]
pub struct Written {
    /// Keys whose write was acknowledged.
    pub keys: Vec<String>,
    /// Error replies, by text.
    pub errors: BTreeMap<String, u64>,
    /// Connections that broke or could not be made.
    pub broken: u64,
    /// The longest time from sending a write to its acknowledgement.
    pub slowest: Duration,
}

/// The value of a key.
fn value_of(key: &str) -> String {
    format!("value of {key}")
}

impl Load {
    /// Starts writers, one for each address; one whose node is gone goes on at the next address.
    pub fn start(label: &str, addresses: &[SocketAddr]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = (0..addresses.len())
            .map(|index| {
                let mut addresses = addresses.to_vec();
                addresses.rotate_left(index);
                let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
                let label = format!("{label}:{index}");
                std::thread::spawn(move || write(&label, &addresses, &stop, &acknowledged))
            })
            .collect();
        Load { stop, acknowledged, writers }
    }

    /// Waits until `count` more writes were acknowledged.
    #[track_caller]
    pub fn run(&self, count: u64) {
        let until = self.acknowledged.load(Ordering::Relaxed) + count;
        super::wait::eventually("the load goes on", Duration::from_secs(60), || {
            let done = self.acknowledged.load(Ordering::Relaxed);
            if done >= until { Ok(()) } else { Err(format!("{done} of {until} acknowledged")) }
        });
    }

    /// Ends the load.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for writer in self.writers {
            let one = writer.join().expect("a writer doesn't panic");
            all.keys.extend(one.keys);
            one.errors.into_iter().for_each(|(text, count)| *all.errors.entry(text).or_default() += count);
            all.broken += one.broken;
            all.slowest = all.slowest.max(one.slowest);
        }
        println!(
            "{} writes acknowledged, errors {:?}, {} broken connections, the slowest took {:?}",
            all.keys.len(),
            all.errors,
            all.broken,
            all.slowest
        );
        all
    }
}

fn write(label: &str, addresses: &[SocketAddr], stop: &AtomicBool, acknowledged: &AtomicU64) -> Written {
    let mut written = Written::default();
    let mut places = addresses.iter().cycle();
    let mut connection = None;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(PACE);
        let Some(resp) = &mut connection else {
            connection = places.next().and_then(|&address| Resp::connect(address).ok());
            written.broken += u64::from(connection.is_none());
            continue;
        };
        let key = format!("{label}:{number}");
        let sent = Instant::now();
        match resp.call(&["SET", &key, &value_of(&key)]) {
            Ok(Reply::Simple(_)) => {
                written.keys.push(key);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                written.slowest = written.slowest.max(sent.elapsed());
            }
            Ok(other) => *written.errors.entry(format!("{other:?}")).or_default() += 1,
            Err(_) => {
                written.broken += 1;
                connection = None;
            }
        }
    }
    written
}

impl Written {
    /// Reads every acknowledged key at `address`.
    ///
    /// # Panics
    /// If one is missing or has another value.
    #[track_caller]
    pub fn check(&self, address: SocketAddr) {
        let mut resp = Resp::connect(address).expect("the node accepts");
        let mut lost = Vec::new();
        for keys in self.keys.chunks(CHECK_BATCH) {
            let commands: Vec<_> =
                keys.iter().map(|key| vec![b"GET".to_vec(), key.clone().into_bytes()]).collect();
            let replies = resp.pipeline(&commands).expect("replies");
            for (key, reply) in keys.iter().zip(replies) {
                if reply != Reply::Bulk(value_of(key).into_bytes()) {
                    lost.push((key, reply));
                }
            }
        }
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes are not there: {:?}",
            lost.len(),
            self.keys.len(),
            &lost[..lost.len().min(5)]
        );
    }

    /// The same, and no client saw an error or lost its connection.
    #[track_caller]
    pub fn check_untroubled(&self, address: SocketAddr) {
        assert!(self.errors.is_empty(), "errors: {:?}", self.errors);
        assert_eq!(self.broken, 0, "broken connections");
        self.check(address);
    }
}

/// Writes a key in (almost) every partition at once, and gives the time until the last is
/// acknowledged. Whoever is told that a write's outcome is unknown writes again, as one may a plain
/// `SET`.
///
/// # Panics
/// On any other refusal.
#[track_caller]
pub fn touch_everything(label: &str, address: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut resp = Resp::connect(address).expect("the node accepts");
    let mut open: Vec<_> = (0..3_000)
        .map(|number| vec![b"SET".to_vec(), format!("{label}:{number}").into_bytes(), b"1".to_vec()])
        .collect();
    for _ in 0..5 {
        let replies = resp.pipeline(&open).expect("replies");
        let mut replies = replies.iter();
        open.retain(|_| match replies.next().and_then(Reply::error) {
            None => false,
            Some(doubt) if doubt.starts_with("INDOUBT") => true,
            Some(refusal) => panic!("refused after {:?}: {refusal}", start.elapsed()),
        });
        if open.is_empty() {
            return start.elapsed();
        }
    }
    panic!("still in doubt about {} writes after {:?}", open.len(), start.elapsed())
}
