//! Bytes enough for re-replication to take time.

use crate::harness::resp::Resp;
use ringdove::engine::resp::Reply;
use std::net::SocketAddr;

const VALUE_BYTES: usize = 4_096;
/// Commands in one go.
const BATCH: usize = 256;

/// Keys written once, all of the same size.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    keys: usize,
}

impl Bulk {
    /// Writes so many bytes of values, through all of `doors` at once.
    ///
    /// # Errors
    /// If one is not acknowledged.
    pub fn write(bytes: usize, doors: &[SocketAddr]) -> Result<Bulk, String> {
        let bulk = Bulk { keys: bytes / VALUE_BYTES };
        let value = vec![b'v'; VALUE_BYTES];
        let is_done = |reply: &Reply| *reply == Reply::Simple("OK".to_owned());
        let refused = bulk.each(doors, |key| vec![b"SET".to_vec(), key, value.clone()], is_done)?;
        if refused == 0 { Ok(bulk) } else { Err(format!("{refused} writes were not acknowledged")) }
    }

    /// How many of the keys are not there, or not whole.
    ///
    /// # Errors
    /// If a node doesn't answer.
    pub fn missing(self, doors: &[SocketAddr]) -> Result<usize, String> {
        let is_whole = |reply: &Reply| *reply == Reply::Integer(VALUE_BYTES as i64);
        self.each(doors, |key| vec![b"STRLEN".to_vec(), key], is_whole)
    }

    /// Runs a command on each key, and counts the replies that are not `right`.
    fn each(
        self,
        doors: &[SocketAddr],
        command: impl Fn(Vec<u8>) -> Vec<Vec<u8>> + Sync,
        right: impl Fn(&Reply) -> bool + Sync,
    ) -> Result<usize, String> {
        let share = self.keys.div_ceil(doors.len().max(1)).max(1);
        let (command, right) = (&command, &right);
        let one = |number: usize, door: SocketAddr| -> Result<usize, String> {
            let mut resp = Resp::connect(door).map_err(|error| error.to_string())?;
            let keys: Vec<usize> = (number * share..((number + 1) * share).min(self.keys)).collect();
            let mut wrong = 0;
            for batch in keys.chunks(BATCH) {
                let commands: Vec<_> =
                    batch.iter().map(|key| command(format!("bulk:{key}").into_bytes())).collect();
                let replies = resp.pipeline(&commands).map_err(|error| error.to_string())?;
                wrong += replies.iter().filter(|reply| !right(reply)).count();
            }
            Ok(wrong)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = doors
                .iter()
                .enumerate()
                .map(|(number, &door)| scope.spawn(move || one(number, door)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it doesn't panic")).sum()
        })
    }
}
