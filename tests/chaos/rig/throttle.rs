//! A process that gets only a small share of a processor: stopped and continued in turn.

use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// One turn of running and being stopped.
const TURN: Duration = Duration::from_millis(100);

/// A process that is being held back, until dropped.
pub struct Throttle {
    pid: Pid,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    /// Lets the process run for this share of the time.
    ///
    /// # Panics
    /// If 0 is no process.
    pub fn hold(pid: u32, share: f64) -> Throttle {
        let pid = Pid::from_raw(pid as i32).expect("a process");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) && kill_process(pid, Signal::STOP).is_ok() {
                std::thread::sleep(TURN.mul_f64(1.0 - share));
                // It can't have ended: whoever holds this waits for it.
                let _continued = kill_process(pid, Signal::CONT);
                std::thread::sleep(TURN.mul_f64(share));
            }
        });
        Throttle { pid, stop, thread: Some(thread) }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        let _continued = kill_process(self.pid, Signal::CONT);
    }
}
