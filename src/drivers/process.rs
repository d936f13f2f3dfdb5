//! What the operating system says of this process.

/// Memory and processor time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Time in user mode, in microseconds.
    pub cpu_user_us: u64,
    /// Time in the kernel, in microseconds.
    pub cpu_system_us: u64,
}

/// Reads `/proc/self`; zeros where there is none.
pub fn usage() -> Usage {
    let page_bytes = rustix::param::page_size() as u64;
    let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let resident_pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The process name may hold spaces; the fields behind its parenthesis may not.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Usage {
        resident_bytes: resident_pages * page_bytes,
        cpu_user_us: ticks(11) * tick_us,
        cpu_system_us: ticks(12) * tick_us,
    }
}

/// Gives what was freed a second ago or earlier back to the system.
///
/// The allocator does so by itself, but only when a large piece of memory is freed: this is one.
pub fn return_freed_memory() {
    const LARGE_BYTES: usize = 1 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BYTES)));
}
